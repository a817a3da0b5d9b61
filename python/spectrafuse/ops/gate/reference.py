"""Energy gate as published: two Gumbel classes and a softmax (arXiv 2507.23600, code `core.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse.ops.skinny_linear.reference import skinny_linear


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


def gate(
    energy: Tensor,
    gumbel: Tensor | None,
    langevin_noise: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    hard_threshold: float | None,
    used_threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Component selection; arguments and results as `spectrafuse.ops.gate`."""
    select_prob, select_energy = soft_gate(energy, gumbel, langevin_noise, tau=tau, step_size=step_size, steps=steps)
    if hard_threshold is not None:
        select_prob = (select_prob > hard_threshold).to(energy.dtype)
        used = (select_prob > hard_threshold).any(dim=0)
    else:
        used = (select_prob > used_threshold).any(dim=0)
    return (select_prob, select_energy, *energy_sums(select_energy), used, energy_sums(select_prob)[0])


def energy_gate(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    gumbel: Tensor | None,
    langevin_noise: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    hard_threshold: float | None,
    used_threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Last layer of the energy evaluator, then the gate; as `spectrafuse.ops.energy_gate`."""
    energy = skinny_linear(hidden, weight, bias, "none").view(hidden.shape[0], weight.shape[0] // 2, 2)
    return gate(
        energy,
        gumbel,
        langevin_noise,
        tau=tau,
        step_size=step_size,
        steps=steps,
        hard_threshold=hard_threshold,
        used_threshold=used_threshold,
    )
