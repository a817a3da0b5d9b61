"""Weights of single values: descent of either factor where each row has its own, 0 for what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STILL = 1e-10
_BLOCK = 2**22
"""Numbers that products of a block of rows may take."""
_ROUNDS, _SWEEPS, _GAIN = 200, 4, 1e-7
"""Of a fit: rounds at most, sweeps of each factor in one, and the share of the cost that another must gain."""
_RIDGE = 1e-9


def weighted_products(values: Array, weights: Array, factor: Array) -> Iterator[tuple[slice, Array, Array]]:
    """Products of rows (m, q) with the other factor (k, q), and of that with itself, weighted row by row.

    Yields
    ------
    rows : slice
    along, overlap : ndarray, (b, k) and (b, k, k)
    """
    size = len(factor)
    upper = np.triu_indices(size)
    pairs = factor[upper[0]] * factor[upper[1]]
    step = max(1, _BLOCK // max(size * size, 1))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        overlap = np.empty((len(values[rows]), size, size))
        overlap[:, upper[0], upper[1]] = overlap[:, upper[1], upper[0]] = weights[rows] @ pairs.T
        yield rows, (weights[rows] * values[rows]) @ factor.T, overlap


def descended(
    values: Array,
    weights: Array,
    factor: Array,
    start: Array,
    schedule: Sequence[tuple[float, int]],
    *,
    non_negative: bool = True,
    held: NDArray[np.bool_] | None = None,
) -> Array:
    """The factor (m, k) of rows (m, q), the other one (k, q) given, after sweeps of coordinate descent.

    Parameters
    ----------
    values, weights : ndarray, (m, q)
        Rows, and weights of their squared residuals. What has a weight of 0 must be finite.
    factor : ndarray, (k, q)
    start : ndarray, (m, k)
    schedule : sequence of (float, int)
        Prices of an entry that is not zero, and sweeps with each.
    non_negative : bool
    held : ndarray of bool, (k,), optional
        Columns that stay.
    """
    found = start.copy()
    columns = range(len(factor)) if held is None else np.flatnonzero(~held)
    for rows, along, overlap in weighted_products(values, weights, factor):
        part = found[rows]
        for price, sweeps in schedule:
            for _ in range(sweeps):
                change = 0.0
                for k in columns:
                    power = overlap[:, k, k]
                    some = power > 0
                    step = along[:, k] - np.einsum("nk,nk->n", overlap[:, k], part)
                    best = np.where(some, part[:, k] + step / np.where(some, power, 1.0), part[:, k])
                    if non_negative:
                        np.maximum(best, 0.0, out=best)
                    if price > 0:
                        best[best * best * power < price] = 0.0
                    change = max(change, float(np.abs((best - part[:, k]) * np.sqrt(power)).max(initial=0.0)))
                    part[:, k] = best
                if change < _STILL:
                    break
    return found


def solved(values: Array, weights: Array, factor: Array) -> Array:
    """The factor (m, k) of rows (m, q) that is best by weighted least squares, with nothing kept above zero."""
    found = np.empty((len(values), len(factor)))
    for rows, along, overlap in weighted_products(values, weights, factor):
        size = np.einsum("nkk->n", overlap)
        overlap += np.maximum(_RIDGE * size, 1e-300)[:, None, None] * np.eye(len(factor))
        found[rows] = np.linalg.solve(overlap, along[:, :, None])[:, :, 0]
    return found


def fitted(
    spectra: Array,
    weights: Array,
    concentrations: Array,
    components: Array,
    *,
    price: float,
    non_negative: bool,
    held: NDArray[np.bool_],
) -> tuple[Array, Array]:
    """Both factors in turn until a round brings next to nothing.

    Parameters
    ----------
    spectra, weights : ndarray, (n, d)
        Weights in units of the noise's variance; spectra are finite where these are 0.
    concentrations, components : ndarray, (n, k) and (k, d)
        Where it starts. Components come back at their norms.
    price : float
        Of an open gate, in the same unit.
    non_negative : bool
        Components are.
    held : ndarray of bool, (k,)
        Components that stay as they are.
    """
    before, lengths = np.inf, np.linalg.norm(components, axis=1)
    for _ in range(_ROUNDS):
        components = descended(
            spectra.T,
            weights.T,
            concentrations.T,
            components.T,
            [(0.0, _SWEEPS)],
            non_negative=non_negative,
            held=held,
        ).T
        size = np.linalg.norm(components, axis=1)
        size = np.where(size > 0, size / np.where(lengths > 0, lengths, 1.0), 1.0)
        components, concentrations = components / size[:, None], concentrations * size
        concentrations = descended(spectra, weights, components, concentrations, [(price, _SWEEPS)])
        left = spectra - concentrations @ components
        cost = float((weights * left * left).sum()) + price * np.count_nonzero(concentrations)
        if before - cost <= _GAIN * cost:
            break
        before = cost
    return concentrations, components
