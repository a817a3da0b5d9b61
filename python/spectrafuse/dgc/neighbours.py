"""What neighbouring pixels tell: how noisy an image is, and what is left when neighbours of the same kind are averaged.

Most neighbours are of the same material, so what differs between most of them is noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrafuse.ops.mean_shift_assign import mean_shift_assign

_ITERATIONS = 2


def neighbour_distances(images: Tensor, valid: Tensor | None = None) -> Tensor:
    """Distances of all pixels to their right and lower neighbours.

    Parameters
    ----------
    images : Tensor (n, D, rows, columns)
    valid : Tensor (n, rows, columns) bool, optional
        Pixels with data; pairs with another pixel are left out.

    Returns
    -------
    Tensor (n,)
    """
    distances = []
    for axis in (1, 2):
        distance = images.diff(dim=axis + 1).norm(dim=1)
        if valid is not None:
            length = valid.shape[axis] - 1
            distance = distance[valid.narrow(axis, 0, length) & valid.narrow(axis, 1, length)]
        distances.append(distance.flatten())
    return torch.cat(distances)


def roughness(images: Tensor, valid: Tensor) -> Tensor:
    """Mean squared distance of every pixel to its up to four neighbours with data, (n, rows, columns); 0 without any.

    Parameters
    ----------
    images : Tensor (n, D, rows, columns)
    valid : Tensor (n, rows, columns) bool
        Pixels with data.
    """
    total = images.new_zeros(valid.shape)
    count = torch.zeros_like(total)
    for axis in (1, 2):
        length = valid.shape[axis] - 1
        both = valid.narrow(axis, 0, length) & valid.narrow(axis, 1, length)
        squares = images.diff(dim=axis + 1).square().sum(dim=1).masked_fill(~both, 0)
        for start in (0, 1):
            total.narrow(axis, start, length).add_(squares)
            count.narrow(axis, start, length).add_(both)
    return total / count.clamp_min(1)


def smoothed(images: Tensor, bandwidth: Tensor, window: int, valid: Tensor | None = None) -> Tensor:
    """Images averaged over alike pixels of a window, by mean shift; borders between unlike ones stay.

    Parameters
    ----------
    images : Tensor (n, D, rows, columns)
    bandwidth : Tensor ()
        Positive: about how far alike pixels are apart.
    window : int
        Odd side of the window, in pixels.
    valid : Tensor (n, rows, columns) bool, optional
        Pixels with data; others have no influence, and what they become has no meaning.
    """
    if valid is not None:
        # So far away that their weights are exactly zero.
        images = torch.where(valid.unsqueeze(1), images, images.abs().amax() + 100 * bandwidth)
    radius = window // 2
    height, width = images.shape[2:]
    # What lies outside of an image counts as zero vectors in a mean shift; here it repeats the border.
    continued = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    no_centre = images.new_zeros(1, images.shape[1])
    shifted = mean_shift_assign(continued, no_centre, bandwidth, num_iters=_ITERATIONS, window=window).shifted
    return shifted[:, :, radius : radius + height, radius : radius + width]
