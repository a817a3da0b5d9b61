"""Model folders: `config.json`, `weights.safetensors`, and `spectrafuse.json` for what those two lack.

Folders written by the published code have no `spectrafuse.json` and load as well (docs/algorithms/dgc.md, "Files").
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.safetensors import read_tensors, write_tensors
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import published
from spectrafuse.io.atomic import atomic_folder
from spectrafuse.io.fingerprint import sha256

CONFIG_FILE, WEIGHTS_FILE, EXTRA_FILE = "config.json", "weights.safetensors", "spectrafuse.json"
_CHECKSUM = "weights_sha256"


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays as JSON values."""
    return value.tolist()


def write_model(folder: str | os.PathLike[str], model: SegmentationModel, extra: Mapping[str, Any]) -> None:
    """Write a model folder; it appears complete or not at all, and replaces an older model of that name.

    Parameters
    ----------
    extra : mapping
        JSON values for `spectrafuse.json`.

    Raises
    ------
    ValueError
        If the folder exists and holds anything that is not part of a model.
    """
    path = Path(folder)
    if path.is_dir():
        others = sorted({entry.name for entry in path.iterdir()} - {CONFIG_FILE, WEIGHTS_FILE, EXTRA_FILE})
        if others:
            raise InvalidValueError(
                f"{path} also holds {others[0]}, and a model folder is replaced as a whole; choose another."
            )
    with atomic_folder(path) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(model.config, indent=2, default=_plain), encoding="utf-8")
        write_tensors(temporary / WEIGHTS_FILE, model.state_dict())
        contents = {**extra, _CHECKSUM: sha256(temporary / WEIGHTS_FILE)}
        (temporary / EXTRA_FILE).write_text(json.dumps(contents, indent=2, default=_plain), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InvalidValueError(f"{path} must hold a JSON object; got {type(content).__name__}.")
    return content


def read_model(
    folder: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> tuple[SegmentationModel, dict[str, Any]]:
    """The model of a folder, ready for inference, and the content of its `spectrafuse.json` (empty without one).

    Raises
    ------
    FileNotFoundError
        If the folder, its `config.json` or its `weights.safetensors` is missing.
    ValueError
        If a file is damaged, or the weights do not fit the configuration.
    """
    path = Path(folder)
    for file in (path, path / CONFIG_FILE, path / WEIGHTS_FILE):
        if not (file.is_dir() if file == path else file.is_file()):
            raise FileNotFoundError(f"{file} does not exist; a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}.")
    config = _read_json(path / CONFIG_FILE)
    try:
        model = SegmentationModel.from_config(config)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidValueError(f"{path / CONFIG_FILE} describes no model: {error}") from error
    weights = read_tensors(path / WEIGHTS_FILE)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InvalidValueError(
                f"{path / WEIGHTS_FILE} does not fit {CONFIG_FILE}: {name} must be {expected.get(name, 'absent')} "
                f"and is {found.get(name, 'absent')}."
            )
    model.load_state_dict(weights)
    extra = _read_json(path / EXTRA_FILE) if (path / EXTRA_FILE).is_file() else {}
    checksum = extra.pop(_CHECKSUM, None)  # older models have none
    if checksum is not None and checksum != sha256(path / WEIGHTS_FILE):
        raise InvalidValueError(f"{path / WEIGHTS_FILE} was changed or damaged after {EXTRA_FILE} was written.")
    return model.to(device).eval(), extra


def published_extra(model: SegmentationModel) -> dict[str, Any]:
    """What `spectrafuse.json` would say of a model that the published code wrote."""
    return {
        "parameters": {
            "recipe": published.name,
            "n_clusters": model.n_clusters,
            "embed_dim": model.encoder.embed_dim,
            "n_spectral_layers": model.encoder.n_spectral_layers,
            "spectral_kernel_size": model.encoder.spectral_kernel_size,
            "num_iters": model.num_iters,
            "window": model.window,
            "temperature": model.temperature,
            "bandwidth": model.initial_bandwidth,
        },
        "normalization": published.normalization,
        "stop_reason": "Loaded from a published model folder, which does not say.",
    }
