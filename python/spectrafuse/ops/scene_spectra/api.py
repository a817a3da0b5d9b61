"""Spectra of a scene with their bands side by side, normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import BYTES, Work
from spectrafuse.ops.scene_spectra import pytorch, reference, registration

METHODS = pytorch.METHODS
"""What can be done to single spectra: functions of a cube (..., C, H, W), by name."""


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
    operation(cube, out, method, offset, scale)
    return out


def _composed(normalized: Callable[..., Tensor]) -> Callable[..., None]:
    """Written to `out`, with zeros behind the bands."""

    def composed(
        cube: Tensor | np.ndarray, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None
    ) -> None:
        given = cube if isinstance(cube, Tensor) else torch.from_numpy(_converted(cube))
        bands = cube.shape[0]
        out[..., bands:] = 0
        out[..., :bands] = normalized(given.to(out.device), method, offset, scale).permute(1, 2, 0)

    return composed


def _converted(cube: np.ndarray) -> np.ndarray:
    """A new array: float64 stays, everything else becomes float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(cube, np.float64 if cube.dtype.newbyteorder("=") == np.float64 else np.float32, order="K")


def wide_results(cube: Tensor | np.ndarray, out: Tensor, *others: Any) -> backends.Reason:
    """The limit of what the kernel writes."""
    return f"it writes float32, not {out.dtype}" if out.dtype != torch.float32 else None


def stored_numbers(cube: Tensor | np.ndarray, *others: Any) -> backends.Reason:
    """The limit of what the kernel reads."""
    if isinstance(cube, Tensor) and cube.device.type != "cpu":
        return f"it takes CPU tensors, not {cube.device.type} tensors"
    if not isinstance(cube, Tensor) and not cube.dtype.isnative:
        return "it takes no numbers in another byte order"
    kind = registration.kind(cube)
    return None if kind in registration.TYPES else f"it takes no {kind}"


def wide_normalization(
    cube: Tensor | np.ndarray, out: Tensor, method: str, offset: Tensor | None, scale: Tensor | None
) -> backends.Reason:
    """The limit of the kernel's arithmetic."""
    normalizes = method != "none" or scale is not None
    return "it normalizes float32, not float64" if normalizes and registration.kind(cube) == "float64" else None


def work(bands: int, pixels: int, filled: int) -> Work:
    """A product and a sum for the norm, two divisions and a difference; bands are filled up to `filled`."""
    return Work(5 * bands * pixels, BYTES * pixels * (bands + filled))


def _extension_call(
    sizes: Sequence[int], strides: Sequence[int], out_strides: Sequence[int], filled: int, *others: Any
) -> tuple[str, Work]:
    bands, rows, columns = sizes
    return "scene_spectra", work(bands, rows * columns, filled)


operation = backends.declare(
    "scene_spectra",
    reference=_composed(reference.normalized),
    pytorch=_composed(pytorch.normalized),
    kernel=registration.scene_spectra,
    kernels={"cpu": (wide_results, stored_numbers, wide_normalization)},
    work=work,
    extension_calls={"scene_spectra": _extension_call},
    device_of=lambda cube, out, *others: out.device.type,
)
