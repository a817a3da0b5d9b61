"""The kernels of `extract_crop_pairs`, registered with torch."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register, triton_function


def _cpu(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    working = extensions.working_dtype(cubes.dtype)
    source, geometry = cubes.to(working), geometry.to("cpu", torch.float64).contiguous()
    target = out if out.dtype == working else torch.empty(out.shape, dtype=working, device="cpu")
    extensions.cpu().extract_crop_pairs(
        extensions.DTYPE_CODE[working], (*source.shape, height, width), source.stride(), target.stride(),
        source.data_ptr(), geometry.data_ptr(), target.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if target is not out:
        out.copy_(target)


def _triton(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    triton_function("extract_crop_pairs.extract")(cubes, geometry, out)


def _fake(cubes: Tensor, geometry: Tensor, height: int, width: int, out: Tensor) -> None:
    return None


extract_crop_pairs = register("extract_crop_pairs", _cpu, _fake, triton=_triton, mutates=["out"])
