"""Lengths of rows by their definition."""

from __future__ import annotations

from torch import Tensor


def row_norms(x: Tensor) -> Tensor:
    """The root of the sum of squares."""
    return (x * x).sum(1).sqrt()
