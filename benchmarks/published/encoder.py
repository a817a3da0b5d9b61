"""The published encoder as a plain function of its parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def encode(cubes: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Embed every pixel: 1-D convolutions along the flattened pixels, two 2-D convolutions, unit norm.

    The 1-D convolutions have the bands as channels and run over the pixels in row-major order, so they mix
    raster neighbours and wrap from the end of a row to the start of the next.

    Parameters
    ----------
    cubes : Tensor (B, C, H, W)
    parameters : mapping of str to Tensor
        `spectral_net.0.weight` (D, C, k), `spectral_net.2.weight` (D, D, k), .., `spatial_net.0.weight` and
        `spatial_net.2.weight` (D, D, 3, 3), and as many `.bias` (D,) where the encoder has biases; k is odd.

    Returns
    -------
    Tensor (B, D, H, W)
        Of unit norm over D, or zero where every activation is zero.

    Notes
    -----
    Source: arXiv 2512.24172, encoder, with the public code's details.
    """
    batch, bands, height, width = cubes.shape
    hidden = cubes.reshape(batch, bands, height * width)
    layer = 0
    while (weight := parameters.get(f"spectral_net.{layer}.weight")) is not None:
        bias = parameters.get(f"spectral_net.{layer}.bias")
        hidden = F.relu(F.conv1d(hidden, weight, bias, padding=weight.shape[2] // 2))
        layer += 2
    hidden = hidden.reshape(batch, -1, height, width)
    for layer in (0, 2):
        weight = parameters[f"spatial_net.{layer}.weight"]
        hidden = F.relu(F.conv2d(hidden, weight, parameters.get(f"spatial_net.{layer}.bias"), padding=1))
    return F.normalize(hidden, p=2, dim=1)
