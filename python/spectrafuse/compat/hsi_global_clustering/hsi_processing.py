"""Normalization and the two views of a cube, under their published names (docs/algorithms/dgc.md, "Normalization"
and "Crop pairs").

Random numbers come from torch's global generator on the CPU, in the published order and number, also for cubes on a
GPU: no draw waits for the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.training.batches import reflect_pad
from spectrafuse.ops.extract_crop_pairs import extract_crop_pairs

__all__ = [
    "AugmentationPipeline",
    "batch_random_affine",
    "batch_random_crop_pair",
    "batch_wavelength_shift",
    "normalize_cube",
]


def normalize_cube(
    cube: Tensor, method: str = "meanstd", mean: Tensor | None = None, std: Tensor | None = None
) -> Tensor:
    """Normalize a cube (C, H, W) or cubes (B, C, H, W).

    Parameters
    ----------
    method : {"meanstd", "minmax"}
        Per cube and band `(x - mean) / (std + 1e-6)`, or per band over all cubes `(x - min) / (max - min + 1e-6)`.
    mean, std : Tensor, optional
        B x C values each, used by `meanstd` where both are given.
    """
    if method not in ("meanstd", "minmax"):
        raise InvalidValueError(f"`method` must be 'meanstd' or 'minmax'; got {method!r}.")
    if method == "meanstd" and mean is not None and std is not None:
        sizes = (*cube.shape[:-2], 1, 1)
        return (cube - mean.reshape(sizes)) / (std.reshape(sizes) + 1e-6)
    normalized = Normalization(method).fit(cube).transform(cube)
    return normalized.to(cube.dtype) if cube.is_floating_point() else normalized


def _integer(low: int, high: int) -> int:
    """Uniform from low to high, both included."""
    return int(torch.randint(low, high + 1, ()).item())


def _draw_corners(
    batch: int, scene: tuple[int, int], crop: tuple[int, int], min_overlap: float, max_overlap: float
) -> Tensor:
    """Corners y, x of both crops of every sample, (B, 2, 2)."""
    room = [size - side for size, side in zip(scene, crop, strict=True)]
    corners = torch.empty(batch, 2, 2)
    for sample in range(batch):
        first = [_integer(0, free) for free in room]
        overlap = torch.rand(()).item() * (max_overlap - min_overlap) + min_overlap
        moves = [_integer(-reach, reach) for reach in (int((1 - overlap) * side) for side in crop)]
        second = [min(max(y + dy, 0), free) for y, dy, free in zip(first, moves, room, strict=True)]
        corners[sample] = torch.tensor([first, second])
    return corners


def _draw_affine(
    views: int, height: int, width: int, degrees: float, translate: float, scale_range: tuple[float, float]
) -> Tensor:
    """Affine matrices (views, 2, 3) in the coordinates of `affine_grid(align_corners=False)`."""
    angle = (torch.rand(views) * 2 - 1) * degrees * math.pi / 180
    pixels = (torch.rand(views, 2) * 2 - 1) * torch.tensor([translate * width, translate * height])
    scale = torch.rand(views) * (scale_range[1] - scale_range[0]) + scale_range[0]
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    shift = pixels / torch.tensor([width / 2, height / 2])
    return torch.stack((cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]), dim=1).reshape(views, 2, 3)


def _draw_band_shifts(views: int, max_shift: int) -> Tensor:
    return torch.randint(-max_shift, max_shift + 1, (views,))


def _filled(batch: Tensor, crop: tuple[int, int]) -> Tensor:
    """The batch, continued by reflection at the bottom and right where it is smaller than a crop."""
    if batch.shape[2] >= crop[0] and batch.shape[3] >= crop[1]:
        return batch
    return torch.stack([reflect_pad(cube, *crop) for cube in batch])


def batch_random_crop_pair(
    batch: Tensor, crop_size: tuple[int, int], min_overlap: float, max_overlap: float
) -> tuple[Tensor, Tensor]:
    """Two overlapping crops (B, C, h, w) of every cube of a batch (B, C, H, W), at random places."""
    height, width = crop_size
    batch = _filled(batch, (height, width))
    scene = (batch.shape[2], batch.shape[3])
    corners = _draw_corners(batch.shape[0], scene, (height, width), min_overlap, max_overlap)
    first, second = (
        torch.stack([cube[:, y : y + height, x : x + width] for cube, (y, x) in zip(batch, places, strict=True)])
        for places in corners.long().transpose(0, 1).tolist()
    )
    return first, second


def batch_random_affine(imgs: Tensor, degrees: float, translate: float, scale_range: tuple[float, float]) -> Tensor:
    """Images (N, C, h, w), each turned, scaled and moved at random; bilinear, reflected at the borders."""
    count, _, height, width = imgs.shape
    theta = _draw_affine(count, height, width, degrees, translate, scale_range).to(imgs)
    grid = F.affine_grid(theta, list(imgs.shape), align_corners=False)
    return F.grid_sample(imgs, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def batch_wavelength_shift(imgs: Tensor, max_shift: int) -> Tensor:
    """The images (N, C, h, w) themselves, the bands of each moved in a circle by up to `max_shift`, in place."""
    for image, shift in zip(imgs, _draw_band_shifts(imgs.shape[0], max_shift).tolist(), strict=True):
        image.copy_(image.roll(shift, dims=0))
    return imgs


class AugmentationPipeline:
    """Two augmented crops of every cube: (B, C, H, W) to (B, 2, C, h, w).

    Parameters
    ----------
    crop_size : (int, int)
        Height and width in pixels. Smaller cubes are continued by reflection, however small they are.
    min_overlap, max_overlap : float
        Range of the least overlap of the two crops along each axis, as a share of the crop.
    degrees, translate, scale_range
        Largest rotation, largest translation as a share of the crop, and range of the scale.
    max_shift_bands : int
        Largest circular shift of the bands.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        min_overlap: float = 0.2,
        max_overlap: float = 0.8,
        degrees: float = 10.0,
        translate: float = 0.1,
        scale_range: tuple[float, float] = (0.9, 1.1),
        max_shift_bands: int = 2,
    ) -> None:
        self.crop_size = crop_size
        self.min_overlap = min_overlap
        self.max_overlap = max_overlap
        self.degrees = degrees
        self.translate = translate
        self.scale_range = scale_range
        self.max_shift_bands = max_shift_bands

    def draw(self, batch_size: int, scene_size: tuple[int, int]) -> Tensor:
        """Geometry (B, 2, 9) of the next views, as `spectrafuse.ops.extract_crop_pairs` takes it."""
        height, width = self.crop_size
        scene = (max(scene_size[0], height), max(scene_size[1], width))
        corners = _draw_corners(batch_size, scene, (height, width), self.min_overlap, self.max_overlap)
        views = 2 * batch_size
        theta = _draw_affine(views, height, width, self.degrees, self.translate, self.scale_range)
        shifts = _draw_band_shifts(views, self.max_shift_bands)
        # The affine matrices and shifts are drawn for the first views of all samples, then for the second views.
        warps = torch.cat((theta.reshape(views, 6), shifts[:, None]), dim=1).reshape(2, batch_size, 7).transpose(0, 1)
        return torch.cat((corners, warps), dim=2)

    def __call__(self, batch: Tensor) -> Tensor:
        """Views (B, 2, C, h, w) of cubes (B, C, H, W)."""
        return cut_views(self, batch)


def cut_views(pipeline: AugmentationPipeline, batch: Tensor, out: Tensor | None = None) -> Tensor:
    """Views (B, 2, C, h, w) of cubes (B, C, H, W) as a pipeline draws them, in `out` where it is given."""
    height, width = pipeline.crop_size
    batch = _filled(batch, (height, width))
    geometry = pipeline.draw(batch.shape[0], (batch.shape[2], batch.shape[3]))
    return extract_crop_pairs(batch, geometry, (height, width), out=out)
