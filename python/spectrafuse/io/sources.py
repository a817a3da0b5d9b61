"""Scenes that are read window by window: from a file, or from an array with pixels that hold no data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.nodata import as_mask, as_nodata, survey
from spectrafuse.io.validate import as_numeric, called


@dataclass(frozen=True, eq=False)
class CubeSource:
    """A checked scene (bands, rows, columns) that is read window by window.

    It can be sliced like an array: `source[:, 10:20]`, `source[..., 10:20, :]`, `source[:, 10:20, 5:9]` are float32
    arrays, newly read. In them pixels without data are zero in every band. A file stays open (or mapped, without
    holding what was read) until `close` or the end of a `with` block; windows can be read from several threads, after a
    fork, and when unpickled.

    Attributes
    ----------
    shape : tuple of int
        Bands, rows, columns.
    valid : ndarray of bool, shape (H, W), or None
        True where there are data, by the rule of `spectrafuse.io.nodata`; None where all pixels have data.
    wavelengths, wavelength_unit, source, key, layout
        As in `spectrafuse.io.cubes.Cube`.
    file_backed : bool
        Whether windows are read from the file: False where its format must be read as a whole.
    """

    shape: tuple[int, int, int]
    valid: np.ndarray | None
    stored: Any
    """The stored numbers, array-like (C, H, W)."""
    wavelengths: np.ndarray | None = None
    wavelength_unit: str | None = None
    source: str = ""
    key: str | None = None
    layout: str = ""
    file_backed: bool = False
    data_path: str = ""
    scale: float = 1.0
    dead_bands: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes of the file with the numbers; empty for an array."""
        return sha256(self.data_path) if self.data_path else ""

    @property
    def ndim(self) -> int:
        """3."""
        return 3

    @property
    def mapped(self) -> MappedArray | None:
        """The numbers in the file, where those of the scene are these, but for `scale`; else None."""
        plain = isinstance(self.stored, MappedArray) and self.valid is None and not len(self.dead_bands)
        return self.stored if plain else None

    @property
    def nbytes(self) -> int:
        """Bytes of the whole scene as float32."""
        bands, height, width = self.shape
        return 4 * bands * height * width

    def read_window(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Rows y0 to y1 and columns x0 to x1 (ends excluded) of all bands.

        Returns
        -------
        ndarray, shape (C, y1 - y0, x1 - x0), float32, C-contiguous
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
            raise InvalidValueError(
                f"The window {(y0, y1, x0, x1)} is not inside the {height} rows and {width} columns."
            )
        return self._read(slice(None), slice(y0, y1), slice(x0, x1))

    def _read(self, bands: slice, rows: slice, columns: slice) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(self.stored, MappedArray):
                values = self.stored.read((bands, rows, columns), np.float32)
            else:
                values = np.array(self.stored[bands, rows, columns], dtype=np.float32, order="C")
        if self.scale != 1:
            values /= np.float32(self.scale)
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

    def held(self) -> CubeSource:
        """The same scene with all its numbers in memory."""
        values = self.read_rows(0, self.shape[1])
        none = np.zeros(0, dtype=np.int64)
        return replace(self, stored=values, file_backed=False, scale=1.0, dead_bands=none)

    def close(self) -> None:
        """Close the file; it is opened again if a window is read after all."""
        if self.file_backed:
            self.stored.close()

    def __enter__(self) -> CubeSource:
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
            raise InvalidTypeError(f"A scene in a file is sliced by ranges of bands, rows and columns; got {index!r}.")
        places = (part.indices(n)[:2] for part, n in zip(parts, self.shape, strict=True))
        bands, rows, columns = (slice(start, max(start, stop)) for start, stop in places)
        return self._read(bands, rows, columns)


def checked_source(
    name: str,
    stored: Any,
    *,
    nodata: float | None,
    mask: Any,
    zeros: str,
    scale: float = 1.0,
    **facts: Any,
) -> CubeSource:
    """A source from stored numbers, surveyed once.

    Parameters
    ----------
    name : str
        What messages call the scene.
    stored : array_like, shape (C, H, W)
        The stored numbers.
    nodata, mask, zeros
        As in `spectrafuse.io.nodata.survey`; `nodata` in stored numbers, before `scale` is applied.
    facts
        Other attributes of `CubeSource`.
    """
    if stored.ndim != 3:
        raise DataError(f"{called(name)} must be a cube (bands, rows, columns); got shape {tuple(stored.shape)}.")
    hidden = as_mask(name, mask, tuple(stored.shape[1:]))
    found = survey(name, stored, nodata=as_nodata(nodata), mask=hidden, zeros=zeros)
    shape = tuple(int(n) for n in stored.shape)
    return CubeSource(shape, found.valid, stored, scale=scale, dead_bands=found.dead_bands, **facts)  # type: ignore[arg-type]


def array_source(name: str, array: Any, *, nodata: float | None = None, mask: Any = None, zeros: str) -> CubeSource:
    """A source from an array or tensor (C, H, W) in memory; a `numpy.ma` array brings its own mask.

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
    return checked_source(name, values, nodata=nodata, mask=mask, zeros=zeros)
