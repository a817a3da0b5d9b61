"""Gated mixture as published: components, gates and concentrations as (B, N, d) tensors."""

from __future__ import annotations

import torch
from torch import Tensor


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
