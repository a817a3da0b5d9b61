"""MCR-ALS as textbooks have it: least squares of either factor in turn, each brought to its constraints."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


def plain_als(
    spectra: Array,
    shapes: Array,
    *,
    amounts: Callable[[Array], Array] = lambda values: values,
    spectra_of: Callable[[Array], Array] = lambda values: values,
    signed: bool = False,
    rounds: int = 60,
) -> tuple[Array, Array]:
    """Concentrations (n, k) and components (k, d), from components to start with.

    Parameters
    ----------
    amounts, spectra_of : callable
        Bring concentrations (n, k), or components (k, d), to what is known of them.
    signed : bool
        Concentrations may be negative.
    """

    def solved(rows: Array, factor: Array) -> Array:
        return np.array([nnls(factor.T, row)[0] for row in rows])

    for _ in range(rounds):
        free = np.linalg.lstsq(shapes.T, spectra.T, rcond=None)[0].T if signed else solved(spectra, shapes)
        concentrations = amounts(free)
        shapes = spectra_of(solved(spectra.T, concentrations.T).T)
    return concentrations, shapes
