"""Refinement of a mixture on hard gates: concentrations, components and gates in turn, down to the noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrafuse.mcr.refinement.hard_gates import Array, costs, regated, update_components, update_concentrations

_ROUNDS, _SWEEPS = 12, 12
_DEARER, _CHEAPER, _PASSES = (0.7, 0.5, 0.3, 0.1), 3.0, 3
"""Shares of the open gates that annealing closes at first; the factor by which it lowers their price; its passes."""
_LAST_ROUNDS, _LAST_SWEEPS, _LAST_GAIN = 40, 100, 1e-5
_HOPE = 1.5
"""A trial goes on while its present speed, times this, would bring it below its limit in the rounds that are left."""
_SMALLEST_SHARE = 0.02
"""Smaller shares of a component in the place of another are left out."""


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
        length = np.linalg.norm(self.components, axis=1)
        keep = length > 0
        concentrations = self.concentrations[:, keep] * length[keep]
        return Factors(concentrations, self.components[keep] / length[keep, None], self.ids[keep])

    def used(self) -> Factors:
        """Those components that some gate opens for, at unit norm."""
        keep = self.concentrations.any(0)
        return Factors(self.concentrations[:, keep], self.components[keep], self.ids[keep]).at_unit_norm()

    def without(self, index: int, substitute: Array | None = None) -> Factors:
        """One component less, its concentrations given to the others in the shares of `substitute` (k,)."""
        keep = np.arange(len(self.ids)) != index
        concentrations = self.concentrations
        if substitute is not None:
            concentrations = concentrations + concentrations[:, index, None] * substitute
        return Factors(concentrations[:, keep], self.components[keep], self.ids[keep])

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
    non_negative : bool
        Components are non-negative.
    sparse : bool
        Channels of components have gates too, at the price of the others.
    fixed : sequence of int
        Components that keep their shape.
    background : int or None
        The one of them that is the same in all channels.
    report : callable, optional
        Called again and again with a number of components.
    """

    def __init__(
        self,
        spectra: Array,
        gate_price: float,
        component_price: float,
        *,
        non_negative: bool = True,
        sparse: bool = False,
        fixed: tuple[int, ...] = (),
        background: int | None = None,
        report: Callable[[int], None] | None = None,
    ) -> None:
        self.spectra = spectra
        self.gate_price, self.component_price = gate_price, component_price
        self.non_negative, self.sparse, self.fixed = non_negative, sparse, fixed
        self.background, self._report = background, report

    def count(self, factors: Factors) -> int:
        """Components, the background aside."""
        return len(factors.ids) - int(self.background is not None and self.background in factors.ids)

    def residual(self, factors: Factors) -> Array:
        return self.spectra - factors.concentrations @ factors.components

    def cost(self, factors: Factors) -> float:
        rows = costs(self.spectra, factors.concentrations, factors.components, self.gate_price)
        channels = self.gate_price * np.count_nonzero(factors.components) if self.sparse else 0.0
        return float(rows.sum()) + channels + self.component_price * len(factors.ids)

    def descend(self, factors: Factors, sweeps: int, gate_price: float | None = None) -> Factors:
        """Components and concentrations in turn; components that no gate opens for any more are dropped."""
        price = self.gate_price if gate_price is None else gate_price
        channel_price = price if self.sparse else 0.0
        if self._report is not None:
            self._report(self.count(factors))
        for _ in range(sweeps):
            held = np.isin(factors.ids, self.fixed)
            components = update_components(
                self.spectra,
                factors.concentrations,
                factors.components,
                non_negative=self.non_negative,
                price=channel_price,
                held=held,
            )
            factors = factors._replace(components=components).used()
            concentrations = update_concentrations(self.spectra, factors.concentrations, factors.components, price)
            factors = factors._replace(concentrations=concentrations).used()
        return factors

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
        best = self.cost(factors)
        for _ in range(_PASSES):
            before = best
            for share in _DEARER:
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
        return factors._replace(concentrations=concentrations, components=components).used()

    def levelled(self, factors: Factors) -> Factors:
        """The mixture with what all channels of a component share made part of the background."""
        if self.background is None:
            return factors
        if self.background not in factors.ids:
            size = self.spectra.shape[1]
            factors = factors.having(np.full(size, size**-0.5), np.zeros(len(self.spectra)), self.background)
        learned = np.flatnonzero(~np.isin(factors.ids, self.fixed))
        amounts, shapes = factors.concentrations[:, learned], factors.components[learned]
        # The least of a spectrum's channels lies below its level by as much as the least of their errors does.
        error = np.sqrt(np.linalg.pinv(amounts.T @ amounts).diagonal() * 2 * math.log(max(shapes.shape[1], 2)))
        shared = np.maximum(shapes.min(1) + error, 0.0)
        components, concentrations = factors.components.copy(), factors.concentrations.copy()
        components[learned] = np.maximum(shapes - shared[:, None], 0.0)
        place = factors.ids == self.background
        concentrations[:, place] += (amounts @ shared * math.sqrt(shapes.shape[1]))[:, None]
        return factors._replace(concentrations=concentrations, components=components).at_unit_norm()

    def attempt(self, factors: Factors, limit: float, rows: NDArray[np.bool_]) -> tuple[Factors, float]:
        """Descend from a changed mixture, whose gates of `rows` are to be decided anew, until it costs below `limit`.

        Gives up where that is out of reach.
        """
        factors = self.regate(factors, rows)
        last = cost = self.cost(factors)
        for left in range(_ROUNDS, 0, -1):
            if cost < limit:
                break
            factors = self.descend(factors, _SWEEPS)
            if left % 3 == 0:
                factors = self.regate(factors)
            cost = self.cost(factors)
            if cost >= limit and left < _ROUNDS and (last - cost) * left * _HOPE < cost - limit:
                break
            last = cost
        return factors, cost

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
        shares = np.zeros_like(overlap)
        for _ in range(60):
            for j in range(len(overlap)):
                best = np.maximum(shares[:, j] + overlap[:, j] - shares @ overlap[:, j], 0.0)
                best[j] = 0.0
                shares[:, j] = best
        shares[shares < _SMALLEST_SHARE] = 0.0
        lost = factors.components - shares @ factors.components
        return shares, (lost * lost).sum(1) * (factors.concentrations**2).sum(0)

    def worth(self, factors: Factors) -> Array:
        """What the spectra lose if a component leaves and the others open for it answer by least squares: (k,)."""
        overlap = factors.components @ factors.components.T
        worth = np.zeros(len(factors.ids))
        for row in factors.concentrations:
            active = np.flatnonzero(row)
            if len(active):
                inverse = np.linalg.pinv(overlap[np.ix_(active, active)])
                worth[active] += row[active] ** 2 / np.maximum(inverse.diagonal(), 1e-12)
        return worth
