"""Scenes as users give them: paths, arrays, tensors, lists of these; read and checked once."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from spectrafuse.io.cubes import Cube, read_cube
from spectrafuse.io.errors import DataError
from spectrafuse.io.validate import check_cube


def read_scenes(X: Any, *, zeros: str) -> list[np.ndarray]:
    """Scenes (C, H, W), float32, finite, from a scene or a list of scenes.

    Parameters
    ----------
    X : path, `Cube`, array-like or tensor (C, H, W), or list or tuple of these
    zeros : {"warn", "accept"}
        What to do about bands that are zero everywhere, as in `spectrafuse.io.validate.check_cube`.

    Raises
    ------
    DataError
        If a scene cannot be used, or the list is empty.
    """
    if isinstance(X, (list, tuple)):
        if not X:
            raise DataError("`X` holds no scene.")
        return [_read_scene(f"X[{i}]", scene, zeros) for i, scene in enumerate(X)]
    return [_read_scene("X", X, zeros)]


def _read_scene(name: str, scene: Any, zeros: str) -> np.ndarray:
    if isinstance(scene, (str, os.PathLike)):
        return read_cube(scene).data
    if isinstance(scene, Cube):
        return scene.data
    return check_cube(name, scene, zeros=zeros)


def check_bands(scenes: list[np.ndarray], n_bands: int, whose: str) -> None:
    """Raise `DataError` where a scene has not the bands that `whose` names, such as "the model"."""
    for i, scene in enumerate(scenes):
        if scene.shape[0] != n_bands:
            raise DataError(f"Scene {i} must have {n_bands} bands like {whose}; got {scene.shape[0]}.")
