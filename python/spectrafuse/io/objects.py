"""Scenes in memory as other libraries hold them: which axis is what, and what else they say.

Known are `xarray.DataArray` by the names of its dimensions, arrays of Dask and Zarr, which stay where they are, and the
images of Spectral Python (SPy), whose axes are (rows, columns, bands). No other library is imported.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from spectrafuse.io.attributes import place_from
from spectrafuse.io.chunked import ChunkedArray, DaskChunks
from spectrafuse.io.envi import EnviImage, facts_of_fields, image_of_fields
from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import is_axis_name, layout_of_dims, layout_words, looks_bands_last, middle
from spectrafuse.io.validate import as_numeric, called
from spectrafuse.io.zarr_stores import chunked, dims_of


def scene_of(name: str, scene: Any, layout: str) -> EnviImage | tuple[Any, dict[str, Any]]:
    """A scene as an array (bands, rows, columns) with other facts of `Cube`; of a file of SPy, its image.

    Parameters
    ----------
    name : str
        What messages call the scene.
    scene : array_like, tensor, `xarray.DataArray`, array of Dask or Zarr, or image of SPy
    layout : {"auto", "chw", "hwc", "hcw", "cwh"}
        "auto": as the object says; (bands, rows, columns) for arrays and tensors, with a warning if it looks otherwise.

    Raises
    ------
    DataError
        If the names of dimensions do not say which axis is what, or the scene is none.
    """
    module = type(scene).__module__.partition(".")[0]
    if module == "spectral":
        return _of_spy(name, scene, layout)
    if module == "xarray":
        return _of_xarray(name, scene, layout)
    values: Any = _left_in_chunks(name, scene)
    if values is None:
        values = scene if isinstance(scene, np.ma.MaskedArray) else as_numeric(name, scene)
    if values.ndim != 3:
        return values, {}
    named = layout_of_dims(dims_of(scene), layout) if module == "zarr" and dims_of(scene) else None
    if named is not None:
        return values.transpose(*(named.index(letter) for letter in "chw")), {
            "layout": f"{values.shape} read as {layout_words(named)}: the names of its dimensions"
        }
    if layout not in ("auto", "chw"):
        axes = [layout.index(letter) for letter in "chw"]
        return values.transpose(*axes), {"layout": f"{values.shape} read as {layout_words(layout)}: as asked for"}
    if layout == "auto" and looks_bands_last(
        middle(values) if isinstance(values, ChunkedArray) else np.ma.getdata(values)
    ):
        warnings.warn(
            f"{called(name)} of shape {values.shape} is read as (bands, rows, columns), but its last axis looks like "
            "the bands: give layout='hwc' if it is (rows, columns, bands), or layout='chw' if it is not.",
            UserWarning,
            stacklevel=4,
        )
    return values, {}


def _of_spy(name: str, scene: Any, layout: str) -> EnviImage | tuple[Any, dict[str, Any]]:
    if layout not in ("auto", "hwc"):
        raise DataError(f"{called(name)} is an image of SPy, (rows, columns, bands); leave layout={layout!r} out.")
    metadata = getattr(scene, "metadata", None) or {}
    fields = {
        str(key).lower(): ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        for key, value in metadata.items()
    }
    in_file = hasattr(scene, "filename") and hasattr(scene, "offset") and os.path.exists(scene.filename)
    if in_file and {"samples", "lines", "bands", "data type", "interleave"} <= fields.keys():
        return image_of_fields(scene.filename, fields)
    values = np.asarray(scene if isinstance(scene, np.ndarray) else scene.load())
    if values.ndim != 3:
        raise DataError(f"{called(name)} must be an image of SPy with 3 dimensions; got shape {values.shape}.")
    bands = getattr(scene, "bands", None)
    centers = getattr(bands, "centers", None)
    fits = centers is not None and len(centers) == values.shape[2]
    facts = {
        "layout": f"{values.shape} read as (rows, columns, bands): the order of SPy",
        "wavelengths": np.asarray(centers, dtype=np.float64) if fits else None,
        "wavelength_unit": getattr(bands, "band_unit", None) or None,
    }
    facts |= facts_of_fields(fields, values)
    return values.transpose(2, 0, 1), facts


def _of_xarray(name: str, scene: Any, layout: str) -> tuple[Any, dict[str, Any]]:
    if not hasattr(scene, "dims") or hasattr(scene, "data_vars"):
        listed = ", ".join(map(str, getattr(scene, "data_vars", ())))
        raise DataError(f"{called(name)} is an xarray {type(scene).__name__}; give one of its variables ({listed}).")
    dims = [str(dim) for dim in scene.dims]
    if len(dims) != 3:
        raise DataError(f"{called(name)} must have 3 dimensions; got {len(dims)}: {', '.join(dims)}.")
    taken = layout_of_dims(dims, layout)
    if taken is None:
        raise DataError(
            f"{called(name)} has dimensions {tuple(dims)}, which do not say where the bands are: rename them to "
            "'band', 'y', 'x', or give layout='chw' (bands first) or 'hwc' (bands last)."
        )
    at, *rest = (taken.index(letter) for letter in "chw")
    facts: dict[str, Any] = {"layout": f"{tuple(dims)} read as bands {dims[at]!r}, rows {dims[rest[0]]!r}, columns "
                                       f"{dims[rest[1]]!r}: the names of its dimensions"}  # fmt: skip
    coordinates = {str(key): scene.coords[key] for key in scene.coords}
    for key, found in coordinates.items():
        if [str(dim) for dim in found.dims] == [dims[at]] and is_axis_name(key) and found.dtype.kind in "iuf":
            facts["wavelengths"] = np.asarray(found.values, dtype=np.float64)
            facts["wavelength_unit"] = found.attrs.get("units") or found.attrs.get("unit")
    for key in ("_FillValue", "missing_value", "nodata"):
        value = scene.attrs.get(key)
        if value is not None and np.ndim(value) == 0:
            facts["nodata"] = float(value)
            break
    if {"_FillValue", "missing_value"} & getattr(scene, "encoding", {}).keys():
        # Which xarray has made NaN of.
        facts.setdefault("nodata", float("nan"))
    if (place := place_from(found.attrs for found in coordinates.values())) is not None:
        facts["place"] = place
    values = _left_in_chunks(name, getattr(scene, "variable", scene).data) if getattr(scene, "chunks", None) else None
    return (np.asarray(scene.values) if values is None else values).transpose(at, *rest), facts


def _left_in_chunks(name: str, array: Any) -> ChunkedArray | None:
    """An array of Dask or Zarr, read chunk by chunk; None for any other object."""
    module = type(array).__module__.partition(".")[0]
    if module == "dask" and hasattr(array, "chunks"):
        return ChunkedArray(DaskChunks(called(name), array))
    if module == "zarr":
        if not hasattr(array, "chunks"):
            raise DataError(f"{called(name)} is a group of Zarr; give one of its arrays ({', '.join(array)}).")
        return chunked(called(name), array)
    return None
