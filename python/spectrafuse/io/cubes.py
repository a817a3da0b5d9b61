"""Hyperspectral scenes from files."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import numpy as np

from spectrafuse import _checks
from spectrafuse.io.arrays import ArrayFile, open_arrays, sha256
from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import LAYOUTS, bands_first, find_axes, find_size
from spectrafuse.io.validate import check_cube

_CUBE_NAME = "cube"
_MATRIX_NAME = "Y"
# In the files of the unmixing community these are the true abundances, not a scene.
_ABUNDANCE_NAMES = ("S_GT", "A", "abundances")


@dataclass(frozen=True, eq=False)
class Cube:
    """A scene as it was read.

    Attributes
    ----------
    data : ndarray, shape (C, H, W), float32
        Bands, rows, columns; values as in the file.
    wavelengths : ndarray, shape (C,), float64, or None
        The axis of the bands, where the file has one, in the file's unit.
    source : str
        Path of the file.
    key : str or None
        Variable of the file; None where it has only one without a name.
    layout : str
        How the array was read, in words.
    sha256 : str
        Hash of the file's bytes.
    """

    data: np.ndarray
    wavelengths: np.ndarray | None
    source: str
    key: str | None
    layout: str
    sha256: str


def read_cube(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    layout: str = "auto",
    rows: int | None = None,
    columns: int | None = None,
) -> Cube:
    """Read a hyperspectral scene from a `.mat` (5 to 7.3), `.npy` or `.npz` file.

    Parameters
    ----------
    path : path
        The file. Its format is told from its own first bytes.
    key : str, optional
        The variable. Without it: `cube` if it has 3 dimensions; else a matrix `Y` if the numbers of rows and
        columns are known; else the only array of numbers with 3 dimensions (`S_GT`, `A` and `abundances`
        aside); else the only matrix that fits the rows and columns.
    layout : {"auto", "chw", "hwc"}
        Order of a 3-D array's axes: bands, rows, columns or rows, columns, bands. "auto" takes the axis whose
        length equals the number of wavelengths in the file (a variable `wavelength`, `wavelengths`, `wl`,
        `lambda`, ...) for the bands; else a `.mat` file is (rows, columns, bands), also in version 7.3, whose
        reversed axes are turned back; else, of two equal axes and a different one, the different one is the
        bands if it is the first or the last; else an error asks.
    rows, columns : int, optional
        Size of the scene for a matrix (bands, pixels) or (pixels, bands), whose pixels are taken column by
        column as the unmixing community stores them; not needed where the file has `lines` and `cols`,
        `nRow` and `nCol` or the like.

    Returns
    -------
    Cube

    Raises
    ------
    DataError
        Whatever is wrong with the file or its contents, in one sentence with the path.

    Warns
    -----
    UserWarning
        Bands that are zero everywhere; wavelengths whose number is not that of the bands.
    """
    _checks.choice("layout", layout, LAYOUTS)
    rows = rows if rows is None else _checks.integer("rows", rows)
    columns = columns if columns is None else _checks.integer("columns", columns)
    source = open_arrays(path)
    found_rows, found_columns = find_size(source, rows, columns)
    name = _find(source, found_rows, found_columns) if key is None else source.require(key)
    label = source.label(name)
    axes = find_axes(source)
    values = source.load(name)
    if values.ndim == 2:
        rows, columns = found_rows, found_columns
    lengths = [axis.size for axis in axes.values()]
    cube, words = bands_first(
        label, values, layout, matlab=source.matlab, rows=rows, columns=columns, axis_lengths=lengths
    )
    data = np.require(check_cube(label, cube), requirements=["C", "W"])
    return Cube(data, _matching(label, axes, len(data)), str(path), name or None, words, sha256(path))


def _find(source: ArrayFile, rows: int | None, columns: int | None) -> str:
    if source.format == "npy":
        return ""
    cubes = [k for k in source.numeric(3) if k not in _ABUNDANCE_NAMES]
    pixels = None if rows is None or columns is None else rows * columns
    matrices = [k for k in source.numeric(2) if pixels in source.entries[k].shape]
    if _CUBE_NAME in cubes:
        return _CUBE_NAME
    if pixels is not None and _MATRIX_NAME in source.numeric(2):
        return _MATRIX_NAME
    for candidates in (cubes, matrices):
        if len(candidates) == 1:
            return candidates[0]
    several = "several arrays that can be a cube" if cubes or matrices else "no array that is clearly a cube"
    hint = "" if cubes else "; for a matrix (bands, pixels) give rows and columns as well"
    raise DataError(f"'{source.path}' has {several}; choose one by its key{hint}: {source.listing()}.")


def _matching(label: str, axes: dict[str, np.ndarray], bands: int) -> np.ndarray | None:
    """The first axis of the right length."""
    for values in axes.values():
        if values.size == bands:
            return values
    if axes:
        listed = ", ".join(f"{name} ({values.size})" for name, values in axes.items())
        warnings.warn(
            f"{label} has {bands} bands, which is not the length of {listed}: read without wavelengths.",
            UserWarning,
            stacklevel=3,
        )
    return None
