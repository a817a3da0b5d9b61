"""Weights of spectra or of single values, and values that are missing, whose weight is 0."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.io.errors import DataError
from spectrafuse.io.validate import as_numeric
from spectrafuse.mcr.inputs import Table
from spectrafuse.mcr.noise import NoiseLevel, noise_level, noise_of_rows, numerical_rank
from spectrafuse.mcr.refinement.weighted import Array, solved

_USUAL = 0.95
"""That share of the values weigh no more than their spectrum and band say; beyond, a search leaves it at that."""
_ROUNDS, _SETTLED, _MOST_RANK, _MOST_RANKED = 30, 1e-3, 40, 1000
"""Of a mixture of few shapes: rounds at most, the share of the residual that another must gain, shapes at most, and
spectra that tell how many there are."""


class Weighting(NamedTuple):
    """Weights of squared residuals.

    Attributes
    ----------
    weights : ndarray, (n, d)
        0 where a value is missing; their geometric mean, of those above 0, is 1.
    rows, bands : ndarray, (n,) and (d,)
        Factors of residuals whose squares, multiplied, are nearly the weights.
    missing : int
        Values that are missing.
    given : bool
        The user gave weights.
    """

    weights: NDArray[np.float32]
    rows: Array
    bands: Array
    missing: int
    given: bool

    def squares(self, spectra: NDArray[np.floating], fit: NDArray[np.floating]) -> tuple[float, float, float]:
        """Weighted sums of squares: of what a fit leaves, of the spectra, and of these about their column means."""
        total = np.maximum(self.weights.sum(0, dtype=np.float64), 1e-300)
        mean = (self.weights * spectra).sum(0, dtype=np.float64) / total
        parts = (spectra - fit, spectra, spectra - mean)
        residual, power, variation = (float((self.weights * np.square(part, dtype=np.float64)).sum()) for part in parts)
        return residual, power, variation

    @property
    def part(self) -> float:
        """What is left of the noise's variance where values are missing or weigh less, 0 to 1."""
        return float(self.shares().mean())

    def shares(self) -> Array:
        """What is left of the weights beside those of spectra and bands, at most 1: (n, d)."""
        shares = self.weights / np.outer(self.rows**2, self.bands**2)
        return np.minimum(shares, 1.0)


def weighting_of(name: str, spectra: NDArray[np.float32], sample_weight: Any, *, banded: bool) -> Weighting | None:
    """The weights of spectra (n, d), NaN where a value is missing; None where all are there and weigh the same.

    Parameters
    ----------
    name : str
        What messages call the spectra.
    spectra : ndarray, (n, d)
    sample_weight : array_like, (n,) or (n, d), or None
    banded : bool
        Bands may have factors of their own.

    Raises
    ------
    ValueError
        If the weights have another shape, or are negative or not finite.
    DataError
        If the weights are no real numbers; if a spectrum or band has no value, or none that weighs anything.
    """
    absent = np.isnan(spectra)
    if sample_weight is None and not absent.any():
        return None
    given = None if sample_weight is None else _numbers(sample_weight)
    present = _checked(given, spectra.shape) * ~absent
    for axis, what in ((1, "spectrum"), (0, "band")):
        empty = np.flatnonzero(~present.any(axis))
        if len(empty):
            raise DataError(
                f"`{name}` has no value in {what} {empty[0]} (counted from 0), or none with a weight above 0"
                + (f", and {len(empty) - 1} more like it" if len(empty) > 1 else "")
                + f": leave {'it' if len(empty) == 1 else 'them'} out."
            )
    there = present > 0
    logarithm = np.log(np.where(there, present, 1.0))
    logarithm -= there * (logarithm.sum() / there.sum())
    rows, bands = np.zeros(len(present)), np.zeros(present.shape[1])
    if given is not None:
        rows = logarithm.sum(1) / there.sum(1)
        left = np.where(there, logarithm - rows[:, None], 0.0)
        if given.ndim == 2:
            bands = left.sum(0) / there.sum(0) if banded else bands
            rows = rows + float(np.quantile((left - bands)[there], _USUAL))
    weights = np.where(there, np.exp(logarithm), 0.0).astype(np.float32)
    return Weighting(weights, np.exp(rows / 2), np.exp(bands / 2), int(absent.sum()), sample_weight is not None)


def _numbers(weights: Any) -> Array:
    """Weights as numbers; an array of true and false is a mask."""
    mask = isinstance(weights, np.ndarray) and weights.dtype.kind == "b"
    return as_numeric("sample_weight", np.asarray(weights, np.int8) if mask else weights).astype(np.float64)


def _checked(weights: Array | None, shape: tuple[int, ...]) -> Array:
    if weights is None:
        return np.ones(shape)
    if weights.shape not in (shape[:1], shape):
        raise InvalidValueError(
            f"`sample_weight` must have a weight for each of {shape[0]} spectra, or for each of their values "
            f"{shape}; got shape {weights.shape}."
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InvalidValueError("`sample_weight` must be finite and not negative; give 0 for what takes no part.")
    if not weights.any():
        raise InvalidValueError("`sample_weight` is zero everywhere; what takes part needs a weight above zero.")
    return np.broadcast_to(weights[:, None], shape) if weights.ndim == 1 else weights


def noise_of_weighted(
    spectra: Table, weighting: Weighting | None, noise: float | None = None, *, floor: float
) -> NoiseLevel:
    """`noise_level` of filled spectra times the factors of bands: of all their values, with noise or without."""
    if weighting is None:
        return noise_level(spectra, noise, floor=floor)
    given = None if noise is None else noise * math.sqrt(weighting.part)
    return noise_level(spectra[:] * weighting.bands, given, floor=floor, even=weighting.given)


def noise_of_present(noise: NoiseLevel, weighting: Weighting | None) -> NoiseLevel:
    """The noise of values that are there, from that of all: what stands for missing ones has none."""
    if weighting is None or noise.structured or noise.assumed:
        return noise
    return noise._replace(sigma=noise.sigma / math.sqrt(weighting.part), nmse=noise.nmse / weighting.part)


def filled(spectra: NDArray[np.float32], weighting: Weighting) -> NDArray[np.float32]:
    """Spectra (n, d) times the factors of spectra, in which the mixture of few shapes that fits best stands for what
    is missing, and in part for what weighs little.

    Only for a search: a last fit leaves these values out.

    Notes
    -----
    Weighted low-rank approximation: Srebro and Jaakkola, ICML 2003. The rank is the smallest one with which nothing
    more stands out of the noise.
    """
    there, shares = weighting.weights > 0, weighting.shares()
    scale = np.outer(weighting.rows, weighting.bands)
    values = np.where(there, spectra, 0.0) * scale
    some = np.arange(0, len(values), -(-len(values) // _MOST_RANKED))
    with single_blas_thread:
        shapes = _shapes(values[some], shares[some])
        if len(some) < len(values):
            shapes = _low_rank(values, shares, shapes)
        low = solved(values, shares, shapes) @ shapes
    return ((shares * values + (1 - shares) * low) / weighting.bands).astype(np.float32)


def _shapes(values: Array, shares: Array) -> Array:
    """As few shapes (q, d) as describe values, of which shares are there, down to their noise."""
    usual = (shares * values).sum(0) / np.maximum(shares.sum(0), 1e-300)
    shapes = usual[None] if usual.any() else np.ones((1, values.shape[1]))
    for rank in range(1, max(min(_MOST_RANK, min(values.shape) // 2), 1) + 1):
        shapes = _low_rank(values, shares, shapes)
        low = solved(values, shares, shapes) @ shapes
        left = shares * (values - low)
        whole = low + left
        level = noise_of_rows(whole, noise_level(whole))[:, None]
        if numerical_rank(whole / level) <= rank:
            break
        # The strongest shape of what is left.
        gram = left.T @ left if len(left) > left.shape[1] else left @ left.T
        strongest = np.linalg.eigh(gram)[1][:, -1]
        shapes = np.vstack([shapes, strongest if len(strongest) == left.shape[1] else strongest @ left])
    return shapes


def _low_rank(values: Array, shares: Array, shapes: Array) -> Array:
    """Shapes (q, d) whose mixtures fit best, by weighted least squares of both factors in turn."""
    before = np.inf
    for _ in range(_ROUNDS):
        amounts = np.linalg.qr(solved(values, shares, shapes))[0]
        shapes = solved(values.T, shares.T, amounts.T).T
        left = values - amounts @ shapes
        error = float((shares * left * left).sum())
        if before - error <= _SETTLED * error:
            break
        before = error
    return shapes
