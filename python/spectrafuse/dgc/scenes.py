"""Scenes as users give them: paths, arrays, tensors, lists of these; checked once, files left where they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spectrafuse._runtime import arguments
from spectrafuse.io.bands import BandsOf, parse_bands
from spectrafuse.io.chunked import ChunkedArray
from spectrafuse.io.cubes import Cube, array_cube, checked_cube, image_cube, open_cube
from spectrafuse.io.envi import EnviImage
from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import LAYOUTS
from spectrafuse.io.nodata import as_nodata
from spectrafuse.io.objects import scene_of
from spectrafuse.io.spectral_axis import SpectralAxis, matching_bands, spectral_axis


def read_scenes(
    X: Any,
    *,
    zeros: str,
    nodata: float | str | None = None,
    mask: Any = None,
    layout: str = "auto",
    bands: Any = None,
) -> list[Cube]:
    """Scenes, finite where they have data, from a scene or a list of scenes.

    Parameters
    ----------
    X : path, Cube, array_like or tensor (bands, rows, columns), or list or tuple of these
        Also arrays of Dask and Zarr and `xarray.DataArray`; what lies in chunks stays there.
    zeros : {"check", "accept"}
        What to do about bands that are zero everywhere, as in `spectrafuse.io.validate.check_cube`.
    nodata : float, optional
        The value that says that a pixel has no data in a file or array; NaN (or "nan") for NaN alone. Scenes that
        have been read already know their own.
    mask : array_like of bool, shape (rows, columns), or list of these or None, optional
        True for pixels without data; a list for a list of scenes.
    layout : {"auto", "chw", "hwc", "hcw", "cwh"}
        Order of the axes, as in `spectrafuse.io.read_cube`; arrays and tensors are (bands, rows, columns) without it.
    bands
        As in `spectrafuse.io.read_cube`, or the bands of a model. Of several scenes, those that all of them have.

    Returns
    -------
    list of Cube
        Scenes in files stay there where their format allows it.

    Raises
    ------
    DataError
        If a scene cannot be used, or the list is empty.
    """
    several = isinstance(X, (list, tuple))
    if several and not X:
        raise DataError("`X` holds no scene.")
    given = list(X) if several else [X]
    masks: Sequence[Any] = [mask] if not several else [None] * len(given) if mask is None else list(mask)
    if len(masks) != len(given):
        raise DataError(f"`mask` must be a list with one mask or None for each of the {len(given)} scenes.")
    value = as_nodata(nodata)
    arguments.choice("layout", layout, LAYOUTS)
    scenes = [
        _read_scene(f"X[{i}]" if several else "X", scene, zeros, value, hidden, layout, bands)
        for i, (scene, hidden) in enumerate(zip(given, masks, strict=True))
    ]
    if isinstance(bands, BandsOf):
        return [scene.with_bands(bands.numbers) if _counted(scene) == bands.total else scene for scene in scenes]
    return common_bands(scenes)


def common_bands(scenes: Sequence[Cube]) -> list[Cube]:
    """Scenes whose files have as many bands, with the bands that are used of all of them."""
    if len({_counted(scene) for scene in scenes}) > 1:
        return list(scenes)
    numbers = scenes[0].band_numbers
    for scene in scenes[1:]:
        numbers = np.intersect1d(numbers, scene.band_numbers)
    if not len(numbers):
        raise DataError("The scenes have no band in common that holds data.")
    return [scene.with_bands(numbers) for scene in scenes]


def _counted(scene: Cube) -> int:
    return scene.n_file_bands or scene.shape[0]


def _read_scene(name: str, scene: Any, zeros: str, nodata: float | None, mask: Any, layout: str, bands: Any) -> Cube:
    if isinstance(scene, (str, os.PathLike)):
        return open_cube(scene, nodata=nodata, mask=mask, zeros=zeros, layout=layout, bands=bands)
    if isinstance(scene, Cube):
        if mask is not None:
            raise DataError(f"`{name}` has been read already; give `mask` to the function that reads it.")
        # What is kept with numbers in memory is forgotten: they may have been changed since. Files may not.
        return _chosen_anew(scene if scene.file_backed else replace(scene), bands)
    found = scene_of(name, scene, layout)
    if isinstance(found, EnviImage):
        return image_cube(str(found.data), found, None, None, nodata, mask, zeros, bands)
    values, facts = found
    own = facts.pop("nodata", None)
    options = {"nodata": own if nodata is None else nodata, "mask": mask, "zeros": zeros, "bands": bands}
    if isinstance(values, ChunkedArray):
        return checked_cube(name, values, file_backed=True, **options, **facts)
    return array_cube(name, values, **options, **facts)


def _chosen_anew(scene: Cube, bands: Any) -> Cube:
    """A scene that has been read, with the bands that are asked for, by their numbers in its file."""
    if bands is None or isinstance(bands, BandsOf):
        return scene
    axis = None
    if scene.wavelengths is not None:
        axis = np.full(_counted(scene), np.nan)
        axis[scene.band_numbers] = scene.wavelengths
    kept, dropped = parse_bands(bands, _counted(scene), axis, scene.wavelength_unit)
    return scene.with_bands(np.setdiff1d(scene.band_numbers if kept is None else kept, dropped))


def axis_of(scene: Cube) -> SpectralAxis | None:
    """Where the bands of a scene lie, as far as it says."""
    return spectral_axis(scene.wavelengths, scene.unit or scene.wavelength_unit)


def with_bands_of_model(scenes: Sequence[Cube], model: SpectralAxis | None) -> list[Cube]:
    """Scenes with the bands that lie where a model, or the first scene, has its own; without an axis as they are.

    Raises
    ------
    DataError
        If a scene lacks one, or has them in another order.
    """
    return [_on_axis(scene, called_scene(i, scene), model) for i, scene in enumerate(scenes)]


def called_scene(i: int, scene: Cube) -> str:
    """What messages call a scene: its file, or its number."""
    return f"'{scene.source}'" if scene.source else f"Scene {i}"


def _on_axis(scene: Cube, name: str, model: SpectralAxis | None) -> Cube:
    own = axis_of(scene)
    if model is None or own is None:
        return scene
    places = matching_bands(model, own, name)
    if (np.diff(places) < 1).any():
        raise DataError(f"{name} has its bands in another order than the model; write them in the model's order first.")
    return scene.with_bands(scene.band_numbers[places])


def check_bands(scenes: Sequence[Cube], n_bands: int, whose: str) -> None:
    """Raise `DataError` where a scene has not the bands that `whose` names, such as "the model"."""
    for i, scene in enumerate(scenes):
        if scene.shape[0] != n_bands:
            name = called_scene(i, scene)
            raise DataError(f"{name} must have {n_bands} bands like {whose}; got {scene.shape[0]}.")
