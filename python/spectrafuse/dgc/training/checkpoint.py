"""The state of an interrupted training run on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrafuse import __version__
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.tensor_files import load_state
from spectrafuse.dgc.recipes import CHANGEABLE, Recipe
from spectrafuse.io.atomic import atomic_write
from spectrafuse.io.cubes import Cube
from spectrafuse.io.fingerprint import differences
from spectrafuse.io.nodata import as_nodata, row_blocks

FILE_NAME = "training.pt"
# What does not change the result of a fit, or is part of the recipe's own entries.
_NOT_IN_FINGERPRINT = ("nodata", "bands", "device", "log_dir", "max_memory", "recipe", *CHANGEABLE)
# Choices that a recipe did not have at first, with what every run did then: states that do not name them go on.
_ADDED = {"spectral_labels": False, "spectral_start": False, "bias": False}
# Counts the ways in which spectral labels were made.
_SPECTRAL_LABELS = 2


def data_hash(scenes: Sequence[Cube]) -> str:
    """SHA-256 of shapes, types and values; of a scene in a file, the file's own with how it is read."""
    digest = hashlib.sha256()
    for scene in scenes:
        if not scene.file_backed and scene.valid is None:
            digest.update(f"{scene.shape}{scene.data.dtype.str}".encode())
            digest.update(np.ascontiguousarray(scene.data).data)
            continue
        digest.update(f"{scene.shape}{scene.layout}{scene.key}".encode())
        for facts in (scene.bands, scene.gains, scene.offsets):
            if facts is not None:
                digest.update(np.ascontiguousarray(facts).data)
        if scene.valid is not None:
            digest.update(np.packbits(scene.valid).data)
        if not scene.file_backed:
            digest.update(scene.read_rows(0, scene.shape[1]).data)
        elif scene.data_path:
            digest.update(scene.sha256.encode())
        else:
            for start, stop in row_blocks(scene.shape):
                digest.update(scene.read_rows(start, stop).data)
    return digest.hexdigest()


def fingerprint(
    parameters: Mapping[str, Any], recipe: Recipe, device: torch.device, scenes: Sequence[Cube]
) -> dict[str, Any]:
    """What decides the result of a fit, as plain values, from the estimator's parameters and what they stand for."""
    choices = recipe.as_dict()
    own = {name: value for name, value in parameters.items() if name not in _NOT_IN_FINGERPRINT}
    return {
        **{name: value.item() if isinstance(value, np.generic) else value for name, value in own.items()},
        "nodata": str(as_nodata(parameters["nodata"])),
        "crop_size": choices.pop("crop_size"),
        "bandwidth": choices.pop("bandwidth"),
        **{f"recipe {name}": value for name, value in choices.items() if _ADDED.get(name) != value},
        **({"spectral labels": _SPECTRAL_LABELS} if recipe.spectral_labels else {}),
        "device": device.type,
        "data": data_hash(scenes),
        "spectrafuse": __version__,
    }


def save_training(folder: str | os.PathLike[str], state: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
    """Write the state of a run; the file is complete or as it was before.

    Parameters
    ----------
    state : mapping
        Tensors and plain values only.
    fingerprint : mapping
        Parameters and data hash of the run, plain values.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(folder) / FILE_NAME) as path:
        torch.save({"fingerprint": dict(fingerprint), "state": dict(state)}, path)


def load_training(folder: str | os.PathLike[str], fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    """The saved state of a run with this fingerprint, or None where nothing is saved yet.

    Raises
    ------
    ValueError
        If the file is damaged, or belongs to a run with other parameters or data.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    content = load_state(path)
    saved, state = content.get("fingerprint"), content.get("state")
    if not isinstance(saved, Mapping) or not isinstance(state, dict):
        raise InvalidValueError(f"'{path}' is no state of a training run; delete it to start again.")
    different = differences(saved, fingerprint)
    if different:
        raise InvalidValueError(
            f"{path} belongs to another run: {'; '.join(different)}. Use another folder, or delete the file."
        )
    return state
