"""The noise level of a set of spectra: estimated from the data, or given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.mcr.inputs import Table, blocks

_FALLBACK_NMSE = 0.005
"""The published solver's margin, taken where too few spectra leave nothing to estimate from."""

_LEAST_NOISE = 1e-4
"""Smallest noise, as a share of the spectra's root mean square: float32 spectra are met no more exactly."""

_FEWEST_SPECTRA = 6
"""Of fewer the tail is two singular values or none, which say nothing."""

_MOST_ASIDE, _FEWEST_LEFT = 0.8, 6
"""Share of the singular values that may be set aside as those of components, and how many must be left."""
_LEAST_STEP, _STEADY = 1.2, 2.5
"""A step is that large a ratio of neighbouring singular values, and that many times as large (in its logarithm) as the
ratio of neighbours in white noise is on average. Of 240 mixtures (16 components in 24 to 40 spectra) all had one of
1.21 and more; smooth spectra that end white by chance had 1.19 and less, or 1.22 where neighbours differ by 1.1."""
_ABOVE, _BELOW = 0.1, 0.05
"""How far a white tail may reach beyond the bounds of noise: up by a component that all but drowns in it."""


class NoiseLevel(NamedTuple):
    """How much noise there is.

    Attributes
    ----------
    sigma : float
        Standard deviation, in the spectra's unit.
    nmse : float
        The noise's share of the spectra's sum of squares.
    source : str
        Where the number comes from, as a phrase.
    proportional : bool
        The noise grows with each spectrum's size, so that `nmse` is its share of every single one; else it is even.
    structured : bool
        The level is assumed, as the singular values do not end in those of white noise: all of it may have the shape of
        one component.
    white : bool
        The singular values end in those of white noise, or the level was given; else components may be part of it.
    correlation : float
        Of the noise of neighboring bands, falling with a power of their distance; 0: independent.
    """

    sigma: float
    nmse: float
    source: str
    proportional: bool = False
    structured: bool = False
    white: bool = True
    correlation: float = 0.0

    @property
    def assumed(self) -> bool:
        """The level was read off nothing."""
        return self.source.startswith("assumed")

    def at(self, nmse: float, source: str, *, white: bool) -> NoiseLevel:
        """The same kind of noise at another level."""
        sigma = self.sigma * math.sqrt(nmse / self.nmse)
        return self._replace(sigma=sigma, nmse=nmse, source=source, structured=False, white=white)


def _median_of_noise(rows: int, columns: int) -> float:
    """Median singular value of a (rows, columns) matrix of unit noise, by the Marchenko-Pastur law."""
    small, large = min(rows, columns), max(rows, columns)
    ratio = small / large
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    x = np.linspace(low, high, 4001)
    middle = 0.5 * (x[1:] + x[:-1])
    density = np.sqrt(np.maximum((high - middle) * (middle - low), 0.0)) / middle
    share = np.cumsum(density)
    median = middle[int(np.searchsorted(share, 0.5 * share[-1]))]
    return math.sqrt(median * large)


class _Tail(NamedTuple):
    sigma: float
    aside: int
    structured: bool


def tail_noise(singular_values: np.ndarray, rows: int, columns: int) -> _Tail | None:
    """Standard deviation of white noise from the tail of singular values; None if there is no tail.

    Values that stand out of the noise's spectrum are set aside and the estimate is repeated on the rest, at most down
    to half of them. Where even those that are left have a structure that white noise has not, there may be more
    components than that, or no white noise at all, as in smooth spectra, whose singular values fall ever on: more are
    set aside only where a step leads down to a tail that is white.
    """
    values = np.sort(np.asarray(singular_values, dtype=np.float64))[::-1]
    if rows < _FEWEST_SPECTRA or columns < 3:
        return None
    aside, most = 0, len(values) // 2
    while aside < most:
        tail = values[aside:]
        left_rows, left_columns = rows - aside, columns - aside
        if len(tail) < 3 or min(left_rows, left_columns) < 3:
            return None
        sigma = float(np.median(tail)) / _median_of_noise(left_rows, left_columns)
        edge = 1.02 * sigma * (math.sqrt(left_rows) + math.sqrt(left_columns))
        outside = min(aside + int((tail > edge).sum()), most)
        if outside == aside:
            return _Tail(_sigma_of_rest(values, aside, rows, columns), aside, structured=False)
        aside = outside
    if min(len(values), rows, columns) - most < 3:
        return None
    rounding = _LEAST_NOISE**2 * float((values**2).sum())
    for aside in range(1, min(int(_MOST_ASIDE * len(values)), len(values) - _FEWEST_LEFT) + 1):
        if float((values[aside:] ** 2).sum()) < rounding:
            break
        if _is_white_after_step(values, aside, rows, columns):
            return _Tail(_sigma_of_rest(values, aside, rows, columns), aside, structured=False)
    return _Tail(_sigma_of_rest(values, most, rows, columns), most, structured=True)


def _sigma_of_rest(values: np.ndarray, aside: int, rows: int, columns: int) -> float:
    # What is set aside took its share of the noise along: rows and columns left carry the rest.
    return math.sqrt(float((values[aside:] ** 2).sum()) / ((rows - aside) * (columns - aside)))


def _is_white_after_step(values: NDArray[np.float64], aside: int, rows: int, columns: int) -> bool:
    """Whether the values after the first `aside` fill the spectrum of white noise, and a step leads down to them."""
    sigma = _sigma_of_rest(values, aside, rows, columns)
    wide, narrow = math.sqrt(max(rows, columns) - aside), math.sqrt(min(rows, columns) - aside)
    highest, lowest = (1 + _ABOVE) * sigma * (wide + narrow), (1 - _BELOW) * sigma * (wide - narrow)
    if wide == narrow or values[aside] > highest or values[-1] < lowest:
        return False
    neighbours = math.log((wide + narrow) / (wide - narrow)) / (len(values) - aside)
    return bool(values[aside - 1] >= values[aside] * max(_LEAST_STEP, math.exp(_STEADY * neighbours)))


def row_blocks(spectra: Table) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Spectra (n, d) as float64, so many rows at a time that no copy of them all is made."""
    for rows, block in blocks(spectra):
        yield rows, block.astype(np.float64)


def squares(spectra: Table) -> tuple[float, float]:
    """Sum of squares of spectra (n, d), and about their column means."""
    mean = sum(block.sum(0) for _, block in row_blocks(spectra)) / len(spectra)
    parts = [(np.square(block).sum(), np.square(block - mean).sum()) for _, block in row_blocks(spectra)]
    power, variation = (float(sum(part)) for part in zip(*parts, strict=True))
    return power, variation


def singular_values(spectra: Table, scale: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Singular values of spectra (n, d), each divided by its `scale` (n,), in ascending order.

    The smaller Gram matrix has the same ones and is cheap for long spectra, and for many.
    """

    def scaled(rows: slice, block: NDArray[np.float64]) -> NDArray[np.float64]:
        return block if scale is None else block / scale[rows, None]

    # The last bits of both steps depend on how many threads share them.
    with single_blas_thread:
        if len(spectra) <= spectra.shape[1]:
            wide = scaled(slice(None), spectra[:].astype(np.float64))
            gram = wide @ wide.T
        else:
            blocks = (scaled(rows, block) for rows, block in row_blocks(spectra))
            gram = sum(block.T @ block for block in blocks)
        return np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def numerical_rank(spectra: NDArray[np.float64]) -> int:
    """Singular values of spectra (n, d), in units of their noise, above the optimal hard threshold for known noise.

    Notes
    -----
    Gavish and Donoho, IEEE Transactions on Information Theory 60 (2014). It knows neither non-negativity nor gates.
    """
    small, large = sorted(spectra.shape)
    ratio = small / large
    factor = math.sqrt(2 * (ratio + 1) + 8 * ratio / ((ratio + 1) + math.sqrt(ratio * ratio + 14 * ratio + 1)))
    return int((singular_values(spectra) > factor * math.sqrt(large)).sum())


def noise_level(
    spectra: Tensor | Table, noise: float | None = None, *, floor: float = 1e-3, even: bool = False
) -> NoiseLevel:
    """The noise level of spectra (n, d).

    Parameters
    ----------
    spectra : Tensor or ndarray, (n, d)
    noise : float or None
        Standard deviation of the noise in the spectra's unit; None: estimate it from the tail of the singular values.
    floor : float
        Smallest nMSE that is believed of a tail that is not white. Spectra that were smoothed or differentiated, and
        those that drift, leave next to nothing there, which does not say how exactly a mixture of few components
        describes them.

    even : bool
        The noise does not grow with the signal: spectra were weighted by it. False: that is read off the spectra.

    Returns
    -------
    NoiseLevel
        With fewer than six spectra nothing can be estimated and the published margin (nMSE 0.005) is taken.
    """
    n, d = spectra.shape
    # Sums in numpy, as torch's last bits depend on the number of threads.
    table = spectra.cpu().numpy() if isinstance(spectra, Tensor) else spectra
    norms = np.sqrt(_row_squares(table))
    power = float((norms * norms).sum())
    if power == 0:
        return NoiseLevel(0.0 if noise is None else float(noise), 0.0, "there is no signal")
    alike = tail_noise(singular_values(table), n, d)
    # Where noise grows with the signal, spectra of one norm have even noise; the better model of the noise is the one
    # whose tail is white, and that leaves less standing out of it.
    proportional = tail_noise(singular_values(table, np.where(norms > 0, norms, 1.0)), n, d)
    grows = (
        not even
        and alike is not None
        and proportional is not None
        and (proportional.structured, proportional.aside) < (alike.structured, alike.aside)
    )
    if noise is not None:
        return NoiseLevel(float(noise), n * d * float(noise) ** 2 / power, "given", grows)
    if alike is None or proportional is None:
        return NoiseLevel(
            math.sqrt(_FALLBACK_NMSE * power / (n * d)),
            _FALLBACK_NMSE,
            f"assumed, as {n} spectra of {d} bands are too few to estimate it",
        )
    source, nmse = "estimated from the tail of the singular values", n * d * alike.sigma**2 / power
    if grows:
        source, nmse = source + " as proportional to each spectrum", proportional.sigma**2 * d
    white = not (proportional if grows else alike).structured
    structured = not white and nmse < floor
    if structured:
        source, nmse = "assumed, as the singular values do not end in those of white noise", floor
    return NoiseLevel(math.sqrt(nmse * power / (n * d)), nmse, source, grows, structured, white)


def _row_squares(spectra: Table) -> NDArray[np.float64]:
    return np.concatenate([np.square(block).sum(1) for _, block in row_blocks(spectra)] or [np.empty(0)])


def noise_of_rows(spectra: Table, noise: NoiseLevel) -> np.ndarray:
    """Standard deviation of the noise in each of the spectra (n, d): (n,), float64 and above 0."""
    size = np.sqrt(_row_squares(spectra) / spectra.shape[1])
    # Data without noise, or a spectrum without signal, would weigh infinitely much.
    whole = float(np.sqrt(np.mean(size * size))) if len(size) else 0.0
    least = _LEAST_NOISE * whole or 1.0
    level = size * math.sqrt(noise.nmse) if noise.proportional else np.full(len(size), noise.sigma)
    return np.maximum(level, least)
