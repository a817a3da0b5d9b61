"""Checks of data, done once: when a file is read, or when an array is given to `fit` or `predict`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.io.errors import DataError, scene_option

_LISTED = 10
_BLOCK_VALUES = 1 << 20
FAINTEST = float(np.finfo(np.float32).tiny / np.finfo(np.float32).eps)
"""Numbers below this, 1e-31, lose digits in float32 where a spectrum is a thousandth of its peak or less."""


def check_cube(name: str, array: Any, *, zeros: str = "check") -> np.ndarray:
    """Check a hyperspectral cube and give it as float32.

    Parameters
    ----------
    name : str
        What messages call the data: an argument's name or a file's path.
    array : array_like or tensor, shape (C, H, W)
        Real numbers, integer or floating; bands first. At least one band, one row, one column.
    zeros : {"check", "accept"}
        "check": a band that is zero everywhere, which carries no information, is an error that names it.
        "accept": it is not, nor is a cube that is zero everywhere (for parts of a scene, and for prediction).

    Returns
    -------
    ndarray, shape (C, H, W), float32, C-contiguous
        Shares memory with `array` where that already is such an array.

    Raises
    ------
    DataError
        Wrong type or rank, an empty axis, NaN, infinity, a number that float32 cannot hold, or a band that is zero
        everywhere.
    """
    return _check(name, array, "a cube (bands, rows, columns)", ("band", "row", "column"), 0, zeros)


def check_spectra(name: str, array: Any, *, zeros: str = "check", gaps: bool = False) -> np.ndarray:
    """Check a table of spectra and give it as float32.

    Parameters
    ----------
    name : str
        What messages call the data: an argument's name or a file's path.
    array : array_like or tensor, shape (n, d)
        Real numbers, integer or floating: n spectra of d bands, at least one of each.
    zeros : {"check", "accept"}
        "check": a band that is zero in every spectrum is legal but carries no information, so a
        `UserWarning` names it; a table that is zero everywhere is an error. "accept": neither (for
        `transform` of a few spectra).
    gaps : bool
        NaN stands for a value that is missing, and is no error.

    Returns
    -------
    ndarray, shape (n, d), float32, C-contiguous
        Shares memory with `array` where that already is such an array.

    Raises
    ------
    DataError
        Wrong type or rank (one spectrum needs `reshape(1, -1)`), an empty axis, NaN, infinity, a number that
        float32 cannot hold, zero everywhere.
    """
    return _check(name, array, "a table of spectra (spectra, bands)", ("spectrum", "band"), 1, zeros, gaps)


def _check(
    name: str, array: Any, what: str, axes: Sequence[str], band_axis: int, zeros: str, gaps: bool = False
) -> np.ndarray:
    if zeros not in ("check", "accept"):
        raise InvalidValueError(f"`zeros` must be one of 'check', 'accept'; got {zeros!r}.")
    given = as_numeric(name, array)
    if given.ndim != len(axes):
        hint = "; one spectrum needs reshape(1, -1)" if given.ndim == 1 and len(axes) == 2 else ""
        got = f"{given.ndim} dimensions, shape {given.shape}"
        raise DataError(f"{called(name)} must be {what}; got {got}{hint}.")
    if 0 in given.shape:
        raise DataError(f"{called(name)} must be {what} with at least one of each; got shape {given.shape}.")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(given, dtype=np.float32)
    _check_finite(name, given, np.nan_to_num(values, posinf=np.inf, neginf=-np.inf) if gaps else values, axes)
    if zeros == "check":
        _check_zeros(name, values, band_axis)
    return values


def as_numeric(name: str, array: Any) -> np.ndarray:
    """An array of real numbers (integer or floating) from an array, a tensor on any device, or nested lists.

    Raises
    ------
    DataError
        Text, objects, booleans, complex numbers, dates, ragged lists.
    """
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    try:
        values = np.asarray(array)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{called(name)} must be an array of numbers; got {type(array).__name__} ({error}).") from error
    if values.dtype.kind not in "iuf":
        kind = type(array).__name__ if values.ndim == 0 else f"an array of dtype {values.dtype}"
        raise DataError(f"{called(name)} must hold real numbers, integer or floating; got {kind}.")
    return values


def _check_finite(name: str, given: np.ndarray, values: np.ndarray, axes: Sequence[str]) -> None:
    # A block at a time: the mask of a whole scene would be a quarter of its size.
    step = max(1, _BLOCK_VALUES // values[0].size)
    bad = 0
    position: tuple[int, ...] = ()
    for start in range(0, len(values), step):
        part = values[start : start + step]
        wrong = part.size - np.count_nonzero(np.isfinite(part))
        if wrong and not bad:
            row, *others = (int(i) for i in np.argwhere(~np.isfinite(part))[0])
            position = (start + row, *others)
        bad += wrong
    if not bad:
        return
    way = f"; {scene_option('nodata', 'nan')} leaves such pixels out"
    hint = way if axes[0] == "band" and np.isnan(given[position]) else ""
    report_not_finite(name, bad, position, given[position], axes, hint=hint)


def report_not_finite(
    name: str, count: int, position: Sequence[int], value: Any, axes: Sequence[str], *, hint: str = ""
) -> NoReturn:
    """Raise for `count` numbers that are not finite as float32, the first `value` at `position` along `axes`."""
    where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, position, strict=True))
    number = f"{count} value{'s' if count > 1 else ''}"
    if np.isfinite(value):
        what = f"{number} that float32 cannot hold"
    else:
        what = f"{number} that {'are' if count > 1 else 'is'} not finite (NaN or infinity)"
    which = "the first" if count > 1 else "it is"
    raise DataError(f"{called(name)} has {what}, {which} at {where} (counted from 0): {value!s}{hint}.")


def _check_zeros(name: str, values: np.ndarray, axis: int) -> None:
    others = tuple(i for i in range(values.ndim) if i != axis)
    report_zeros(name, np.flatnonzero(~values.any(axis=others)), values.shape[axis], cube=values.ndim == 3)
    check_not_faint(name, float(np.fmax(np.fmax.reduce(values, axis=None), -np.fmin.reduce(values, axis=None))))


def check_not_faint(name: str, most: float) -> None:
    """Raise where the largest number, or the largest that numbers differ by, is too near to float32's smallest."""
    if 0 < most < FAINTEST:
        raise DataError(
            f"The numbers of {called(name)} reach {most:.2g} only, and float32 loses digits below {FAINTEST:.0e}: give "
            "them in another unit, multiplied by a power of ten."
        )


def report_zeros(name: str, empty: np.ndarray, total: int, *, cube: bool) -> None:
    """Raise if all `total` bands are `empty` (zero everywhere), or some of a cube are; warn of some in spectra."""
    if len(empty) == total:
        raise DataError(f"{called(name)} is zero everywhere, so there is nothing to learn from it.")
    if not len(empty):
        return
    listed = ", ".join(str(i) for i in empty[:_LISTED]) + (", ..." if len(empty) > _LISTED else "")
    some = f"bands {listed} are" if len(empty) > 1 else f"band {listed} is"
    message = f"{called(name)}: {some} zero everywhere ({len(empty)} of {total}, counted from 0)"
    if cube:
        raise DataError(f"{message}; remove them, or read the scene with open_cube(..., zeros='accept').")
    warnings.warn(
        f"{message} and {'carry' if len(empty) > 1 else 'carries'} no information.", UserWarning, stacklevel=5
    )


def called(name: str) -> str:
    """How messages call data: arguments in backticks; a file's path is quoted already."""
    return f"`{name}`" if name.isidentifier() else name
