"""Noise that is not the same in all bands, or goes along from band to band: both are read off the residual."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.mcr.inputs import Table
from spectrafuse.mcr.noise import NoiseLevel, noise_level, noise_of_rows, numerical_rank, squares, tail_noise
from spectrafuse.mcr.refinement.whitening import Array, restored, whitened

_LEAST_RATIO = 3.0
"""Noise of the noisiest tenth of the bands over that of the quietest: below, they count as alike. White noise has
1.0 to 1.2, components that are zero in most bands 1.5, a fermentation followed in the mid-infrared 25."""
_WIDTH, _FEWEST_SPECTRA, _MOST_SPECTRA = 15, 8, 2000
_LEAST_CORRELATION, _MOST_CORRELATION = 0.15, 0.99
"""Correlations of neighboring bands that are filtered. White noise, and the measured spectra of the benchmarks that
are not smooth, have 0.05 and less."""
_STEPS, _SETTLED, _MOST_FILTERED = 12, 0.005, 1000
_LAGS, _LEFT = range(2, 6), 0.1
"""Behind the filter bands that far apart must be correlated by no more than that; smoothed spectra are by more."""


class _Tail(NamedTuple):
    """What the strongest directions leave of filtered spectra, of which each has about unit norm."""

    variance: float
    aside: int
    structured: bool
    proportional: bool
    correlation: float
    further: float

    @classmethod
    def of(cls, spectra: Array, proportional: bool, correlation: float) -> _Tail | None:
        filtered = whitened(spectra, correlation)
        u, s, v = np.linalg.svd(filtered, full_matrices=False)
        tail = tail_noise(s, *spectra.shape)
        if tail is None:
            return None
        left = filtered - (u[:, : tail.aside] * s[: tail.aside]) @ v[: tail.aside]
        further = max(abs(_correlation(left, lag)) for lag in _LAGS)
        neighbors = _correlation(restored(left, correlation), 1)
        return cls(tail.sigma**2, tail.aside, tail.structured, proportional, neighbors, further)


def _correlation(rows: Array, lag: int) -> float:
    return float((rows[:, lag:] * rows[:, :-lag]).sum() / max(float((rows * rows).sum()), 1e-300))


def band_weights(spectra: Table, noise: NoiseLevel) -> Array | None:
    """Factors that make the noise of all bands alike, with a mean square of 1; None where it is.

    Parameters
    ----------
    spectra : ndarray, (n, d)
    noise : NoiseLevel
        One that was given, or assumed as there is no white tail, is taken as it is.

    Returns
    -------
    ndarray, (d,), or None
    """
    count, bands = spectra.shape
    if noise.structured or noise.source == "given" or count < _FEWEST_SPECTRA or bands < 4 * _WIDTH:
        return None
    some = spectra[:: -(-count // _MOST_SPECTRA)]
    scaled = some / noise_of_rows(some, noise)[:, None]
    with single_blas_thread:
        before = numerical_rank(scaled)
        first = rank = min(before, len(some) // 2)
        u, s, v = np.linalg.svd(scaled, full_matrices=False)
        while rank > 0:
            weights = _weights(np.square(scaled - (u[:, :rank] * s[:rank]) @ v[:rank]).mean(0))
            if weights is None and rank == first:
                return None
            if weights is not None:
                weighted = some * weights
                level = noise_of_rows(weighted, noise_level(weighted))[:, None]
                if numerical_rank(weighted / level) < before:
                    return weights
            # The noise of loud bands was taken for components, and that of quiet ones for all the noise there is.
            rank //= 2
    return None


def _weights(squares: Array) -> Array | None:
    """From squared residuals (d,) to weights; None where bands are alike."""
    padded = np.pad(squares, _WIDTH // 2, mode="edge")
    level = np.sqrt(np.convolve(padded, np.full(_WIDTH, 1 / _WIDTH), mode="valid"))
    low, high = np.quantile(level, (0.1, 0.9))
    if not high > _LEAST_RATIO * low > 0:
        return None
    weights = 1.0 / np.maximum(level, 0.1 * low)
    return np.asarray(weights / np.sqrt(np.mean(weights * weights)))


def correlated(spectra: Table, noise: NoiseLevel) -> NoiseLevel:
    """The noise level with the correlation of neighboring bands, if there is any; else the one that was given.

    Where noise goes along from band to band, its singular values have no white tail, and what is left behind the
    strongest is noise of the wrong shape. The correlation is read off that, spectra are filtered, and their tail is
    looked at anew until both agree. That counts only if the tail is white then, and bands further apart are
    independent too: spectra that were smoothed stay as they are.

    Parameters
    ----------
    spectra : ndarray, (n, d)
    noise : NoiseLevel
        As if bands were independent. A level that was given is kept.
    """
    count, bands = spectra.shape
    if noise.nmse == 0 or count < _FEWEST_SPECTRA or bands < 4 * _WIDTH:
        return noise
    some = spectra[:: -(-count // _MOST_FILTERED)].astype(np.float64)
    length = np.linalg.norm(some, axis=1, keepdims=True)
    scales = np.full_like(length, math.sqrt(float((length**2).mean()))), np.where(length > 0, length, 1.0)
    correlation = 0.0
    with single_blas_thread:
        for _ in range(_STEPS):
            kinds = (False, True) if correlation else (noise.proportional,)
            tails = [tail for tail in (_Tail.of(some / scales[kind], kind, correlation) for kind in kinds) if tail]
            if not tails:
                return noise
            tail = min(tails, key=lambda one: (one.structured, one.aside))
            before, correlation = correlation, min(tail.correlation, _MOST_CORRELATION)
            if correlation < _LEAST_CORRELATION:
                return noise
            if abs(correlation - before) < _SETTLED:
                break
    if tail.structured or tail.further > _LEFT:
        return noise
    if noise.source == "given":
        return noise._replace(proportional=tail.proportional, correlation=correlation)
    nmse = tail.variance * bands
    sigma = math.sqrt(nmse * squares(spectra)[0] / spectra.size)
    source = "estimated from the tail of the singular values of filtered spectra"
    if tail.proportional:
        source += " as proportional to each spectrum"
    return NoiseLevel(sigma, nmse, source, tail.proportional, correlation=correlation)
