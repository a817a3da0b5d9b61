"""A fitted model on spectra, chunk by chunk, for the used components only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.model import UnmixingModel

_CHUNK_ROWS = 1024
_AGGREGATE_CHUNK_ENTRIES = 2**24


def _chunks(model: UnmixingModel, array: NDArray[np.float32]) -> Iterator[Tensor]:
    rows = _CHUNK_ROWS
    if model.aggregate_function is not None:
        rows = max(1, min(rows, _AGGREGATE_CHUNK_ENTRIES // model.vanilla_components.numel()))
    for start in range(0, len(array), rows):
        yield torch.from_numpy(array[start : start + rows]).to(model.vanilla_components.device)


def parse(
    model: UnmixingModel, indices: Tensor, data: NDArray[np.float32], *, reconstruct: bool
) -> dict[str, NDArray[Any]]:
    """Concentrations and gates (n, k) of the components `indices`, and on request reconstructed spectra (n, d)."""
    parts: dict[str, list[NDArray[Any]]] = {"concentration": [], "select_prob": []}
    if reconstruct:
        parts["reconstruction"] = []
    for spectra in _chunks(model, data):
        concentration, select_prob = model.parse(spectra, indices)
        parts["concentration"].append(concentration.cpu().numpy())
        parts["select_prob"].append(select_prob.cpu().numpy())
        if reconstruct:
            parts["reconstruction"].append(model.recompose(concentration, indices).cpu().numpy())
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def recompose(model: UnmixingModel, indices: Tensor, concentration: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectra (n, d) from gated concentrations (n, k) of the components `indices`."""
    rows = [model.recompose(part, indices).cpu().numpy() for part in _chunks(model, concentration)]
    return np.concatenate(rows) if rows else np.empty((0, model.dim_components), np.float32)


def r2(model: UnmixingModel, indices: Tensor, data: NDArray[np.float32]) -> float:
    """R2 of the reconstruction against the column means of the spectra."""
    metrics = FitMetrics(model.dim_components, device=model.vanilla_components.device)
    for spectra in _chunks(model, data):
        metrics.update(spectra, model.recompose(model.parse(spectra, indices)[0], indices))
    return metrics.compute()[1]


def used_components(model: UnmixingModel, data: NDArray[np.float32]) -> list[int]:
    """Components of the pool that the gates open for some spectrum."""
    everything = torch.arange(model.num_components, device=model.vanilla_components.device)
    used = torch.zeros(model.num_components, dtype=torch.bool, device=everything.device)
    for spectra in _chunks(model, data):
        used |= model.parse(spectra, everything)[1].any(dim=0)
    return torch.nonzero(used).flatten().tolist()
