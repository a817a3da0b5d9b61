"""Arrays of xarray with spectra along one dimension: spectra out of them, and values back into the other dimensions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import kind_of_dim


class Labeled(NamedTuple):
    """A DataArray, spectra along one of its dimensions.

    Attributes
    ----------
    array : xarray.DataArray
    bands : str
        The dimension of the bands.
    kept : ndarray of bool, (n,)
        Places, the others dimensions unfolded, that hold any value.
    """

    array: Any
    bands: str
    kept: np.ndarray

    @property
    def spectra(self) -> np.ndarray:
        """Spectra (n, d) of the places that hold any value."""
        return _unfolded(self.array, self.bands)[self.kept]

    def folded(self, values: np.ndarray, name: str = "component") -> Any:
        """Values (n, k) as a DataArray (..., component) with the places' dimensions and coordinates; NaN elsewhere."""
        others = [dim for dim in self.array.dims if dim != self.bands]
        first = self.array.isel({self.bands: 0}, drop=True)
        whole = np.full((len(self.kept), values.shape[1]), np.nan, values.dtype)
        whole[self.kept] = values
        shape = (*(self.array.sizes[dim] for dim in others), values.shape[1])
        return type(self.array)(whole.reshape(shape), dims=(*others, name), coords=first.coords, name="concentration")


def labeled(name: str, given: Any) -> Labeled | None:
    """What a DataArray of xarray holds; None of anything else.

    Raises
    ------
    DataError
        If it has no dimension besides that of the bands.
    """
    if type(given).__module__.split(".")[0] != "xarray" or not hasattr(given, "dims"):
        return None
    dims = list(given.dims)
    if not hasattr(given, "values") or callable(given.values) or len(dims) < 2:
        raise DataError(f"`{name}` must be a DataArray with a dimension of bands and one or more others; got {dims}.")
    named = [dim for dim in dims if kind_of_dim(str(dim)) == "bands"]
    bands = named[0] if len(named) == 1 else dims[-1]
    return Labeled(given, bands, ~np.isnan(_unfolded(given, bands)).all(1))


def _unfolded(array: Any, bands: str) -> np.ndarray:
    others = [dim for dim in array.dims if dim != bands]
    values = np.asarray(array.transpose(*others, bands).values)
    return values.reshape(-1, values.shape[-1])
