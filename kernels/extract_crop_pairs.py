"""Two warped crops of every cube, both views in one gather.

A program finds the bilinear places of a row of pixels once and reads four neighbours of each for a block of bands; as
neighbours are shared, an output value costs one read from memory and one write: bound by bytes. Nothing is read on
the host. Crops beyond the scene are reflected about its last pixel, places beyond the crop about its borders.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spectrafuse.kernels import LAUNCH, CompileCase

_FORM = {"BANDS": 16, "PIXELS": 64}
_OPTIONS: dict[str, Any] = {"num_warps": 4}


@triton.jit
def _reflect(x, n):
    """A coordinate reflected about -0.5 and n - 0.5 and kept on the pixels' centers."""
    from_border = tl.abs(x + 0.5)
    turns = tl.floor(from_border / n)
    rest = from_border - turns * n
    mirrored = turns - 2 * tl.floor(turns * 0.5) != 0
    inside = tl.where(mirrored, n - rest, rest) - 0.5
    return tl.minimum(tl.maximum(inside, 0.0), n - 1.0)


@triton.jit
def _inside_scene(position, n):
    """Position in a scene of n pixels that is continued by reflection about its last pixel."""
    mirrored = tl.where(position < n, position, 2 * (n - 1) - position)
    return tl.minimum(tl.maximum(mirrored, 0), n - 1).to(tl.int64)


@triton.jit
def _extract(
    cubes,  # (B, C, H, W), any strides
    geometry,  # (B, 2, 9): corner y x, affine matrix (2, 3) by rows, band shift
    out,  # (B, 2, C, h, w), any strides
    bands,
    scene_height,
    scene_width,
    height,
    width,
    cube_stride,
    band_stride,
    row_stride,
    column_stride,
    out_cube_stride,
    out_view_stride,
    out_band_stride,
    out_row_stride,
    out_column_stride,
    BANDS: tl.constexpr,
    PIXELS: tl.constexpr,
):
    view = tl.program_id(2)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    band = tl.program_id(1) * BANDS + tl.arange(0, BANDS)
    drawn = geometry + view * 9
    top, left = tl.load(drawn).to(tl.int32), tl.load(drawn + 1).to(tl.int32)
    shift = tl.load(drawn + 8).to(tl.int32) % bands
    source = ((band - shift) % bands + bands) % bands

    i, j = pixel // width, pixel % width
    size_y, size_x = height * 1.0, width * 1.0
    x = (2 * j + 1).to(tl.float32) / size_x - 1
    y = (2 * i + 1).to(tl.float32) / size_y - 1
    warped_x = tl.load(drawn + 2) * x + tl.load(drawn + 3) * y + tl.load(drawn + 4)
    warped_y = tl.load(drawn + 5) * x + tl.load(drawn + 6) * y + tl.load(drawn + 7)
    column = _reflect(((warped_x + 1) * size_x - 1) * 0.5, size_x)
    row = _reflect(((warped_y + 1) * size_y - 1) * 0.5, size_y)
    column_before, row_before = column.to(tl.int32), row.to(tl.int32)
    to_right, down = (column - column_before)[None, :], (row - row_before)[None, :]
    column_after, row_after = tl.minimum(column_before + 1, width - 1), tl.minimum(row_before + 1, height - 1)
    left_place = _inside_scene(left + column_before, scene_width) * column_stride
    right_place = _inside_scene(left + column_after, scene_width) * column_stride
    upper_place = _inside_scene(top + row_before, scene_height) * row_stride
    lower_place = _inside_scene(top + row_after, scene_height) * row_stride

    inside = (band < bands)[:, None] & (pixel < height * width)[None, :]
    base = cubes + (view // 2).to(tl.int64) * cube_stride + source.to(tl.int64)[:, None] * band_stride
    upper_left = tl.load(base + (upper_place + left_place)[None, :], mask=inside).to(tl.float32)
    upper_right = tl.load(base + (upper_place + right_place)[None, :], mask=inside).to(tl.float32)
    lower_left = tl.load(base + (lower_place + left_place)[None, :], mask=inside).to(tl.float32)
    lower_right = tl.load(base + (lower_place + right_place)[None, :], mask=inside).to(tl.float32)
    upper = upper_left + to_right * (upper_right - upper_left)
    lower = lower_left + to_right * (lower_right - lower_left)
    value = upper + down * (lower - upper)

    place = out + (view // 2).to(tl.int64) * out_cube_stride + (view % 2).to(tl.int64) * out_view_stride
    at_pixel = i.to(tl.int64) * out_row_stride + j.to(tl.int64) * out_column_stride
    place = place + band.to(tl.int64)[:, None] * out_band_stride + at_pixel[None, :]
    tl.store(place, value.to(out.dtype.element_ty), mask=inside)


def extract(cubes: Tensor, geometry: Tensor, out: Tensor) -> None:
    """Fill `out` (B, 2, C, h, w), any strides, from `cubes` (B, C, H, W), any strides; B and C at least 1."""
    batch, bands, scene_height, scene_width = cubes.shape
    height, width = out.shape[3:]
    geometry = geometry.to(cubes.device, torch.float32, non_blocking=True).contiguous()
    grid = (triton.cdiv(height * width, _FORM["PIXELS"]), triton.cdiv(bands, _FORM["BANDS"]), 2 * batch)
    with torch.cuda.device_of(cubes):
        _extract[grid](
            cubes, geometry, out, bands, scene_height, scene_width, height, width, *cubes.stride(), *out.stride(),
            **_FORM, **_OPTIONS, **LAUNCH,
        )  # fmt: skip


def compile_cases() -> list[CompileCase]:
    """Scenes stored band by band, crops by channel or channels-last, all three types."""
    cases = []
    for dtype in ("fp32", "bf16", "fp16"):
        for layout, contiguous in (("channels-first", "out_column_stride"), ("channels-last", "out_band_stride")):
            constants = {**_FORM, "column_stride": 1, contiguous: 1}
            pointers = {"cubes": f"*{dtype}:16", "geometry": "*fp32:16", "out": f"*{dtype}:16"}
            signature = {name: pointers.get(name, "i32") for name in _extract.arg_names if name not in constants}
            cases.append(CompileCase(f"{dtype}, {layout}", _extract, signature, constants, _OPTIONS, paper=True))
    return cases
