"""Cosmic rays: narrow spikes of one spectrum that no other spectrum has at the same place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_REACH = 3
"""Bands from a spike to those beside it that it is compared with: spikes are up to five bands wide."""
_STRONG = 8.0
"""Robust standard deviations above what spectra usually show in a band."""
_FEWEST_SPECTRA, _MOST_ALIKE, _SHARE_ALIKE = 6, 2, 0.02
"""Spectra that are needed to tell; so many, or that share, may have a spike in one band: more are a component."""


def find_spikes(spectra: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where spectra (n, d) have spikes: (n, d), with the bands beside each.

    How far a band rises above those beside it is compared, band by band, among all spectra: narrow bands of components
    rise in many spectra.
    """
    count, bands = spectra.shape
    found = np.zeros((count, bands), np.bool_)
    if count < _FEWEST_SPECTRA or bands < 2 * _REACH + 1:
        return found
    padded = np.pad(spectra.astype(np.float64), ((0, 0), (_REACH, _REACH)), mode="edge")
    # The higher side, so that a slope is no rise.
    rise = spectra - np.maximum(padded[:, : -2 * _REACH], padded[:, 2 * _REACH :])
    middle = np.median(rise, axis=0)
    spread = 1.4826 * np.median(np.abs(rise - middle), axis=0)
    usual = np.maximum(spread, np.median(spread))
    high = rise > middle + _STRONG * usual
    high &= high.sum(0) <= max(_MOST_ALIKE, _SHARE_ALIKE * count)
    found |= high
    found[:, 1:] |= high[:, :-1]
    found[:, :-1] |= high[:, 1:]
    return found


def without_spikes(spectra: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Spectra (n, d) with the bands of spikes drawn through from beside them, and where that was.

    NaN stays where values are missing.
    """
    cleaned, places = spectra.copy(), np.arange(spectra.shape[1])
    absent = np.isnan(spectra)
    for row in np.flatnonzero(absent.any(1) & ~absent.all(1)):
        bad = absent[row]
        cleaned[row, bad] = np.interp(places[bad], places[~bad], spectra[row, ~bad])
    spikes = find_spikes(cleaned) & ~absent
    spectra = cleaned.copy()
    for row in np.flatnonzero(spikes.any(1)):
        bad = spikes[row]
        cleaned[row, bad] = np.interp(places[bad], places[~bad], spectra[row, ~bad])
    return np.where(absent, np.float32(np.nan), cleaned), spikes
