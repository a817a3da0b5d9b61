"""Spectra as they are given to an estimator: what is taken, what is refused, and the type that goes back."""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.io.cubes import Cube
from spectrafuse.io.errors import DataError, ReadingNote
from spectrafuse.io.grids import grid_of_scene, unfolded
from spectrafuse.io.labeled import labeled
from spectrafuse.io.validate import check_spectra, report_not_finite, report_zeros

MAPPED_BYTES = 64 << 20
"""Larger tables that are mapped from a file stay there."""
_BLOCK_ROWS, _SCATTERED_ROWS = 2**14, 64

Spectra = str | os.PathLike[str] | np.ndarray | Tensor | Cube
"""What `fit` and `transform` take: a file, an array or tensor (n, d), a scene; also a data frame or nested lists."""


class Table(Protocol):
    """Spectra (n, d) of which rows can be taken: an array, or `MappedSpectra`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> NDArray[Any]: ...


class MappedSpectra:
    """Spectra (n, d) that stay in a file; rows are read as they are taken, as float32, and no page of it is kept.

    Parameters
    ----------
    values : memmap, (n, d)
        Of real numbers, C-contiguous.
    weights : ndarray, (d,), optional
        Factors of the bands.
    """

    def __init__(self, values: np.memmap[Any, Any], weights: NDArray[np.float64] | None = None) -> None:
        self._values, self._weights = values, weights
        self.shape, self.size = values.shape, values.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        if isinstance(rows, slice) and rows.step in (None, 1):
            return self._taken(rows)
        # Rows far apart: each may bring in what lies around it.
        which = np.arange(len(self))[rows]
        taken = np.empty((len(which), self.shape[1]), np.float32)
        for start in range(0, len(which), _SCATTERED_ROWS):
            taken[start : start + _SCATTERED_ROWS] = self._taken(which[start : start + _SCATTERED_ROWS])
        return taken

    def _taken(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        taken = np.array(self._values[rows] if self._weights is None else self._values[rows] * self._weights)
        # Pages of a file that was opened to be written to may not have been written yet.
        if self._values.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
            self._values._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        with np.errstate(over="ignore"):
            return taken.astype(np.float32, order="C", copy=False)

    def weighted(self, weights: NDArray[np.float64]) -> MappedSpectra:
        """The same spectra with bands multiplied by factors (d,)."""
        return MappedSpectra(self._values, weights)

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
                report_not_finite(name, count, position, self._values[position], ("spectrum", "band"))
            empty &= ~block.any(0)
        if zeros == "check":
            report_zeros(name, np.flatnonzero(empty), self.shape[1], cube=False)


def blocks(spectra: Table) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Spectra (n, d), so many rows at a time that they need little memory."""
    for start in range(0, len(spectra), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        yield rows, spectra[rows]


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
    if isinstance(X, (str, os.PathLike)):
        from spectrafuse.io.spectra import read_spectra

        found = read_spectra(X, drop_missing="values" if gaps else None)
        if zeros == "check":
            warnings.warn(found.reading, ReadingNote, stacklevel=4)
        checked = check_spectra(str(X), found.data, zeros=zeros, gaps=gaps)
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
    if isinstance(X, (str, os.PathLike)):
        try:
            large = str(X).endswith(".npy") and os.path.getsize(X) > MAPPED_BYTES
            X = np.load(X, mmap_mode="r") if large else None
        except (OSError, ValueError):
            return None  # which reading it as a whole reports
    fits = isinstance(X, np.memmap) and X.ndim == 2 and X.dtype.kind in "iuf" and X.flags.c_contiguous
    return MappedSpectra(X) if fits and X.nbytes > MAPPED_BYTES else None


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
    return isinstance(X, (str, os.PathLike, Cube)) or labeled("X", X) is not None


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
    if isinstance(X, (str, os.PathLike)):
        return np.float32
    dtype = X.dtype if hasattr(X, "dtype") else np.asarray(X).dtype
    return np.float64 if dtype in (torch.float64, np.dtype(np.float64)) else np.float32
