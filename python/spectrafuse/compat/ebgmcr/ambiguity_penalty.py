"""Similarity penalties of the published package (its `ambiguity_penalty.py`), on our operation."""

from __future__ import annotations

from torch import Tensor

from spectrafuse.ops.ambiguity_penalty import MATERN_ORDERS
from spectrafuse.ops.ambiguity_penalty import ambiguity_penalty as penalty

__all__ = ["laplacian_penalty", "linear_penalty", "matern_penalty", "polynomial_penalty", "rbf_penalty"]


def linear_penalty(all_components: Tensor) -> Tensor:
    """Mean inner product of all pairs of components (n, d)."""
    return penalty(all_components, "linear")


def polynomial_penalty(all_components: Tensor, c: float = 1.0, d: int = 2) -> Tensor:
    """Mean of (inner product + c)^d."""
    return penalty(all_components, "poly", power=d, offset=c)


def laplacian_penalty(all_components: Tensor, sigma: float = 1.0) -> Tensor:
    """Mean of exp(-|.|_1 / sigma)."""
    return penalty(all_components, "laplacian", scale=sigma)


def rbf_penalty(all_components: Tensor, sigma: float = 1.0) -> Tensor:
    """Mean of exp(-|.|_2^2 / (2 sigma^2))."""
    return penalty(all_components, "rbf", scale=sigma)


def matern_penalty(all_components: Tensor, nu: float = 1.5, lengthscale: float = 1.0, sigma: float = 1.0) -> Tensor:
    """Mean Matern kernel at |.|_2 / lengthscale, times sigma^2 (as published: not for nu = 1.5).

    With nu = 3.5 it has the published quadratic coefficient 21/5.
    """
    if nu not in MATERN_ORDERS:
        if all_components.shape[0] < 2:
            return penalty(all_components, "linear")
        raise NotImplementedError(f"Matern kernel for ν={nu} is not explicitly implemented.")
    value = penalty(all_components, "matern", nu=nu, scale=lengthscale, published_coefficients=True)
    return value if nu == 1.5 else sigma**2 * value
