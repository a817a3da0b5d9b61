"""Gated mixture as published: components, gates and concentrations as (B, N, d) tensors."""

from __future__ import annotations

from torch import Tensor

from spectrafuse.ops._published import mix, normalized_components


def gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    *,
    non_negative: bool,
    norm: int | None,
) -> Tensor:
    """Mixture spectra; arguments and result as `spectrafuse.ops.gated_mixture`."""
    spectra = normalized_components(components, non_negative, norm)
    batch_components = spectra.unsqueeze(0).expand(concentration.shape[0], *spectra.shape)
    return mix(concentration, select_prob, batch_components)
