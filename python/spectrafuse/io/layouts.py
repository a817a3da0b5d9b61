"""Which axis of an array is which: the rules, and the words that say what was decided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spectrafuse.io.arrays import ArrayFile
from spectrafuse.io.errors import DataError, scene_option, size_options

_LEAST_TO_JUDGE, _JUDGED = 6, 64
_FAR_MORE = 0.4
LAYOUTS = ("auto", "chw", "hwc", "hcw", "cwh")

# Names are compared in lower case, without anything but letters and digits.
_AXIS_NAME = re.compile(
    r"((center|centre)?(wavelengths?|wl|wls|waves?)|lambdas?|lam|bandcent(er|re)s?|bands(?=nm))(nm|um)?"
    r"|(wavenumbers?|ramanshift|shift)(cm1)?|nm|cm1|x?axis(scale)?"
)
_ROW_NAMES = ("lines", "nRow", "nrow", "nRows", "nrows", "n_rows", "rows", "Lines", "H", "height", "nr")
_COLUMN_NAMES = ("cols", "nCol", "ncol", "nCols", "ncols", "n_cols", "columns", "samples", "W", "width", "nc")

_MATLAB_ORDER = "the order of MATLAB files"
_LETTERS = {"c": "bands", "h": "rows", "w": "columns"}


def layout_words(layout: str) -> str:
    """A layout in words: "(rows, columns, bands)" for "hwc"."""
    return f"({', '.join(_LETTERS[letter] for letter in layout)})"


def _reading(shape: tuple[int, ...], layout: str) -> str:
    """How a shape is read in a layout, for a message."""
    sizes = ", ".join(f"{n} {_LETTERS[letter]}" for n, letter in zip(shape, layout, strict=True))
    return f"({sizes}) with {scene_option('layout', layout)}"


def is_axis_name(name: str) -> bool:
    """Whether a name says wavelength, wavenumber or the like: "wl", "Wavelength (nm)", "Raman shift"."""
    return _AXIS_NAME.fullmatch("".join(c for c in name.lower() if c.isalnum())) is not None


def last_part(name: str) -> str:
    """The name of a variable without the groups, structs or cells that hold it."""
    return re.split(r"[./]", name.partition("{")[0])[-1]


_BANDS = ("band", "bands", "channel", "channels", "spectral", "spectra", "z", "b", "c", "feature", "features")
_ROWS = ("y", "row", "rows", "line", "lines", "lat", "latitude", "northing", "height", "downtrack", "h", "scan")
_COLUMNS = ("x", "column", "columns", "col", "cols", "sample", "samples", "lon", "longitude", "easting", "width",
            "crosstrack", "w", "pixel")  # fmt: skip


def kind_of_dim(dim: str) -> str | None:
    """What a dimension is by its name: "bands", "rows", "columns", or None."""
    plain = dim.lower().removesuffix("_dim").removesuffix("s_index")
    if plain in _BANDS or is_axis_name(dim):
        return "bands"
    return "rows" if plain in _ROWS else "columns" if plain in _COLUMNS else None


def layout_of_dims(dims: Sequence[str], order: str = "auto") -> str | None:
    """The layout that the names of three dimensions say; None where they do not say which is the bands.

    `order`, a layout, decides what they leave open.
    """
    kinds = [kind_of_dim(dim) for dim in dims]
    if kinds.count("bands") == 1:
        at = kinds.index("bands")
    elif kinds.count("bands") == 0 and "rows" in kinds and "columns" in kinds:
        at = kinds.index(None)
    elif order != "auto":
        at = order.index("c")
    else:
        return None
    rest = [i for i in range(3) if i != at]
    if kinds[rest[0]] == "columns" or kinds[rest[1]] == "rows" or order == "cwh":
        rest.reverse()
    return "".join({at: "c", rest[0]: "h", rest[1]: "w"}[i] for i in range(3))


def find_axes(source: ArrayFile) -> dict[str, np.ndarray]:
    """The variables that are wavelengths or another axis by name, 1-D float64 in the file's order."""
    found = {}
    for name, entry in source.entries.items():
        lengths = [n for n in entry.shape if n != 1]
        if entry.kind == "numeric" and is_axis_name(last_part(name)) and len(lengths) <= 1:
            values = source.load(name).reshape(-1).astype(np.float64)
            if values.size and np.isfinite(values).all():
                found[name] = values
    return found


def find_size(source: ArrayFile, rows: int | None, columns: int | None) -> tuple[int | None, int | None]:
    """Rows and columns of the scene: as given, else from the file's own variables, else None."""
    rows = source.scalar(_ROW_NAMES) if rows is None else rows
    columns = source.scalar(_COLUMN_NAMES) if columns is None else columns
    return rows, columns


def looks_bands_last(values: np.ndarray) -> bool:
    """Whether the last of three axes looks like the bands, and the first does not.

    Neighboring bands show the same picture: they correlate far more than neighboring rows or columns do, once the mean
    spectrum and the mean of each pixel are taken out.
    """
    if values.ndim != 3 or min(values.shape) < _LEAST_TO_JUDGE or not np.issubdtype(values.dtype, np.number):
        return False
    steps = [max(1, n // _JUDGED) for n in values.shape]
    # From the middle: the first bands of a sensor are often noise.
    middle = [slice(max(0, (n - _JUDGED) // 2), max(0, (n - _JUDGED) // 2) + _JUDGED) for n in values.shape]
    first = _unlikeness(values[middle[0], :: steps[1], :: steps[2]], 0)
    last = _unlikeness(values[:: steps[0], :: steps[1], middle[2]], 2)
    return last < _FAR_MORE * first


def middle(values: Any) -> np.ndarray:
    """Up to 64 numbers along each axis, from the middle of an array that may lie in a file."""
    starts = [max(0, (n - _JUDGED) // 2) for n in values.shape]
    return np.asarray(values[tuple(slice(start, start + _JUDGED) for start in starts)])


def _unlikeness(values: np.ndarray, axis: int) -> float:
    """1 minus the correlation of neighbors along an axis; of slices with the means over the axis taken out."""
    with np.errstate(all="ignore"):
        slices = np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0).reshape(values.shape[axis], -1)
        if not np.isfinite(slices).all():
            return 1.0
        slices = slices - slices.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(slices, axis=1)
        cosines = (slices[:-1] * slices[1:]).sum(axis=1) / (norms[:-1] * norms[1:])
    cosines = cosines[np.isfinite(cosines)]
    return 1.0 - float(np.median(cosines)) if cosines.size else 1.0


def cube_layout(
    label: str,
    shape: tuple[int, ...],
    layout: str,
    *,
    order: str,
    rows: int | None = None,
    columns: int | None = None,
    axis_lengths: Iterable[int] = (),
) -> tuple[str, str]:
    """Decide how a 3-D array is read, by the rule that `spectrafuse.io.cubes.read_cube` states under `layout`.

    Returns
    -------
    layout : {"chw", "hwc", "hcw", "cwh"}
    reason : str
        Why, in words.

    Raises
    ------
    DataError
        If the rules do not decide, with the readings spelled out.
    """
    if layout != "auto":
        return layout, "as asked for"
    readings: tuple[str, ...] = ("hwc", "chw") if order != "unknown" else ("hwc", "chw", "cwh")
    why = ""
    for length in axis_lengths:
        positions = [i for i, n in enumerate(shape) if n == length]
        if len(positions) == 1:
            readings = [("chw", "cwh")[: 1 + (order == "unknown")], ("hcw",), ("hwc",)][positions[0]]
            why = f"the file has {length} wavelengths"
            break
    fits = [
        taken
        for taken in readings
        if order == "matlab" or (rows in (None, shape[taken.index("h")]) and columns in (None, shape[taken.index("w")]))
    ]
    if len(fits) == 1:
        return fits[0], why or "its numbers of rows and columns"
    if order == "matlab":
        return "hwc", _MATLAB_ORDER
    first, middle, last = shape
    if len(fits) == len(readings) > 1:
        if first == middle != last:
            return "hwc", "the last axis is the one that differs"
        if middle == last != first and order != "unknown":
            return "chw", "the first axis is the one that differs"
    unknown = ""
    if order == "unknown":
        unknown = ", in a file that does not name its axes, so that their order is not known"
    listed = " or ".join(_reading(shape, taken) for taken in fits or readings)
    raise DataError(f"{label} has shape {shape}{unknown}, and can be read as {listed}. Say which one.")


def bands_first(
    label: str,
    values: np.ndarray,
    layout: str,
    *,
    order: str,
    rows: int | None = None,
    columns: int | None = None,
    axis_lengths: Iterable[int] = (),
    dims: Sequence[str] = (),
) -> tuple[np.ndarray, str]:
    """A 3-D array, or a matrix of pixels, as (bands, rows, columns), and the words that say how it was read.

    `order` is how the file arranges axes: "matlab" (bands last), "stored" (any) or "unknown" (any, or reversed); `dims`
    are the names of its axes, where it has them.

    Raises
    ------
    DataError
        Wrong rank, a layout that cannot be decided, numbers of rows and columns that do not fit.
    """
    if values.ndim == 3:
        named = layout_of_dims(dims) if layout == "auto" and len(dims) == 3 else None
        if named is not None:
            taken, reason = named, f"its dimensions are {', '.join(dims)}"
        else:
            taken, reason = cube_layout(
                label, values.shape, layout, order=order, rows=rows, columns=columns, axis_lengths=axis_lengths
            )
        # Not moveaxis: arrays in a file have a transpose of their own.
        cube = values.transpose(*(taken.index(letter) for letter in "chw"))
        for name, asked, got in (("rows", rows, cube.shape[1]), ("columns", columns, cube.shape[2])):
            if asked is not None and asked != got:
                read = f"{values.shape}, read as {layout_words(taken)}"
                raise DataError(f"{label} of shape {read}, has {got} {name}, not {asked}.")
        if reason == _MATLAB_ORDER and looks_bands_last(middle(values).transpose(2, 1, 0)):
            raise DataError(
                f"{label} has shape {values.shape}; MATLAB's files have their bands last, but the numbers look like "
                f"bands first: {_reading(values.shape, 'hwc')} or {_reading(values.shape, 'chw')}. Say which one."
            )
        return cube, f"{values.shape} read as {layout_words(taken)}: {reason}"
    if values.ndim == 2:
        return _from_matrix(label, values, layout, rows, columns)
    raise DataError(
        f"{label} must be a cube with 3 dimensions or a matrix (bands, pixels); got shape {values.shape}. Save the "
        "part of it that is one."
    )


def _from_matrix(
    label: str, values: np.ndarray, layout: str, rows: int | None, columns: int | None
) -> tuple[np.ndarray, str]:
    if rows is None or columns is None:
        missing = " and ".join(n for n, v in (("rows", rows), ("columns", columns)) if v is None)
        raise DataError(
            f"{label} is a matrix of shape {values.shape} and the file does not say how many {missing} the "
            f"scene has; give {size_options()}."
        )
    pixels = rows * columns
    fits = [axis for axis in (1, 0) if values.shape[axis] == pixels]
    if not fits:
        raise DataError(
            f"{label} is a matrix of shape {values.shape}, but {rows} rows and {columns} columns make "
            f"{pixels} pixels, which is neither of its axes."
        )
    if len(fits) == 2 and layout == "hwc":
        fits.reverse()
    reading = "(bands, pixels)" if fits[0] == 1 else "(pixels, bands)"
    matrix = values if fits[0] == 1 else values.T
    # Column-major: the pixels of the first column come first, as MATLAB's reshape leaves them.
    cube = matrix.reshape(matrix.shape[0], columns, rows).transpose(0, 2, 1)
    return cube, f"{values.shape} read as {reading}, {rows} rows and {columns} columns, column by column"
