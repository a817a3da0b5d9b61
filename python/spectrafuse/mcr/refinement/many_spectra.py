"""More spectra than a search needs: it works on a sample, and on those that what it found describes worst."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from spectrafuse._runtime import ranks
from spectrafuse.mcr.inputs import Table, own_share
from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows, row_blocks
from spectrafuse.mcr.refinement.factors import Factors
from spectrafuse.mcr.refinement.hard_gates import Array, ExactGates, costs, descend, gates_of, products
from spectrafuse.mcr.refinement.whitening import whitened
from spectrafuse.random import RandomStream

MOST_SEARCHED = 5000
"""So many spectra are searched as they are."""
_SAMPLE, _MOST_ADDED = 3000, 1000
_CHANCE = 6.0
"""A squared residual is too large to be noise if it is that many standard deviations above the usual one."""
_SWEEPS, _COMPONENT_SWEEPS = 4, 5


def sample(count: int, stream: RandomStream) -> NDArray[np.int64]:
    """Numbers of spectra to search, ascending."""
    return np.sort(stream.permutation(count)[:_SAMPLE].numpy())


def described_badly(
    spectra: Table, noise: NoiseLevel, components: Array, price: float, usual: Array
) -> NDArray[np.int64]:
    """Numbers of the spectra whose residual noise does not explain, the worst first and not too many of them.

    Parameters
    ----------
    spectra : ndarray, (n, d)
    noise : NoiseLevel
    components : ndarray, (k, d)
    price : float
        Of a gate.
    usual : ndarray, (m,)
        Squared residuals, in units of the noise's variance, of spectra that were searched.
    """
    own, part = own_share(spectra)
    level, power = noise_of_rows(spectra, noise)[own], np.zeros(len(spectra))
    components = whitened(components, noise.correlation)
    for rows, block in row_blocks(part):
        scaled = whitened(block / level[rows, None], noise.correlation)
        power[own][rows] = costs(scaled, gates_of(scaled, components, price), components, 0.0)
    ranks.add([torch.from_numpy(power)])
    middle = float(np.median(usual))
    # The spread of what is usual, whatever few spectra among them say.
    spread = max(1.4826 * float(np.median(np.abs(usual - middle))), math.sqrt(2.0 * spectra.shape[1]))
    worst = np.argsort(-power, kind="stable")[:_MOST_ADDED]
    return worst[power[worst] > middle + max(_CHANCE * spread, price)]


def settled_on_all(
    spectra: Table,
    noise: NoiseLevel,
    factors: Factors,
    gates: ExactGates,
    *,
    non_negative: bool,
    sparse: bool,
    fixed: tuple[int, ...],
    report: Callable[[int], None] | None = None,
) -> Factors:
    """Components after a few sweeps over all spectra, read block by block; concentrations are left out.

    In a group of processes each goes over its share: concentrations depend on their own spectrum alone, and components
    on two sums over all spectra.

    Parameters
    ----------
    spectra : ndarray, (n, d)
    noise : NoiseLevel
    factors : Factors
        From a search on some of them.
    gates : ExactGates
        With the price for all of them.
    non_negative, sparse, fixed
        As for `Refinement`.
    report : callable, optional
        Called now and then with the number of components.
    """
    own, part = own_share(spectra)
    level, components = noise_of_rows(spectra, noise)[own], factors.components.copy()
    learned = np.flatnonzero(~np.isin(factors.ids, fixed))
    found = np.zeros((len(part), len(components)), np.float32)
    for sweep in range(_SWEEPS):
        overlap, along = np.zeros((len(components),) * 2), np.zeros_like(components)
        filtered = whitened(components, noise.correlation)
        for rows, block in row_blocks(part):
            if report is not None:
                report(len(components))
            scaled = block / level[rows, None]
            if sweep == 0:
                amounts = gates_of(whitened(scaled, noise.correlation), filtered, gates.price)
            else:
                amounts = found[rows].astype(np.float64)
                descend(*products(whitened(scaled, noise.correlation), filtered), amounts, gates.price)
            found[rows] = amounts
            overlap += amounts.T @ amounts
            along += amounts.T @ scaled
        ranks.add([torch.from_numpy(overlap), torch.from_numpy(along)])
        _descend_components(components, overlap, along, learned, non_negative, gates.price if sparse else 0.0)
        length = np.linalg.norm(components, axis=1)
        used = np.where(length > 0, length, 1.0)
        components /= used[:, None]
        found *= used.astype(np.float32)
    return factors._replace(components=components, concentrations=np.zeros((0, len(components))))


def _descend_components(
    components: Array, overlap: Array, along: Array, learned: NDArray[np.int64], non_negative: bool, price: float
) -> None:
    for _ in range(_COMPONENT_SWEEPS):
        for k in learned[overlap.diagonal()[learned] > 0]:
            best = components[k] + (along[k] - overlap[k] @ components) / overlap[k, k]
            if non_negative:
                np.maximum(best, 0.0, out=best)
            best[best * best * overlap[k, k] < price] = 0.0
            components[k] = best
