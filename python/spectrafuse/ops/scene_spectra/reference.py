"""Normalized spectra of a scene by their definition, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def normalized(cube: Tensor, method: str, offset: Tensor | None, scale: Tensor | None) -> Tensor:
    """`method` for every spectrum of a cube (..., C, H, W), then `(x - offset) / scale` for every band.

    A spectrum of zeros stays zero; one that is constant up to rounding of its type becomes zero under "snv".
    """
    x = cube.double()
    if method == "unit":
        x = x / torch.linalg.vector_norm(x, dim=-3, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    elif method == "snv":
        centered = x - x.mean(dim=-3, keepdim=True)
        deviation = (centered.square().sum(dim=-3, keepdim=True) / max(x.shape[-3] - 1, 1)).sqrt()
        constant = deviation <= 8 * torch.finfo(cube.dtype).eps * x.abs().amax(dim=-3, keepdim=True)
        x = torch.where(constant, 0.0, centered / torch.where(constant, 1.0, deviation))
    return (x if offset is None or scale is None else (x - offset.to(x)) / scale.to(x)).to(cube.dtype)
