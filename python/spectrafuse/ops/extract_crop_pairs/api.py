"""Two augmented crops of every cube."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.extract_crop_pairs.pytorch import extract_crop_pairs as composed
from spectrafuse.ops.extract_crop_pairs.reference import extract_crop_pairs as reference

backends.declare(
    "extract_crop_pairs",
    {"cpu": extensions.cpu_kernel_reason, "triton": triton.kernel_reason},
    trial=_trials.extract_crop_pairs,
)


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
    limits = {"triton": triton.dtype_reason(cubes.dtype)}
    chosen = backends.choose("extract_crop_pairs", cubes.device.type, limits)
    with torch.no_grad():
        if chosen in ("cpu", "triton"):
            torch.ops.spectrafuse.extract_crop_pairs(cubes.detach(), geometry.detach(), height, width, out)
        else:
            implementation = reference if chosen == "reference" else composed
            out.copy_(implementation(cubes, geometry, (height, width)))
    return out


torch.library.define(
    "spectrafuse::extract_crop_pairs", "(Tensor cubes, Tensor geometry, int height, int width, Tensor(a!) out) -> ()"
)


def _extract_triton(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    from spectrafuse.kernels import extract_crop_pairs as kernels

    kernels.extract(cubes, geometry, out)


torch.library.impl("spectrafuse::extract_crop_pairs", "CUDA", _extract_triton)


@torch.library.impl("spectrafuse::extract_crop_pairs", "CPU")
def _extract_cpu(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    if backends.forced() == "triton":
        _extract_triton(cubes, geometry, height, width, out)
        return
    working = extensions.working_dtype(cubes.dtype)
    source, geometry = cubes.to(working), geometry.to("cpu", torch.float64).contiguous()
    batch, bands, scene_height, scene_width = source.shape
    target = out if out.dtype == working else torch.empty(out.shape, dtype=working)
    extensions.cpu().extract_crop_pairs(
        extensions.DTYPE_CODE[working], (batch, bands, scene_height, scene_width, height, width), source.stride(),
        target.stride(), source.data_ptr(), geometry.data_ptr(), target.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if target is not out:
        out.copy_(target)


@torch.library.register_fake("spectrafuse::extract_crop_pairs")
def _extract_fake(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    return None
