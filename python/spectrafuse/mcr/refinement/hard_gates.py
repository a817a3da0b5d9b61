"""Gates with exact energies: a component opens for a spectrum if it explains more of it than noise would.

For given components the energies that the evaluator network learns can be computed: opening a gate lowers the squared
residual, in units of the noise, by some amount and costs a fixed price. Both factors of a mixture are solved here by
coordinate descent, in float64 on the CPU; spectra come in units of their noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows

Array = NDArray[np.float64]

_SETTLE, _STEPS, _SHARES = 60, 4, (0.1, 0.3, 1.0)


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
    """

    noise: NoiseLevel
    price: float
    open_ids: tuple[int, ...]

    def concentrations(self, spectra: NDArray[np.floating], components: NDArray[np.floating]) -> Array:
        """Gated concentrations (n, k) of spectra (n, d) for components (k, d), 0 where a gate is closed."""
        with threadpool_limits(1, user_api="blas"):
            return self._concentrations(spectra, components)

    def _concentrations(self, spectra: NDArray[np.floating], components: NDArray[np.floating]) -> Array:
        level = noise_of_rows(spectra, self.noise)[:, None]
        length = np.linalg.norm(components.astype(np.float64), axis=1)
        unit = components / np.where(length > 0, length, 1.0)[:, None]
        found = opened(spectra / level, unit, self.price, settle=_SETTLE)
        found = update_concentrations(spectra / level, found, unit, self.price, sweeps=_SETTLE)
        return found * level / np.where(length > 0, length, 1.0)


def price_of_gate(samples: int, pool: int) -> float:
    """What noise alone explains at most through one of `samples * pool` gates: the largest of so many chi-squares."""
    return 2.0 * math.log(max(samples * pool, 2))


def update_concentrations(
    spectra: Array, concentrations: Array, components: Array, price: float, *, sweeps: int = 1
) -> Array:
    """Sweeps of coordinate descent over gated concentrations (n, k) for components (k, d) of unit norm or zero.

    Each coordinate takes its best non-negative value, or 0 if that explains no more than `price`.
    """
    overlap, along = components @ components.T, components @ spectra.T
    power = overlap.diagonal()
    smallest = np.sqrt(price / np.where(power > 0, power, 1.0))
    # A component's concentrations lie side by side while they are worked on.
    found = concentrations.T.copy()
    for _ in range(sweeps):
        for k in np.flatnonzero(power > 0):
            best = overlap[k] @ found
            np.subtract(along[k], best, out=best)
            best /= power[k]
            best += found[k]
            best[best < smallest[k]] = 0.0
            found[k] = best
    return np.ascontiguousarray(found.T)


def update_components(
    spectra: Array,
    concentrations: Array,
    components: Array,
    *,
    non_negative: bool,
    price: float = 0.0,
    held: NDArray[np.bool_] | None = None,
) -> Array:
    """One sweep of coordinate descent over components (k, d), rows `held` aside.

    With a `price`, the sparse form's, channels that explain no more than it become 0.
    """
    overlap, along = concentrations.T @ concentrations, concentrations.T @ spectra
    found = components.copy()
    power = overlap.diagonal()
    for k in np.flatnonzero(power > 0):
        if held is not None and held[k]:
            continue
        best = found[k] + (along[k] - overlap[k] @ found) / power[k]
        if non_negative:
            np.maximum(best, 0.0, out=best)
        if price > 0:
            best[best * best * power[k] < price] = 0.0
        found[k] = best
    return found


def opened(spectra: Array, components: Array, price: float, *, settle: int = 20) -> Array:
    """Gated concentrations (n, k) from nothing: all gates open, then closed at a rising price."""
    found = np.zeros((len(spectra), len(components)))
    found = update_concentrations(spectra, found, components, 0.0, sweeps=settle)
    for share in _SHARES:
        found = update_concentrations(spectra, found, components, price * share, sweeps=_STEPS)
    return found


def costs(spectra: Array, concentrations: Array, components: Array, price: float) -> Array:
    """Squared residual and price of the open gates of each spectrum: (n,)."""
    residual = spectra - concentrations @ components
    return (residual * residual).sum(1) + price * (concentrations > 0).sum(1)


def regated(
    spectra: Array, concentrations: Array, components: Array, price: float, rows: NDArray[np.bool_] | None = None
) -> Array:
    """Concentrations with the gates of `rows` (None: all) decided anew, spectrum by spectrum if that is better."""
    which = slice(None) if rows is None else rows
    some = spectra[which]
    kept = update_concentrations(some, concentrations[which], components, price, sweeps=_STEPS)
    fresh = opened(some, components, price)
    better = costs(some, fresh, components, price) < costs(some, kept, components, price)
    result = concentrations.copy()
    result[which] = np.where(better[:, None], fresh, kept)
    return result
