"""Where the refinement starts: with spectra that are the least like mixtures of others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spectrafuse.mcr.noise import numerical_rank
from spectrafuse.mcr.refinement.factors import Factors
from spectrafuse.mcr.refinement.hard_gates import Array, descend
from spectrafuse.mcr.refinement.whitening import restored, whitened

_LEAST, _MORE, _SURPLUS = 8, 1.25, 2
"""Candidates: at least so many; so many times the numerical rank, and so many beyond."""
_OVERCOMPLETE = 0.8
"""Where the numerical rank is that share of what it can be, there may be more components than it can tell."""
_SWEEPS = 200
_LOOKED_AT = 16


def number_of_candidates(spectra: Array) -> int:
    """How many candidates spectra (n, d), in units of their noise, call for: more than there are components."""
    rank = numerical_rank(spectra)
    if rank > _OVERCOMPLETE * min(spectra.shape):
        return len(spectra)
    return min(len(spectra), max(_LEAST, math.ceil(_MORE * rank) + _SURPLUS))


def from_spectra(
    spectra: Array,
    known: Array,
    places: int,
    *,
    non_negative: bool = True,
    background: bool = False,
    correlation: float = 0.0,
    weights: Array | None = None,
) -> Factors:
    """Known components, then those spectra that mixtures of what was chosen before describe worst.

    Parameters
    ----------
    spectra : ndarray, (n, d)
        In units of each spectrum's noise.
    known : ndarray, (m, d)
        Components that come first, whatever the spectra say.
    places : int
        Components there can be, the known ones among them.
    non_negative : bool
        Negative bands of a chosen spectrum become 0.
    background : bool
        What all bands of a chosen spectrum share is no part of a non-negative component.
    correlation : float
        Of the noise of neighboring bands.
    weights : ndarray, (n,), optional
        What the squared residual of a spectrum counts for in the choice.

    Returns
    -------
    Factors
        All gates closed; ids count up from 0.

    Notes
    -----
    The successive nonnegative projection algorithm, Gillis, SIAM Journal on Imaging Sciences 7 (2014). A residual only
    shrinks as components are added, so that old ones are upper bounds, and only spectra that lead with an old residual
    are fitted anew.
    """
    shapes = spectra - spectra.min(1, keepdims=True) if background and non_negative else spectra
    shapes = whitened(np.maximum(shapes, 0.0) if non_negative else shapes, correlation)
    spectra, known = whitened(spectra, correlation), whitened(known, correlation)
    count = min(number_of_candidates(spectra), places - len(known))
    length = np.linalg.norm(shapes, axis=1)
    chosen = np.empty((len(known) + count, spectra.shape[1]))
    chosen[: len(known)] = known / np.linalg.norm(known, axis=1, keepdims=True)
    size, power = len(known), (spectra * spectra).sum(1)
    along = np.empty((len(spectra), len(chosen)))
    along[:, :size] = spectra @ chosen[:size].T
    overlap = np.empty((len(chosen), len(chosen)))
    overlap[:size, :size] = chosen[:size] @ chosen[:size].T
    found, fitted = np.zeros_like(along), np.zeros(len(spectra), np.int64)
    weights = np.ones(len(spectra)) if weights is None else weights
    left = np.where(length > 0, power * weights, 0.0)
    while size < len(chosen):
        row = _worst(
            power, weights, left, along[:, :size], np.ascontiguousarray(overlap[:size, :size]), found, fitted, size
        )
        if not left[row] > 0:
            break
        chosen[size] = shapes[row] / length[row]
        along[:, size] = spectra @ chosen[size]
        overlap[size, : size + 1] = overlap[: size + 1, size] = chosen[: size + 1] @ chosen[size]
        left[row], size = 0.0, size + 1
    return Factors(np.zeros((len(spectra), size)), restored(chosen[:size].copy(), correlation), np.arange(size))


def _worst(
    power: Array,
    weights: Array,
    left: Array,
    along: Array,
    overlap: Array,
    found: Array,
    fitted: NDArray[np.int64],
    size: int,
) -> int:
    """The spectrum with the largest residual; `left`, `found` and `fitted` are brought up to date as far as needed."""
    while True:
        order = np.argpartition(-left, min(_LOOKED_AT, len(left) - 1))[:_LOOKED_AT]
        row = int(order[np.argmax(left[order])])
        if fitted[row] == size or left[row] <= 0:
            return row
        stale = order[(fitted[order] < size) & (left[order] > 0)]
        products, amounts = along[stale], found[stale, :size]
        descend(products, overlap, amounts, 0.0, _SWEEPS)
        found[stale, :size] = amounts
        fitted[stale] = size
        explained = (amounts * (2 * products - amounts @ overlap)).sum(1)
        left[stale] = np.minimum(left[stale], weights[stale] * np.maximum(power[stale] - explained, 0.0))
