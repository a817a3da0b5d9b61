"""Similarity penalties in plain PyTorch: Gram matrix or pair distances, never (n, n, d)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mean_over_pairs(similarity: Tensor) -> Tensor:
    """Mean of the part above the diagonal of (n, n)."""
    count = similarity.shape[0]
    return similarity.triu(diagonal=1).sum() / (count * (count - 1) / 2)


def squared_distances(components: Tensor) -> Tensor:
    """Squared Euclidean distances (n, n) from a Gram matrix.

    Distances do not change when the mean row is taken off, and the products that are subtracted become
    smaller, which is what float32 has to spare.
    """
    centered = components - components.mean(dim=0)
    gram = centered @ centered.T
    squares = centered.square().sum(dim=1)
    return (squares[:, None] + squares[None, :] - 2.0 * gram).clamp_min(0.0)


def matern_smooth(squared: Tensor, nu: float, published_coefficients: bool) -> Tensor:
    """Matern kernel of order 1.5, 2.5 or 3.5 from squared scaled distances.

    The root's gradient is masked where rows coincide: the kernel's own gradient is zero there.
    """
    apart = squared > 0
    r = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    a = (2.0 * nu) ** 0.5
    factor = 1.0 + a * r
    if nu == 2.5:
        factor = factor + (5.0 / 3.0) * squared
    elif nu == 3.5:
        quadratic = 21.0 / 5.0 if published_coefficients else 14.0 / 5.0
        factor = factor + quadratic * squared + (7.0 * a / 15.0) * r * squared
    return factor * torch.exp(-a * r)


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
    dtype = components.dtype
    rows = components if mask is None else components[mask]
    if dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    count = rows.shape[0]
    if count < 2:
        penalty = rows[:0].sum()
    elif kernel == "linear":
        # Sum over pairs of inner products, without the products.
        penalty = (rows.sum(dim=0).square().sum() - rows.square().sum()) / (count * (count - 1))
    elif kernel == "poly":
        penalty = mean_over_pairs((rows @ rows.T + offset).pow(power))
    elif kernel == "laplacian":
        penalty = torch.exp(functional.pdist(rows, p=1.0) / -scale).mean()
    elif kernel == "rbf":
        penalty = mean_over_pairs(torch.exp(squared_distances(rows) / (-2.0 * scale**2)))
    elif nu == 0.5:
        # exp(-r) has a kink at 0, where the root of a Gram matrix's rounding error would show: direct
        # distances.
        penalty = torch.exp(functional.pdist(rows, p=2.0) / -scale).mean()
    else:
        penalty = mean_over_pairs(matern_smooth(squared_distances(rows) / scale**2, nu, published_coefficients))
    return penalty.to(dtype)
