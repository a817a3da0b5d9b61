"""Fitted estimators in folders: the published files, and one of ours for what those leave out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spectrafuse import __version__
from spectrafuse.io.atomic import atomic_write
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.recipes import RECIPES, Recipe, resolve
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training import checkpoint
from spectrafuse.mcr.training.compaction import Compaction

if TYPE_CHECKING:
    from spectrafuse.mcr.estimator import EBgMCR

EXTRA_FILE = "spectrafuse.json"
_FORMAT = 1


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def callable_name(function: Any) -> str | None:
    """What a plug-in is called in files: it is never saved as code."""
    if function is None:
        return None
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}.{owner.__qualname__}"


def _recipe_from_plain(values: dict[str, Any]) -> str | Recipe:
    """A recipe's name if it is one of the two, else the recipe."""
    recipe = Recipe(**{**values, "betas": tuple(values["betas"])})
    return recipe.name if RECIPES.get(recipe.name) == recipe else recipe


def describe(estimator: EBgMCR) -> dict[str, Any]:
    """What `param.json` does not hold of a fitted estimator, as plain values."""
    not_plain = ("recipe", "post_processing", "aggregate", "device")
    parameters = estimator.get_params(deep=False)
    gates = estimator.model_.gates
    return {
        "version": __version__,
        "parameters": {name: value for name, value in parameters.items() if name not in not_plain},
        "recipe": asdict(resolve(estimator.recipe)),
        "plug_ins": {name: callable_name(parameters[name]) for name in ("post_processing", "aggregate")},
        "select_threshold": estimator.model_.select_threshold,
        "component_ids": estimator.component_ids_.tolist(),
        "count_curve": estimator.count_curve_,
        "stop_reason": estimator.stop_reason_,
        "chosen_reason": estimator.chosen_reason_,
        "n_iter": estimator.n_iter_,
        "noise": None if estimator.noise_ is None else list(estimator.noise_),
        "gates": None if gates is None else {**gates._asdict(), "open_ids": list(gates.open_ids)},
        "evidence": estimator.count_evidence_,
        "compactions": estimator.compactions_,
        "history": estimator.history_,
    }


def save(folder: Path, model: UnmixingModel, extra: dict[str, Any]) -> None:
    """Write a model and what `param.json` cannot say. Each file appears complete or not at all.

    Other files in the folder are left alone. `spectrafuse.json` comes last and holds the state's hash, so a folder
    whose writing was cut short is recognised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_file = folder / checkpoint.STATE_FILE
    with atomic_write(state_file) as temporary:
        checkpoint.write_state(temporary, model.state_dict())
    with atomic_write(folder / checkpoint.CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(model.config), encoding="utf-8")
    contents = {"format": _FORMAT, "state_sha256": hash_file(state_file), **extra}
    with atomic_write(folder / EXTRA_FILE) as temporary:
        temporary.write_text(json.dumps(contents, indent=1), encoding="utf-8")


def load_extra(folder: Path) -> dict[str, Any] | None:
    """What `spectrafuse.json` holds; None in a folder of the published code.

    Raises
    ------
    ValueError
        If the file is of a later format, or does not belong to the state beside it.
    """
    path = folder / EXTRA_FILE
    if not path.is_file():
        return None
    extra = json.loads(path.read_text(encoding="utf-8"))
    if extra.get("format") != _FORMAT:
        raise ValueError(f"'{path}' has format {extra.get('format')!r}; this version reads format {_FORMAT}.")
    if extra["state_sha256"] != hash_file(folder / checkpoint.STATE_FILE):
        raise ValueError(f"'{folder}' holds a state that '{EXTRA_FILE}' does not describe: saving was cut short.")
    return extra


def parameters_of(folder: Path, extra: dict[str, Any] | None, plug_ins: dict[str, Any]) -> dict[str, Any]:
    """An estimator's parameters, plug-ins and device aside.

    Raises
    ------
    ValueError
        If the model was fitted with a plug-in that is not given.
    """
    if extra is None:
        config = checkpoint.read_config(folder)
        return {
            "pool_size": config["num_components"],
            "recipe": "published",
            "non_negative": config["non_negative_component"],
            "sparse": config["sparse_component"],
            "component_norm": config["component_norm"],
        }
    for name, given in plug_ins.items():
        if extra["plug_ins"][name] is not None and given is None:
            raise ValueError(f"'{folder}' was fitted with {name}={extra['plug_ins'][name]}; give it to `load`.")
    return {**extra["parameters"], "recipe": _recipe_from_plain(extra["recipe"])}


def restore(estimator: EBgMCR, folder: Path, extra: dict[str, Any] | None, device: torch.device) -> None:
    """Give an estimator its model and fitted attributes from a folder."""
    known = extra or {}
    model = checkpoint.read_model(
        folder,
        select_threshold=known.get("select_threshold", checkpoint.SOLVER_THRESHOLD),
        langevin_options_apply=resolve(estimator.recipe).langevin_options_apply,
        post_processing=estimator.post_processing,
        aggregate=estimator.aggregate,
    )
    estimator.model_ = model.to(device)
    estimator.n_features_in_ = model.dim_components
    ids = known.get("component_ids", range(model.num_components))
    estimator.component_ids_ = np.asarray(ids, dtype=np.int64)
    estimator.count_curve_ = known.get("count_curve", [])
    estimator.stop_reason_ = known.get("stop_reason", "The folder does not say.")
    estimator.chosen_reason_ = known.get("chosen_reason", "The folder does not say.")
    estimator.n_iter_ = known.get("n_iter", 0)
    estimator.history_ = known.get("history", [])
    estimator.noise_ = NoiseLevel(*known["noise"]) if known.get("noise") else None
    estimator.count_evidence_ = known.get("evidence")
    estimator.compactions_ = tuple(Compaction(*one) for one in known.get("compactions", ()))
    gates = known.get("gates")
    if gates and estimator.noise_:
        weights = gates.get("weights")
        model.gates = ExactGates(
            NoiseLevel(*gates.get("noise", estimator.noise_)),
            gates["price"],
            tuple(gates["open_ids"]),
            None if weights is None else tuple(weights),
        )
