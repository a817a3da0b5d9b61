"""Pixels without data, and the check of a scene that is read block by block.

The rule. A pixel has no data

- where a mask array says so (True: no data), or
- where, once a no-data value (which may be NaN) or a mask is given, one of its bands is NaN, or
- where all its bands hold the no-data value or NaN.

A no-data value in some bands only does not make a pixel one without data, since such a value can be a measured one
(noise cut off at 0); a warning counts such pixels, and a mask leaves them out. A no-data value that float32 cannot hold
counts as NaN. Bands that hold no data in any pixel decide nothing: they are set to zero and named in a warning, like
any band of zeros.

Without a no-data value and a mask, NaN is an error. Infinity is an error in every pixel that has data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.io.errors import DataError
from spectrafuse.io.validate import as_numeric, called, report_not_finite, report_zeros

BLOCK_VALUES = 1 << 20


class Survey(NamedTuple):
    """What one pass over a scene found."""

    valid: np.ndarray | None
    """(H, W) bool, True where there are data; None where all pixels have data."""
    dead_bands: np.ndarray
    """Indices of the bands that hold no data in any pixel."""


def row_blocks(shape: tuple[int, ...], values: int = BLOCK_VALUES) -> Iterator[tuple[int, int]]:
    """First and last row + 1 of blocks of a scene (C, H, W) with about so many values."""
    bands, height, width = shape
    step = max(1, values // max(1, bands * width))
    for start in range(0, height, step):
        yield start, min(start + step, height)


def window_blocks(cube: Any, values: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of a scene (..., H, W): whole columns where these lie in one piece, else rows."""
    *leading, height, width = cube.shape
    bands = math.prod(leading)
    strides = getattr(cube, "strides", None)
    sizes = {} if values is None else {"values": values}
    if strides is not None and strides[-2] < strides[-1]:
        for start, stop in row_blocks((bands, width, height), **sizes):
            yield slice(0, height), slice(start, stop)
        return
    for start, stop in row_blocks((bands, height, width), **sizes):
        yield slice(start, stop), slice(0, width)


def as_nodata(nodata: Any) -> float | None:
    """The no-data value as a number; None, a number or text such as "nan" or "-9999"."""
    if nodata is None:
        return None
    try:
        if isinstance(nodata, bool) or np.ndim(nodata):
            raise TypeError
        return float(nodata)
    except (TypeError, ValueError):
        hint = "; a mask array goes to `mask`" if np.ndim(nodata) else ""
        raise InvalidValueError(f"`nodata` must be None or a number, which may be NaN{hint}; got {nodata!r}.") from None


def as_mask(name: str, mask: Any, size: tuple[int, int]) -> np.ndarray | None:
    """A mask (H, W) as bool, True for pixels without data, or None.

    Raises
    ------
    DataError
        If it has another shape, or values other than true and false (0 and 1).
    """
    if mask is None:
        return None
    values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    if values.dtype.kind != "b":
        values = as_numeric("mask", values)
        if not ((values == 0) | (values == 1)).all():
            raise DataError("`mask` must be true where a pixel has no data and false elsewhere; it has other values.")
    if values.shape != size:
        hint = " (it is transposed)" if values.shape == size[::-1] else ""
        raise DataError(f"`mask` must have the shape {size} of {called(name)}; got {values.shape}{hint}.")
    return values.astype(bool)


def survey(name: str, cube: Any, *, nodata: float | None, mask: np.ndarray | None, zeros: str) -> Survey:
    """Check a scene and find its pixels without data, in one pass by blocks.

    Parameters
    ----------
    name : str
        What messages call the scene.
    cube : array_like, shape (C, H, W)
        Real numbers that can be sliced by rows: an array, a memory map, a data set in a file.
    nodata : float or None
        See the rule of this module.
    mask : ndarray of bool, shape (H, W), or None
        True: no data.
    zeros : {"check", "accept"}
        As in `spectrafuse.io.validate.check_cube`.

    Raises
    ------
    DataError
        Empty axes, numbers that are not finite, no pixel with data, a scene of zeros.
    """
    if len(cube.shape) != 3 or 0 in cube.shape:
        what = "a cube (bands, rows, columns) with at least one of each"
        raise DataError(f"{called(name)} must be {what}; got shape {tuple(cube.shape)}.")
    bands, height, width = cube.shape
    declared = nodata is not None or mask is not None
    absences, nans = np.zeros((height, width), dtype=np.int32), np.zeros((height, width), dtype=np.int32)
    infinite = np.zeros((height, width), dtype=bool)
    present, nonzero = np.zeros(bands, dtype=bool), np.zeros(bands, dtype=bool)
    for place in window_blocks(cube):
        block = _as_float32(cube[:, place[0], place[1]])
        if declared:
            absent = _is_absent(block, nodata)
            absences[place] = absent.sum(axis=0)
            nans[place] = (absent & ~np.isfinite(block)).sum(axis=0)
            infinite[place] = (~(np.isfinite(block) | absent)).any(axis=0)
            counted = ~absent if mask is None else ~absent & ~mask[place]
            present |= counted.any(axis=(1, 2))
            nonzero |= ((block != 0) & counted).any(axis=(1, 2))
        else:
            infinite[place] = ~np.isfinite(block).all(axis=0)
            nonzero |= block.any(axis=(1, 2))
    valid, dead = None, np.zeros(0, dtype=np.int64)
    if declared:
        dead = np.flatnonzero(~present)
        for place in window_blocks(cube) if len(dead) else ():
            unusable = ~np.isfinite(_as_float32(cube[:, place[0], place[1]])[dead])
            nans[place] -= unusable.sum(axis=0, dtype=np.int32)
        valid = (absences < bands) & (nans == 0)
        if mask is not None:
            valid &= ~mask
        if not valid.any():
            raise DataError(f"{called(name)} has no pixel with data: all are masked, NaN or the no-data value.")
        infinite &= valid
        if zeros == "check":
            _report_partly(name, nodata, valid & (absences > len(dead)))
    if infinite.any():
        _raise_not_finite(name, cube, infinite, declared)
    if zeros == "check":
        report_zeros(name, np.flatnonzero(~nonzero), bands, cube=True)
    return Survey(None if valid is None or valid.all() else valid, dead)


def _as_float32(values: Any) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, dtype=np.float32)


def _is_absent(block: np.ndarray, nodata: float | None) -> np.ndarray:
    """Where a float32 block is NaN or holds the no-data value."""
    absent = np.isnan(block)
    if nodata is not None and not math.isnan(nodata):
        with np.errstate(over="ignore"):
            absent |= block == np.float32(nodata)
    return absent


def _report_partly(name: str, nodata: float | None, partly: np.ndarray) -> None:
    places = np.argwhere(partly)
    if len(places):
        row, column = (int(i) for i in places[0])
        warnings.warn(
            f"{called(name)}: {len(places)} pixels hold the no-data value {nodata:g} in some bands only, the first at "
            f"row {row}, column {column} (counted from 0); they are used. Give a mask to leave them out.",
            UserWarning,
            stacklevel=5,
        )


def _raise_not_finite(name: str, cube: Any, where: np.ndarray, declared: bool) -> None:
    """Raise for the first number that is not finite, in the order of bands, rows, columns."""
    count, first, value = 0, (cube.shape[0], 0, 0), np.float64(0)
    for rows, columns in window_blocks(cube):
        given = np.asarray(cube[:, rows, columns])
        with np.errstate(over="ignore", invalid="ignore"):
            bad = np.argwhere(~np.isfinite(given.astype(np.float32)) & where[rows, columns])
        count += len(bad)
        if len(bad):
            place = int(bad[0, 0]), int(bad[0, 1]) + rows.start, int(bad[0, 2]) + columns.start
            if place < first:
                first, value = place, given[tuple(bad[0])]
    hint = "" if declared or not np.isnan(value) else "; nodata=nan (--nodata nan) leaves such pixels out"
    report_not_finite(name, count, first, value, ("band", "row", "column"), hint=hint)
