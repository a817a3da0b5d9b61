"""Gates with exact energies: a component opens for a spectrum if it explains more of it than noise would.

For given components the energies that the evaluator network learns can be computed: opening a gate lowers the squared
residual, in units of the noise, by some amount and costs a fixed price. Both factors of a mixture are solved here by
coordinate descent, in float64 on the CPU (`spectrafuse.ops.gated_descent`); spectra come in units of their noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows
from spectrafuse.mcr.refinement import weighted
from spectrafuse.mcr.refinement.whitening import Array, whitened
from spectrafuse.ops.gated_descent import descend_components, gated_descent, residual_power

_SETTLE, _STEPS, _SHARES = 60, 4, (0.1, 0.3, 1.0)
_STILL = 1e-10
"""Concentrations that change by less, in units of the noise, are settled."""


class ExactGates(NamedTuple):
    """How gates are decided once the components are refined.

    Attributes
    ----------
    noise : NoiseLevel
        Of the spectra that were fitted.
    price : float
        A gate opens if it lowers the sum of squared residuals, in units of the noise's variance, by more.
    open_ids : tuple of int
        Components of the pool whose gates may open; the others stay closed.
    weights : tuple of float, (d,), or None
        Of the bands, where their noise is unlike; the noise is then that of weighted spectra.
    """

    noise: NoiseLevel
    price: float
    open_ids: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    def concentrations(self, spectra: NDArray[np.floating], components: NDArray[np.floating]) -> Array:
        """Gated concentrations (n, k) of spectra (n, d) for components (k, d), 0 where a gate is closed.

        Values that are NaN take no part; where there are some, noise counts as uncorrelated.
        """
        with single_blas_thread:
            return self._concentrations(spectra, components)

    def _concentrations(self, spectra: NDArray[np.floating], components: NDArray[np.floating]) -> Array:
        if self.weights is not None:
            spectra, components = spectra * np.asarray(self.weights), components * np.asarray(self.weights)
        length = np.linalg.norm(components.astype(np.float64), axis=1)
        unit = components / np.where(length > 0, length, 1.0)[:, None]
        absent = np.isnan(spectra)
        if absent.any():
            spectra = np.where(absent, 0.0, spectra)
            level = level_of_present(spectra, ~absent, self.noise)[:, None]
            found = weighted_gates_of(spectra / level, (~absent).astype(np.float64), unit, self.price)
        else:
            level = noise_of_rows(spectra, self.noise)[:, None]
            correlation = self.noise.correlation
            found = gates_of(whitened(spectra / level, correlation), whitened(unit, correlation), self.price)
        found *= level / np.where(length > 0, length, 1.0)
        found[absent.all(1)] = np.nan
        return found


def price_of_gate(samples: int, pool: int) -> float:
    """What noise alone explains at most through one of `samples * pool` gates: the largest of so many chi-squares."""
    return 2.0 * math.log(max(samples * pool, 2))


def products(spectra: Array, components: Array) -> tuple[Array, Array]:
    """Products of spectra (n, d) and components (k, d), and of components with each other: (n, k) and (k, k)."""
    return spectra @ components.T, components @ components.T


def descend(along: Array, overlap: Array, concentrations: Array, price: float, sweeps: int = 1) -> None:
    """Sweeps of coordinate descent over gated concentrations (n, k), in place.

    Each coordinate takes its best non-negative value, or 0 if that explains no more than `price`.
    """
    power = overlap.diagonal()
    smallest = np.sqrt(price / np.where(power > 0, power, 1.0))
    gated_descent(*tensors(along, overlap, concentrations, smallest), sweeps=sweeps, tolerance=_STILL)


def update_concentrations(
    spectra: Array, concentrations: Array, components: Array, price: float, *, sweeps: int = 1
) -> Array:
    """Concentrations (n, k) after sweeps of descent, for components (k, d) of unit norm or zero."""
    found = concentrations.copy()
    descend(*products(spectra, components), found, price, sweeps)
    return found


def update_components(
    spectra: Array,
    concentrations: Array,
    components: Array,
    *,
    non_negative: bool,
    price: float = 0.0,
    held: NDArray[np.bool_] | None = None,
) -> Array:
    """Components (k, d) after one sweep of coordinate descent, rows `held` aside.

    With a `price`, the sparse form's, bands that explain no more than it become 0.
    """
    found = components.copy()
    fixed = None if held is None else torch.from_numpy(held)
    descend_components(*tensors(spectra, concentrations, found), non_negative=non_negative, price=price, held=fixed)
    return found


def gates_of(spectra: Array, components: Array, price: float) -> Array:
    """Gated concentrations (n, k) of spectra (n, d), settled, for components (k, d)."""
    along, overlap = products(spectra, components)
    found = _opened(along, overlap, price, _SETTLE)
    descend(along, overlap, found, price, _SETTLE)
    return found


def level_of_present(spectra: NDArray[np.floating], present: NDArray[np.bool_], noise: NoiseLevel) -> Array:
    """Standard deviation of the noise of spectra (n, d), of which some values are missing: (n,)."""
    power = np.square(spectra, dtype=np.float64).sum(1, where=present) / np.maximum(present.sum(1), 1)
    return noise_of_rows(np.where(present, spectra, np.sqrt(power)[:, None]), noise)


def weighted_gates_of(spectra: Array, weights: Array, components: Array, price: float) -> Array:
    """`gates_of` with weights (n, d) of the squared residuals."""
    closing = [(price * share, _STEPS) for share in _SHARES]
    start = np.zeros((len(spectra), len(components)))
    return weighted.descended(spectra, weights, components, start, [(0.0, _SETTLE), *closing, (price, _SETTLE)])


def opened(spectra: Array, components: Array, price: float, *, settle: int = 20) -> Array:
    """Gated concentrations (n, k) from nothing: all gates open, then closed at a rising price."""
    return _opened(*products(spectra, components), price, settle)


def _opened(along: Array, overlap: Array, price: float, settle: int = 20) -> Array:
    found = np.zeros_like(along)
    descend(along, overlap, found, 0.0, settle)
    for share in _SHARES:
        descend(along, overlap, found, price * share, _STEPS)
    return found


def costs(spectra: Array, concentrations: Array, components: Array, price: float) -> Array:
    """Squared residual and price of the open gates of each spectrum: (n,)."""
    power: Array = residual_power(*tensors(spectra, concentrations, components)).numpy()
    return power + price * np.count_nonzero(concentrations, axis=1)


def regated(
    spectra: Array, concentrations: Array, components: Array, price: float, rows: NDArray[np.bool_] | None = None
) -> Array:
    """Concentrations with the gates of `rows` (None: all) decided anew, spectrum by spectrum if that is better."""
    which = np.arange(len(spectra)) if rows is None else np.flatnonzero(rows)
    some, kept = (spectra, concentrations.copy()) if rows is None else (spectra[which], concentrations[which])
    along, overlap = products(some, components)
    descend(along, overlap, kept, price, _STEPS)
    fresh = _opened(along, overlap, price)
    better = costs(some, fresh, components, price) < costs(some, kept, components, price)
    kept[better] = fresh[better]
    if rows is None:
        return kept
    result = concentrations.copy()
    result[which] = kept
    return result


def tensors(*arrays: Array) -> tuple[Tensor, ...]:
    """The same memory as tensors."""
    return tuple(torch.from_numpy(array) for array in arrays)
