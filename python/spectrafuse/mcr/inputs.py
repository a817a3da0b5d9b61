"""Spectra as they are given to an estimator: what is taken, what is refused, and the type that goes back."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.io.arrays import open_arrays
from spectrafuse.io.cubes import Cube
from spectrafuse.io.errors import DataError, ReadingNote
from spectrafuse.io.grids import grid_of_scene, unfolded
from spectrafuse.io.labeled import labeled
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.spectra import Spectra as SpectraFile
from spectrafuse.io.spectra import read_spectra
from spectrafuse.io.spectral_axis import SpectralAxis, matching_bands, spectral_axis
from spectrafuse.io.validate import check_spectra, report_not_finite, report_zeros

MAPPED_BYTES = 64 << 20
"""Larger tables that are mapped from a file stay there."""
_BLOCK_ROWS, _SCATTERED_ROWS = 2**14, 2**10

Spectra = str | os.PathLike[str] | np.ndarray | Tensor | Cube | SpectraFile
"""What `fit` and `transform` take: a file, what `read_spectra` made of one, an array or tensor (n, d), a scene; also a
data frame or nested lists."""


WITHOUT_NAMES = (str, os.PathLike, Cube, SpectraFile)
"""What holds spectra whose bands have no names that scikit-learn would compare."""


class Table(Protocol):
    """Spectra (n, d) of which rows can be taken: an array, or `MappedSpectra`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


class MappedSpectra:
    """Spectra (n, d) that stay in a file; rows are read as they are taken, as float32, and nothing of it is kept.

    Parameters
    ----------
    values : MappedArray or memmap, (n, d)
        Of real numbers, C-contiguous.
    weights : ndarray, (d,), optional
        Factors of the bands.
    """

    def __init__(self, values: MappedArray | np.memmap[Any, Any], weights: NDArray[np.float64] | None = None) -> None:
        self._values, self._weights = values, weights
        self.shape, self.size = values.shape, math.prod(values.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        if isinstance(rows, slice) and rows.step in (None, 1):
            return self._as_float32(self._values[rows])
        which = np.arange(len(self))[rows]
        taken = np.empty((len(which), self.shape[1]), np.float32)
        for start in range(0, len(which), _SCATTERED_ROWS):
            part = which[start : start + _SCATTERED_ROWS]
            stored = self._values.rows(part) if isinstance(self._values, MappedArray) else self._values[part]
            taken[start : start + _SCATTERED_ROWS] = self._as_float32(stored)
        return taken

    def _as_float32(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        taken = np.array(stored if self._weights is None else stored * self._weights)
        with np.errstate(over="ignore"):
            return taken.astype(np.float32, order="C", copy=False)

    def weighted(self, weights: NDArray[np.float64]) -> MappedSpectra:
        """The same spectra with bands multiplied by factors (d,)."""
        return MappedSpectra(self._values, weights)

    def of_rows(self, start: int, stop: int) -> MappedSpectra:
        """Some of the spectra, one after another, left where they are."""
        rows = slice(start, stop)
        values: Any = self._values.part((rows,)) if isinstance(self._values, MappedArray) else self._values[rows]
        return MappedSpectra(values, self._weights)

    def check(self, name: str, zeros: str, gaps: bool) -> None:
        """What `check_spectra` does, block by block."""
        empty = np.ones(self.shape[1], bool)
        for rows, block in blocks(self):
            bad = np.isinf(block) if gaps else ~np.isfinite(block)
            if bad.any():
                row, band = (int(i) for i in np.argwhere(bad)[0])
                count = int(bad.sum()) + sum(
                    int((~np.isfinite(later)).sum()) for after, later in blocks(self) if after.start > rows.start
                )
                position = rows.start + row, band
                value = self._values[position[0] : position[0] + 1][0, band]
                report_not_finite(name, count, position, value, ("spectrum", "band"))
            empty &= ~block.any(0)
        if zeros == "check":
            report_zeros(name, np.flatnonzero(empty), self.shape[1], cube=False)


def blocks(spectra: Table) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Spectra (n, d), so many rows at a time that they need little memory."""
    for start in range(0, len(spectra), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        yield rows, spectra[rows]


def own_share(spectra: Table) -> tuple[slice, Table]:
    """Which of the spectra are this process's in a group, and these; all without one."""
    own = ranks.share(len(spectra))
    if not ranks.together():
        return slice(0, len(spectra)), spectra
    part = spectra.of_rows(own.start, own.stop) if isinstance(spectra, MappedSpectra) else spectra[own.start : own.stop]
    return slice(own.start, own.stop), part


def opened(X: Any, *, zeros: str, gaps: bool = False) -> Any:
    """What a file holds, where X is the path of one that does not stay there; else X itself.

    Warns
    -----
    ReadingNote
        How a file that is fitted was read.
    """
    if not isinstance(X, (str, os.PathLike)) or _mapped(X) is not None:
        return X
    found = read_spectra(X, drop_missing="values" if gaps else None)
    if zeros == "check":
        warnings.warn(found.reading, ReadingNote, stacklevel=4)
    return found


def bands_of_model(X: Any, count: int, model: SpectralAxis | None) -> NDArray[np.int64]:
    """Of `count` bands those that lie where a model has its own, in its order; all where nothing says where they lie.

    Raises
    ------
    DataError
        If the model has a band that X lacks.
    """
    own = None if model is None else axis_of(X)
    if model is None or own is None or len(own.values) != count:
        return np.arange(count)
    return matching_bands(model, own, f"'{X.source}'" if X.source else "`X`")


def axis_of(X: Any) -> SpectralAxis | None:
    """Where the bands of spectra lie, as far as what holds them says so."""
    if isinstance(X, Cube):
        return spectral_axis(X.wavelengths, X.unit or X.wavelength_unit)
    return spectral_axis(X.axis, X.axis_unit) if isinstance(X, SpectraFile) else None


def open_rows(X: Any, *, zeros: str, gaps: bool = False) -> NDArray[np.float32] | MappedSpectra:
    """`read`, except that a large map, or a large NumPy file, stays where it is."""
    mapped = _mapped(X)
    if mapped is None:
        return read(X, zeros=zeros, gaps=gaps)
    mapped.check(f"'{X}'" if isinstance(X, (str, os.PathLike)) else "X", zeros, gaps)
    return mapped


def has_gaps(spectra: Table) -> bool:
    """Whether values are missing."""
    return any(np.isnan(block).any() for _, block in blocks(spectra))


def read(X: Any, *, zeros: str, name: str = "X", gaps: bool = False) -> NDArray[np.float32]:
    """Checked spectra (n, d) that torch may share.

    Parameters
    ----------
    X : path, array_like or Tensor, (n, d)
        Objects count if every one of them is a number.
    zeros : {"check", "accept"}
        As for `check_spectra`.
    name : str
        What messages call them.
    gaps : bool
        NaN stands for a value that is missing, and is no error.

    Raises
    ------
    DataError
        If they cannot be used: NaN, infinity, complex numbers, a wrong shape, an unreadable file.
    TypeError
        If they are sparse, or objects that are not numbers.

    Warns
    -----
    ReadingNote
        How a file that is fitted was read.
    """
    X = opened(X, zeros=zeros, gaps=gaps)
    if isinstance(X, SpectraFile):
        checked = check_spectra(X.source, X.data, zeros=zeros, gaps=gaps)
    elif (named := labeled(name, X)) is not None:
        checked = check_spectra(name, named.spectra, zeros=zeros, gaps=gaps)
    elif isinstance(X, Cube):
        checked = check_spectra(name, unfolded(X), zeros=zeros, gaps=gaps)
    else:
        checked = check_spectra(name, _as_table(name, X), zeros=zeros, gaps=gaps)
    # A read-only array, such as a memory map, cannot become a tensor without a warning.
    return checked if checked.flags.writeable else checked.copy()


def _mapped(X: Any) -> MappedSpectra | None:
    """Spectra that stay in their file: a large map, or the path of a large NumPy file."""
    values = X
    if isinstance(X, (str, os.PathLike)):
        try:
            large = str(X).endswith(".npy") and os.path.getsize(X) > MAPPED_BYTES
            values = open_arrays(X).map("") if large else None
        except (OSError, DataError):
            return None  # which reading it as a whole reports
    if not isinstance(values, (MappedArray, np.memmap)) or values.ndim != 2 or values.dtype.kind not in "iuf":
        return None
    rows_lie_together = values.strides == (values.shape[1] * values.dtype.itemsize, values.dtype.itemsize)
    if values.nbytes <= MAPPED_BYTES or not rows_lie_together:
        return None
    return MappedSpectra((MappedArray.of_map(values) or values) if isinstance(values, np.memmap) else values)


def _as_table(name: str, X: Any) -> Any:
    """Refuse what is no table of real numbers, in the words that scikit-learn's users know."""
    from scipy.sparse import issparse

    if issparse(X):
        raise InvalidTypeError(f"Sparse data was passed as `{name}`, but spectra must be dense: give {name}.toarray().")
    values: Any = X
    if not isinstance(X, Tensor):
        try:
            values = np.asarray(X)
        except (ValueError, TypeError, OverflowError):
            return X  # for example ragged lists, which `check_spectra` reports
    is_complex = values.is_complex() if isinstance(values, Tensor) else values.dtype.kind == "c"
    if is_complex:
        raise DataError(f"Complex data not supported: `{name}` has dtype {values.dtype}.")
    if values.ndim == 1:
        raise DataError(
            f"`{name}` must be a table of spectra (spectra, bands); got shape {tuple(values.shape)}. "
            "Reshape your data: reshape(1, -1) makes one spectrum of it, reshape(-1, 1) one band."
        )
    if values.ndim == 2 and values.shape[1] == 0:
        raise DataError(f"`{name}` has 0 feature(s) (shape={tuple(values.shape)}) while a minimum of 1 is required.")
    if isinstance(values, np.ndarray) and values.dtype == object:
        try:
            return values.astype(np.float64)
        except TypeError as error:
            raise InvalidTypeError(f"`{name}` must hold numbers: {error}.") from error
        except (ValueError, OverflowError) as error:
            raise DataError(f"`{name}` must hold numbers: {error}.") from error
    return values


def is_unfolded(X: Any) -> bool:
    """Whether spectra are read out of it: of a file, a scene, or an array of xarray."""
    return isinstance(X, WITHOUT_NAMES) or labeled("X", X) is not None


def folded(X: Any, values: NDArray[Any]) -> Any:
    """Values (n, k) of spectra as they are, of a scene as maps (k, rows, columns) with NaN where it has no data;
    of an array of xarray as one with its other dimensions and `component`.
    """
    named = labeled("X", X)
    if named is not None:
        return named.folded(values)
    return grid_of_scene(X).maps(values) if isinstance(X, Cube) else values


def result_dtype(X: Any) -> type[np.float32] | type[np.float64]:
    """float64 for float64 (lists and data frames of it too), else float32, in which the model computes."""
    if isinstance(X, (str, os.PathLike, SpectraFile)):
        return np.float32
    dtype = X.dtype if hasattr(X, "dtype") else np.asarray(X).dtype
    return np.float64 if dtype in (torch.float64, np.dtype(np.float64)) else np.float32
