"""Refinement of a mixture on hard gates: concentrations, components and gates in turn, down to the noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse.mcr.refinement.hard_gates import (
    Array,
    costs,
    descend,
    products,
    regated,
    tensors,
    update_components,
)
from spectrafuse.mcr.refinement.whitening import restored, whitened
from spectrafuse.ops.gated_descent import descend_open_gates, mixture_residual, residual_power

_ROUNDS, _SWEEPS, _FIRST_SWEEPS = 12, 12, 4
"""Of a trial: rounds at most, sweeps in each, and those after which it may be given up for the first time."""
_OPEN_EVERY, _CROWDED = 4, 3
"""Closed gates are looked at in every so many sweeps, or where one in so many gates is open in each."""
_DEARER, _CHEAPER, _PASSES = (0.7, 0.5, 0.3, 0.1), 3.0, 3
"""Shares of the open gates that annealing closes at first; the factor by which it lowers their price; its passes."""
_STILL = 1e-6
"""A sweep that explains less, as a share of the price of a component, is the last."""
_LAST_ROUNDS, _LAST_SWEEPS, _LAST_GAIN = 40, 100, 1e-5
_HOPE = 1.5
"""A trial goes on while its present speed, times this, would bring it below its limit in the rounds that are left."""
_SMALLEST_SHARE = 0.02
"""Smaller shares of a component in the place of another are left out."""
_SUBSTITUTE_SWEEPS = 60


class Factors(NamedTuple):
    """A mixture's two factors.

    Attributes
    ----------
    concentrations : ndarray, (n, k)
        0 where the gate is closed.
    components : ndarray, (k, d)
        Of unit norm.
    ids : ndarray of int, (k,)
        Places in the pool.
    """

    concentrations: Array
    components: Array
    ids: NDArray[np.int64]

    def at_unit_norm(self) -> Factors:
        """The same mixture, without components of zeros only."""
        length = np.sqrt(np.einsum("kd,kd->k", self.components, self.components))
        kept, length = self._kept(length > 0), length[length > 0]
        return Factors(kept.concentrations * length, kept.components / length[:, None], kept.ids)

    def used(self) -> Factors:
        """Those components that some gate opens for."""
        return self._kept(np.any(self.concentrations, axis=0))

    def _kept(self, keep: NDArray[np.bool_]) -> Factors:
        if keep.all():
            return self
        # Unlike a mask on the second axis, this leaves a spectrum's concentrations side by side.
        concentrations = np.compress(keep, self.concentrations, axis=1)
        return Factors(concentrations, self.components[keep], self.ids[keep])

    def without(self, index: int, substitute: Array | None = None) -> Factors:
        """One component less, its concentrations given to the others in the shares of `substitute` (k,)."""
        shared = self
        if substitute is not None:
            rows, concentrations = np.flatnonzero(self.concentrations[:, index]), self.concentrations.copy()
            concentrations[rows] += concentrations[rows, index, None] * substitute
            shared = self._replace(concentrations=concentrations)
        return shared._kept(np.arange(len(self.ids)) != index)

    def having(self, component: Array, concentrations: Array, place: int) -> Factors:
        """One component more."""
        return Factors(
            np.hstack([self.concentrations, concentrations[:, None]]),
            np.vstack([self.components, component]),
            np.append(self.ids, place),
        )


class Refinement:
    """Descends on: squared residuals + price of every open gate + price of every component.

    All in units of the noise's variance, so that both prices are what noise alone would explain.

    Parameters
    ----------
    spectra : ndarray, (n, d)
        In units of each spectrum's noise.
    gate_price, component_price : float
    correlation : float
        Of the noise of neighboring bands. Spectra and the components of all mixtures here are filtered by it.
    non_negative : bool
        Components are non-negative.
    sparse : bool
        Bands of components have gates too, at the price of the others.
    fixed : sequence of int
        Components that keep their shape.
    background : int or None
        The one of them that is the same in all bands.
    report : callable, optional
        Called again and again with a number of components.
    """

    def __init__(
        self,
        spectra: Array,
        gate_price: float,
        component_price: float,
        *,
        correlation: float = 0.0,
        non_negative: bool = True,
        sparse: bool = False,
        fixed: tuple[int, ...] = (),
        background: int | None = None,
        report: Callable[[int], None] | None = None,
    ) -> None:
        self._plain, self._correlation = np.ascontiguousarray(spectra, np.float64), correlation
        self.spectra = whitened(self._plain, correlation)
        self.gate_price, self.component_price = gate_price, component_price
        self.non_negative, self.sparse, self.fixed = non_negative, sparse, fixed
        self.background, self._report = background, report

    def filtered(self, factors: Factors) -> Factors:
        """A mixture with its components filtered."""
        return factors._replace(components=whitened(factors.components, self._correlation))

    def plain(self, factors: Factors) -> Factors:
        """A mixture with its components as they are."""
        if self._correlation == 0:
            return factors
        return factors._replace(components=restored(factors.components, self._correlation)).at_unit_norm()

    def shapes(self, rows: Array) -> Array:
        """Filtered rows (m, d) as shapes of components: without what would be negative."""
        if not self.non_negative:
            return rows
        return whitened(np.maximum(restored(rows, self._correlation), 0.0), self._correlation)

    def count(self, factors: Factors) -> int:
        """Components, the background aside."""
        return len(factors.ids) - int(self.background is not None and self.background in factors.ids)

    def residual(self, factors: Factors) -> Array:
        left: Array = mixture_residual(*self._mixture(factors)).numpy()
        return left

    def residual_power(self, factors: Factors) -> Array:
        """Squared residual of each spectrum: (n,)."""
        power: Array = residual_power(*self._mixture(factors)).numpy()
        return power

    def _mixture(self, factors: Factors) -> tuple[Tensor, Tensor, Tensor]:
        spectra, concentrations, components = tensors(self.spectra, factors.concentrations, factors.components)
        return spectra, concentrations, components

    def cost(self, factors: Factors) -> float:
        rows = costs(self.spectra, factors.concentrations, factors.components, self.gate_price)
        bands = self.gate_price * np.count_nonzero(factors.components) if self.sparse else 0.0
        return float(rows.sum()) + bands + self.component_price * len(factors.ids)

    def descend(self, factors: Factors, sweeps: int, gate_price: float | None = None) -> Factors:
        """Components and concentrations in turn; components that no gate opens for any more are dropped.

        Gates may close in every sweep. Where most are closed, they may open in every fourth and in the last one only:
        the products of all spectra with all components that this needs would take nearly all of the time. The last
        sweep is the one, at the latest, that follows one without a change.
        """
        price = self.gate_price if gate_price is None else gate_price
        band_price = price if self.sparse else 0.0
        still = False
        if self._report is not None:
            self._report(self.count(factors))
        for left in reversed(range(sweeps)):
            before = factors
            # The best shape of a component, the others given, is the same with and without the filter; whether it is
            # negative is seen without it.
            shapes = update_components(
                self._plain,
                factors.concentrations,
                restored(factors.components, self._correlation),
                non_negative=self.non_negative,
                price=band_price,
                held=np.isin(factors.ids, self.fixed) if self.fixed else None,
            )
            factors = self.filtered(factors._replace(components=shapes)).at_unit_norm()
            opening = still or left % _OPEN_EVERY == 0 or self._crowded(factors)
            if opening:
                descend(*products(self.spectra, factors.components), factors.concentrations, price)
            else:
                smallest = np.full(len(factors.ids), math.sqrt(price))
                spectra, concentrations, components = self._mixture(factors)
                descend_open_gates(spectra, concentrations, components, torch.from_numpy(smallest))
            factors = factors.used()
            still = self._unchanged(before, factors)
            if still and opening:
                break
        return factors

    def _unchanged(self, before: Factors, after: Factors) -> bool:
        """Whether a sweep explained next to nothing more: about the squared change of the concentrations."""
        if len(before.ids) != len(after.ids):
            return False
        change = after.concentrations - before.concentrations
        return float(np.vdot(change, change)) <= _STILL * self.component_price

    def _crowded(self, factors: Factors) -> bool:
        """Whether so many gates are open that products with all components are no more work."""
        return len(factors.ids) * len(self.spectra) <= _CROWDED * np.count_nonzero(factors.concentrations)

    def regate(self, factors: Factors, rows: NDArray[np.bool_] | None = None) -> Factors:
        """Gates decided anew."""
        found = regated(self.spectra, factors.concentrations, factors.components, self.gate_price, rows)
        return factors._replace(concentrations=found).used()

    def settle(self, factors: Factors, rounds: int = 3) -> Factors:
        """Gates, then both factors, until a round brings next to nothing."""
        before = self.cost(factors)
        for _ in range(rounds):
            trial = self.descend(self.regate(factors), _SWEEPS)
            after = self.cost(trial)
            if after >= before:
                break
            factors, gained, before = trial, before - after, after
            if gained < 1e-4 * self.component_price:
                break
        return factors

    def converged(self, factors: Factors) -> Factors:
        """Both factors in turn, until many sweeps bring next to nothing: components that are alike part slowly."""
        before = self.cost(factors)
        for _ in range(_LAST_ROUNDS):
            factors = self.descend(factors, _LAST_SWEEPS)
            after = self.cost(factors)
            if after >= before * (1 - _LAST_GAIN):
                break
            before = after
        return factors

    def annealed(self, factors: Factors) -> Factors:
        """The mixture after its gates were dearer for a while, where that leaves a cheaper one.

        Few open gates show components purer; coordinate descent alone seldom closes several gates for one to open.
        """
        best, tried = self.cost(factors), dict[float, Factors]()
        for _ in range(_PASSES):
            before = best
            for share in _DEARER:
                if tried.get(share) is factors:
                    continue
                tried[share] = factors
                trial = self._annealed_from(factors, share)
                cost = self.cost(trial)
                if cost < best:
                    factors, best = trial, cost
            if best > before - 1e-2 * self.component_price:
                break
        return factors

    def _annealed_from(self, factors: Factors, share: float) -> Factors:
        """From a price that closes this share of the open gates down to the usual one."""
        strengths = factors.concentrations[factors.concentrations > 0] ** 2
        price = float(np.quantile(strengths, share)) if len(strengths) else 0.0
        while price > self.gate_price:
            factors = self.descend(factors, _SWEEPS, price)
            price /= _CHEAPER
        return self.settle(self.descend(factors, _SWEEPS), 6)

    def purest(self, factors: Factors) -> Factors:
        """The same mixture, in which a component that only occurs with another takes as much of it as it can.

        Where components may be negative nothing but the purest spectra tells them apart. Each move closes gates.
        """
        concentrations, components = factors.concentrations.copy(), factors.components.copy()
        moved = True
        while moved:
            moved = False
            for taker, giver in itertools.permutations(range(len(factors.ids)), 2):
                rows = concentrations[:, taker] > 0
                both = concentrations[rows][:, [taker, giver]]
                if factors.ids[taker] in self.fixed or not len(both) or not both[:, 1].all():
                    continue
                ratios = both[:, 1] / both[:, 0]
                least = float(ratios.min())
                components[taker] += least * components[giver]
                concentrations[rows, giver] = np.where(ratios > least, both[:, 1] - least * both[:, 0], 0.0)
                moved = True
        return factors._replace(concentrations=concentrations, components=components).used().at_unit_norm()

    def levelled(self, factors: Factors) -> Factors:
        """The mixture with what all bands of a component share made part of the background."""
        if self.background is None:
            return factors
        factors = self.plain(factors)
        if self.background not in factors.ids:
            size = self.spectra.shape[1]
            factors = factors.having(np.full(size, size**-0.5), np.zeros(len(self.spectra)), self.background)
        learned = np.flatnonzero(~np.isin(factors.ids, self.fixed))
        amounts, shapes = factors.concentrations[:, learned], factors.components[learned]
        # The least of a spectrum's bands lies below its level by as much as the least of their errors does.
        error = np.sqrt(np.linalg.pinv(amounts.T @ amounts).diagonal() * 2 * math.log(max(shapes.shape[1], 2)))
        shared = np.maximum(shapes.min(1) + error, 0.0)
        components, concentrations = factors.components.copy(), factors.concentrations.copy()
        components[learned] = np.maximum(shapes - shared[:, None], 0.0)
        place = factors.ids == self.background
        concentrations[:, place] += (amounts @ shared * math.sqrt(shapes.shape[1]))[:, None]
        levelled = factors._replace(concentrations=concentrations, components=components)
        return self.filtered(levelled).at_unit_norm()

    def attempt(
        self, factors: Factors, rows: NDArray[np.bool_], limit: float, patience: int = 1
    ) -> tuple[Factors, float]:
        """Descend from a changed mixture, whose gates of `rows` are to be decided anew, until it costs below `limit`.

        Gives up where that is out of reach of the rounds that are left, of which there are `patience` times the usual.
        """
        factors, rounds = self.regate(factors, rows), patience * _ROUNDS
        cost = self.cost(factors)

        def hopeless(gained: float, times: float) -> bool:
            return cost >= limit and gained * times * _HOPE < cost - limit

        for left in range(rounds, 0, -1):
            if cost < limit:
                break
            last = cost
            if left == rounds:
                factors = self.descend(factors, _FIRST_SWEEPS)
                cost = self.cost(factors)
                if hopeless(last - cost, rounds * _SWEEPS / _FIRST_SWEEPS):
                    break
            factors = self.descend(factors, _SWEEPS if left < rounds else _SWEEPS - _FIRST_SWEEPS)
            if left % 3 == 0:
                factors = self.regate(factors)
            cost = self.cost(factors)
            if left < rounds and hopeless(last - cost, left):
                break
        return factors, cost

    def adapted(self, factors: Factors, rows: NDArray[np.bool_]) -> tuple[Factors, float]:
        """A changed mixture, whose gates of `rows` are to be decided anew, and its cost, after so many sweeps."""
        factors = self.descend(self.regate(factors, rows), _SWEEPS)
        factors = self.descend(self.regate(factors), _SWEEPS)
        return factors, self.cost(factors)

    def substitutes(self, factors: Factors) -> tuple[Array, Array]:
        """Each component as a non-negative sum of the others.

        Returns
        -------
        shares : ndarray, (k, k)
            Row i makes component i of the others.
        cost : ndarray, (k,)
            What the spectra lose by that.
        """
        overlap = factors.components @ factors.components.T
        along, shares = overlap.copy(), np.zeros_like(overlap)
        np.fill_diagonal(along, -np.inf)
        descend(along, overlap, shares, 0.0, _SUBSTITUTE_SWEEPS)
        shares[shares < _SMALLEST_SHARE] = 0.0
        lost = factors.components - shares @ factors.components
        return shares, (lost * lost).sum(1) * (factors.concentrations**2).sum(0)

    def worth(self, factors: Factors) -> Array:
        """What the spectra lose if a component leaves and the others open for it answer by least squares: (k,)."""
        overlap = factors.components @ factors.components.T
        worth = np.zeros(len(factors.ids))
        open_gates = np.count_nonzero(factors.concentrations, axis=1)
        for size in np.unique(open_gates[open_gates > 0]):
            rows = np.flatnonzero(open_gates == size)
            active = np.nonzero(factors.concentrations[rows])[1].reshape(-1, size)
            sets, of_row = np.unique(active, axis=0, return_inverse=True)
            inverse = np.linalg.pinv(overlap[sets[:, :, None], sets[:, None, :]], hermitian=True)
            diagonal = np.maximum(np.diagonal(inverse, axis1=1, axis2=2), 1e-12)[of_row.reshape(-1)]
            amounts = np.take_along_axis(factors.concentrations[rows], active, axis=1)
            np.add.at(worth, active, amounts**2 / diagonal)
        return worth
