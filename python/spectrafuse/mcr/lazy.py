"""Concentrations of spectra in chunks of Dask, found when they are asked for, by whatever scheduler computes them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrafuse.io.errors import DataError
from spectrafuse.io.labeled import Labeled, is_xarray, labeled


def in_chunks_of_dask(X: Any) -> bool:
    """Whether spectra are a dask array, or a DataArray of xarray that holds one."""
    held = X.data if is_xarray(X) and not hasattr(X, "data_vars") else X
    return type(held).__module__.partition(".")[0] == "dask" and hasattr(held, "chunks")


def lazy_concentrations(estimator: Any, X: Any, dtype: Any) -> Any:
    """`EBgMCR.transform` of spectra in chunks: of a dask array (n, d) one (n, k), of a DataArray one with `component`.

    Raises
    ------
    DataError
        If there are other than the bands of the model.
    """
    count = len(estimator.components_)
    named: Labeled | None = labeled("X", X)
    array = X if named is None else named.array.transpose(..., named.bands).data
    if array.ndim < 2 or array.shape[-1] != estimator.n_features_in_:
        raise DataError(f"`X` must have {estimator.n_features_in_} bands like the model; got shape {array.shape}.")
    whole = array.rechunk({array.ndim - 1: -1})
    task = partial(_of_chunk, estimator, dtype=dtype)
    found = whole.map_blocks(task, dtype=dtype, chunks=(*whole.chunks[:-1], (count,)), meta=np.empty((0, 0), dtype))
    return found if named is None else named.like(found)


def _of_chunk(estimator: Any, chunk: NDArray[Any], *, dtype: Any) -> NDArray[Any]:
    """Concentrations (..., k) of a chunk (..., d); NaN where a spectrum has no value."""
    spectra = chunk.reshape(-1, chunk.shape[-1])
    kept = ~np.isnan(spectra).all(1)
    out = np.full((len(spectra), len(estimator.components_)), np.nan, dtype)
    if kept.any():
        out[kept] = estimator.transform(spectra[kept])
    return out.reshape(*chunk.shape[:-1], -1)
