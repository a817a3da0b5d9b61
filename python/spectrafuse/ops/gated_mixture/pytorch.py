"""Gated mixture in plain PyTorch: one matrix product, the row norms folded into its (B, N) factor."""

from __future__ import annotations

import torch
from torch import Tensor


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


def gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    *,
    non_negative: bool,
    norm: int | None,
) -> Tensor:
    """Mixture spectra; arguments and result as `spectrafuse.ops.gated_mixture`."""
    weights, spectra = mixing_factors(concentration, select_prob, components, non_negative, norm)
    return weights @ spectra
