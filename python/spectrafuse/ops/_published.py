"""Pieces of the published formulation that more than one reference is made of (arXiv 2507.23600, 2510.20364)."""

from __future__ import annotations

import torch
from torch import Tensor


def refine(energy: Tensor, noise: Tensor, step_size: float, steps: int) -> Tensor:
    """Langevin refinement of energies, the gradient of their sum taken by automatic differentiation.

    The gradient is 1 everywhere; it is computed because the published code computes it.
    """
    with torch.enable_grad():
        source = energy if energy.requires_grad else energy.detach().requires_grad_(True)
        gradients = torch.autograd.grad(source.sum(), source, create_graph=True)[0]
    return energy - step_size * steps * gradients + noise


def both_classes(gumbel: Tensor, energy: Tensor) -> Tensor:
    """Gumbel numbers of both classes; from a difference g0 - g1, class 1 gets zeros."""
    if gumbel.ndim == energy.ndim:
        return gumbel
    return torch.stack((gumbel, torch.zeros_like(gumbel)), dim=-1)


def soft_gate(
    energy: Tensor,
    gumbel: Tensor | None,
    langevin_noise: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Gate probability (...) of class 0 and negated refined energy (..., 2)."""
    if langevin_noise is not None and steps > 0:
        energy = refine(energy, langevin_noise, step_size, steps)
    select_energy = -energy
    logits = select_energy if gumbel is None else select_energy + both_classes(gumbel, select_energy)
    return (logits / tau).softmax(dim=-1)[..., 0], select_energy


def energy_sums(select_energy: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares, in float32 or wider."""
    wide = select_energy.float() if select_energy.dtype in (torch.float16, torch.bfloat16) else select_energy
    return wide.sum(), (wide**2).sum()


def normalized_components(components: Tensor, non_negative: bool, norm: int | None) -> Tensor:
    """|V| if non-negative, divided by its row norms; a zero row gives NaN, as published."""
    if non_negative:
        components = torch.abs(components)
    if norm is not None:
        components = components / torch.norm(components, p=norm, dim=1, keepdim=True)
    return components


def gated_pair(concentration: Tensor, select_prob: Tensor, batch_components: Tensor) -> tuple[Tensor, Tensor]:
    """Concentrations (B, N) and components (B, N, d), both gated: (B, N, 1) and (B, N, d)."""
    gated_concentration = concentration.unsqueeze(-1) * select_prob.unsqueeze(-1)
    return gated_concentration, batch_components * select_prob.unsqueeze(-1)


def mix(concentration: Tensor, select_prob: Tensor, batch_components: Tensor) -> Tensor:
    """Gate concentrations and components, multiply, sum over components."""
    gated_concentration, gated_components = gated_pair(concentration, select_prob, batch_components)
    return (gated_concentration * gated_components).sum(1)
