"""Normalized spectra of a scene, in plain PyTorch: exact over the whole range of float32, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

_NORM_FLOOR = 1e-12
_SAFE_SQUARES = (1e-20, 1e30)
"""Sums of squares between these lost nothing to the range of float32."""
_SAFE_PEAKS = (1e-12, 1e16)
"""Squares of what varies in a spectrum, far less than its largest magnitude at times, lose nothing between these."""


def unit(x: Tensor) -> Tensor:
    """Every spectrum of (..., C, H, W) divided by its L2 norm; an all-zero spectrum stays zero."""
    # Squares and their sum take a quarter of the time of torch's norms along this axis.
    squares = x.square().sum(dim=-3, keepdim=True)
    result = x / squares.sqrt().clamp_min_(_NORM_FLOOR)
    extreme = ~((squares > _SAFE_SQUARES[0]) & (squares < _SAFE_SQUARES[1]))
    if extreme.any():
        result = torch.where(extreme, _unit_of_extremes(torch.where(extreme, x, 0.0)), result)
    return result


def _unit_of_extremes(x: Tensor) -> Tensor:
    """The same for values whose squares leave the float range: the largest magnitude is divided out first."""
    peak = x.abs().amax(dim=-3, keepdim=True)
    scaled = x / torch.where(peak > 0, peak, torch.ones_like(peak))
    return scaled.div_(scaled.square().sum(dim=-3, keepdim=True).sqrt_().clamp_min_(_NORM_FLOOR))


def snv(x: Tensor) -> Tensor:
    """Standard normal variate: every spectrum minus its mean, over its standard deviation (ddof 1)."""
    bands = x.shape[-3]
    peak = x.abs().amax(dim=-3, keepdim=True)
    extreme = (peak > 0) & ~((peak > _SAFE_PEAKS[0]) & (peak < _SAFE_PEAKS[1]))
    if extreme.any():
        x = torch.where(extreme, x / peak, x)
        peak = torch.where(extreme, 1.0, peak)
    centred = x - x.mean(dim=-3, keepdim=True)
    std = (centred.square().sum(dim=-3, keepdim=True) / max(bands - 1, 1)).sqrt()
    # A constant spectrum has no shape: what is left after subtracting its mean is rounding, not signal.
    rounding = 8 * torch.finfo(x.dtype).eps * peak
    flat = std <= rounding
    return torch.where(flat, torch.zeros_like(centred), centred / torch.where(flat, torch.ones_like(std), std))


METHODS = {"none": lambda x: x, "unit": unit, "snv": snv}
"""What can be done to single spectra."""


def normalized(cube: Tensor, method: str, offset: Tensor | None, scale: Tensor | None) -> Tensor:
    """`method` for every spectrum of a cube (..., C, H, W), then `(x - offset) / scale` for every band."""
    x: Tensor = METHODS[method](cube)
    return x if offset is None or scale is None else (x - offset.to(x)).div_(scale.to(x))
