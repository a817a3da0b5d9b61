"""Gated mixture in plain PyTorch: one matrix product, the row norms folded into its (B, N) factor."""

from __future__ import annotations

from torch import Tensor

from spectrafuse.ops._plain import mixing_factors


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
