"""A fitted model on spectra, chunk by chunk, for the used components only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.model import UnmixingModel

_CHUNK_ROWS = 256
_AGGREGATE_CHUNK_ENTRIES = 2**24


def _chunks(model: UnmixingModel, array: NDArray[np.float32]) -> Iterator[tuple[slice, Tensor]]:
    rows = _CHUNK_ROWS
    if model.aggregate_function is not None:
        rows = max(1, min(rows, _AGGREGATE_CHUNK_ENTRIES // model.vanilla_components.numel()))
    for start in range(0, len(array), rows):
        part = slice(start, start + rows)
        yield part, torch.from_numpy(array[part]).to(model.vanilla_components.device)


def parse(
    model: UnmixingModel, indices: Tensor, data: NDArray[np.float32], *, wanted: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """What is `wanted` of "concentration" and "select_prob" (n, k), of the components `indices`, and "reconstruction".

    Memory beyond the results is that of a chunk.
    """
    widths = {"reconstruction": data.shape[1]}
    results = {name: np.empty((len(data), widths.get(name, len(indices))), np.float32) for name in wanted}
    for part, spectra in _chunks(model, data):
        concentration, select_prob = model.parse(spectra, indices)
        values = {"concentration": concentration, "select_prob": select_prob}
        if "reconstruction" in results:
            values["reconstruction"] = model.recompose(concentration, indices)
        for name, result in results.items():
            result[part] = values[name].cpu().numpy()
    return results


def recompose(model: UnmixingModel, indices: Tensor, concentration: NDArray[np.float32]) -> NDArray[np.float32]:
    """Spectra (n, d) from gated concentrations (n, k) of the components `indices`."""
    spectra = np.empty((len(concentration), model.dim_components), np.float32)
    for rows, part in _chunks(model, concentration):
        spectra[rows] = model.recompose(part, indices).cpu().numpy()
    return spectra


def r2(model: UnmixingModel, indices: Tensor, data: NDArray[np.float32]) -> float:
    """R2 of the reconstruction against the column means of the spectra."""
    metrics = FitMetrics(model.dim_components, device=model.vanilla_components.device)
    for _, spectra in _chunks(model, data):
        metrics.update(spectra, model.recompose(model.parse(spectra, indices)[0], indices))
    return metrics.compute()[1]


def used_components(model: UnmixingModel, data: NDArray[np.float32]) -> list[int]:
    """Components of the pool that the gates open for some spectrum."""
    everything = torch.arange(model.num_components, device=model.vanilla_components.device)
    used = torch.zeros(model.num_components, dtype=torch.bool, device=everything.device)
    for _, spectra in _chunks(model, data):
        used |= model.parse(spectra, everything)[1].any(dim=0)
    return torch.nonzero(used).flatten().tolist()
