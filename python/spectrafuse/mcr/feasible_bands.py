"""How far the spectra and concentrations of a mixture could be others that fit as well: bands instead of one answer.

Two factors of a mixture that are multiplied by an invertible matrix and its inverse give the same spectra. Constraints
leave only some of these; between the extremes among them the data cannot decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, minimize
from scipy.spatial import ConvexHull, QhullError

from spectrafuse._runtime.progress import tell
from spectrafuse._runtime.text import in_csv
from spectrafuse.io.atomic import atomic_write
from spectrafuse.mcr.constraints import NOTHING, Closure, Equality, Knowledge, Mixture, NonNegative, Unimodal, Zero
from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.refinement.hard_gates import update_concentrations

Array = NDArray[np.float64]
Aim = Callable[[Array], tuple[float, Array]]

MOST_OPTIMIZED = 6
"""Components up to which extremes are searched for; of more, solutions are drawn at random."""
_STARTS, _ITERATIONS, _ROUNDS, _PRECISION = 3, 40, 12, 1e-7
_MOST_SETTLED, _OPENING = 5000, 400
"""Spectra that both factors are settled on; sweeps that concentrations are opened with."""
_FIRST, _VIOLATED = 12, 1e-7
"""Constraints of each kind that a search starts with, and by how much one may be missed before it joins them."""
_MOST_TOLERANCE = 0.01
"""Largest tolerance, as a share of a profile's maximum: with more, components change places."""
_VANISHING, _SHRUNK, _MOST_STARTED = 1e-3, 2.0, 4
_BISECTIONS, _NO_LIMIT = 6, -50.0
_SWEEPS, _DRAWS = 2, 200


class FeasibleBands(NamedTuple):
    """The range of solutions that fit as well as the one that was found.

    Attributes
    ----------
    component_ids : ndarray of int, (k,)
    contribution : ndarray, (k,)
        Relative contribution of each component to the spectra in the solution that was found:
        the Frobenius norm of its part over that of the whole mixture, 0 to 1.
    lowest, highest : ndarray, (k,)
        Bounds of that contribution among all solutions.
    cosine : ndarray, (k,)
        Between a component's spectra where its contribution is lowest and highest: 1 where the spectrum is determined.
    spectra_lower, spectra_upper : ndarray, (k, d)
        Least and largest value of each band, of spectra scaled to the norm of the one that was found.
    concentrations_lower, concentrations_upper : ndarray, (n, k)
        The same of concentrations, which carry the inverse scale.
    spectra_lowest, spectra_highest : ndarray, (k, d)
        A component's spectrum where its contribution is lowest, and highest.
    concentrations_lowest, concentrations_highest : ndarray, (n, k)
        Its concentrations there.
    tolerance : ndarray, (k,)
        How far below zero an entry was allowed, as a share of the profile's maximum: what the noise can hide.
    method : {"optimized", "sampled"}
    unknown : tuple of str
        Constraints of the fit that the bands do not know.
    """

    component_ids: NDArray[np.int64]
    contribution: Array
    lowest: Array
    highest: Array
    cosine: Array
    spectra_lower: Array
    spectra_upper: Array
    concentrations_lower: Array
    concentrations_upper: Array
    spectra_lowest: Array
    spectra_highest: Array
    concentrations_lowest: Array
    concentrations_highest: Array
    tolerance: Array
    method: str
    unknown: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """What the bands say, a sentence for each component."""
        return self.told([f"Component {number}" for number in self.component_ids])

    def told(self, names: Sequence[str]) -> list[str]:
        """`sentences`, with names (k,) of the components."""
        told = [
            f"{name[:1].upper()}{name[1:]}: relative contribution {low:.2f} to {high:.2f}, found {found:.2f}; the "
            f"cosine between its extreme spectra is {cosine:.3f}."
            for name, low, high, found, cosine in zip(
                names, self.lowest, self.highest, self.contribution, self.cosine, strict=True
            )
        ]
        if self.unknown:
            told.append(
                f"Feasible bands do not know these constraints, and may be too wide: {'; '.join(self.unknown)}."
            )
        return told

    def ordered(self, order: NDArray[np.int64]) -> FeasibleBands:
        """The bands of components in another order, (k,), which are then numbered from 1."""
        first = {name for name in self._fields if not name.startswith("concentrations")} - {"method", "unknown"}
        rows = {name: getattr(self, name)[order] for name in first}
        columns = {name: getattr(self, name)[:, order] for name in self._fields if name.startswith("concentrations")}
        return self._replace(**rows, **columns)._replace(component_ids=np.arange(1, len(order) + 1))

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        axis: Sequence[float] | Array | None = None,
        names: Sequence[str] | None = None,
    ) -> tuple[Path, Path, Path]:
        """Write the bands as tables.

        Parameters
        ----------
        folder : path
            An existing one.
        axis : sequence of float, (d,), optional
            Wavelengths or the like; without it bands are counted from 0.
        names : sequence of str, (n,), optional
            Of the spectra; without it they are counted from 0.

        Returns
        -------
        tuple of Path
            `feasible_contributions.csv` (a row for each component), `feasible_spectra.csv` (a row for each component
            and bound) and `feasible_concentrations.csv` (a row for each spectrum, two columns for each component).
        """
        ids = self.component_ids.tolist()
        summary: list[list[Any]] = [["component", "contribution", "lowest", "highest", "cosine", "tolerance"]]
        columns = (self.contribution, self.lowest, self.highest, self.cosine, self.tolerance)
        summary += [[number, *map(_digits, row)] for number, *row in zip(ids, *columns, strict=True)]
        bands = range(self.spectra_lower.shape[1]) if axis is None else [repr(float(x)) for x in axis]
        spectra: list[list[Any]] = [["component", "bound", *bands]]
        for index, number in enumerate(ids):
            spectra.append([number, "lower", *map(_digits, self.spectra_lower[index])])
            spectra.append([number, "upper", *map(_digits, self.spectra_upper[index])])
        rows = range(len(self.concentrations_lower)) if names is None else names
        header = [f"component_{number}_{bound}" for number in ids for bound in ("lower", "upper")]
        concentrations: list[list[Any]] = [["spectrum", *header]]
        both = np.stack([self.concentrations_lower, self.concentrations_upper], axis=2).reshape(len(rows), -1)
        concentrations += [[name, *map(_digits, row)] for name, row in zip(rows, both, strict=True)]
        tables = {"contributions": summary, "spectra": spectra, "concentrations": concentrations}
        paths = tuple(Path(folder, f"feasible_{name}.csv") for name in tables)
        for path, table in zip(paths, tables.values(), strict=True):
            with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
                file.writelines(",".join(in_csv(str(cell)) for cell in row) + "\n" for row in table)
        return paths[0], paths[1], paths[2]


def _digits(value: float) -> str:
    return f"{value:.6g}"


def feasible_bands(
    concentrations: Array,
    spectra: Array,
    noise: Array | float,
    *,
    non_negative_spectra: bool = True,
    fixed: NDArray[np.bool_] | None = None,
    component_ids: NDArray[np.int64] | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    knowledge: Knowledge = NOTHING,
    free: NDArray[np.bool_] | None = None,
) -> FeasibleBands:
    """The bands of a mixture's two factors.

    Parameters
    ----------
    concentrations : ndarray, (n, k)
        Non-negative.
    spectra : ndarray, (k, d)
    noise : float or ndarray, (d,)
        Standard deviation of the noise in each band. A negative concentration or band is allowed where the signal
        that it stands for is smaller.
    non_negative_spectra : bool
        False: only concentrations are kept above zero, and a component contributes at most as much as all.
    fixed : ndarray of bool, (k,), optional
        Components whose spectra are known.
    component_ids : ndarray of int, (k,), optional
    tolerance : float, optional
        Instead of what the noise says: how far below zero an entry may be, as a share of the profile's maximum.
    seed : int
        Of the random starts.
    knowledge : Knowledge
        Constraints; those that bands do not know are named in `sentences`.
    free : ndarray of bool, (k,), optional
        Components that a constraint without `components` is about; None: all.

    Returns
    -------
    FeasibleBands
        Inner bounds: a local search, or a sample, may miss the very extremes.

    Notes
    -----
    Extremes of the signal contribution, Tauler, Journal of Chemometrics 15 (2001), 627; of two components they are
    where two constraints are active each, Lawton and Sylvestre, Technometrics 13 (1971), 617.
    """
    fixed = np.zeros(len(spectra), bool) if fixed is None else np.asarray(fixed, bool)
    ids = np.arange(len(spectra)) if component_ids is None else np.asarray(component_ids, np.int64)
    free = np.ones(len(spectra), bool) if free is None else free
    known = _Known.of(concentrations, knowledge, ids, free)
    space = _Solutions(concentrations, spectra, noise, non_negative_spectra, fixed | known.fixed, tolerance, known)
    generator = np.random.default_rng(seed)
    optimized = space.size <= MOST_OPTIMIZED
    turns = [np.eye(space.size), *(space.extremes(generator) if optimized else space.sampled(generator))]
    return _bands(space, turns, concentrations, spectra, ids, "optimized" if optimized else "sampled")


def rotated(
    concentrations: Array, spectra: Array, noise: Array, aim: Aim, mixture: Mixture, knowledge: Knowledge
) -> tuple[Array, Array]:
    """Both factors where `aim` is least, of those that fit as well.

    Parameters
    ----------
    concentrations, spectra : ndarray, (n, k) and (k, d)
    noise : ndarray, (d,)
        Standard deviation of the noise of each band.
    aim : callable
        From a matrix T (k, k) to a number for concentrations C T and spectra T^-1 S, and its derivatives (k, k).
    mixture : Mixture
    knowledge : Knowledge
    """
    known = _Known.of(concentrations, knowledge, mixture.ids, mixture.free)
    space = _Solutions(concentrations, spectra, noise, mixture.non_negative, mixture.held | known.fixed, None, known)
    turn = space.best(aim)
    turn = space.balance[:, None] * turn / space.balance
    return concentrations @ turn, np.linalg.solve(turn, spectra)


def settled_factors(
    spectra: NDArray[np.float32],
    components: Array,
    noise: NoiseLevel,
    *,
    weights: Array | None = None,
    non_negative: bool = True,
    fixed: NDArray[np.bool_] | None = None,
) -> tuple[Array, Array, Array]:
    """Both factors where they describe spectra best, without a price of gates, and the noise of each band.

    Parameters
    ----------
    spectra : ndarray, (n, d)
    components : ndarray, (k, d)
        Where the descent starts.
    noise : NoiseLevel
        Of the spectra, times the weights.
    weights : ndarray, (d,), optional
        Of the bands.
    non_negative : bool
        Of components.
    fixed : ndarray of bool, (k,), optional
        Components that keep their shape.

    Returns
    -------
    concentrations, components : ndarray, (n, k) and (k, d)
        A component that no spectrum needs has concentrations of 0.
    level : ndarray, (d,)
        Standard deviation of the noise, or of what is left where that is less.
    """
    weights = np.ones(spectra.shape[1]) if weights is None else weights
    weighted = spectra * weights
    level = noise_of_rows(weighted, noise)
    chosen = np.arange(len(spectra))
    if len(spectra) > _MOST_SETTLED:
        chosen = np.sort(np.random.default_rng(0).permutation(len(spectra))[:_MOST_SETTLED])
    ids = np.arange(len(components))
    held = () if fixed is None else tuple(ids[fixed].tolist())
    refinement = Refinement((weighted / level[:, None])[chosen], 0.0, 0.0, non_negative=non_negative, fixed=held)
    start = Factors(np.zeros((len(chosen), len(ids))), components * weights, ids).at_unit_norm()
    opened = update_concentrations(refinement.spectra, start.concentrations, start.components, 0.0, sweeps=_OPENING)
    found = refinement.converged(start._replace(concentrations=opened).used())
    shapes = components * weights
    length = np.linalg.norm(shapes, axis=1)
    shapes[found.ids] = found.components * length[found.ids, None]
    unit = shapes / np.where(length > 0, length, 1.0)[:, None]
    amounts = update_concentrations(
        weighted / level[:, None], np.zeros((len(spectra), len(ids))), unit, 0.0, sweeps=_OPENING
    )
    left = weighted - (amounts * level[:, None]) @ unit
    rest = np.sqrt((left * left).sum() / max(left.size - amounts.size - shapes.size, 1))
    sigma = min(float(np.median(level)), float(rest))
    return amounts * level[:, None] / np.where(length > 0, length, 1.0), shapes / weights, sigma / weights


def _bands(
    space: _Solutions, turns: list[Array], concentrations: Array, spectra: Array, ids: NDArray[np.int64], method: str
) -> FeasibleBands:
    """What all solutions that were found span."""
    shares = np.array([space.contributions(turn) for turn in turns])
    least, most = shares.argmin(0), shares.argmax(0)
    length = np.linalg.norm(spectra, axis=1)
    low_s, high_s = spectra.copy(), spectra.copy()
    low_c, high_c = concentrations.copy(), concentrations.copy()
    at: dict[str, Array] = {}
    for name, source in (("lowest", least), ("highest", most)):
        at["s" + name], at["c" + name] = spectra.copy(), concentrations.copy()
        for turn in np.unique(source):
            c, s = _turned(space, turns[turn], concentrations, spectra, length)
            here = source == turn
            at["s" + name][here], at["c" + name][:, here] = s[here], c[:, here]
    for turn in turns:
        c, s = _turned(space, turn, concentrations, spectra, length)
        np.minimum(low_s, s, out=low_s)
        np.maximum(high_s, s, out=high_s)
        np.minimum(low_c, c, out=low_c)
        np.maximum(high_c, c, out=high_c)
    overlap = (at["slowest"] * at["shighest"]).sum(1)
    return FeasibleBands(
        ids,
        shares[0],
        shares.min(0),
        shares.max(0),
        np.minimum(overlap / np.where(length > 0, length, 1.0) ** 2, 1.0),
        low_s,
        high_s,
        low_c,
        high_c,
        at["slowest"],
        at["shighest"],
        at["clowest"],
        at["chighest"],
        space.tolerance,
        method,
        space.known.unknown,
    )


def _turned(
    space: _Solutions, turn: Array, concentrations: Array, spectra: Array, length: Array
) -> tuple[Array, Array]:
    """The mixture's factors after a turn, spectra at the norm that they had."""
    turn = space.balance[:, None] * turn / space.balance
    s = np.linalg.solve(turn, spectra)
    scale = length / np.linalg.norm(s, axis=1)
    if space.known.closed:
        # The sizes with which concentrations add up to what they did.
        scale = 1.0 / np.linalg.solve(turn, np.ones(space.size))
    return concentrations @ turn / scale, s * scale[:, None]


class _Known(NamedTuple):
    """What is known of concentrations beyond their sign, in the form in which a search knows it.

    Attributes
    ----------
    rows : ndarray, (q, k)
        Differences of the concentrations of two spectra, or these of one: not below zero in the component `columns`.
    columns : ndarray of int, (q,)
    closed : bool
        Concentrations of a spectrum add up to a number.
    fixed : ndarray of bool, (k,)
        Components whose spectra are known.
    unknown : tuple of str
        What is left.
    """

    rows: Array
    columns: NDArray[np.int64]
    closed: bool
    fixed: NDArray[np.bool_]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, concentrations: Array, knowledge: Knowledge, ids: NDArray[np.int64], free: NDArray[np.bool_]) -> _Known:
        rows, columns, closed, unknown = [concentrations[:0]], list[int](), False, list[str]()
        fixed = np.zeros(len(ids), bool)
        for one in knowledge.constraints:
            about, places = one.columns(ids, free)
            runs = [run for i, run in enumerate(knowledge.runs) if one.runs is None or i in one.runs]
            if isinstance(one, Unimodal) and one.on == "concentrations":
                for k in about:
                    for run in runs:
                        low, high = one.rising(concentrations[run, k])
                        rows.append(concentrations[run[high]] - concentrations[run[low]])
                        columns += [int(k)] * len(low)
            elif isinstance(one, Zero) and one.on == "concentrations":
                for k, place in zip(about, places, strict=True):
                    for run in runs:
                        zero = run if one.where is None else run[np.asarray(one.where, bool)[run, place]]
                        rows.append(-concentrations[zero])
                        columns += [int(k)] * len(zero)
            elif isinstance(one, Closure) and not one.at_most and len(about) == len(ids):
                closed = True
            elif isinstance(one, Equality) and one.on == "spectra" and not np.isnan(one.values).any():
                fixed[about] = True
            elif not isinstance(one, NonNegative):
                unknown.append(one.name)
        return cls(np.vstack(rows), np.array(columns, np.int64), closed, fixed, tuple(unknown))


class _Solutions:
    """All pairs C T, T^-1 S that keep to the constraints, T with a diagonal of ones.

    The factors are balanced first, so that a component's profile and spectrum have maxima of one size.
    """

    def __init__(
        self,
        concentrations: Array,
        spectra: Array,
        noise: Array | float,
        non_negative_spectra: bool,
        fixed: NDArray[np.bool_],
        tolerance: float | None,
        known: _Known,
    ) -> None:
        self.known = known
        self.size = len(spectra)
        level = np.broadcast_to(np.asarray(noise, np.float64), spectra.shape[1:])
        loudest = max(float(level.max()), 1e-300)
        # In units of the largest noise, so that one tolerance holds for all bands.
        quiet = loudest / np.maximum(level, 1e-6 * loudest)
        heights, peaks = concentrations.max(0), (np.abs(spectra) * quiet).max(1)
        self.tolerance = np.minimum(loudest / (heights * peaks), _MOST_TOLERANCE)
        if tolerance is not None:
            self.tolerance = np.full(self.size, tolerance)
        self.balance = np.sqrt(peaks / heights)
        self._height = np.sqrt(peaks * heights)
        c, s = concentrations * self.balance, spectra / self.balance[:, None]
        self._overlap_c, self._overlap_s = c.T @ c, s @ s.T
        self._power = float((self._overlap_c * self._overlap_s).sum())
        self._rows = _corners(c)
        self._known_rows = known.rows * self.balance
        self._bands = _corners((s * quiet).T) if non_negative_spectra else np.empty((0, self.size))
        # The inverse has a row of the identity if and only if the matrix has.
        self._free = ~np.eye(self.size, dtype=bool) & ~fixed[:, None]

    def contributions(self, turn: Array) -> Array:
        """Relative contribution of every component: (k,)."""
        back = np.linalg.inv(turn)
        c, s = np.einsum("ij,ij->j", turn, self._overlap_c @ turn), np.einsum("ij,ij->i", back, back @ self._overlap_s)
        return np.sqrt(np.maximum(c * s, 0.0) / self._power)

    def _gradients(self, turn: Array) -> tuple[Array, Array]:
        """Logarithms of the contributions (k,), and their derivatives by the matrix (k, k, k)."""
        back = np.linalg.inv(turn)
        along_c, along_s = self._overlap_c @ turn, back @ self._overlap_s
        c, s = np.einsum("ij,ij->j", turn, along_c), np.einsum("ij,ij->i", back, along_s)
        # The inverse changes by -T^-1 dT T^-1.
        slopes = -np.einsum("ka,kb->kab", back, (along_s @ back.T) / s[:, None])
        places = np.arange(self.size)
        slopes[places, :, places] += (along_c / c).T
        return 0.5 * np.log(c * s / self._power), slopes

    def _missed(self, turn: Array) -> tuple[Array, Array, Array]:
        """How far every row (m, k), band (q, k) and what is known (p, 1) is above what is allowed.

        As a share of the profiles' maxima.
        """
        rows = self._rows @ turn / self._height + self.tolerance
        return rows, self._bands @ np.linalg.inv(turn).T / self._height + self.tolerance, self._known(turn)[:, None]

    def _known(self, turn: Array) -> Array:
        columns = self.known.columns
        along = (self._known_rows * turn[:, columns].T).sum(1)
        values = along / self._height[columns] + self.tolerance[columns]
        return np.append(values, self._sizes(turn) - _VANISHING) if self.known.closed else values

    def _sizes(self, turn: Array) -> Array:
        """Factors with which concentrations add up to what they did: (k,), of any unit and above zero if they can."""
        return np.linalg.solve(turn, 1.0 / self.balance) * self.balance

    def allows(self, turn: Array) -> bool:
        """Whether a solution keeps to the constraints, and its components are still those that were found."""
        rows, bands, known = self._missed(turn)
        if known.min(initial=0.0) < -_VIOLATED:
            return False
        for values in (rows, bands):
            # A profile may have become so small that what noise can hide is all of it.
            negative, size = self.tolerance - values.min(0, initial=0.0), values.max(0, initial=0.0)
            if len(values) and (
                values.min() < -_VIOLATED or (negative > _SHRUNK * self.tolerance * size + _VIOLATED).any()
            ):
                return False
        if self.contributions(turn).max() > 1.0001:
            return False
        # Profiles and spectra together: spectra alone are often too alike to tell which is which.
        likeness = _cosines(turn.T, self._overlap_c) * _cosines(_inverse(turn), self._overlap_s)
        return bool((linear_sum_assignment(-likeness)[1] == np.arange(self.size)).all())

    def extremes(self, generator: np.random.Generator) -> list[Array]:
        """Solutions in which some component contributes as little, or as much, as can be."""
        if not self._free.any():
            return []
        found = list[Array]()
        starts = [np.eye(self.size), *self.drawn(generator, _STARTS - 1 if self.size <= _MOST_STARTED else 0)]
        for component in range(self.size):
            for sign in (1.0, -1.0):
                found += [self._extreme(start, component, sign) for start in starts]
                tell(component + 0.75 + sign / -4, self.size)
        # Contributions do not tell all: between their extremes one band may reach farther.
        return found + [end for turn in (np.eye(self.size), *found) for end in self._ends(turn)]

    def _ends(self, turn: Array) -> list[Array]:
        """Solutions where two components are mixed as far as they can be, all others left alone."""
        found = list[Array]()
        for i, j in np.argwhere(self._free):
            for step in self._range(turn, i, j):
                trial = _mixed(turn, i, j, step)
                if step and trial is not None and self.allows(trial):
                    found.append(trial)
        return found

    def _extreme(self, start: Array, component: int, sign: float) -> Array:
        """The solution of least `sign` times a component's contribution in which none have changed places."""
        best, end = start, self._search(start, component, sign, _NO_LIMIT)
        if end is None or self.allows(end):
            return best if end is None else end
        # Where the extreme is another component's, how far this one reaches is closed in on.
        high, low = (sign * float(self._gradients(turn)[0][component]) for turn in (start, end))
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            end = self._search(best, component, sign, middle)
            if end is not None and self.allows(end):
                best, high = end, middle
            else:
                low = middle
        return best

    def best(self, aim: Aim) -> Array:
        """The solution of least `aim`, of factors as they were before they were balanced."""
        ratio = self.balance[:, None] / self.balance

        def unbalanced(turn: Array) -> tuple[float, Array]:
            value, slopes = aim(ratio * turn)
            return value, ratio * slopes

        if not self._free.any():
            return np.eye(self.size)
        best, least = np.eye(self.size), unbalanced(np.eye(self.size))[0]
        for start in (np.eye(self.size), *self.drawn(np.random.default_rng(0), _STARTS - 1)):
            turn = self._descend(start, unbalanced)
            if turn is not None and self.allows(turn) and unbalanced(turn)[0] < least:
                best, least = turn, unbalanced(turn)[0]
        return best

    def _search(self, start: Array, component: int, sign: float, limit: float) -> Array | None:
        """The solution of least `sign` times the logarithm of a component's contribution, which is at least `limit`."""

        def aim(turn: Array) -> tuple[float, Array]:
            values, slopes = self._gradients(turn)
            return sign * float(values[component]), sign * slopes[component]

        return self._descend(start, aim, limit)

    def _descend(self, start: Array, aim: Aim, limit: float = _NO_LIMIT) -> Array | None:
        """The solution of least `aim`, which is at least `limit`; None where the matrix becomes singular.

        Only constraints that are nearly active take part; those that turn out to be missed join them.
        """
        free, turn = self._free, start.copy()
        first = self._missed(turn)
        active = [np.zeros(values.shape, bool) for values in first]
        for values, chosen in zip(first, active, strict=True):
            np.put_along_axis(chosen, np.argsort(values, axis=0)[:_FIRST], True, axis=0)

        def matrix(x: Array) -> Array:
            whole = np.eye(self.size)
            whole[free] = x
            return whole

        def goal(x: Array) -> tuple[float, Array]:
            value, slopes = aim(matrix(x))
            return value, slopes[free]

        def constraints(x: Array) -> Array:
            turn = matrix(x)
            near = [values[chosen] for values, chosen in zip(self._missed(turn), active, strict=True)]
            values = self._gradients(turn)[0]
            return np.concatenate([*near, -values, [aim(turn)[0] - limit]])

        def slopes(x: Array) -> Array:
            turn = matrix(x)
            back = _inverse(turn)
            i, j = np.nonzero(active[0])
            by_rows = np.zeros((len(i), self.size, self.size))
            by_rows[np.arange(len(i)), :, j] = self._rows[i] / self._height[j, None]
            i, j = np.nonzero(active[1])
            turned = self._bands[i] @ back.T / self._height[j, None]
            by_bands = -np.einsum("ma,mb->mab", back[j], turned)
            slopes = self._gradients(turn)[1]
            by_known = self._slopes_of_known(back, np.flatnonzero(active[2]))
            return np.concatenate([by_rows, by_bands, by_known, -slopes, aim(turn)[1][None]])[:, free]

        for _ in range(_ROUNDS):
            result = minimize(
                goal,
                turn[free],
                jac=True,
                method="SLSQP",
                constraints={"type": "ineq", "fun": constraints, "jac": slopes},
                options={"maxiter": _ITERATIONS, "ftol": _PRECISION},
            )
            if not np.isfinite(result.x).all() or np.linalg.cond(matrix(result.x)) > 1e8:
                return None
            turn = matrix(result.x)
            missed = [values < -_VIOLATED for values in self._missed(turn)]
            if not any((new & ~old).any() for new, old in zip(missed, active, strict=True)):
                break
            for new, old in zip(missed, active, strict=True):
                old |= new
        return turn

    def _slopes_of_known(self, back: Array, which: NDArray[np.int64]) -> Array:
        """Derivatives (p, k, k) of what is known, by the matrix whose inverse is `back`."""
        slopes = np.zeros((len(which), self.size, self.size))
        linear = which[which < len(self.known.columns)]
        columns = self.known.columns[linear]
        slopes[np.arange(len(linear)), :, columns] = self._known_rows[linear] / self._height[columns, None]
        for at, k in enumerate(which[len(linear) :] - len(self.known.columns), start=len(linear)):
            slopes[at] = -np.outer(back[k], back @ (1.0 / self.balance)) * self.balance[k]
        return slopes

    def sampled(self, generator: np.random.Generator) -> list[Array]:
        """Solutions at random, and those that mixing a component with one other after another leads to."""
        found = self.drawn(generator, _DRAWS)
        for component in range(self.size):
            for sign in (1.0, -1.0):
                turn, best = np.eye(self.size), sign * self.contributions(np.eye(self.size))[component]
                for i, j in [pair for pair in np.argwhere(self._free) if component in pair]:
                    for step in self._range(turn, i, j):
                        trial = _mixed(turn, i, j, step)
                        if trial is None or not self.allows(trial):
                            continue
                        value = sign * self.contributions(trial)[component]
                        if value < best:
                            turn, best = trial, value
                            break
                found.append(turn)
        return found

    def drawn(self, generator: np.random.Generator, count: int) -> list[Array]:
        """Solutions at random, by steps that mix two components only: how far each may go has a closed form."""
        turn, found = np.eye(self.size), list[Array]()
        for _ in range(count):
            trial: Array | None = turn
            for i, j in generator.permutation(np.repeat(np.argwhere(self._free), _SWEEPS, axis=0)):
                if trial is not None:
                    low, high = self._range(trial, i, j)
                    trial = _mixed(trial, i, j, low + (high - low) * generator.random())
            if trial is not None and self.allows(trial):
                turn = trial
                found.append(turn)
        return found

    def _range(self, turn: Array, i: int, j: int) -> tuple[float, float]:
        """How much of profile i may join profile j, and spectrum j leave spectrum i."""
        back = np.linalg.inv(turn)
        c, s = self._rows @ turn, self._bands @ back.T
        taking, giving = c[:, i], s[:, j]
        low = -_least((c[:, j] + self.tolerance[j] * self._height[j]), taking)
        high = _least((s[:, i] + self.tolerance[i] * self._height[i]), giving)
        known = self._known_rows[self.known.columns == j]
        room, slope = known @ turn[:, j] + self.tolerance[j] * self._height[j], known @ turn[:, i]
        return min(max(low, -_least(room, slope)), 0.0), max(min(high, _least(room, -slope)), 0.0)


def _mixed(turn: Array, i: int, j: int, step: float) -> Array | None:
    """Profile j with `step` times profile i, at a diagonal of ones; None where a component would vanish."""
    mixed = turn.copy()
    mixed[:, j] += step * mixed[:, i]
    diagonal = mixed.diagonal()
    return mixed / diagonal if (diagonal > _VANISHING).all() else None


def _inverse(turn: Array) -> Array:
    return np.asarray(np.linalg.inv(turn), np.float64)


def _cosines(mixed: Array, overlap: Array) -> Array:
    """Cosines between mixtures (m, k) of vectors, whose products are `overlap` (k, k), and these: (m, k)."""
    along = mixed @ overlap
    return np.asarray(along / np.sqrt(np.outer(np.einsum("ij,ij->i", along, mixed), overlap.diagonal())))


def _least(room: Array, step: Array) -> float:
    """How many steps lead down to zero first, of those that lead down."""
    down = step > 0
    return float(np.min(room[down] / step[down], initial=1.0)) if down.any() else 1.0


def _corners(points: Array) -> Array:
    """Points (m, k) of which all others are mixtures with the origin: a linear bound that they keep, all keep."""
    if points.shape[1] in range(2, MOST_OPTIMIZED + 1) and len(points) > 2 * points.shape[1]:
        try:
            hull = ConvexHull(np.vstack([points, np.zeros(points.shape[1])])).vertices
        except QhullError:
            return points
        return points[hull[hull < len(points)]]
    return points
