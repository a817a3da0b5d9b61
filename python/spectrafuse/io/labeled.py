"""Arrays of xarray with spectra along one dimension: spectra out of them, and values back into the other dimensions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from spectrafuse.io.atomic import atomic_folder
from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import kind_of_dim, layout_of_dims


class Labeled(NamedTuple):
    """A DataArray, spectra along one of its dimensions.

    Attributes
    ----------
    array : xarray.DataArray
    bands : str
        The dimension of the bands.
    """

    array: Any
    bands: str

    @property
    def kept(self) -> np.ndarray:
        """Places (n,) bool, the other dimensions unfolded, that hold any value."""
        kept: np.ndarray = ~np.isnan(_unfolded(self.array, self.bands)).all(1)
        return kept

    @property
    def spectra(self) -> np.ndarray:
        """Spectra (n, d) of the places that hold any value."""
        return _unfolded(self.array, self.bands)[self.kept]

    def folded(self, values: np.ndarray, name: str = "component") -> Any:
        """Values (n, k) as a DataArray (..., component) with the places' dimensions and coordinates; NaN elsewhere."""
        kept = self.kept
        whole = np.full((len(kept), values.shape[1]), np.nan, values.dtype)
        whole[kept] = values
        sizes = (size for dim, size in self.array.sizes.items() if dim != self.bands)
        return self.like(whole.reshape(*sizes, values.shape[1]), name)

    def like(self, values: Any, name: str = "component") -> Any:
        """Values (..., k) at the places, the other dimensions in their order, as a DataArray with their coordinates."""
        others = [dim for dim in self.array.dims if dim != self.bands]
        first = self.array.isel({self.bands: 0}, drop=True)
        return type(self.array)(values, dims=(*others, name), coords=first.coords, name="concentration")


def labeled(name: str, given: Any) -> Labeled | None:
    """What a DataArray of xarray holds; None of anything else.

    Raises
    ------
    DataError
        If it has no dimension besides that of the bands, holds nothing, or something else than real numbers.
    """
    if not is_xarray(given):
        return None
    dims = list(given.dims)
    if hasattr(given, "data_vars") or len(dims) < 2:
        raise DataError(f"`{name}` must be a DataArray with a dimension of bands and one or more others; got {dims}.")
    if given.dtype.kind not in "iuf" or 0 in given.shape:
        raise DataError(
            f"`{name}` must hold real numbers, integer or floating, and at least one along each dimension; got dtype "
            f"{given.dtype} and shape {given.shape}."
        )
    named = [dim for dim in dims if kind_of_dim(str(dim)) == "bands"]
    bands = named[0] if len(named) == 1 else dims[-1]
    return Labeled(given, bands)


def is_xarray(given: Any) -> bool:
    """Whether something is an array of xarray, or a set of them."""
    return type(given).__module__.split(".")[0] == "xarray" and hasattr(given, "dims")


# Rows and columns of a chunk of a label map.
_CHUNK = 1024
# Of the numbers of a scene, not of its labels.
_OF_NUMBERS = ("_FillValue", "missing_value", "nodata", "units", "unit", "long_name", "standard_name", "scale_factor",
               "add_offset", "valid_range", "valid_min", "valid_max")  # fmt: skip


def labels_like(scene: Any, labels: Any, names: Sequence[str], layout: str = "auto") -> Any:
    """A label map as a DataArray with the coordinates, attributes and coordinate system of a scene.

    Parameters
    ----------
    scene : xarray.DataArray
        With dimensions for bands, rows and columns.
    labels : ndarray or dask array (rows, columns) of int
    names : sequence of str
        Of the labels 0, 1, ...; as attributes `flag_values` and `flag_meanings` (CF 1.11, sec. 3.5).
    layout : str
        As the scene was read.
    """
    order = layout_of_dims([str(dim) for dim in scene.dims], layout) or layout
    bands, rows, columns = (scene.dims[order.index(letter)] for letter in "chw")
    first = scene.isel({bands: 0}, drop=True)
    sizes = dict(zip((rows, columns), labels.shape, strict=True))
    kept = {key: value for key, value in scene.attrs.items() if key not in _OF_NUMBERS}
    flags = {
        "flag_values": list(range(len(names))),
        "flag_meanings": " ".join(name.replace(" ", "_") for name in names),
    }
    coords = {key: found for key, found in first.coords.items() if found.sizes.items() <= sizes.items()}
    found = type(scene)(
        labels, dims=(rows, columns), coords=coords, name="labels", attrs=kept | {"long_name": "cluster"} | flags
    )
    found.encoding |= {key: scene.encoding[key] for key in ("grid_mapping",) if key in scene.encoding}
    return found


def write_label_store(
    path: str | os.PathLike[str],
    labels: np.ndarray,
    names: Sequence[str],
    scene: str | os.PathLike[str],
    key: str | None,
) -> None:
    """Write a label map as a Zarr store: an array `labels` with what `labels_like` takes over from its scene.

    Parameters
    ----------
    path : path
        Of the store.
    labels : ndarray (rows, columns) of int
    names : sequence of str
        Of the labels 0, 1, ...
    scene, key : path, str or None
        The Zarr store of the scene, and its array there, by "group/name".
    """
    import xarray

    group, _, name = (key or "").rpartition("/")
    found = None
    with suppress(Exception):  # a store of other programs, which xarray need not understand
        found = xarray.open_zarr(scene, group=group or None, consolidated=False)[name]
    if found is None or layout_of_dims([str(dim) for dim in found.dims]) is None:
        labeled_map = xarray.DataArray(labels, dims=("y", "x"), name="labels")
    else:
        labeled_map = labels_like(found, labels, names)
    with atomic_folder(path) as temporary:
        labeled_map.chunk({dim: min(_CHUNK, size) for dim, size in labeled_map.sizes.items()}).to_zarr(
            temporary, mode="w", consolidated=False
        )


def _unfolded(array: Any, bands: str) -> np.ndarray:
    others = [dim for dim in array.dims if dim != bands]
    values = np.asarray(array.transpose(*others, bands).values)
    return values.reshape(-1, values.shape[-1])
