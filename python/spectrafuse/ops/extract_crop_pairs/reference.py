"""Two augmented crops of every cube as published: crop copies, affine warp, circular band shift.

Source: the public code of arXiv 2512.24172, augmentation pipeline.
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
    views = geometry.transpose(0, 1).reshape(2 * batch, 9)
    crops = [torch.empty_like(cubes[:, :, :height, :width]) for _ in range(2)]
    for index, (top, left) in enumerate(views[:, :2].long().tolist()):
        window = cubes[index % batch, :, top : top + height, left : left + width]
        crops[index // batch][index % batch] = window
    stacked = torch.cat(crops, dim=0)
    theta = views[:, 2:8].reshape(2 * batch, 2, 3).to(cubes)
    grid = F.affine_grid(theta, list(stacked.shape), align_corners=False)
    warped = F.grid_sample(stacked, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    for index, shift in enumerate(views[:, 8].long().tolist()):
        warped[index] = warped[index].roll(shift, dims=0)
    out.copy_(warped.reshape(2, batch, bands, height, width).permute(1, 0, 2, 3, 4))
