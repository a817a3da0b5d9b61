"""Two augmented crops of every cube."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import BYTES, Work, labeled
from spectrafuse.ops import _self_test
from spectrafuse.ops.extract_crop_pairs import pytorch, reference, registration


def extract_crop_pairs(
    cubes: Tensor, geometry: Tensor, crop_size: Sequence[int], *, out: Tensor | None = None
) -> Tensor:
    """Cut two crops out of every cube, warp them and shift their bands, as `sample_crop_pairs` drew it.

    A crop is warped bilinearly; a place outside it is reflected inside the crop about the pixel borders -0.5
    and n - 0.5, so the edge pixel repeats. The band shift is circular: out[c] = in[(c - shift) mod C].

    Parameters
    ----------
    cubes : Tensor (B, C, H, W)
        Reflect-padded at the bottom and right where they are smaller than the crop.
    geometry : Tensor (B, 2, 9)
        float32 or float64, on any device; only the `triton` kernel never reads it on the host. Columns: corner y,
        corner x, the affine matrix (2, 3) by rows, band shift. Corners must lie inside the scene.
    crop_size : (int, int)
        Height h and width w of a crop.
    out : Tensor (B, 2, C, h, w), optional
        Where the views are written, in the dtype and on the device of the cubes; of any layout in which no two
        elements share a place. Memory that is written again and again costs half as much as fresh memory.

    Returns
    -------
    Tensor (B, 2, C, h, w)
        `out` where it is given, else a contiguous tensor in the dtype and on the device of the cubes. It carries no
        gradient to the cubes or the geometry.

    Raises
    ------
    TypeError, ValueError
        If a shape or dtype is wrong, or the part of the crop beyond a cube is not smaller than the cube.

    Notes
    -----
    Source: arXiv 2512.24172, the training's two views, with the public code's details.
    """
    checks.tensor("cubes", cubes, shape="(B, C, H, W)", ndim=4)
    checks.tensor("geometry", geometry, shape="(B, 2, 9)", ndim=3, dtypes=(torch.float32, torch.float64))
    height, width = checks.size("crop_size", crop_size)
    batch, bands, scene_height, scene_width = cubes.shape
    if tuple(geometry.shape) != (batch, 2, 9):
        raise checks.fail("geometry", f"a tensor of shape {(batch, 2, 9)}", f"shape {tuple(geometry.shape)}")
    if bands == 0 or scene_height <= height // 2 or scene_width <= width // 2:
        # Reflection can add at most one pixel less than there are.
        raise checks.fail(
            "cubes",
            f"of at least one band and {height // 2 + 1} x {width // 2 + 1} pixels to fill {height} x {width}",
            f"shape {tuple(cubes.shape)}",
        )
    shape = (batch, 2, bands, height, width)
    if out is None:
        out = torch.empty(shape, dtype=cubes.dtype, device=cubes.device)
    else:
        checks.tensor("out", out, shape="(B, 2, C, h, w)", ndim=5, like=cubes)
        if tuple(out.shape) != shape or out.requires_grad:
            raise checks.fail("out", f"of shape {shape} without gradient", f"shape {tuple(out.shape)}")
    if batch == 0:
        return out
    with torch.no_grad():
        operation(cubes.detach(), geometry.detach(), height, width, out)
    return out


def work(batch: int, bands: int, pixels: int) -> Work:
    """Three interpolations of three operations; every value of both windows read, every value of the views written."""
    values = 2 * batch * bands * pixels
    return Work(9 * values, 2 * BYTES * values)


def _extension_work(sizes: Sequence[int], *others: Any) -> Work:
    batch, bands, _, _, height, width = sizes
    return work(batch, bands, height * width)


def self_test(device: str) -> list[Tensor]:
    """Crops that are rotated, reach beyond the scene and shift their bands."""
    (cubes,) = _self_test.numbers(device, (2, 5, 9, 11))
    row = torch.tensor([0, 1, 0.9, -0.3, 0.1, 0.3, 0.9, -0.1, 2], dtype=torch.float32, device=device)
    geometry = row.expand(2, 2, 9).contiguous()
    return [extract_crop_pairs(cubes.detach(), geometry, (7, 9))]


operation = backends.declare(
    "extract_crop_pairs",
    reference=reference.extract_crop_pairs,
    pytorch=pytorch.extract_crop_pairs,
    kernel=registration.extract_crop_pairs,
    kernels={"cpu": (), "triton": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={"extract_crop_pairs": labeled("extract_crop_pairs", _extension_work)},
    triton_calls={
        "extract": labeled(
            "extract_crop_pairs",
            lambda cubes, geometry, out: work(cubes.shape[0], cubes.shape[1], out[0, 0, 0].numel()),
        )
    },
    gpu_kernels={r"^_extract$": "extract_crop_pairs"},
)
