"""Hyperspectral scenes: the type that holds one from reading to the label map, and how it comes from a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from spectrafuse._runtime import arguments
from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.io.arrays import ArrayFile, open_arrays
from spectrafuse.io.envi import HEADER_SUFFIX, is_envi, open_envi
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.layouts import LAYOUTS, bands_first, find_axes, find_size
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.nodata import as_mask, as_nodata, survey
from spectrafuse.io.validate import as_numeric, called

_CUBE_NAME = "cube"
_MATRIX_NAME = "Y"
# In the files of the unmixing community these are the true abundances, not a scene.
_ABUNDANCE_NAMES = ("S_GT", "A", "abundances")

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Cube:
    """A scene (bands, rows, columns), in memory (`read_cube`) or left in its file (`open_cube`).

    It is sliced like an array: `cube[:, 10:20]`, `cube[..., 10:20, :]`, `cube[:, 10:20, 5:9]` are newly made arrays, in
    which pixels without data are zero in every band. A file stays open (or mapped, without holding what was read) until
    `close` or the end of a `with` block; windows can be read from several threads, after a fork, and when unpickled.

    Attributes
    ----------
    stored : array_like, shape (bands, rows, columns)
        The numbers as they are stored: an array, or what reads slices of a file.
    wavelengths : ndarray, shape (bands,), float64, or None
        The axis of the bands, where the file has one, in the file's unit.
    source : str
        Path of the file; empty for an array.
    key : str or None
        Variable of the file; None where it has only one without a name.
    layout : str
        How the array was read, in words.
    wavelength_unit : str or None
        Unit of the wavelengths, where the file says it.
    valid : ndarray, shape (rows, columns), bool, or None
        True where pixels have data, by the rule of `spectrafuse.io.nodata`; None where all have.
    file_backed : bool
        Whether the numbers are read from the file when they are asked for; else they are in memory.
    data_path : str
        Path of the file with the numbers (of an ENVI image, not its header); empty for an array.
    scale : float
        What stored numbers are divided by: the reflectance scale factor of an ENVI file.
    dead_bands : ndarray of int
        Bands without data in any pixel, which are read as zero.
    dtype : numpy.dtype
        Type of the numbers that are read, float32 or float64.
    """

    stored: Any
    wavelengths: np.ndarray | None = None
    source: str = ""
    key: str | None = None
    layout: str = ""
    wavelength_unit: str | None = None
    valid: np.ndarray | None = None
    file_backed: bool = False
    data_path: str = ""
    scale: float = 1.0
    dead_bands: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    dtype: Any = np.float32
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        bands, rows, columns = self.stored.shape
        return int(bands), int(rows), int(columns)

    @property
    def ndim(self) -> int:
        """3."""
        return 3

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Steps in bytes between stored numbers along the axes; None where they lie in chunks."""
        return getattr(self.stored, "strides", None)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole scene as it is read."""
        bands, rows, columns = self.shape
        return np.dtype(self.dtype).itemsize * bands * rows * columns

    @property
    def data(self) -> np.ndarray:
        """The whole scene, (bands, rows, columns): the array in memory itself, or newly read from the file."""
        return self.read_rows(0, self.shape[1]) if self.file_backed else np.asarray(self.stored, dtype=self.dtype)

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes of the file with the numbers; empty for an array."""
        return sha256(self.data_path) if self.data_path else ""

    @property
    def mapped(self) -> MappedArray | None:
        """The numbers in the file, where those of the scene are these, but for `scale`; else None."""
        plain = isinstance(self.stored, MappedArray) and self.valid is None and not len(self.dead_bands)
        return self.stored if plain else None

    def keep(self, name: Hashable, make: Callable[[], T]) -> T:
        """What `make` finds out about the scene, such as its statistics: run once, then kept under `name`."""
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def read_window(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Rows y0 to y1 and columns x0 to x1 (ends excluded) of all bands.

        Returns
        -------
        ndarray, shape (bands, y1 - y0, x1 - x0), C-contiguous
            Newly made; zero in pixels without data.

        Raises
        ------
        DataError
            If the file can no longer be read.
        ValueError
            If the window is not inside the scene.
        """
        _, height, width = self.shape
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise InvalidValueError(f"The window {(y0, y1, x0, x1)} is not inside {height} rows and {width} columns.")
        return self._read(slice(None), slice(y0, y1), slice(x0, x1))

    def _read(self, bands: slice, rows: slice, columns: slice) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(self.stored, MappedArray):
                values = self.stored.read((bands, rows, columns), self.dtype)
            else:
                values = np.array(self.stored[bands, rows, columns], dtype=self.dtype, order="C")
        if self.scale != 1:
            values /= values.dtype.type(self.scale)
        dead = np.zeros(self.shape[0], dtype=bool)
        dead[self.dead_bands] = True
        if dead.any():
            values[dead[bands]] = 0
        if self.valid is not None:
            values[:, ~self.valid[rows, columns]] = 0
        return values

    def read_rows(self, y0: int, y1: int) -> np.ndarray:
        """Rows y0 to y1 (end excluded): `read_window` over all columns."""
        return self.read_window(y0, y1, 0, self.shape[2])

    def held(self) -> Cube:
        """The same scene with all its numbers in memory, zero in pixels without data."""
        values = self.read_rows(0, self.shape[1])
        return replace(self, stored=values, file_backed=False, scale=1.0, dead_bands=np.zeros(0, dtype=np.int64))

    def close(self) -> None:
        """Close the file; it is opened again if a window is read after all."""
        if self.file_backed:
            self.stored.close()

    def __enter__(self) -> Cube:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, index: Any) -> np.ndarray:
        parts = list(index) if isinstance(index, tuple) else [index]
        if any(part is Ellipsis for part in parts):
            at = next(i for i, part in enumerate(parts) if part is Ellipsis)
            parts[at : at + 1] = [slice(None)] * (3 - len(parts) + 1)
        parts += [slice(None)] * (3 - len(parts))
        if len(parts) != 3 or any(not isinstance(p, slice) or p.step not in (None, 1) for p in parts):
            raise InvalidTypeError(f"A scene is sliced by ranges of bands, rows and columns; got {index!r}.")
        places = (part.indices(n)[:2] for part, n in zip(parts, self.shape, strict=True))
        bands, rows, columns = (slice(start, max(start, stop)) for start, stop in places)
        return self._read(bands, rows, columns)


def as_cube(scene: Any) -> Cube:
    """A scene as it is, or an array or tensor (bands, rows, columns) as one: not checked, float64 stays float64."""
    if isinstance(scene, Cube):
        return scene
    values = as_numeric("cube", scene)
    return Cube(values, dtype=np.float64 if values.dtype == np.float64 else np.float32)


def checked_cube(name: str, stored: Any, *, nodata: float | None, mask: Any, zeros: str, **facts: Any) -> Cube:
    """A scene from stored numbers, checked in one pass.

    Parameters
    ----------
    name : str
        What messages call the scene.
    stored : array_like, shape (bands, rows, columns)
        The stored numbers.
    nodata, mask, zeros
        As in `spectrafuse.io.nodata.survey`; `nodata` in stored numbers, before `scale` is applied.
    **facts
        Other attributes of `Cube`.
    """
    if stored.ndim != 3:
        raise DataError(f"{called(name)} must be a cube (bands, rows, columns); got shape {tuple(stored.shape)}.")
    hidden = as_mask(name, mask, tuple(stored.shape[1:]))
    found = survey(name, stored, nodata=as_nodata(nodata), mask=hidden, zeros=zeros)
    return Cube(stored, valid=found.valid, dead_bands=found.dead_bands, **facts)


def array_cube(name: str, array: Any, *, nodata: float | None = None, mask: Any = None, zeros: str) -> Cube:
    """A scene in memory from an array or tensor (bands, rows, columns); a `numpy.ma` array brings its own mask.

    Raises
    ------
    DataError
        As `spectrafuse.io.validate.check_cube`, but for pixels without data.
    """
    values = as_numeric(name, array)
    if isinstance(array, np.ma.MaskedArray) and values.ndim == 3:
        own = np.zeros(values.shape, dtype=bool)
        own |= np.ma.getmaskarray(array)
        # One masked band hides the pixel; bands that are masked throughout decide nothing.
        dead: np.ndarray = own.all(axis=(1, 2))  # type: ignore[assignment]
        values = np.where(dead[:, None, None], values.dtype.type(0), np.ma.getdata(array))
        given, hidden = as_mask(name, mask, values.shape[1:]), own[~dead].any(axis=0)
        mask = hidden if given is None else hidden | given
        mask = mask if mask.any() else None
    return checked_cube(name, values, nodata=nodata, mask=mask, zeros=zeros).held()


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
    mask : array_like of bool, shape (rows, columns), optional
        True for pixels without data.

    Returns
    -------
    Cube
        In memory: its `data` are float32, values as in the file (of an ENVI file divided by its reflectance scale
        factor).

    Raises
    ------
    DataError
        Whatever is wrong with the file or its contents, in one sentence with the path.

    Warns
    -----
    UserWarning
        Wavelengths whose number is not that of the bands.
    """
    with open_cube(path, key=key, layout=layout, rows=rows, columns=columns, nodata=nodata, mask=mask) as opened:
        cube = opened.held() if opened.file_backed else opened
    # Of the file as it was read: it may change later.
    _ = cube.sha256
    return cube


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
) -> Cube:
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
    arguments.choice("layout", layout, LAYOUTS)
    rows = rows if rows is None else arguments.integer("rows", rows)
    columns = columns if columns is None else arguments.integer("columns", columns)
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
    opened = checked_cube(
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
) -> Cube:
    if key is not None:
        raise DataError(f"'{path}' is an ENVI image without variables, so leave key={key!r} out.")
    if layout == "hwc":
        raise DataError(f"'{path}' is an ENVI image, whose header says its layout; leave layout={layout!r} out.")
    image = open_envi(path)
    for name, asked, got in (("rows", rows, image.shape[1]), ("columns", columns, image.shape[2])):
        if asked is not None and asked != got:
            raise DataError(f"'{path}' has {got} {name}, not {asked}.")
    return checked_cube(
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
    hint = "" if cubes else " A matrix (bands, pixels) needs rows= and columns= as well (--rows, --columns)."
    raise DataError(f"'{source.path}' has {several}; choose one with key= (--key): {source.listing()}.{hint}")


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
