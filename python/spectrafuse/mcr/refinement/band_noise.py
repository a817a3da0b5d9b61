"""Noise that is not the same in all bands: it is read off the residual, and bands are weighted by it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows
from spectrafuse.mcr.refinement.evidence import numerical_rank
from spectrafuse.mcr.refinement.hard_gates import Array

_LEAST_RATIO = 3.0
"""Noise of the noisiest tenth of the bands over that of the quietest: below, they count as alike. White noise has
1.0 to 1.2, components that are zero in most bands 1.5, a fermentation followed in the mid-infrared 25."""
_WIDTH, _FEWEST_SPECTRA, _MOST_SPECTRA = 15, 8, 2000


def band_weights(spectra: NDArray[np.float32], noise: NoiseLevel) -> Array | None:
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
    with threadpool_limits(1, user_api="blas"):
        rank = min(numerical_rank(scaled), len(some) // 2)
        u, s, v = np.linalg.svd(scaled, full_matrices=False)
        squares = np.square(scaled - (u[:, :rank] * s[:rank]) @ v[:rank]).mean(0)
    padded = np.pad(squares, _WIDTH // 2, mode="edge")
    level = np.sqrt(np.convolve(padded, np.full(_WIDTH, 1 / _WIDTH), mode="valid"))
    low, high = np.quantile(level, (0.1, 0.9))
    if not high > _LEAST_RATIO * low > 0:
        return None
    weights = 1.0 / np.maximum(level, 0.1 * low)
    return np.asarray(weights / np.sqrt(np.mean(weights * weights)))
