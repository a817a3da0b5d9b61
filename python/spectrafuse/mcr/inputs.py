"""Spectra as they are given to an estimator: what is taken, what is refused, and the type that goes back."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.io.cubes import Cube
from spectrafuse.io.errors import DataError
from spectrafuse.io.grids import grid_of_scene, unfolded
from spectrafuse.io.validate import check_spectra

Spectra = str | os.PathLike[str] | np.ndarray | Tensor | Cube
"""What `fit` and `transform` take: a file, an array or tensor (n, d), a scene; also a data frame or nested lists."""


def read(X: Any, *, zeros: str, name: str = "X") -> NDArray[np.float32]:
    """Checked spectra (n, d) that torch may share.

    Parameters
    ----------
    X : path, array_like or Tensor, (n, d)
        Objects count if every one of them is a number.
    zeros : {"check", "accept"}
        As for `check_spectra`.
    name : str
        What messages call them.

    Raises
    ------
    DataError
        If they cannot be used: NaN, infinity, complex numbers, a wrong shape, an unreadable file.
    TypeError
        If they are sparse, or objects that are not numbers.
    """
    if isinstance(X, (str, os.PathLike)):
        from spectrafuse.io.spectra import read_spectra

        checked = check_spectra(str(X), read_spectra(X).data, zeros=zeros)
    elif isinstance(X, Cube):
        checked = check_spectra(name, unfolded(X), zeros=zeros)
    else:
        checked = check_spectra(name, _as_table(name, X), zeros=zeros)
    # A read-only array, such as a memory map, cannot become a tensor without a warning.
    return checked if checked.flags.writeable else checked.copy()


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


def folded(X: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Values (n, k) of spectra as they are, of a scene as maps (k, rows, columns) with NaN where it has no data."""
    return grid_of_scene(X).maps(values) if isinstance(X, Cube) else values


def result_dtype(X: Any) -> type[np.float32] | type[np.float64]:
    """float64 for float64 (lists and data frames of it too), else float32, in which the model computes."""
    if isinstance(X, (str, os.PathLike)):
        return np.float32
    dtype = X.dtype if hasattr(X, "dtype") else np.asarray(X).dtype
    return np.float64 if dtype in (torch.float64, np.dtype(np.float64)) else np.float32
