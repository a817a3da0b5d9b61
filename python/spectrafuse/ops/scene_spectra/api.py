"""Spectra of a scene with their bands side by side, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions
from spectrafuse.ops.scene_spectra.reference import METHODS
from spectrafuse.ops.scene_spectra.reference import scene_spectra as reference

backends.declare("scene_spectra", {"cpu": extensions.cpu_kernel_reason})

_TYPES = ("float32", "float64", "int16", "uint16", "uint8")
"""Types of stored numbers that the kernel reads, in the order of their numbers at the boundary."""
BAND_MULTIPLE = 16
"""Bands are filled up with zeros to a multiple of it: whole vector registers."""


def filled_bands(bands: int) -> int:
    """The least multiple of 16 that holds the bands."""
    return -(-bands // BAND_MULTIPLE) * BAND_MULTIPLE


def scene_spectra(
    cube: Tensor | np.ndarray, out: Tensor, method: str = "none", offset: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Write the spectra of a scene, normalised, with the bands of a pixel side by side.

    Parameters
    ----------
    cube : Tensor or ndarray (C, H, W)
        Finite numbers of any type and layout, such as a view of a file that is mapped to memory.
    out : Tensor (H, W, C'), float32 or float64
        Where they are written; its last axis is contiguous. C' is at least C; what is beyond becomes zero.
    method : {"none", "unit", "snv"}
        What is done to every spectrum: nothing; division by its L2 norm, where zero stays zero; standard normal
        variate, where a constant spectrum becomes zero.
    offset, scale : Tensor (C, 1, 1), optional
        Of bands: then `(x - offset) / scale`.

    Returns
    -------
    Tensor (H, W, C')
        `out`, without gradient. float64 input is normalised in float64.

    Raises
    ------
    TypeError, ValueError
        If shapes, types or the method are wrong.

    Notes
    -----
    Source: arXiv 2512.24172, the public code's preparation of cubes (`meanstd`).
    """
    checks.choice("method", method, tuple(METHODS))
    checks.tensor("out", out, shape="(H, W, C')", ndim=3, dtypes=(torch.float32, torch.float64))
    bands, height, width = cube.shape
    if tuple(out.shape[:2]) != (height, width) or out.shape[2] < bands or (out.stride(2) != 1 and out.numel()):
        wanted = f"of shape ({height}, {width}, at least {bands}) with bands side by side"
        raise checks.fail("out", wanted, f"shape {tuple(out.shape)}, strides {out.stride()}")
    if 0 in out.shape:
        return out
    if backends.choose("scene_spectra", out.device.type, {"cpu": _kernel_reason(cube, out, method, scale)}) == "cpu":
        if isinstance(cube, Tensor):
            torch.ops.spectrafuse.scene_spectra(cube.detach(), out, method, offset, scale)
        else:
            _run_kernel(cube, out, method, offset, scale)
        return out
    given = cube if isinstance(cube, Tensor) else torch.from_numpy(_converted(cube))
    out[..., bands:] = 0
    out[..., :bands] = reference(given.to(out.device), method, offset, scale).permute(1, 2, 0)
    return out


def _converted(cube: np.ndarray) -> np.ndarray:
    """A new array: float64 stays, everything else becomes float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(cube, np.float64 if cube.dtype.newbyteorder("=") == np.float64 else np.float32, order="K")


def _kernel_reason(cube: Tensor | np.ndarray, out: Tensor, method: str, scale: Tensor | None) -> str | None:
    if out.dtype != torch.float32:
        return f"it writes float32, not {out.dtype}"
    native = isinstance(cube, Tensor) or cube.dtype.isnative
    kind = _kind(cube)
    if not native or kind not in _TYPES:
        return f"it takes no {kind}" if native else "it takes no numbers in another byte order"
    if isinstance(cube, Tensor) and cube.device.type != "cpu":
        return f"it takes CPU tensors, not {cube.device.type} tensors"
    normalises = method != "none" or scale is not None
    return f"it normalises float32, not {kind}" if kind == "float64" and normalises else None


def _kind(cube: Tensor | np.ndarray) -> str:
    """Name of the type of the numbers."""
    return str(cube.dtype).removeprefix("torch.") if isinstance(cube, Tensor) else cube.dtype.name


def _run_kernel(
    cube: Tensor | np.ndarray, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None
) -> None:
    stored = cube.numpy() if isinstance(cube, Tensor) else cube
    bands, filled = stored.shape[0], out.shape[2]
    target = out
    if filled % BAND_MULTIPLE:
        target = out.new_empty(*out.shape[:2], filled_bands(filled))
    statistics = None if scale is None or offset is None else _of_bands((offset, scale), bands, target.shape[2])
    offset_at, scale_at = (0, 0) if statistics is None else (row.data_ptr() for row in statistics)
    extensions.cpu().scene_spectra(
        _TYPES.index(_kind(cube)), stored.shape, stored.strides, target.stride()[:2], target.shape[2],
        tuple(METHODS).index(method), stored.__array_interface__["data"][0], offset_at, scale_at, target.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    if target is not out:
        out.copy_(target[..., :filled])


def _of_bands(statistics: Sequence[Tensor], bands: int, filled: int) -> Tensor:
    """Offset 0 and scale 1 where bands are filled up."""
    rows = torch.tensor([[0.0], [1.0]]).repeat(1, filled)
    for row, values in zip(rows, statistics, strict=True):
        row[:bands] = values.reshape(-1)
    return rows


torch.library.define(
    "spectrafuse::scene_spectra",
    "(Tensor cube, Tensor(a!) out, str method, Tensor? offset, Tensor? scale) -> ()",
)
torch.library.impl("spectrafuse::scene_spectra", "CPU", _run_kernel)


@torch.library.register_fake("spectrafuse::scene_spectra")
def _fake(cube: Tensor, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None) -> None:
    return None
