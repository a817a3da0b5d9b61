"""Hyperspectral scenes from files."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spectrafuse._runtime import checks
from spectrafuse.io.arrays import ArrayFile, open_arrays
from spectrafuse.io.envi import HEADER_SUFFIX, is_envi, open_envi
from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import LAYOUTS, bands_first, find_axes, find_size
from spectrafuse.io.nodata import as_nodata
from spectrafuse.io.sources import CubeSource, checked_source
from spectrafuse.io.validate import as_numeric

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
        Bands, rows, columns; values as in the file (of an ENVI file divided by its reflectance scale factor).
    wavelengths : ndarray, shape (C,), float64, or None
        The axis of the bands, where the file has one, in the file's unit.
    source : str
        Path of the file.
    key : str or None
        Variable of the file; None where it has only one without a name.
    layout : str
        How the array was read, in words.
    sha256 : str
        Hash of the bytes of the file with the numbers.
    wavelength_unit : str or None
        Unit of the wavelengths, where the file says it.
    valid : ndarray, shape (H, W), bool, or None
        True where pixels have data, by the rule of `spectrafuse.io.nodata`; `data` is zero elsewhere. None: all have.
    """

    data: np.ndarray
    wavelengths: np.ndarray | None
    source: str
    key: str | None
    layout: str
    sha256: str
    wavelength_unit: str | None = None
    valid: np.ndarray | None = None

    def as_source(self) -> CubeSource:
        """The scene as what is read window by window."""
        shape = (self.data.shape[0], self.data.shape[1], self.data.shape[2])
        return CubeSource(
            shape,
            self.valid,
            self.data,
            wavelengths=self.wavelengths,
            wavelength_unit=self.wavelength_unit,
            source=self.source,
            key=self.key,
            layout=self.layout,
        )


def read_cube(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    layout: str = "auto",
    rows: int | None = None,
    columns: int | None = None,
    nodata: float | str | None = None,
    mask: Any = None,
) -> Cube:
    """Read a hyperspectral scene from a `.mat` (5 to 7.3), `.npy`, `.npz` or ENVI file.

    Parameters
    ----------
    path : path
        The file. The format of arrays is told from the file's own first bytes; of an ENVI image the header or the data
        file can be given (`spectrafuse.io.envi.open_envi` says how the other one is found).
    key : str, optional
        The variable. Without it: `cube` if it has 3 dimensions; else a matrix `Y` if the numbers of rows and
        columns are known; else the only array of numbers with 3 dimensions (`S_GT`, `A` and `abundances`
        aside); else the only matrix that fits the rows and columns.
    layout : {"auto", "chw", "hwc"}
        Order of a 3-D array's axes: bands, rows, columns or rows, columns, bands. "auto" takes the axis whose
        length equals the number of wavelengths in the file (a variable `wavelength`, `wavelengths`, `wl`,
        `lambda`, ...) for the bands; else a `.mat` file is (rows, columns, bands), also in version 7.3, whose
        reversed axes are turned back; else, of two equal axes and a different one, the different one is the
        bands if it is the first or the last; else an error asks. An ENVI header says it itself.
    rows, columns : int, optional
        Size of the scene for a matrix (bands, pixels) or (pixels, bands), whose pixels are taken column by
        column as the unmixing community stores them; not needed where the file has `lines` and `cols`,
        `nRow` and `nCol` or the like.
    nodata : float, optional
        The value, as stored, that says that a pixel has no data; NaN (or "nan") for NaN alone. `spectrafuse.io.nodata`
        has the rule. Without it, the `data ignore value` of an ENVI header.
    mask : array_like of bool, shape (H, W), optional
        True for pixels without data.

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
    opened = open_cube(path, key=key, layout=layout, rows=rows, columns=columns, nodata=nodata, mask=mask)
    return Cube(
        opened.read_rows(0, opened.shape[1]),
        opened.wavelengths,
        opened.source,
        opened.key,
        opened.layout,
        opened.sha256,
        opened.wavelength_unit,
        opened.valid,
    )


def open_cube(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    layout: str = "auto",
    rows: int | None = None,
    columns: int | None = None,
    nodata: float | str | None = None,
    mask: Any = None,
    zeros: str = "check",
) -> CubeSource:
    """Open a hyperspectral scene to read it window by window.

    The scene is checked once, in a pass by blocks of rows, and never held as a whole where its format allows that:
    numbers that lie in the file as they are (ENVI, `.npy`, `.npz` without compression, `.mat` of version 6, and of 7.3
    without chunks) are mapped; cubes in chunks (`.mat` of version 7.3) are read by the chunks that a window touches,
    of which up to 128 MiB stay decoded. Compressed `.mat` files of version 7 and compressed `.npz` files can only be
    decoded from their beginning, and a matrix of pixels in chunks has each window in all of them: these are read once,
    as a whole.

    Parameters
    ----------
    path, key, layout, rows, columns, nodata, mask
        As in `read_cube`.
    zeros : {"check", "accept"}
        What to do about bands that are zero everywhere, as in `spectrafuse.io.validate.check_cube`.

    Raises
    ------
    DataError
        As `read_cube`.
    """
    checks.choice("layout", layout, LAYOUTS)
    rows = rows if rows is None else checks.integer("rows", rows)
    columns = columns if columns is None else checks.integer("columns", columns)
    value = as_nodata(nodata)
    if is_envi(path):
        return _open_image(path, key, layout, rows, columns, value, mask, zeros)
    source = open_arrays(path, also=(HEADER_SUFFIX,))
    found_rows, found_columns = find_size(source, rows, columns)
    name = _find(source, found_rows, found_columns) if key is None else source.require(key)
    axes = find_axes(source)
    if len(source.entries[name].shape) == 2:
        rows, columns = found_rows, found_columns
    label = source.label(name)
    mapped = source.map(name)
    lengths = [axis.size for axis in axes.values()]
    stored, words = bands_first(
        label,
        as_numeric(label, source.load(name)) if mapped is None else mapped,
        layout,
        matlab=source.matlab,
        rows=rows,
        columns=columns,
        axis_lengths=lengths,
    )
    opened = checked_source(
        label,
        stored,
        nodata=value,
        mask=mask,
        zeros=zeros,
        source=str(path),
        key=name or None,
        layout=words,
        file_backed=mapped is not None,
        data_path=str(path),
    )
    opened = replace(opened, wavelengths=_matching(label, axes, opened.shape[0]))
    return opened.held() if mapped is None else opened


def _open_image(
    path: str | os.PathLike[str],
    key: str | None,
    layout: str,
    rows: int | None,
    columns: int | None,
    nodata: float | None,
    mask: Any,
    zeros: str,
) -> CubeSource:
    if key is not None:
        raise DataError(f"'{path}' is an ENVI image without variables, so leave key={key!r} out.")
    if layout == "hwc":
        raise DataError(f"'{path}' is an ENVI image, whose header says its layout; leave layout={layout!r} out.")
    image = open_envi(path)
    for name, asked, got in (("rows", rows, image.shape[1]), ("columns", columns, image.shape[2])):
        if asked is not None and asked != got:
            raise DataError(f"'{path}' has {got} {name}, not {asked}.")
    return checked_source(
        f"'{image.data}'",
        image.map(),
        nodata=image.nodata if nodata is None else nodata,
        mask=mask,
        zeros=zeros,
        scale=image.scale,
        wavelengths=image.wavelengths,
        wavelength_unit=image.wavelength_unit,
        source=str(path),
        layout=image.words,
        file_backed=True,
        data_path=str(image.data),
    )


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
