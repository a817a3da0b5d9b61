"""Coordinate descent on a gated mixture: one coordinate after another, each from the residual it leaves."""

from __future__ import annotations

import torch
from torch import Tensor


def descend_concentrations(
    along: Tensor, overlap: Tensor, concentrations: Tensor, smallest: Tensor, sweeps: int, tolerance: float
) -> None:
    """Spectrum by spectrum: a concentration's best value is where the gradient of the squared residual is 0."""
    for i in range(len(along)):
        for _ in range(sweeps):
            before = concentrations[i].clone()
            for j in range(along.shape[1]):
                if overlap[j, j] > 0:
                    gradient = along[i, j] - overlap[j] @ concentrations[i]
                    best = concentrations[i, j] + gradient / overlap[j, j]
                    concentrations[i, j] = best if best >= smallest[j] else 0.0
            if not ((concentrations[i] - before).abs() > tolerance).any():
                break


def descend_open_gates(
    spectra: Tensor, concentrations: Tensor, components: Tensor, smallest: Tensor, sweeps: int
) -> None:
    """The same from the residual itself, for concentrations above 0."""
    for i in range(len(spectra)):
        for _ in range(sweeps):
            for j in range(len(components)):
                strength = components[j] @ components[j]
                if concentrations[i, j] != 0 and strength > 0:
                    left = spectra[i] - concentrations[i] @ components
                    best = concentrations[i, j] + left @ components[j] / strength
                    concentrations[i, j] = best if best >= smallest[j] else 0.0


def descend_components(
    spectra: Tensor, concentrations: Tensor, components: Tensor, held: Tensor, non_negative: bool, price: float
) -> None:
    """A component's best shape, the others given, is what the residual has along its concentrations."""
    for j in range(len(components)):
        power = concentrations[:, j] @ concentrations[:, j]
        if held[j] or not power > 0:
            continue
        best = components[j] + concentrations[:, j] @ mixture_residual(spectra, concentrations, components) / power
        if non_negative:
            best = best.clamp(min=0.0)
        components[j] = torch.where(best.square() * power < price, 0.0, best)


def mixture_residual(spectra: Tensor, concentrations: Tensor, components: Tensor, whole: bool = True) -> Tensor:
    """Spectra less their mixtures, or the sums of their squares."""
    left = spectra - concentrations @ components
    return left if whole else left.square().sum(1)
