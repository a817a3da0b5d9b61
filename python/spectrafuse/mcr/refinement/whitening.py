"""Noise that goes along from band to band: a filter that makes it white, and back."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]


def whitened(rows: Array, correlation: float) -> Array:
    """Rows (m, d) less what the noise of a band shares with that of the band before; its variance stays the same.

    Parameters
    ----------
    rows : ndarray, (m, d)
        Spectra or components.
    correlation : float
        Of the noise of neighboring bands, whose correlation falls with a power of the distance (AR(1)). 0: the rows.
    """
    if correlation == 0:
        return rows
    left = rows.copy()
    left[:, 1:] -= correlation * rows[:, :-1]
    left[:, 1:] /= math.sqrt(1 - correlation * correlation)
    return left


def restored(rows: Array, correlation: float) -> Array:
    """The rows (m, d) that `whitened` was given."""
    if correlation == 0:
        return rows
    left = rows.copy()
    left[:, 1:] *= math.sqrt(1 - correlation * correlation)
    return np.asarray(lfilter([1.0], [1.0, -correlation], left, axis=1))
