"""From an estimator's parameters and data to what a run needs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spectrafuse import __version__
from spectrafuse._runtime import checks
from spectrafuse._runtime.progress import Callback
from spectrafuse.mcr import model_io
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel, squares
from spectrafuse.mcr.recipes import Recipe
from spectrafuse.mcr.training.known_components import KnownComponents, place, place_background
from spectrafuse.mcr.training.rules import Band, recipe_bands
from spectrafuse.random import RandomStream

if TYPE_CHECKING:
    from spectrafuse.mcr.estimator import EBgMCR


class Task(NamedTuple):
    """What a fit is about, read and checked."""

    data: NDArray[np.float32]
    noise: NoiseLevel
    recipe: Recipe
    stream: RandomStream
    device: torch.device
    known: KnownComponents | None
    callback: Callback | None


def bands(task: Task) -> list[Band]:
    """The bands of fit that a count is reported for."""
    accept = task.recipe.noise_factor * max(task.noise.nmse, task.recipe.noise_floor)
    return recipe_bands(task.recipe, accept, *squares(task.data))


def check_parameters(estimator: EBgMCR) -> dict[str, Any]:
    """Check parameters that nothing else checks; the trainer's settings among them."""
    checks.integer("pool_size", estimator.pool_size, minimum=2 if estimator.background else 1)
    if estimator.noise is not None:
        checks.number("noise", estimator.noise, minimum=0.0)
    for name in ("post_processing", "aggregate"):
        value = getattr(estimator, name)
        if value is not None and not callable(value):
            raise TypeError(f"`{name}` must be callable or None; got {type(value).__name__}.")
    return {
        "batch_size": None if estimator.batch_size is None else checks.integer("batch_size", estimator.batch_size),
        "max_epoch": None if estimator.max_epoch is None else checks.integer("max_epoch", estimator.max_epoch),
        "learning_rate": checks.number("learning_rate", estimator.learning_rate, above=0.0),
    }


def build_model(
    estimator: EBgMCR,
    recipe: Recipe,
    features: int,
    stream: RandomStream,
    known: KnownComponents | None = None,
    *,
    places: int | None = None,
) -> UnmixingModel:
    """The model an estimator's parameters ask for, with initial values from `stream`.

    With a number of `places`, it has that many components and networks that were never trained: a layer of zeros each.
    """
    model = UnmixingModel(
        estimator.pool_size if places is None else places,
        features,
        sparse_component=estimator.sparse,
        non_negative_component=estimator.non_negative,
        component_norm=estimator.component_norm,
        hidden_size_extension=recipe.hidden_size_extension if places is None else None,
        hidden_layers=recipe.hidden_layers,
        component_post_processing=estimator.post_processing,
        aggregate_function=estimator.aggregate,
        temperature_train=recipe.temperature_max,
        temperature_eval=recipe.temperature_eval,
        select_threshold=recipe.select_threshold,
        langevin_step_size=recipe.langevin_step_size,
        langevin_noise=recipe.langevin_noise,
        langevin_steps=recipe.langevin_steps,
        langevin_options_apply=recipe.langevin_options_apply,
        stream=stream,
    )
    if places is not None:
        with torch.no_grad():
            for part in (model.component_parser, model.concentration_regressor):
                for values in part.parameters():
                    values.zero_()
    if known is not None:
        place(model, known)
    if estimator.background:
        place_background(model)
    return model


def fingerprint(
    estimator: EBgMCR,
    recipe: Recipe,
    data: NDArray[np.float32],
    device: torch.device,
    known: KnownComponents | None = None,
) -> dict[str, str]:
    """What identifies a run: a saved one is continued only by the same."""
    parameters = estimator.get_params(deep=False)
    parameters["recipe"] = recipe
    for name in ("post_processing", "aggregate"):
        parameters[name] = model_io.callable_name(parameters[name])
    values = {name: repr(value) for name, value in parameters.items()}
    values["device"] = str(device)
    values["X"] = _digest(data)
    if known is not None:
        values["components"] = _digest(known.spectra)
        values["fixed"] = str(known.fixed.tolist())
    values["version"] = __version__
    return values


def _digest(array: NDArray[np.float32]) -> str:
    return f"{array.shape} {hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()}"
