"""Two augmented crops of every cube."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrafuse import _checks, _native, backends
from spectrafuse.composed.crop_pairs import extract_crop_pairs as composed
from spectrafuse.reference.crop_pairs import extract_crop_pairs as reference

backends.declare("extract_crop_pairs", {"cpu": _native.cpu_kernel_reason})


def extract_crop_pairs(cubes: Tensor, geometry: Tensor, crop_size: Sequence[int]) -> Tensor:
    """Cut two crops out of every cube, warp them and shift their bands, as `sample_crop_pairs` drew it.

    A crop is warped bilinearly; a place outside it is reflected inside the crop about the pixel borders -0.5
    and n - 0.5, so the edge pixel repeats. The band shift is circular: out[c] = in[(c - shift) mod C].

    Parameters
    ----------
    cubes : Tensor (B, C, H, W)
        Reflect-padded at the bottom and right where they are smaller than the crop.
    geometry : Tensor (B, 2, 9)
        float32 or float64, on any device; corners and band shifts are read on the host. Columns: corner y,
        corner x, the affine matrix (2, 3) by rows, band shift. Corners must lie inside the scene.
    crop_size : (int, int)
        Height h and width w of a crop.

    Returns
    -------
    Tensor (B, 2, C, h, w)
        In the dtype and on the device of the cubes. It carries no gradient to the cubes or the geometry.

    Raises
    ------
    TypeError, ValueError
        If a shape or dtype is wrong, or the part of the crop beyond a cube is not smaller than the cube.

    Notes
    -----
    Source: arXiv 2512.24172, the training's two views, with the public code's details.
    """
    _checks.tensor("cubes", cubes, shape="(B, C, H, W)", ndim=4)
    _checks.tensor("geometry", geometry, shape="(B, 2, 9)", ndim=3, dtypes=(torch.float32, torch.float64))
    height, width = _checks.size("crop_size", crop_size)
    batch, bands, scene_height, scene_width = cubes.shape
    if tuple(geometry.shape) != (batch, 2, 9):
        raise _checks.fail("geometry", f"a tensor of shape {(batch, 2, 9)}", f"shape {tuple(geometry.shape)}")
    if bands == 0 or scene_height <= height // 2 or scene_width <= width // 2:
        # Reflection can add at most one pixel less than there are.
        raise _checks.fail(
            "cubes",
            f"of at least one band and {height // 2 + 1} x {width // 2 + 1} pixels to fill {height} x {width}",
            f"shape {tuple(cubes.shape)}",
        )
    if batch == 0:
        return cubes.new_empty(0, 2, bands, height, width)
    chosen = backends.choose("extract_crop_pairs", cubes.device.type)
    with torch.no_grad():
        if chosen == "cpu":
            return torch.ops.spectrafuse.extract_crop_pairs(cubes, geometry, height, width)
        implementation = reference if chosen == "reference" else composed
        return implementation(cubes, geometry, (height, width))


torch.library.define(
    "spectrafuse::extract_crop_pairs", "(Tensor cubes, Tensor geometry, int height, int width) -> Tensor"
)


@torch.library.impl("spectrafuse::extract_crop_pairs", "CPU")
def _extract_cpu(cubes: Tensor, geometry: Tensor, height: int, width: int) -> Tensor:
    working = _native.working_dtype(cubes.dtype)
    source, geometry = cubes.to(working), geometry.to("cpu", torch.float64).contiguous()
    batch, bands, scene_height, scene_width = source.shape
    out = source.new_empty((batch, 2, bands, height, width))
    _native.cpu().extract_crop_pairs(
        _native.DTYPE_CODE[working], (batch, bands, scene_height, scene_width, height, width), source.stride(),
        source.data_ptr(), geometry.data_ptr(), out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out.to(cubes.dtype)


@torch.library.register_fake("spectrafuse::extract_crop_pairs")
def _extract_fake(cubes: Tensor, geometry: Tensor, height: int, width: int) -> Tensor:
    return cubes.new_empty((cubes.shape[0], 2, cubes.shape[1], height, width))
