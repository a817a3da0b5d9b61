"""How many components there are: gates closed one component after another, for as long as noise explains the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrafuse.mcr.noise import singular_values
from spectrafuse.mcr.refinement.asked_count import FREELY, AskedCount, reach
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.refinement.hard_gates import Array, price_of_gate, update_concentrations
from spectrafuse.mcr.refinement.start import from_spectra

_TRIES, _FORWARD_TRIES = 4, 3
_PATIENCE = 10
"""Times the usual rounds, for a trial that decides between neighboring counts."""
_SETTLING = ((1.0, 12), (None, 12))
"""Prices of a gate, and sweeps, that the trained mixture is settled with before any component leaves."""
_BEYOND = 4
"""Components that the path goes on to remove after the chosen count, to show what they are worth."""
_LEAST_FREEDOM = 0.2
"""Share of degrees of freedom that must be left for the residual to tell the noise level."""
_HALF_OPEN, _NEARLY_ALL = 0.5, 0.9
"""Shares of open gates: from the one on it is tried whether, without their price, there are as many as the other."""
_PRICE_CHANGE = 1.1
_MOST_REPRICINGS = 4


class Step(NamedTuple):
    """One state of the path.

    Attributes
    ----------
    size : int
        Number of components.
    residual : float
        Sum of squares, in units of the noise's variance.
    cost : float
        With the prices of gates and components.
    power : ndarray, (n,)
        Squared residual of each spectrum, in units of its noise's variance.
    """

    size: int
    residual: float
    cost: float
    power: Array


class Outcome(NamedTuple):
    """What the search ends with.

    Attributes
    ----------
    factors : Factors
    path : list of Step
        The chosen count is that of `chosen`; later ones lose real components.
    chosen : int
        Index in `path`.
    rise : float
        Rise of the squared residual if the least of the components goes; infinite if there is only one.
    component_price : float
        What noise explains.
    excess : float
        Variance of the residual over that of the noise, at least 1.
    colour : float
        Largest spectral density of the residual over its mean: 1 if white.
    cost : float
        At the prices of white noise of the level given, to compare searches by.
    found : Outcome or None
        What the spectra asked for, where the user asked for another count.
    """

    factors: Factors
    path: list[Step]
    chosen: int
    rise: float
    component_price: float
    excess: float
    colour: float
    cost: float
    found: Outcome | None = None

    @property
    def by_the_spectra(self) -> Outcome:
        """What the spectra asked for, whatever the user did."""
        return self.found or self


def component_price(samples: int, bands: int, colour: float = 1.0) -> float:
    """Squared largest singular value of noise: what one superfluous component can explain of it."""
    return (math.sqrt(samples * colour) + math.sqrt(bands)) ** 2


def residual_excess(refinement: Refinement, factors: Factors) -> float:
    """Variance of the residual for each degree of freedom left, at least 1; 1 if too few are left to tell."""
    free = degrees_of_freedom(refinement.spectra.size, factors)
    return max(1.0, float(refinement.residual_power(factors).sum()) / free) if free else 1.0


def degrees_of_freedom(size: int, factors: Factors) -> int:
    """How many of so many numbers a mixture leaves free; 0 if they are too few to tell anything."""
    free = size - np.count_nonzero(factors.components) - np.count_nonzero(factors.concentrations)
    return free if free >= _LEAST_FREEDOM * size else 0


def residual_colour(residual: Array) -> float:
    """How far the residual's spectral density along the bands rises above its mean; 1 for white noise.

    The two strongest directions are taken out first: what is left of a component is no noise.
    """
    samples, bands = residual.shape
    if min(samples, bands) < 8:
        return 1.0
    u, s, v = np.linalg.svd(residual, full_matrices=False)
    density = (np.abs(np.fft.rfft(residual - (u[:, :2] * s[:2]) @ v[:2], axis=1)) ** 2).mean(0)[1:]
    width = max(1, len(density) // 16)
    smooth = np.convolve(density, np.full(width, 1.0 / width), mode="valid")
    mean = float(density.mean())
    highest = float(smooth.max()) / mean if mean > 0 else 1.0
    # The largest of some averages of chi-squares with 2 * samples * width degrees of freedom is above 1 by chance.
    by_chance = 1.0 + 3.0 / math.sqrt(samples * width)
    return highest if highest > by_chance else 1.0


def _unit(spectrum: Array) -> Array:
    return spectrum / max(float(np.linalg.norm(spectrum)), 1e-300)


class CountSearch:
    """Backward elimination and forward selection of components.

    Parameters
    ----------
    refinement : Refinement
        Its prices are those of white noise at the level given; they rise if the residual says more.
    pool : int
        Components there can be.
    structured : bool
        What is not explained may have the shape of one component, so that a component must explain more than all of it.
    reserved : sequence of int
        Places in the pool that are not given to new components.
    asked : AskedCount
        How many components the user wants.
    """

    def __init__(
        self,
        refinement: Refinement,
        pool: int,
        *,
        structured: bool = False,
        reserved: Sequence[int] = (),
        asked: AskedCount = FREELY,
    ) -> None:
        self.refinement, self.pool, self.structured, self._asked = refinement, pool, structured, asked
        self._reserved = [*reserved, *refinement.fixed]
        self.path: list[Step] = []
        self.excess = self.colour = 1.0
        self._noise_settled = False
        self._squares: Array | None = None
        self._set_prices()

    def _set_prices(self) -> None:
        samples, bands = self.refinement.spectra.shape
        self.refinement.gate_price = price_of_gate(samples, self.pool)
        if self.structured:
            # The level is the threshold that was set, and no noise that could be larger.
            self.refinement.component_price = float(samples * bands)
            return
        self.refinement.gate_price *= self.excess * self.colour
        self.refinement.component_price = component_price(samples, bands, self.colour) * self.excess

    def run(self, factors: Factors) -> Outcome:
        """Search from a trained mixture."""
        refinement = self.refinement
        factors = factors.at_unit_norm()
        opened = update_concentrations(refinement.spectra, factors.concentrations, factors.components, 0.0, sweeps=2)
        factors = factors._replace(concentrations=opened).used()
        for price, sweeps in _SETTLING:
            factors = refinement.descend(factors, sweeps, price)
        self.note(factors)
        for _ in range(_MOST_REPRICINGS):
            factors = refinement.annealed(self._search(factors))
            if not self._reprice(factors):
                break
        # While the noise may be larger than thought, any single spectrum would be worth a component.
        self._noise_settled = True
        found = self._search(factors)
        if len(found.ids) != len(factors.ids):
            found = refinement.annealed(found)
        factors = refinement.settle(found, 6)
        self.note(factors, replace=True)
        factors = self._compared_with_neighbors(factors)
        price = refinement.component_price
        asked, other = self._asked.of(refinement.count(factors)), None
        if asked != refinement.count(factors):
            path, cost = self.path.copy(), self._comparable(factors)
            other = Outcome(factors, path, len(path) - 1, math.inf, price, self.excess, self.colour, cost)
            factors = reach(self, factors, asked)
        cost = self._comparable(factors)
        factors = self._finished(factors)
        if self._asked.exactly is not None:
            factors = reach(self, factors, asked)
        self.note(factors, replace=True)
        chosen = len(self.path) - 1
        rise = self._go_beyond(factors)
        return Outcome(factors, self.path, chosen, rise, price, self.excess, self.colour, cost, other)

    def _compared_with_neighbors(self, factors: Factors) -> Factors:
        """The mixture, or one of fewer components that describes the spectra as well, or of more where these count.

        Components that are alike part slowly, and the search judges trials soon: neighboring counts get more patience,
        where the singular values do not rule them out.
        """
        while (found := self._one_fewer(factors)) is not None:
            factors = found
            self.note(factors)
        # White noise explains nothing that has the shape of a component; what drifts leave may.
        while self.structured and (found := self._one_more(factors)) is not None:
            factors = found
            self.note(factors)
        return factors

    def _one_fewer(self, factors: Factors) -> Factors | None:
        """The mixture with a component less, from several starts, if it costs less; None if not."""
        refinement, count = self.refinement, len(factors.ids) - 1
        if count <= np.isin(factors.ids, refinement.fixed).sum():
            return None
        gates = refinement.gate_price * np.count_nonzero(factors.concentrations, axis=0).min()
        if self._left_by_any(count) - self._left_by_any(count + 1) > refinement.component_price + gates:
            return None
        limit, best = refinement.cost(factors), None
        for start, rows in (*self._removals(factors, _TRIES), self._from_spectra(factors, count)):
            trial, cost = refinement.attempt(start, rows, limit, _PATIENCE)
            if cost < limit:
                limit, best = cost, trial
        return None if best is None else refinement.annealed(refinement.settle(best, 6))

    def _one_more(self, factors: Factors) -> Factors | None:
        explained = float(self.refinement.residual_power(factors).sum()) - self._left_by_any(len(factors.ids) + 1)
        return self._add(factors, _PATIENCE) if explained > self.refinement.component_price else None

    def _left_by_any(self, count: int) -> float:
        """What every mixture of so many components leaves of the spectra at least, by their singular values."""
        if self._squares is None:
            self._squares = np.square(singular_values(self.refinement.spectra))
        return float(self._squares[: max(len(self._squares) - count, 0)].sum())

    def _from_spectra(self, factors: Factors, count: int) -> tuple[Factors, NDArray[np.bool_]]:
        """So many components, those that keep their shape first, then spectra; all gates are to be decided."""
        refinement = self.refinement
        kept = np.isin(factors.ids, refinement.fixed)
        start = from_spectra(refinement.spectra, factors.components[kept], count, non_negative=refinement.non_negative)
        ids = np.append(factors.ids[kept], factors.ids[~kept])[: len(start.ids)]
        return start._replace(ids=ids), np.ones(len(refinement.spectra), np.bool_)

    def _comparable(self, factors: Factors) -> float:
        samples, bands = self.refinement.spectra.shape
        gates = price_of_gate(samples, self.pool) * np.count_nonzero(factors.concentrations)
        components = component_price(samples, bands) * len(factors.ids)
        return float(self.refinement.residual_power(factors).sum()) + gates + components

    def _finished(self, factors: Factors) -> Factors:
        refinement = self.refinement
        if refinement.sparse:
            return factors
        if self.structured:
            # The level tells how well few components describe spectra, not how well a concentration is known: gates
            # close for what would be negative only.
            refinement.gate_price = 0.0
            factors = refinement.converged(factors)
        elif np.count_nonzero(factors.concentrations) > _HALF_OPEN * factors.concentrations.size:
            factors = self._without_prices(factors)
        if not refinement.non_negative:
            return refinement.purest(factors)
        if refinement.background is not None:
            factors = refinement.converged(refinement.levelled(factors))
        return factors

    def _without_prices(self, factors: Factors) -> Factors:
        """The mixture without closed gates, if nearly all spectra hold all components then.

        A price cuts the tails of peaks off: small concentrations that are there become 0.
        """
        refinement, price = self.refinement, self.refinement.gate_price
        refinement.gate_price = 0.0
        free = refinement.converged(factors)
        if len(free.ids) == len(factors.ids) and (free.concentrations > 0).mean() > _NEARLY_ALL:
            return free
        refinement.gate_price = price
        return factors

    def _search(self, factors: Factors) -> Factors:
        """Remove and add components until neither helps."""
        for _ in range(2 * self.pool):
            factors = self.refinement.settle(self._eliminate(factors))
            found = self._add(factors)
            if found is None:
                break
            factors = found
            self.note(factors)
        return factors

    def _reprice(self, factors: Factors) -> bool:
        """Let noise explain more, if the residual is larger or less white than thought; True if so."""
        if not len(factors.ids):
            return False
        excess = max(self.excess, residual_excess(self.refinement, factors))
        colour = max(self.colour, residual_colour(self.refinement.residual(factors)))
        changed = excess > _PRICE_CHANGE * self.excess or colour > _PRICE_CHANGE * self.colour
        if changed:
            self.excess, self.colour = excess, colour
            self._set_prices()
        return changed

    def _eliminate(self, factors: Factors) -> Factors:
        """Remove components as long as that lowers the cost."""
        while len(factors.ids) > 1:
            shares, order = self._cheapest(factors)
            before, gone, failures = len(factors.ids), set[int](), 0
            ids = factors.ids
            limit = self.refinement.cost(factors)
            for index in order:
                place = int(ids[index])
                leans = {int(i) for i in ids[shares[index] > 0]}
                if failures >= _TRIES or place in gone or leans & gone:
                    continue
                trial, cost = self.refinement.attempt(*self._removed(factors, place, ids, shares[index]), limit)
                if cost >= limit:
                    failures += 1
                    continue
                present = set(factors.ids.tolist())
                factors = self.refinement.descend(trial, 1)
                gone |= present - set(factors.ids.tolist())
                limit = self.refinement.cost(factors)
                self.note(factors)
                if len(factors.ids) <= max(1, before - max(1, before // 8)):
                    break
            if not gone:
                break
        return factors

    def _cheapest(self, factors: Factors) -> tuple[Array, list[int]]:
        """Each component as a sum of the others, and their order by what their removal may cost."""
        shares, lost = self.refinement.substitutes(factors)
        fixed = np.isin(factors.ids, self.refinement.fixed)
        price = np.where(fixed, np.inf, np.minimum(lost, self.refinement.worth(factors)))
        return shares, [int(i) for i in np.argsort(price) if np.isfinite(price[i])]

    @staticmethod
    def _removed(
        factors: Factors, place: int, ids: NDArray[np.int64], shares: Array
    ) -> tuple[Factors, NDArray[np.bool_]]:
        """The mixture without a component, of which others take `shares` (of `ids`), and the spectra that held it."""
        index = int(np.flatnonzero(factors.ids == place)[0])
        rows = factors.concentrations[:, index] > 0
        share_of = dict(zip(ids.tolist(), shares, strict=True))
        substitute = np.array([share_of.get(int(i), 0.0) for i in factors.ids])
        return factors.without(index, substitute), rows

    def spare(self, factors: Factors) -> NDArray[np.int64]:
        """Places in the pool that a new component may take."""
        return np.setdiff1d(np.arange(self.pool), [*factors.ids, *self._reserved])

    def _add(self, factors: Factors, patience: int = 1) -> Factors | None:
        """One component more, made of what the residual has in common with its strongest spectra; None: no gain."""
        refinement = self.refinement
        spare = self.spare(factors)
        if not len(spare):
            return None
        limit = refinement.cost(factors) - 1e-2 * refinement.component_price
        for component, amounts in self.candidates(factors):
            if not amounts.any():
                continue
            trial = factors.having(component, amounts, int(spare[0]))
            trial, cost = refinement.attempt(trial, amounts > 0, limit, patience)
            if cost < limit:
                return trial
        return None

    def candidates(self, factors: Factors) -> Iterator[tuple[Array, Array]]:
        """Components (d,) and concentrations (n,) that the spectra with the largest residuals ask for.

        What a residual has in common with others; once the noise is known, the spectrum as it is too, if all that it
        holds was fitted badly.
        """
        refinement = self.refinement
        residual = refinement.residual(factors)
        part, spectra = refinement.shapes(residual), refinement.shapes(refinement.spectra)
        for row in np.argsort(-(part * part).sum(1))[:_FORWARD_TRIES]:
            common = _unit(part[row])
            for _ in range(10):
                common = _unit(np.maximum(part @ common, 0.0) @ part)
            yield common, np.maximum(residual @ common, 0.0)
            if not self._noise_settled:
                continue
            alone = np.zeros(len(spectra))
            alone[row] = np.linalg.norm(spectra[row])
            yield _unit(spectra[row]), alone

    def without_one(self, factors: Factors, tries: int = _TRIES) -> list[tuple[Factors, float]]:
        """The mixture without each of some components that may cost least, and what it costs then."""
        return [self.refinement.adapted(*removal) for removal in self._removals(factors, tries)]

    def _removals(self, factors: Factors, tries: int) -> list[tuple[Factors, NDArray[np.bool_]]]:
        shares, order = self._cheapest(factors)
        ids = factors.ids
        return [self._removed(factors, int(ids[i]), ids, shares[i]) for i in order[:tries]]

    def _go_beyond(self, factors: Factors) -> float:
        """Remove a few components more, for the path; the rise of the residual with the first, which is chosen well."""
        rise, start = math.inf, self.path[-1].residual
        for step in range(_BEYOND):
            if len(factors.ids) < 2:
                break
            trials = self.without_one(factors, 1 if step else _TRIES)
            if not trials:
                break
            factors = min(trials, key=lambda trial: trial[1])[0]
            self.note(factors)
            if step == 0:
                rise = self.path[-1].residual - start
        return rise

    def note(self, factors: Factors, *, replace: bool = False) -> None:
        """Append a state to the path, or put it in the place of the last one if that has as many components."""
        power = self.refinement.residual_power(factors)
        step = Step(self.refinement.count(factors), float(power.sum()), self.refinement.cost(factors), power)
        if replace and self.path and self.path[-1].size == step.size:
            self.path.pop()
        self.path.append(step)
