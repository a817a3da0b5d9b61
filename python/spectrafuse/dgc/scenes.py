"""Scenes as users give them: paths, arrays, tensors, lists of these; checked once, files left where they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spectrafuse.io.cubes import Cube, array_cube, open_cube
from spectrafuse.io.errors import DataError
from spectrafuse.io.nodata import as_nodata
from spectrafuse.io.validate import check_cube


def read_scenes(X: Any, *, zeros: str, nodata: float | str | None = None, mask: Any = None) -> list[Cube]:
    """Scenes, finite where they have data, from a scene or a list of scenes.

    Parameters
    ----------
    X : path, Cube, array_like or tensor (bands, rows, columns), or list or tuple of these
    zeros : {"check", "accept"}
        What to do about bands that are zero everywhere, as in `spectrafuse.io.validate.check_cube`.
    nodata : float, optional
        The value that says that a pixel has no data in a file or array; NaN (or "nan") for NaN alone. Scenes that
        have been read already know their own.
    mask : array_like of bool, shape (rows, columns), or list of these or None, optional
        True for pixels without data; a list for a list of scenes.

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
    return [
        _read_scene(f"X[{i}]" if several else "X", scene, zeros, value, hidden)
        for i, (scene, hidden) in enumerate(zip(given, masks, strict=True))
    ]


def _read_scene(name: str, scene: Any, zeros: str, nodata: float | None, mask: Any) -> Cube:
    if isinstance(scene, (str, os.PathLike)):
        return open_cube(scene, nodata=nodata, mask=mask, zeros=zeros)
    if isinstance(scene, Cube):
        if mask is not None:
            raise DataError(f"`{name}` has been read already; give `mask` to the function that reads it.")
        # What is kept with numbers in memory is forgotten: they may have been changed since. Files may not.
        return scene if scene.file_backed else replace(scene)
    if nodata is None and mask is None and not isinstance(scene, np.ma.MaskedArray):
        return Cube(check_cube(name, scene, zeros=zeros))
    return array_cube(name, scene, nodata=nodata, mask=mask, zeros=zeros)


def check_bands(scenes: Sequence[Cube], n_bands: int, whose: str) -> None:
    """Raise `DataError` where a scene has not the bands that `whose` names, such as "the model"."""
    for i, scene in enumerate(scenes):
        if scene.shape[0] != n_bands:
            raise DataError(f"Scene {i} must have {n_bands} bands like {whose}; got {scene.shape[0]}.")
