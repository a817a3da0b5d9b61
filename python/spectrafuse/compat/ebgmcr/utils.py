"""Small helpers of the published package (its `utils.py`): files, initial weights, bands of fit, the sparsity rule."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse._runtime.safetensors import read_tensors, write_tensors
from spectrafuse.io.atomic import atomic_write
from spectrafuse.mcr.training.rules import Band, SparsityRule, band_of, make_bands

__all__ = [
    "EnergyL1Scheduler",
    "init_directory",
    "init_layer_weight",
    "load_json",
    "load_safetensors",
    "save_as_json",
    "save_as_safetensors",
]

_Layer = TypeVar("_Layer", nn.Linear, nn.Parameter)


def _named(filename: str, suffix: str) -> str:
    return filename if filename.endswith(suffix) else filename + suffix


def init_directory(path: str) -> str:
    """Make a folder where there is none; returns `path`."""
    if len(path) > 0:
        os.makedirs(path, exist_ok=True)
    return path


def save_as_json(obj: Any, filename: str) -> None:
    """Write an object as JSON; ".json" is added to the name where it is missing."""
    with atomic_write(_named(filename, ".json")) as temporary:
        temporary.write_text(json.dumps(obj), encoding="utf-8")


def load_json(filename: str, extension_check: bool = True) -> Any:
    """Read a JSON file, which must be named so unless `extension_check` is False."""
    if extension_check and not filename.endswith(".json"):
        raise RuntimeError(f"File: {filename} is not a .json file.")
    return json.loads(Path(filename).read_text(encoding="utf-8"))


def save_as_safetensors(tensors: dict[str, Tensor], filename: str) -> None:
    """Write tensors; ".safetensors" is added to the name where it is missing."""
    with atomic_write(_named(filename, ".safetensors")) as temporary:
        write_tensors(temporary, tensors)


def load_safetensors(
    filename: str, device: str | torch.device = "cpu", extension_check: bool = True
) -> dict[str, Tensor]:
    """Read tensors from a file, which must be named ".safetensors" unless `extension_check` is False."""
    if extension_check and not filename.endswith(".safetensors"):
        raise RuntimeError(f"File: {filename} is not a .safetensors file.")
    return read_tensors(filename, device)


def init_layer_weight(layer: _Layer, initializer_range: float = 1e-2) -> _Layer:
    """Fill a parameter, or a layer's weight and bias, with normal numbers of this standard deviation."""
    if isinstance(layer, nn.Parameter):
        nn.init.normal_(layer.data, mean=0.0, std=initializer_range)
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, mean=0.0, std=initializer_range)
        nn.init.normal_(layer.bias, mean=0.0, std=initializer_range)
    else:
        raise InvalidTypeError(f"`layer` must be a linear layer or a parameter; got {type(layer).__name__}.")
    return layer


def checkpoint_regions(criterion: str, threshold: float, interval: float) -> list[str]:
    """Names of the bands of fit from `threshold` on, such as "0.97[->]0.975"."""
    return [band.name for band in make_bands(criterion, threshold, interval)]


def specify_checkpoint_region(criterion_value: float, criterion: str, effective_regions: list[str]) -> str | None:
    """The band that a value falls into, or None."""
    bands = [Band(name, *(float(part) for part in name.split("[->]"))) for name in effective_regions]
    found = band_of(criterion_value, criterion, bands)
    return None if found is None else found.name


class EnergyL1Scheduler(SparsityRule):
    """Weight of the sparsity term, smoothed (`spectrafuse.mcr.training.rules.SparsityRule` as published)."""

    def __init__(
        self,
        total_components: int,
        target_ratio: float = 1.0,
        nmse_margin: float = 0.005,
        init_coef: float = 0.0,
        smooth_factor: float = 0.95,
    ) -> None:
        super().__init__(
            int(total_components), ratio=max(float(target_ratio), 0.0), margin=nmse_margin, smoothing=smooth_factor
        )
        self.N_total = float(total_components)
        self.target_ratio = float(target_ratio)
        self.weight = float(init_coef)

    @property
    def nmse_margin(self) -> float:
        return self.margin

    @nmse_margin.setter
    def nmse_margin(self, value: float) -> None:
        self.margin = float(value)

    @property
    def beta(self) -> float:
        return self.smoothing

    @beta.setter
    def beta(self, value: float) -> None:
        self.smoothing = float(value)

    @property
    def coef(self) -> float:
        return self.weight

    @coef.setter
    def coef(self, value: float) -> None:
        self.weight = float(value)

    def step(self, nMSE: float, MSE: float, used_components: float) -> float:
        """The weight for the next epoch, from this epoch's fit."""
        return super().step(nMSE, MSE, used_components)
