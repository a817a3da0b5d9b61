"""Similarity penalties as published: all differences as an (n, n, d) tensor."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_over_pairs(similarity: Tensor) -> Tensor:
    """Mean of the part above the diagonal of (n, n)."""
    pairs = similarity.shape[0] * (similarity.shape[0] - 1) / 2
    return similarity.triu(diagonal=1).sum() / pairs


def _differences(components: Tensor) -> Tensor:
    return components.unsqueeze(1) - components.unsqueeze(0)


def linear(components: Tensor) -> Tensor:
    """Inner products."""
    return mean_over_pairs(components @ components.T)


def poly(components: Tensor, power: int, offset: float) -> Tensor:
    """Powers of shifted inner products."""
    return mean_over_pairs((components @ components.T + offset) ** power)


def laplacian(components: Tensor, scale: float) -> Tensor:
    """exp(-|difference|_1 / scale)."""
    return mean_over_pairs(torch.exp(-_differences(components).abs().sum(dim=-1) / scale))


def rbf(components: Tensor, scale: float) -> Tensor:
    """exp(-|difference|^2 / (2 scale^2))."""
    squared = torch.sum(_differences(components) ** 2, dim=-1)
    return mean_over_pairs(torch.exp(-squared / (2 * scale**2)))


def matern(components: Tensor, scale: float, nu: float, published_coefficients: bool) -> Tensor:
    """Matern kernel of half-integer order at distance / scale."""
    r = _differences(components).norm(p=2, dim=-1) / scale
    a = (2 * nu) ** 0.5
    factor = torch.ones_like(r) if nu == 0.5 else 1.0 + a * r
    if nu == 2.5:
        factor = factor + 5.0 / 3.0 * r**2
    elif nu == 3.5:
        quadratic = 21.0 / 5.0 if published_coefficients else 14.0 / 5.0
        factor = factor + quadratic * r**2 + 7.0 * a / 15.0 * r**3
    return mean_over_pairs(factor * torch.exp(-a * r))


def ambiguity_penalty(
    components: Tensor,
    kernel: str,
    mask: Tensor | None,
    *,
    power: int,
    offset: float,
    scale: float,
    nu: float,
    published_coefficients: bool,
) -> Tensor:
    """Mean similarity over pairs; arguments and result as `spectrafuse.ops.ambiguity_penalty`."""
    if mask is not None:
        components = components[mask]
    if components.shape[0] < 2:
        return components[:0].sum()
    if kernel == "linear":
        return linear(components)
    if kernel == "poly":
        return poly(components, power, offset)
    if kernel == "laplacian":
        return laplacian(components, scale)
    if kernel == "rbf":
        return rbf(components, scale)
    return matern(components, scale, nu, published_coefficients)
