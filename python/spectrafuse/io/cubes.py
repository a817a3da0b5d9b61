"""Hyperspectral scenes: the type that holds one from reading to the label map, and how it comes from a file."""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spectrafuse._runtime import arguments
from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.io.arrays import ARRAY_SUFFIXES, ArrayFile, open_arrays
from spectrafuse.io.attributes import GOOD_BANDS, Facts
from spectrafuse.io.axes import remarks
from spectrafuse.io.bands import ChosenBands, chosen, in_water_vapor, listed, parse_bands, rows_of, suspicious
from spectrafuse.io.envi import HEADER_SUFFIX, EnviImage, is_envi, open_envi
from spectrafuse.io.errors import DataError, ReadingNote, scene_option, size_options
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.hdf5 import Limited
from spectrafuse.io.instruments import converter
from spectrafuse.io.layouts import LAYOUTS, bands_first, find_axes, find_size, last_part
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.nodata import Survey, as_mask, as_nodata, survey
from spectrafuse.io.rasters import Raster, find_raster, raster_facts
from spectrafuse.io.signatures import signature
from spectrafuse.io.units import nanometers, unit_of
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
    which pixels without data are zero in every band. An HDF5 file stays open until
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
    bands : ndarray, shape (bands,), int, or None
        Numbers of the bands in the file, from 0; None where they are all of them.
    n_file_bands : int
        Bands of the file or array; 0 stands for those of `stored`.
    left_out : tuple of (str, ndarray of int)
        Why bands of the file are left out, and their numbers.
    notes : tuple of str
        What else a person should know about how the scene was read.
    gains, offsets : ndarray, shape (bands,), or None
        Stored numbers are multiplied by the one, then the other is added, before `scale`.
    nodata : float or None
        The value that says that a pixel has no data, as stored.
    place : dict of str to str, or None
        Where the scene lies on Earth, as fields of an ENVI header.
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
    bands: np.ndarray | None = None
    n_file_bands: int = 0
    left_out: tuple[tuple[str, np.ndarray], ...] = ()
    notes: tuple[str, ...] = ()
    gains: np.ndarray | None = None
    offsets: np.ndarray | None = None
    nodata: float | None = None
    place: dict[str, str] | None = None
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
    def mapped(self) -> MappedArray | ChosenBands | None:
        """The numbers in the file, where those of the scene are these, but for `scale`; else None."""
        numbers = self.stored.stored if isinstance(self.stored, ChosenBands) else self.stored
        plain = self.valid is None and not len(self.dead_bands) and self.gains is None and self.offsets is None
        return self.stored if plain and isinstance(numbers, MappedArray) else None

    @property
    def band_numbers(self) -> np.ndarray:
        """Numbers of the bands in the file, from 0, shape (bands,)."""
        return np.arange(self.shape[0]) if self.bands is None else self.bands

    @property
    def unit(self) -> str | None:
        """Unit of the wavelengths as it is shown, such as "nm"; the likely one where the file says none."""
        return unit_of(self.wavelengths, self.wavelength_unit)

    @property
    def description(self) -> str:
        """How the scene was read, in one line."""
        bands, rows, columns = self.shape
        parts = [f"{rows} rows, {columns} columns, {bands} bands"]
        if self.wavelengths is not None:
            said = (self.wavelength_unit or "").strip()
            unit = f" {self.unit or said}" if said else f", taken as {self.unit}" if self.unit else ", of no known unit"
            parts[0] += f" ({self.wavelengths.min():.6g} to {self.wavelengths.max():.6g}{unit})"
        parts += [self.layout] if self.layout else []
        parts += [f"variable {self.key!r}"] if self.key else []
        if self.gains is not None or self.offsets is not None:
            parts.append("multiplied by the bands' gains, then their offsets added")
        if self.left_out:
            reasons = "; ".join(f"{reason} ({listed(which)})" for reason, which in self.left_out)
            count = sum(len(which) for _, which in self.left_out)
            parts.append(f"{count} of {self.n_file_bands} bands left out: {reasons}")
        if self.valid is not None:
            value = "" if self.nodata is None else f" ({self.nodata:g})"
            parts.append(f"{int((~self.valid).sum())} pixels without data{value}")
        parts += self.notes
        source = f"{self.source}: " if self.source else ""
        return source + "; ".join(parts)

    def with_bands(self, numbers: Any) -> Cube:
        """The same scene with these of its bands only, by their numbers in the file.

        Raises
        ------
        DataError
            If the scene was read without one of them.
        """
        wanted, own = np.asarray(numbers), self.band_numbers
        if np.array_equal(wanted, own):
            return self
        missing = np.setdiff1d(wanted, own)
        if len(missing):
            raise DataError(
                f"{self.source or 'The scene'} was read without the bands {listed(missing)}, which are needed here; "
                "give its path, or read it with bands='all'."
            )
        places = np.searchsorted(own, wanted)
        others = np.setdiff1d(own, wanted)
        return replace(
            self,
            stored=chosen(self.stored, places),
            wavelengths=_at(self.wavelengths, places),
            dead_bands=np.flatnonzero(np.isin(places, self.dead_bands)),
            bands=wanted,
            n_file_bands=self.n_file_bands or self.shape[0],
            left_out=(*self.left_out, ("not used by the model or another scene", others)),
            gains=_at(self.gains, places),
            offsets=_at(self.offsets, places),
        )

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
            if isinstance(self.stored, (MappedArray, ChosenBands)):
                values = self.stored.read((bands, rows, columns), self.dtype)
            else:
                values = np.array(self.stored[bands, rows, columns], dtype=self.dtype, order="C")
        for change, factors in ((np.multiply, self.gains), (np.add, self.offsets)):
            if factors is not None:
                change(values, factors[bands, None, None].astype(values.dtype), out=values)
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

    def of_rows(self, y0: int, y1: int) -> Cube:
        """The scene of rows y0 to y1 (end excluded) alone, left where they are."""
        valid = None if self.valid is None else self.valid[y0:y1]
        return replace(self, stored=rows_of(self.stored, y0, y1), valid=valid)

    def held(self) -> Cube:
        """The same scene with all its numbers in memory, zero in pixels without data."""
        values = self.read_rows(0, self.shape[1])
        none = np.zeros(0, dtype=np.int64)
        return replace(self, stored=values, file_backed=False, scale=1.0, dead_bands=none, gains=None, offsets=None)

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


def checked_cube(
    name: str,
    stored: Any,
    *,
    nodata: float | None,
    mask: Any,
    zeros: str,
    bands: Any = None,
    bad: np.ndarray | None = None,
    bad_by: str = "bbl",
    wavelengths: np.ndarray | None = None,
    wavelength_unit: str | None = None,
    gains: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
    notes: tuple[str, ...] = (),
    **facts: Any,
) -> Cube:
    """A scene from stored numbers, checked in one pass, with the bands that are used.

    Parameters
    ----------
    name : str
        What messages call the scene.
    stored : array_like, shape (bands, rows, columns)
        The stored numbers.
    nodata, mask
        As in `spectrafuse.io.nodata.survey`; `nodata` in stored numbers, before `scale` is applied.
    zeros : {"check", "accept"}
        Whether bands without data or with nothing but zeros are left out, or kept as zeros; so are chosen bands.
    bands
        As in `open_cube`.
    bad : ndarray of int, optional
        Bands that the file says are bad.
    bad_by : str
        Where it says that.
    wavelengths, gains, offsets : ndarray, optional
        Of all bands that are stored.
    **facts
        Other attributes of `Cube`.

    Warns
    -----
    ReadingNote
        Bands that are left out without being asked for, and what `notes` should make a person look at.
    """
    arguments.choice("zeros", zeros, ("check", "accept"))
    if stored.ndim != 3:
        raise DataError(
            f"{called(name)} must be a cube (bands, rows, columns); got {stored.ndim} dimensions, "
            f"shape {tuple(stored.shape)}."
        )
    count = stored.shape[0]
    kept, dropped = parse_bands(bands, count, wavelengths, wavelength_unit)
    left_out: list[tuple[str, np.ndarray]] = []
    use = np.ones(count, dtype=bool)

    def leave_out(reason: str, which: np.ndarray) -> None:
        which = which[use[which]]
        if len(which):
            use[which] = False
            left_out.append((reason, which))

    if kept is not None:
        leave_out("not asked for", np.setdiff1d(np.arange(count), kept))
    elif bad is not None and len(bad) < count:
        leave_out(f"bad by the file ({bad_by})", bad)
    elif bad is not None:
        notes = (*notes, f"the file calls all bands bad ({bad_by}), which is passed over")
    leave_out("dropped as asked for", dropped)
    if not use.any():
        raise DataError(f"{called(name)} has no band left: choose others with {scene_option('bands')}.")
    numbers = np.flatnonzero(use)
    fixed = kept is not None or zeros == "accept"
    hidden = as_mask(name, mask, tuple(stored.shape[1:]))
    found = survey(name, chosen(stored, numbers), nodata=as_nodata(nodata), mask=hidden, bands_given=fixed)
    if len(found.empty_bands) == len(numbers) and zeros == "check":
        raise DataError(f"{called(name)} is zero everywhere, so there is nothing to learn from it.")
    dead = found.dead_bands
    if not fixed:
        leave_out("only zeros or no data", numbers[found.empty_bands])
        leave_out("no data in many pixels", numbers[found.partial_bands])
        dead = dead[use[numbers[dead]]]
    keep = np.flatnonzero(use[numbers])
    numbers = numbers[keep]
    cube = Cube(
        chosen(stored, numbers),
        valid=found.valid,
        dead_bands=np.flatnonzero(np.isin(keep, dead)),
        wavelengths=_at(wavelengths, numbers),
        wavelength_unit=wavelength_unit,
        bands=None if len(numbers) == count else numbers,
        n_file_bands=count,
        left_out=tuple(left_out),
        gains=_at(gains, numbers),
        offsets=_at(offsets, numbers),
        nodata=as_nodata(nodata),
        notes=(*notes, *_notes(found, keep, numbers, wavelengths, wavelength_unit, zeros)),
        **facts,
    )
    asked = ("not asked for", "dropped as asked for")
    unasked = [f"{reason}: {listed(which)}" for reason, which in left_out if reason not in asked]
    if unasked:
        total = sum(len(which) for reason, which in left_out if reason not in asked)
        said = f"{total} of {count} bands left out ({'; '.join(unasked)}, counted from 0)"
        warnings.warn(f"{called(name)}: {said}; {scene_option('bands', 'all')} keeps them.", ReadingNote, stacklevel=3)
    if zeros == "check":
        for sentence in _filling(found):
            warnings.warn(f"{called(name)}: {sentence}", UserWarning, stacklevel=3)
    return cube


def _filling(found: Survey) -> Iterator[str]:
    """Sentences about numbers and spectra that fill pixels or bands, and how to leave them out."""

    def sentence(what: str, value: float) -> str:
        text = np.format_float_positional(np.float32(value), trim="-") if abs(value) < 1e15 else f"{value:.6g}"
        return (
            f"{what.format(text)} and are used like any other. If that means no data, leave them out with "
            f"{scene_option('nodata', text)}."
        )

    value, pixels = max(found.padding.items(), key=lambda item: item[1], default=(0.0, 0))
    if pixels:
        yield sentence(f"{pixels} pixels hold {{}} in every band", value)
    for marker, count in found.markers.items():
        if not (pixels and marker == value and count == pixels * len(found.means)):
            yield sentence(f"{count} values are {{}}, far outside all others,", marker)
    if found.repeated is not None:
        count, low, high = found.repeated
        yield (
            f"{count} pixels hold one and the same spectrum ({low:.6g} to {high:.6g}) and are used like any other. If "
            f"that means no data, {scene_option('mask')} leaves them out."
        )


def _at(values: np.ndarray | None, places: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[places]


def _notes(
    found: Survey, keep: np.ndarray, numbers: np.ndarray, wavelengths: np.ndarray | None, unit: str | None, zeros: str
) -> list[str]:
    """What to look at in the bands that are used."""
    notes = []
    if found.partial_pixels:
        notes.append(f"{found.partial_pixels} of these pixels have no data in some bands only")
    if zeros == "check":
        jumps = suspicious(found.means[keep], numbers)
        if len(jumps):
            notes.append(
                f"look at the bands {listed(jumps)}, whose mean jumps ({scene_option('bands')} leaves bands out)"
            )
        water = in_water_vapor(_at(wavelengths, numbers), unit, numbers)
        if len(water):
            notes.append(f"the bands {listed(water)} lie where water vapor takes the light of the sun")
    return notes + ([] if wavelengths is None else remarks(wavelengths[numbers]))


def array_cube(
    name: str,
    array: Any,
    *,
    nodata: float | None = None,
    mask: Any = None,
    zeros: str,
    bands: Any = None,
    **facts: Any,
) -> Cube:
    """A scene in memory from an array or tensor (bands, rows, columns); a `numpy.ma` array brings its own mask.

    `bands` as in `open_cube`; other facts as in `checked_cube`.

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
    cube = checked_cube(name, values, nodata=nodata, mask=mask, zeros=zeros, bands=bands, **facts)
    ready = values.dtype == np.float32 and values.flags.c_contiguous and cube.valid is None and not len(cube.dead_bands)
    return cube if ready and cube.bands is None else cube.held()


def read_cube(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    layout: str = "auto",
    rows: int | None = None,
    columns: int | None = None,
    nodata: float | str | None = None,
    mask: Any = None,
    bands: Any = None,
) -> Cube:
    """Read a hyperspectral scene from a `.mat` (4 to 7.3), HDF5 or NetCDF, `.npy`, `.npz` or ENVI file.

    Parameters
    ----------
    path : path
        The file. The format of arrays is told from the file's own first bytes; of an ENVI image the header or the data
        file can be given (`spectrafuse.io.envi.open_envi` says how the other one is found).
    key : str, optional
        The variable; in structs and groups "struct.field" and "group/name", or its own name if no other has it.
        Without it: `cube` if it has 3 dimensions; else a matrix `Y` if the numbers of rows and columns are known; else
        the only array of numbers with 3 dimensions (`S_GT`, `A` and `abundances` aside), or the only such that
        wavelengths in the file fit; else the only matrix that fits the rows and columns.
    layout : {"auto", "chw", "hwc", "hcw", "cwh"}
        Order of a 3-D array's axes: c for the bands, h for the rows, w for the columns. "auto" takes the axis whose
        length equals the number of wavelengths in the file (a variable `wavelength`, `wavelengths`, `wl`,
        `lambda`, ...) for the bands; else a `.mat` file is (rows, columns, bands), also in version 7.3, whose
        reversed axes are turned back, unless its numbers look like bands first; else, of two equal axes and a different
        one, the different one is the bands if it is the first or the last; else an error asks. A `.mat` file of version
        7.3 without MATLAB's marks, as h5py writes it, is taken as it is stored; its axes can be in either order, so
        that bands first need a layout: "chw", or "cwh" if MATLAB's `h5write` wrote it. In HDF5 files names of
        dimensions decide first. An ENVI header says it itself.
    rows, columns : int, optional
        Size of the scene for a matrix (bands, pixels) or (pixels, bands), whose pixels are taken column by
        column as the unmixing community stores them; not needed where the file has `lines` and `cols`,
        `nRow` and `nCol` or the like.
    nodata : float, optional
        The value, as stored, that says that a pixel has no data; NaN (or "nan") for NaN alone. `spectrafuse.io.nodata`
        has the rule. Without it, the `data ignore value` of an ENVI header.
    mask : array_like of bool, shape (rows, columns), optional
        True for pixels without data.
    bands : str, array_like of int or bool, optional
        The bands to use: numbers from 0, True or False for each, or text such as "0-95,110-", "450-900nm",
        "drop 1340-1460nm,1790-1960nm" or "all". Without it, or with "drop" alone, bands that the file says are bad, and
        those that hold nothing but zeros, NaN or the no-data value, are left out, which `Cube.description` says.

    Returns
    -------
    Cube
        In memory: its `data` are float32, values as in the file, with the gains, offsets and scale factor that it
        says: of HDF5 files the attributes of CF, NEON and PRISMA (`spectrafuse.io.attributes`).

    Raises
    ------
    DataError
        Whatever is wrong with the file or its contents, in one sentence with the path.

    Warns
    -----
    UserWarning
        Wavelengths whose number is not that of the bands.
    """
    with open_cube(
        path, key=key, layout=layout, rows=rows, columns=columns, nodata=nodata, mask=mask, bands=bands
    ) as opened:
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
    bands: Any = None,
    zeros: str = "check",
) -> Cube:
    """Open a hyperspectral scene to read it window by window.

    The scene is checked once, in a pass by blocks of rows, and never held as a whole where its format allows that:
    numbers that lie in the file as they are (ENVI, `.npy`, `.npz` without compression, `.mat` of version 6, and of 7.3
    without chunks) are read when they are asked for; cubes in chunks (`.mat` of version 7.3, HDF5) by the chunks that a
    window touches, of which up to 128 MiB stay decoded. Compressed `.mat` files of version 7 and compressed `.npz`
    files can only be decoded from their beginning, and a matrix of pixels in chunks has each window in all of them:
    these are read once, as a whole.

    Parameters
    ----------
    path, key, layout, rows, columns, nodata, mask, bands
        As in `read_cube`.
    zeros : {"check", "accept"}
        "check": bands that hold nothing are left out, and a scene of zeros is an error. "accept": neither.

    Raises
    ------
    DataError
        As `read_cube`.

    Examples
    --------
    >>> import numpy as np
    >>> from spectrafuse.io import open_cube
    >>> np.save("scene.npy", np.random.default_rng(0).random((12, 30, 40)))
    >>> with open_cube("scene.npy", layout="chw") as scene:
    ...     window = scene[:, 10:20]
    >>> scene.shape, window.shape
    ((12, 30, 40), (12, 10, 40))
    """
    arguments.choice("layout", layout, LAYOUTS)
    rows = rows if rows is None else arguments.integer("rows", rows)
    columns = columns if columns is None else arguments.integer("columns", columns)
    value = as_nodata(nodata)
    raster = find_raster(path)
    if raster is not None or is_envi(path):
        kind = "an ENVI image" if raster is None else "an image"
        if key is not None:
            raise DataError(f"'{path}' is {kind} without variables, so leave {scene_option('key', key)} out.")
        if layout not in ("auto", "chw"):
            raise DataError(f"'{path}' is {kind}, which says its layout; leave {scene_option('layout', layout)} out.")
        if raster is not None:
            return _raster_cube(str(path), raster, rows, columns, value, mask, zeros, bands)
        return image_cube(str(path), open_envi(path), rows, columns, value, mask, zeros, bands)
    file = Path(path)
    if file.suffix.lower() not in ARRAY_SUFFIXES and signature(file) is None and file.is_file():
        what = converter(file)
        if what is not None:
            raise DataError(f"'{path}' is {what}.")
    source = open_arrays(path, also=(HEADER_SUFFIX, ".tif"))
    found_rows, found_columns = find_size(source, rows, columns)
    axes = find_axes(source)
    name = _find(source, found_rows, found_columns, axes) if key is None else source.require(key)
    facts = source.facts(name)
    if len(source.entries[name].shape) == 2:
        rows, columns = found_rows, found_columns
    label = source.label(name)
    mapped = source.map(name)
    own = {} if facts.axis is None else {"an attribute": facts.axis}
    axes = own | dict(sorted(axes.items(), key=lambda item: -_in_common(item[0], name)))
    whole = as_numeric(label, source.load(name)) if mapped is None else mapped
    dims, notes = facts.dims, facts.notes
    if len(whole.shape) > 3 and (kept := _folded(whole.shape)) is not None:
        whole = whole.reshape([whole.shape[axis] for axis in kept])
        dims = tuple(dims[axis] for axis in kept) if dims else ()
        notes += (f"of the shape {source.entries[name].shape}, without axes of length 1",)
    numbers, words = bands_first(
        label,
        whole,
        layout,
        order=source.order(name),
        rows=rows,
        columns=columns,
        axis_lengths=[axis.size for axis in axes.values()],
        dims=dims,
    )
    stored: Any = numbers
    count = stored.shape[0]
    axis = _matching(label, axes, count)
    light = None if axis is None else axes[axis]
    unit = facts.axis_unit if axis in own else None if axis is None else source.facts(axis).unit
    if facts.limits is not None:
        low, high = facts.limits
        filled = facts.nodata if facts.nodata is not None else low - 1 if np.isfinite(low) else high + 1
        stored, value = Limited(stored, facts.limits, filled), filled if value is None else value
        notes += (f"numbers outside {low:g} to {high:g} (valid_range) are no data",)
    opened = checked_cube(
        label,
        stored,
        nodata=facts.nodata if value is None else value,
        mask=mask,
        zeros=zeros,
        bands=bands,
        bad=_bad_bands(
            source, facts, None if axis is None else nanometers(axes[axis], unit_of(axes[axis], unit)), count
        ),
        bad_by="its attributes",
        wavelengths=light,
        wavelength_unit=unit,
        scale=facts.scale,
        gains=None if facts.gain == 1 else np.full(count, facts.gain),
        offsets=None if facts.offset == 0 else np.full(count, facts.offset),
        notes=notes,
        place=source.place(),
        source=str(path),
        key=name or None,
        layout=words,
        file_backed=mapped is not None,
        data_path=str(path),
    )
    return opened.held() if mapped is None else opened


def _folded(shape: tuple[int, ...]) -> list[int] | None:
    """The three axes of an array that are longer than 1; None where there are more or fewer."""
    axes = [axis for axis, length in enumerate(shape) if length != 1]
    return axes if len(axes) == 3 else None


def _in_common(name: str, other: str) -> int:
    """Groups that two variables lie in together."""
    pairs = zip(re.split(r"[./]", name), re.split(r"[./]", other), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _bad_bands(source: ArrayFile, facts: Facts, light: np.ndarray | None, count: int) -> np.ndarray:
    """Bands that attributes of a variable, or a variable beside it, mark as bad; those without a wavelength.

    `light` are the wavelengths in nanometers.
    """
    marks = facts.good_bands
    if marks is None:
        named = [k for k in source.numeric(1, 2) if last_part(k).lower() in GOOD_BANDS]
        marks = source.load(named[0]).reshape(-1) if len(named) == 1 else None
    bad = np.zeros(count, dtype=bool)
    if marks is not None and len(marks) == count and np.isin(marks, (0, 1)).all():
        bad |= marks == 0
    if facts.axis is not None and len(facts.axis) == count:
        bad |= facts.axis == 0
    if light is not None:
        for low, high in facts.bad_windows:
            bad |= (light >= low) & (light <= high)
    return np.flatnonzero(bad)


def _raster_cube(
    path: str,
    raster: Raster,
    rows: int | None,
    columns: int | None,
    nodata: float | None,
    mask: Any,
    zeros: str,
    bands: Any,
) -> Cube:
    """A scene from a file that GDAL reads; parameters as of `open_cube`."""
    stored, facts = raster_facts(raster)
    _check_asked(path, stored.shape, rows, columns)
    own, hidden = facts.pop("nodata"), facts.pop("hidden")
    given = as_mask(f"'{path}'", mask, stored.shape[1:])
    cube = checked_cube(
        f"'{raster.path}'",
        stored,
        nodata=own if nodata is None else nodata,
        mask=hidden if given is None else given if hidden is None else given | hidden,
        zeros=zeros,
        bands=bands,
        source=path,
        file_backed=True,
        data_path=str(raster.path),
        **facts,
    )
    # The blocks that the check went through need not stay in memory.
    cube.close()
    return cube


def _check_asked(path: str, shape: tuple[int, int, int], rows: int | None, columns: int | None) -> None:
    for name, asked, got in (("rows", rows, shape[1]), ("columns", columns, shape[2])):
        if asked is not None and asked != got:
            raise DataError(f"'{path}' has {got} {name}, not {asked}.")


def image_cube(
    path: str,
    image: EnviImage,
    rows: int | None,
    columns: int | None,
    nodata: float | None,
    mask: Any,
    zeros: str,
    bands: Any,
) -> Cube:
    """A scene from an ENVI image; parameters as of `open_cube`."""
    _check_asked(path, image.shape, rows, columns)
    if "classification" in image.kind.lower() and image.shape[0] == 1:
        raise DataError(f"'{path}' is a map of classes, not a scene; give the scene that it was made from.")
    return checked_cube(
        f"'{image.data}'",
        image.map(),
        nodata=image.nodata if nodata is None else nodata,
        mask=mask,
        zeros=zeros,
        bands=bands,
        bad=image.bad_bands,
        scale=image.scale,
        gains=image.gains,
        offsets=image.offsets,
        notes=image.notes,
        place=image.place,
        wavelengths=image.wavelengths,
        wavelength_unit=image.wavelength_unit,
        source=str(path),
        layout=image.words,
        file_backed=True,
        data_path=str(image.data),
    )


# Pictures that programs store beside a scene.
_PICTURE = re.compile(r"preview|thumbnail|quicklook|browse", re.IGNORECASE)


def _find(source: ArrayFile, rows: int | None, columns: int | None, axes: dict[str, np.ndarray]) -> str:
    if source.format == "npy":
        return ""
    flat = [k for k in source.numeric(4, 5) if _folded(source.entries[k].shape) is not None]
    cubes = [k for k in (*source.numeric(3), *flat) if last_part(k) not in _ABUNDANCE_NAMES and not _PICTURE.search(k)]
    pixels = None if rows is None or columns is None else rows * columns
    matrices = [k for k in source.numeric(2) if pixels in source.entries[k].shape]
    if _CUBE_NAME in cubes:
        return _CUBE_NAME
    if pixels is not None and _MATRIX_NAME in source.numeric(2):
        return _MATRIX_NAME
    lengths = {axis.size for axis in axes.values()}
    with_axis = [k for k in cubes if lengths & set(source.entries[k].shape)]
    for candidates in (cubes, with_axis, matrices):
        if len(candidates) == 1:
            return candidates[0]
    several = "several arrays that can be a cube" if cubes or matrices else "no array that is clearly a cube"
    hint = "" if cubes else f" A matrix (bands, pixels) needs {size_options()} as well."
    raise DataError(f"'{source.path}' has {several}; choose one with {scene_option('key')}: {source.listing()}.{hint}")


def _matching(label: str, axes: dict[str, np.ndarray], bands: int) -> str | None:
    """The first axis of the right length."""
    for name, values in axes.items():
        if values.size == bands:
            return name
    if axes:
        listed = ", ".join(f"{name} ({values.size})" for name, values in axes.items())
        warnings.warn(
            f"{label} has {bands} bands, which is not the length of {listed}: read without wavelengths.",
            UserWarning,
            stacklevel=3,
        )
    return None
