"""Model folders: the published `param.json` and `model.safetensors`, and `spectrafuse.json` for the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.safetensors import read_tensors, write_tensors
from spectrafuse.io.atomic import atomic_write
from spectrafuse.io.fingerprint import sha256
from spectrafuse.mcr.model import Aggregate, PostProcessing, UnmixingModel
from spectrafuse.mcr.recipes import RECIPES, Recipe

State = dict[str, Tensor]

SOLVER_THRESHOLD = 0.9999994
"""Selection threshold of the published solver, which its folders do not hold."""

CONFIG_FILE, STATE_FILE, EXTRA_FILE = "param.json", "model.safetensors", "spectrafuse.json"
_FORMAT = 1


def write_model(folder: Path, config: dict[str, Any], state: State) -> None:
    """Write `param.json` and `model.safetensors`, as the published code does, into an existing folder."""
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    write_tensors(folder / STATE_FILE, state)


def save(folder: Path, model: UnmixingModel, extra: dict[str, Any]) -> None:
    """Write a model and what `param.json` cannot say. Each file appears complete or not at all.

    Other files in the folder are left alone. `spectrafuse.json` comes last and holds the state's hash, so a folder
    whose writing was cut short is recognised.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    model : UnmixingModel
    extra : dict
        JSON values for `spectrafuse.json`.
    """
    with atomic_write(folder / STATE_FILE) as temporary:
        write_tensors(temporary, model.state_dict())
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(model.config), encoding="utf-8")
    contents = {"format": _FORMAT, "state_sha256": sha256(folder / STATE_FILE), **extra}
    with atomic_write(folder / EXTRA_FILE) as temporary:
        temporary.write_text(json.dumps(contents, indent=1), encoding="utf-8")


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"'{folder}' holds no {name}, so it is not a model folder.")
    return folder / name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidValueError(f"'{path}' cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise InvalidValueError(f"'{path}' must hold a JSON object; got {type(content).__name__}.")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """Read `param.json`."""
    return _read_json(_file(folder, CONFIG_FILE))


def read_state(folder: Path) -> State:
    """Read `model.safetensors`."""
    return read_tensors(_file(folder, STATE_FILE))


def read_model(
    folder: Path,
    *,
    select_threshold: float = SOLVER_THRESHOLD,
    langevin_options_apply: bool = True,
    post_processing: PostProcessing | None = None,
    aggregate: Aggregate | None = None,
) -> UnmixingModel:
    """A model from a folder of ours or of the published code, in evaluation mode.

    Parameters
    ----------
    folder : Path
    select_threshold, langevin_options_apply
        Not in published folders.
    post_processing, aggregate : callable, optional
        Plug-ins are never saved as code.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the state is damaged or does not belong to the configuration.
    """
    model = UnmixingModel(
        **read_config(folder),
        select_threshold=select_threshold,
        langevin_options_apply=langevin_options_apply,
        component_post_processing=post_processing,
        aggregate_function=aggregate,
        initialise=False,
    )
    try:
        model.load_state_dict(read_state(folder))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidValueError(f"The state in '{folder}' does not belong to its {CONFIG_FILE}: {reason}") from error
    return model.eval()


def read_extra(folder: Path) -> dict[str, Any] | None:
    """What `spectrafuse.json` holds; None in a folder of the published code.

    Raises
    ------
    FileNotFoundError
        If the state that it describes is missing.
    ValueError
        If the file is of a later format, or does not belong to the state beside it.
    """
    path = folder / EXTRA_FILE
    if not path.is_file():
        return None
    extra = _read_json(path)
    if extra.get("format") != _FORMAT:
        raise InvalidValueError(
            f"'{path}' has format {extra.get('format')!r}, and this version of spectrafuse reads format {_FORMAT}: "
            "update spectrafuse."
        )
    if extra.get("state_sha256") != sha256(_file(folder, STATE_FILE)):
        raise InvalidValueError(
            f"'{folder}' holds a state that '{EXTRA_FILE}' does not describe: saving was cut short; save it again."
        )
    return extra


def parameters_of(folder: Path, extra: dict[str, Any] | None, plug_ins: dict[str, Any]) -> dict[str, Any]:
    """An estimator's parameters, plug-ins and device aside.

    Parameters
    ----------
    folder : Path
    extra : dict or None
        As `read_extra` gives it.
    plug_ins : dict
        The given ones, by the name of the parameter.

    Raises
    ------
    ValueError
        If the model was fitted with a plug-in that is not given.
    """
    if extra is None:
        config = read_config(folder)
        return {
            "pool_size": config["num_components"],
            "recipe": "published",
            "non_negative": config["non_negative_component"],
            "sparse": config["sparse_component"],
            "component_norm": config["component_norm"],
        }
    for name, given in plug_ins.items():
        if extra["plug_ins"][name] is not None and given is None:
            raise InvalidValueError(f"'{folder}' was fitted with {name}={extra['plug_ins'][name]}; give it to `load`.")
    recipe = Recipe(**{**extra["recipe"], "betas": tuple(extra["recipe"]["betas"])})
    # By its name if it is one of the two.
    return {**extra["parameters"], "recipe": recipe.name if RECIPES.get(recipe.name) == recipe else recipe}


def callable_name(function: Any) -> str | None:
    """What a plug-in is called in files: it is never saved as code."""
    if function is None:
        return None
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}.{owner.__qualname__}"
