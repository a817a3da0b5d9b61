"""Coordinate descent on a gated mixture, one component at a time for all spectra, or all bands, at once."""

from __future__ import annotations

import torch
from torch import Tensor


def descend_concentrations(
    along: Tensor, overlap: Tensor, concentrations: Tensor, smallest: Tensor, sweeps: int, tolerance: float
) -> None:
    """A component's concentrations lie side by side while they are worked on; spectra that are done drop out."""
    power = overlap.diagonal()
    learned = (power > 0).nonzero().flatten().tolist()
    rows = torch.arange(len(along), device=along.device)
    gradients, found = along.T.contiguous(), concentrations.T.contiguous()
    for _ in range(sweeps):
        before = found.clone()
        for j in learned:
            best = found[j] + (gradients[j] - overlap[j] @ found) / power[j]
            found[j] = torch.where(best >= smallest[j], best, 0.0)
        going = ((found - before).abs() > tolerance).any(0)
        if not going.all():
            concentrations[rows[~going]] = found[:, ~going].T
            rows, gradients, found = rows[going], gradients[:, going], found[:, going]
        if not len(rows):
            return
    concentrations[rows] = found.T


def descend_open_gates(
    spectra: Tensor, concentrations: Tensor, components: Tensor, smallest: Tensor, sweeps: int
) -> None:
    """From products of spectra and components; what is closed is put back to 0."""
    overlap, along = components @ components.T, spectra @ components.T
    power = overlap.diagonal()
    for _ in range(sweeps):
        for j in (power > 0).nonzero().flatten().tolist():
            best = concentrations[:, j] + (along[:, j] - concentrations @ overlap[j]) / power[j]
            kept = (concentrations[:, j] != 0) & (best >= smallest[j])
            concentrations[:, j] = torch.where(kept, best, 0.0)


def descend_components(
    spectra: Tensor, concentrations: Tensor, components: Tensor, held: Tensor, non_negative: bool, price: float
) -> None:
    """From products of concentrations with themselves and with spectra."""
    overlap, along = concentrations.T @ concentrations, concentrations.T @ spectra
    power = overlap.diagonal()
    for j in ((power > 0) & ~held).nonzero().flatten().tolist():
        best = components[j] + (along[j] - overlap[j] @ components) / power[j]
        if non_negative:
            best = best.clamp(min=0.0)
        components[j] = torch.where(best.square() * power[j] < price, 0.0, best)
