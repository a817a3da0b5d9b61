"""Several experiments in one fit: instruments side by side, whose spectra are of the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.mcr import inputs
from spectrafuse.mcr.noise import noise_level
from spectrafuse.mcr.weighting import filled, weighting_of

_LEAST = 1e-4
"""Least noise of an instrument, as a share of its root mean square."""


class SideBySide(NamedTuple):
    """Spectra of the same samples from several instruments, as `EBgMCR.fit` takes them.

    Attributes
    ----------
    spectra : ndarray, (n, d)
        The instruments' bands one after another.
    sample_weight : ndarray, (n, d)
        One over the variance of each instrument's noise, so that none counts more because its numbers are larger.
    widths : tuple of int
        Bands of each instrument.
    """

    spectra: NDArray[np.float32]
    sample_weight: NDArray[np.float64]
    widths: tuple[int, ...]

    def split(self, components: NDArray[Any]) -> list[NDArray[Any]]:
        """Spectra (k, d) of components as those of each instrument."""
        return np.split(components, np.cumsum(self.widths)[:-1], axis=1)


def side_by_side(blocks: Sequence[Any]) -> SideBySide:
    """Put spectra (n, d1), (n, d2), ... of the same n samples side by side: one profile for all instruments.

    Parameters
    ----------
    blocks : sequence of path or array_like
        Row i of every one is of sample i; NaN where a value is missing.

    Raises
    ------
    ValueError
        If they are not as many spectra.

    Examples
    --------
    >>> both = side_by_side([ultraviolet, infrared])  # doctest: +SKIP
    >>> mcr = EBgMCR().fit(both.spectra, sample_weight=both.sample_weight)  # doctest: +SKIP
    >>> of_ultraviolet, of_infrared = both.split(mcr.components_)  # doctest: +SKIP
    """
    read = [inputs.read(block, zeros="accept", name=f"blocks[{i}]", gaps=True) for i, block in enumerate(blocks)]
    counts = sorted({len(block) for block in read})
    if len(counts) != 1:
        raise InvalidValueError(
            f"`blocks` must hold spectra of the same samples, as many in each; got {' and '.join(map(str, counts))}."
            if counts
            else "`blocks` must hold spectra; got none."
        )
    weights = [np.full(block.shape, 1.0 / _noise(block) ** 2) for block in read]
    return SideBySide(np.hstack(read), np.hstack(weights), tuple(block.shape[1] for block in read))


def _noise(block: NDArray[np.float32]) -> float:
    size = float(np.sqrt(np.nanmean(np.square(block, dtype=np.float64))))
    weighting = weighting_of("blocks", block, None, banded=False)
    sigma = noise_level(block if weighting is None else filled(block, weighting)).sigma
    return max(sigma, _LEAST * size) or 1.0
