"""Two augmented crops of every cube, without copies of the crops.

Every view is one bilinear gather from a strided window of the scene; the band shift is the place it is
written to.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def extract_crop_pairs(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    """Cut and warp the two crops that `geometry` describes.

    Parameters
    ----------
    cubes : Tensor (B, C, H, W)
        Reflect-padded at the bottom and right where they are smaller than the crop.
    geometry : Tensor (B, 2, 9)
        Per view: corner y, corner x, the affine matrix (2, 3) by rows in normalised coordinates, band shift.
        Corners and band shifts are read on the host; there they cost no synchronisation.
    height, width : int
        Of a crop.
    out : Tensor (B, 2, C, h, w)
        Where the views are written.
    """
    missing_height = max(height - cubes.shape[2], 0)
    missing_width = max(width - cubes.shape[3], 0)
    if missing_height or missing_width:
        cubes = F.pad(cubes, (0, missing_width, 0, missing_height), mode="reflect")
    batch, bands = cubes.shape[:2]
    dtype = cubes.dtype if cubes.dtype == torch.float64 else torch.float32
    views = geometry.reshape(2 * batch, 9)
    theta = views[:, 2:8].reshape(2 * batch, 2, 3).to(cubes.device, dtype)
    grid = F.affine_grid(theta, [2 * batch, 1, height, width], align_corners=False)
    for index, (top, left, shift) in enumerate(views[:, [0, 1, 8]].long().tolist()):
        sample, view = divmod(index, 2)
        window = cubes[sample : sample + 1, :, top : top + height, left : left + width].to(dtype)
        warped = F.grid_sample(
            window, grid[index : index + 1], mode="bilinear", padding_mode="reflection", align_corners=False
        )[0]
        first = shift % bands
        out[sample, view, first:] = warped[: bands - first]
        out[sample, view, :first] = warped[bands - first :]
