"""Pieces of plain PyTorch that more than one operation is made of."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_difference(gumbel: Tensor, energy: Tensor) -> Tensor:
    """g0 - g1 (...) from both classes' numbers (..., 2) or from the difference itself."""
    return gumbel if gumbel.ndim < energy.ndim else gumbel[..., 0] - gumbel[..., 1]


def soft_gate(
    energy: Tensor, gumbel: Tensor | None, langevin_noise: Tensor | None, *, tau: float, shift: float
) -> tuple[Tensor, Tensor]:
    """Gate probability (...) of class 0 and negated refined energy (..., 2).

    `shift` is step size times steps: the published gradient of the energies' sum is 1 everywhere.
    """
    select_energy = -energy if langevin_noise is None else shift - energy - langevin_noise
    logit = select_energy[..., 0] - select_energy[..., 1]
    if gumbel is not None:
        logit = logit + gumbel_difference(gumbel, energy)
    return torch.sigmoid(logit / tau), select_energy


def mixing_factors(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int | None
) -> tuple[Tensor, Tensor]:
    """Weights (B, N) and spectra (N, d) whose product is the mixture.

    Weights are `c s^2` over the row norms, so normalised components need no tensor of their own. A zero row
    is divided by 1: it stays zero with a finite gradient.
    """
    spectra = components.abs() if non_negative else components
    weights = concentration * select_prob.square()
    if norm is not None:
        # 16-bit rows may overflow or lose their small entries in a sum of squares.
        wide = torch.float32 if components.dtype in (torch.float16, torch.bfloat16) else components.dtype
        lengths = torch.linalg.vector_norm(components, ord=norm, dim=1, dtype=wide)
        weights = (weights / torch.where(lengths > 0, lengths, 1.0)).to(components.dtype)
    return weights, spectra
