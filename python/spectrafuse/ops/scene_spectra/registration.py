"""The kernel of `scene_spectra`, registered with torch; it reads arrays of numpy and tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register
from spectrafuse.ops.scene_spectra.pytorch import METHODS

TYPES = ("float32", "float64", "int16", "uint16", "uint8")
"""Types of stored numbers that the kernel reads, in the order of their numbers at the boundary."""
BAND_MULTIPLE = 16
"""Bands are filled up with zeros to a multiple of it: whole vector registers."""


def filled_bands(bands: int) -> int:
    """The least multiple of 16 that holds the bands."""
    return -(-bands // BAND_MULTIPLE) * BAND_MULTIPLE


def kind(cube: Tensor | np.ndarray) -> str:
    """Name of the type of the numbers."""
    return str(cube.dtype).removeprefix("torch.") if isinstance(cube, Tensor) else cube.dtype.name


def _of_array(stored: np.ndarray, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None) -> None:
    bands, filled = stored.shape[0], out.shape[2]
    target = out
    if filled % BAND_MULTIPLE:
        target = out.new_empty(*out.shape[:2], filled_bands(filled))
    statistics = None if scale is None or offset is None else _of_bands((offset, scale), bands, target.shape[2])
    offset_at, scale_at = (0, 0) if statistics is None else (row.data_ptr() for row in statistics)
    extensions.cpu().scene_spectra(
        TYPES.index(stored.dtype.name), stored.shape, stored.strides, target.stride()[:2], target.shape[2],
        tuple(METHODS).index(method), stored.__array_interface__["data"][0], offset_at, scale_at, target.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    if target is not out:
        out.copy_(target[..., :filled])


def _of_bands(statistics: Sequence[Tensor], bands: int, filled: int) -> Tensor:
    """Offset 0 and scale 1 where bands are filled up."""
    rows = torch.tensor([[0.0], [1.0]], dtype=torch.float32, device="cpu").repeat(1, filled)
    for row, values in zip(rows, statistics, strict=True):
        row[:bands] = values.reshape(-1)
    return rows


def _of_tensor(cube: Tensor, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None) -> None:
    _of_array(cube.numpy(), out, method, offset, scale)


def _fake(cube: Tensor, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None) -> None:
    return None


_spectra = register("scene_spectra", _of_tensor, _fake, mutates=["out"])


def scene_spectra(
    cube: Tensor | np.ndarray, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None
) -> None:
    """Write the spectra of a scene to `out`."""
    if isinstance(cube, Tensor):
        _spectra(cube.detach(), out, method, offset, scale)
    else:
        _of_array(cube, out, method, offset, scale)
