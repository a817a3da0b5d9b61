"""Draw the geometry of two views of every cube, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.random import RandomStream


def _integers(stream: RandomStream, largest: Tensor) -> Tensor:
    """One integer per entry, uniform from -largest to largest, both included."""
    count = 2 * largest + 1
    unit = stream.uniform(largest.shape, dtype=torch.float64, device="cpu")
    return torch.minimum((unit * count).floor(), count - 1) - largest


def sample_crop_pairs(
    batch_size: int,
    scene_size: Sequence[int],
    crop_size: Sequence[int],
    stream: RandomStream,
    *,
    min_overlap: float = 0.2,
    max_overlap: float = 0.8,
    degrees: float = 10.0,
    translate: float = 0.1,
    scale_range: Sequence[float] = (0.9, 1.1),
    max_shift_bands: int = 2,
) -> Tensor:
    """Draw two overlapping crops per sample, each with its own affine warp and band shift.

    The first corner is uniform. A fraction f, uniform between `min_overlap` and `max_overlap`, is the least
    overlap per axis: the second corner lies at most int((1 - f) h) rows and int((1 - f) w) columns away,
    clamped to the scene.

    Parameters
    ----------
    batch_size : int
        Number of samples, at least 0.
    scene_size : (int, int)
        Height and width of the cubes in pixels. A side shorter than the crop counts as long as the crop,
        since `extract_crop_pairs` pads it.
    crop_size : (int, int)
        Height and width of a crop in pixels.
    stream : RandomStream
        Source of the random numbers. They are drawn on the CPU whatever its device.
    min_overlap, max_overlap : float
        Range of f, between 0 and 1.
    degrees : float
        Rotation angles are uniform between -degrees and degrees.
    translate : float
        Translations are uniform up to this fraction of the crop's side, in both directions.
    scale_range : (float, float)
        Range of the scale.
    max_shift_bands : int
        Band shifts are uniform between minus and plus this number of bands.

    Returns
    -------
    Tensor (B, 2, 9)
        float32 on the CPU. Per view: corner y, corner x (pixels), the affine matrix (2, 3) by rows in the
        normalised coordinates of `torch.nn.functional.affine_grid(align_corners=False)`, which takes an
        output pixel to its place in the crop, and the band shift.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range.

    Notes
    -----
    Source: arXiv 2512.24172, the training's two views, with the public code's details.
    """
    batch_size = checks.integer("batch_size", batch_size, minimum=0)
    scene_height, scene_width = checks.size("scene_size", scene_size)
    height, width = checks.size("crop_size", crop_size)
    min_overlap = checks.number("min_overlap", min_overlap, minimum=0.0, maximum=1.0)
    max_overlap = checks.number("max_overlap", max_overlap, minimum=min_overlap, maximum=1.0)
    degrees = checks.number("degrees", degrees, minimum=0.0)
    translate = checks.number("translate", translate, minimum=0.0)
    if not isinstance(scale_range, Sequence) or len(scale_range) != 2:
        raise checks.fail("scale_range", "two numbers (smallest, largest)", repr(scale_range))
    min_scale = checks.number("scale_range[0]", scale_range[0], above=0.0)
    max_scale = checks.number("scale_range[1]", scale_range[1], minimum=min_scale)
    max_shift_bands = checks.integer("max_shift_bands", max_shift_bands, minimum=0)
    if not isinstance(stream, RandomStream):
        raise InvalidTypeError(f"`stream` must be a RandomStream; got {type(stream).__name__}.")

    most = [max(scene_height - height, 0), max(scene_width - width, 0)]
    room = torch.tensor(most, dtype=torch.float64, device="cpu").expand(batch_size, 2)
    sides = torch.tensor([height, width], dtype=torch.float64, device="cpu")

    def uniform(shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return stream.uniform(shape, low, high, dtype=torch.float64, device="cpu")

    unit = uniform((batch_size, 2), 0.0, 1.0)
    first = torch.minimum((unit * (room + 1)).floor(), room)
    overlap = uniform((batch_size, 1), min_overlap, max_overlap)
    second = first + _integers(stream, ((1.0 - overlap) * sides).floor())
    second = torch.minimum(second.clamp_min(0.0), room)

    angle = uniform((batch_size, 2), -degrees, degrees) * (math.pi / 180)
    scale = uniform((batch_size, 2), min_scale, max_scale)
    # A fraction of the whole side is twice that in normalised coordinates, which span the side from -1 to 1.
    shift = uniform((batch_size, 2, 2), -2 * translate, 2 * translate)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    band_shift = stream.integers(-max_shift_bands, max_shift_bands, (batch_size, 2), device="cpu")

    corners = torch.stack((first, second), dim=1)
    columns = (cosine, -sine, shift[..., 0], sine, cosine, shift[..., 1], band_shift.double())
    return torch.cat((corners, torch.stack(columns, dim=-1)), dim=-1).float()
