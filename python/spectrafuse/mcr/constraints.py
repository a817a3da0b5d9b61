"""What a user knows about concentrations and spectra: constraints on any of the components, and the fit under them.

A constraint takes profiles as columns, concentrations `(n, c)` of one run or spectra `(d, c)`, and gives the nearest
ones that obey it. A subclass of `Constraint` that does the same is one as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, solveh_banded
from scipy.optimize import nnls

from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.mcr.weighting import Weighting

Array = NDArray[np.float64]
_MOST_ROUNDS, _INNER, _SETTLED = 400, 10, 1e-8
"""Rounds at most; steps of each factor in one; change of the residual, as a share of the spectra, that ends them."""
_TO_ENOUGH = 10
"""Times as many rounds where it is known how small a residual is to be had."""
_AGREED = 1e-8
"""Squared difference of a factor and its free form, as a share, with which a round need not go on."""
_ACTIVE = 1e-6
"""A constraint is active if the fit without it departs from it by more, as a share of the largest value."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Constraint:
    """One thing that is known.

    Parameters
    ----------
    on : {"concentrations", "spectra"}
    components : sequence of int or None
        Numbers as in `component_ids_`; None: all, the background aside.
    runs : sequence of int or None
        Numbers of the runs it holds in, from 0; None: all, one after another. Of concentrations only.
    """

    on: Literal["concentrations", "spectra"] = "concentrations"
    components: Sequence[int] | None = None
    runs: Sequence[int] | None = None
    of_single_spectra: ClassVar[bool] = False
    """It can hold for one spectrum's concentrations alone."""

    @property
    def name(self) -> str:
        """The constraint in words."""
        of = "" if self.components is None else f" of components {', '.join(map(str, self.components))}"
        runs = "" if self.runs is None else f" in runs {', '.join(map(str, self.runs))}"
        return f"{type(self).__name__} on {self.on}{of}{runs}"

    def columns(self, ids: NDArray[np.int64], free: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Columns of a factor that it is about, of components `ids` (k,), and their places in its tables.

        Without `components` these are the `free` ones.
        """
        if self.components is None:
            columns = np.flatnonzero(free)
            return columns, np.arange(len(columns))
        found = [(int(np.flatnonzero(ids == i)[0]), at) for at, i in enumerate(self.components) if i in ids]
        pairs = np.array(found, np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        """The nearest profiles that obey.

        Parameters
        ----------
        profiles : ndarray, (m, c)
            Concentrations of a run, or spectra, of the constrained components, a column each.
        rows : ndarray of int, (m,)
            Numbers of these spectra, or of the bands.
        columns : ndarray of int, (c,)
            Places of the components among those that are constrained.
        """
        raise NotImplementedError

    def scale(self, profiles: Array, rows: NDArray[np.int64]) -> Array | None:
        """Factors (c,) that bring profiles of any size near the constraint before the fit; None: it knows no size."""
        return None


@dataclass(frozen=True, eq=False)
class NonNegative(Constraint):
    """No value is below zero; needed where the estimator's `non_negative` or `non_negative_concentrations` is off."""

    of_single_spectra = True

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        return np.maximum(profiles, 0.0)


@dataclass(frozen=True, eq=False)
class Unimodal(Constraint):
    """Every profile has one maximum.

    Parameters
    ----------
    tolerance : float
        How far a value may be from such a profile, as a share of its maximum.

    Examples
    --------
    >>> import numpy as np
    >>> from spectrafuse.mcr.constraints import unimodal
    >>> unimodal(np.array([0.0, 2.0, 1.0, 3.0, 1.0]))
    array([0. , 1.5, 1.5, 3. , 1. ])
    """

    tolerance: float = 0.0

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        nearest = np.stack([unimodal(profile) for profile in profiles.T], axis=1)
        margin = self.tolerance * np.abs(nearest).max(0)
        return np.clip(profiles, nearest - margin, nearest + margin)

    def rising(self, profile: Array) -> tuple[Array, Array]:
        """Places (q,) from and to which a profile (m,) must not fall, its maximum where it is."""
        first, top = np.arange(len(profile) - 1), int(np.argmax(profile))
        return np.where(first < top, first, first + 1), np.where(first < top, first + 1, first)


@dataclass(frozen=True, eq=False)
class Closure(Constraint):
    """Concentrations of a spectrum sum to `total`, or to that at most.

    Parameters
    ----------
    total : float
    at_most : bool
    """

    total: float = 1.0
    at_most: bool = False
    of_single_spectra = True

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        onto = _onto_simplex(profiles, self.total)
        if not self.at_most:
            return onto
        positive = np.maximum(profiles, 0.0)
        return np.where(positive.sum(1, keepdims=True) > self.total, onto, positive)

    def scale(self, profiles: Array, rows: NDArray[np.int64]) -> Array | None:
        if self.at_most:
            return np.full(profiles.shape[1], self.total / max(float(profiles.sum(1).max()), 1e-300))
        factors = nnls(profiles, np.full(len(profiles), self.total))[0]
        return np.where(factors > 0, factors, 1.0)


@dataclass(frozen=True, eq=False)
class Equality(Constraint):
    """Known values; NaN where they are not known.

    Parameters
    ----------
    values : array_like
        Concentrations (n, c), or spectra (c, d), of the constrained components.
    """

    values: ArrayLike = ()

    def _known(self, rows: NDArray[np.int64]) -> Array:
        table = np.asarray(self.values, np.float64)
        return (table.T if self.on == "spectra" else table)[rows]

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        known = self._known(rows)[:, columns]
        return np.where(np.isnan(known), profiles, known)

    def scale(self, profiles: Array, rows: NDArray[np.int64]) -> Array | None:
        known = np.nan_to_num(self._known(rows))
        there = np.where(known != 0, profiles, 0.0)
        along, power = (known * there).sum(0), (there * there).sum(0)
        return np.where(along > 0, along / np.maximum(power, 1e-300), 1.0)


@dataclass(frozen=True, eq=False)
class Zero(Constraint):
    """Values that are zero: selective regions, runs without a substance.

    Parameters
    ----------
    where : array_like of bool
        (n, c) of concentrations, (c, d) of spectra; True: zero. None: all, as for a substance that some runs lack.
    """

    where: ArrayLike | None = None

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        if self.where is None:
            return np.zeros_like(profiles)
        table = np.asarray(self.where, np.bool_)
        return np.where((table.T if self.on == "spectra" else table)[rows][:, columns], 0.0, profiles)


@dataclass(frozen=True, eq=False)
class Smooth(Constraint):
    """Profiles are smoothed by a penalty on their second differences (Whittaker's smoother).

    Parameters
    ----------
    strength : float
        Of the penalty: details of about `strength ** 0.25` values are smoothed away.
    """

    strength: float = 10.0

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        size = len(profiles)
        if size < 3:
            return profiles
        banded = np.zeros((3, size))
        difference = (1.0, -2.0, 1.0)
        for i in range(3):
            for j in range(i, 3):
                # Second differences start at 0, ..., size - 3.
                banded[2 - (j - i), j : j + size - 2] += self.strength * difference[i] * difference[j]
        banded[2] += 1.0
        return np.asarray(solveh_banded(banded, profiles))


@dataclass(frozen=True, eq=False)
class Bounds(Constraint):
    """Values lie between two numbers."""

    low: float = 0.0
    high: float = np.inf
    of_single_spectra = True

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        return np.clip(profiles, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Calibration(Constraint):
    """Concentrations lie on a straight line against known values (the correlation constraint).

    Parameters
    ----------
    values : array_like, (n,) or (n, c)
        Known values in any unit; NaN where they are not known.
    """

    values: ArrayLike = ()

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        table = np.asarray(self.values, np.float64)
        table = (table[:, None] if table.ndim == 1 else table)[rows][:, columns]
        found = profiles.copy()
        for profile, known in zip(found.T, table.T, strict=True):
            there = ~np.isnan(known)
            if there.sum() > 2 and np.ptp(known[there]) > 0:
                profile[there] = np.polyval(np.polyfit(known[there], profile[there], 1), known[there])
        return found


@dataclass(frozen=True, eq=False)
class Trilinear(Constraint):
    """A component has one profile in all runs, of another size in each: runs of one length, without shifts."""

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        return profiles

    def project_runs(self, profiles: Array, rows: Sequence[NDArray[np.int64]]) -> Array:
        """The nearest profiles (m, c) of all these runs, one after another."""
        cube = profiles.reshape(len(rows), -1, profiles.shape[1]).transpose(2, 0, 1)
        sizes, strengths, shapes = np.linalg.svd(cube, full_matrices=False)
        nearest = strengths[:, :1, None] * sizes[:, :, :1] * shapes[:, :1]
        return np.asarray(nearest.transpose(1, 2, 0).reshape(profiles.shape))


class Report(NamedTuple):
    """What a constraint did.

    Attributes
    ----------
    name : str
    active : bool
        The fit without it does not obey it.
    cost : float
        By how much it raises the nMSE.
    """

    name: str
    active: bool
    cost: float

    @property
    def sentence(self) -> str:
        """The same in words."""
        if not self.active:
            return f"{self.name}: holds without being asked for."
        return f"{self.name}: active, raises the nMSE by {self.cost:.2g}."


class Knowledge(NamedTuple):
    """What the user knows.

    Attributes
    ----------
    constraints : tuple of Constraint
    runs : tuple of ndarray of int
        Numbers of the spectra of each run.
    weighting : Weighting or None
        Of single values, 0 where they are missing.
    spectra : ndarray, (n, d), or None
        The spectra that are weighted, NaN where a value is missing.
    signed : bool
        Concentrations may be negative.
    prefer : {"first", "pure", "smooth", "least volume"} or None
        Which of the mixtures that fit equally well is taken; None: one that the data support.
    """

    constraints: tuple[Constraint, ...] = ()
    runs: tuple[NDArray[np.int64], ...] = ()
    weighting: Weighting | None = None
    spectra: NDArray[np.float32] | None = None
    signed: bool = False
    prefer: Literal["first", "pure", "smooth", "least volume"] | None = None

    @property
    def needs_a_fit(self) -> bool:
        """Whether what the refinement ends with must be fitted once more."""
        return bool(self.constraints) or self.prefer not in (None, "first") or self.weighting is not None or self.signed


NOTHING = Knowledge()


class Mixture(NamedTuple):
    """Spectra (n, d), how they are weighted, and what is known about them.

    Attributes
    ----------
    spectra : ndarray, (n, d)
    row_weights, band_weights : ndarray, (n,) and (d,)
        Factors of the residual.
    ids : ndarray of int, (k,)
        Numbers of the components.
    free : ndarray of bool, (k,)
        Components that a constraint without `components` is about.
    held : ndarray of bool, (k,)
        Components that keep their spectra.
    non_negative : bool
        Spectra are not below zero.
    runs : tuple of ndarray of int
        Numbers of the spectra of each run.
    shares : ndarray, (n, d), or None
        Further weights of the squared residuals, 0 to 1: 0 where a value is missing. None: all are 1.
    signed : bool
        Concentrations may be negative.
    """

    spectra: Array
    row_weights: Array
    band_weights: Array
    ids: NDArray[np.int64]
    free: NDArray[np.bool_]
    held: NDArray[np.bool_]
    non_negative: bool
    runs: tuple[NDArray[np.int64], ...]
    shares: Array | None = None
    signed: bool = False

    def residual(self, amounts: Array, shapes: Array) -> Array:
        """What the factors (n, k) and (k, d) leave of the spectra, as far as that has weight."""
        left = self.spectra - amounts @ shapes
        return left if self.shares is None else np.sqrt(self.shares) * left

    @property
    def weighted_spectra(self) -> Array:
        """The spectra, as far as they have weight."""
        return self.spectra if self.shares is None else np.sqrt(self.shares) * self.spectra


def check(constraints: Any, samples: int | None = None, bands: int | None = None) -> tuple[Constraint, ...]:
    """Constraints that can hold for spectra (n, d), or for any without their size.

    Raises
    ------
    ValueError, TypeError
        If one is none, or its table has another size.
    """
    if constraints is None:
        return ()
    if isinstance(constraints, Constraint):
        constraints = (constraints,)
    for one in constraints:
        if not isinstance(one, Constraint):
            raise InvalidTypeError(
                "`constraints` must hold objects of spectrafuse.mcr.constraints, such as Unimodal(); got "
                f"{type(one).__name__}."
            )
        if one.on not in ("concentrations", "spectra"):
            raise InvalidValueError(f"`on` of a constraint must be 'concentrations' or 'spectra'; got {one.on!r}.")
        if isinstance(one, (Closure, Calibration, Trilinear)) and one.on != "concentrations":
            raise InvalidValueError(f"{type(one).__name__} is about concentrations; got on={one.on!r}.")
        table = getattr(one, "values", getattr(one, "where", None))
        if table is None:
            continue
        shape = np.shape(table)
        length = shape[-1] if one.on == "spectra" else shape[0]
        wanted = bands if one.on == "spectra" else samples
        if wanted is not None and length != wanted:
            raise InvalidValueError(
                f"{one.name}: its table must have {'(c, d)' if one.on == 'spectra' else '(n, c)'} values with "
                f"{'d' if one.on == 'spectra' else 'n'} = {wanted}; got shape {shape}."
            )
    return tuple(constraints)


def check_runs(constraints: Sequence[Constraint], runs: Sequence[NDArray[np.int64]]) -> None:
    """Whether the runs are such that constraints can hold in them."""
    for one in constraints:
        if one.runs is not None and not all(0 <= i < len(runs) for i in one.runs):
            raise InvalidValueError(f"{one.name}: `runs` must be from 0 to {len(runs) - 1}, as there are {len(runs)}.")
        if isinstance(one, Trilinear):
            lengths = [len(run) for i, run in enumerate(runs) if one.runs is None or i in one.runs]
            if len(lengths) < 2 or len(set(lengths)) > 1:
                raise InvalidValueError(
                    f"{one.name} needs two runs or more of one length; got {', '.join(map(str, lengths))} spectra. "
                    "Give `runs` to `fit`."
                )


def runs_of(runs: Any, samples: int) -> tuple[NDArray[np.int64], ...]:
    """Numbers of the spectra of each run, from lengths of runs or from a label for each spectrum."""
    if runs is None:
        return (np.arange(samples),)
    given = np.asarray(runs)
    if given.ndim == 1 and len(given) == samples and not (given.dtype.kind in "iu" and given.sum() == samples):
        return tuple(np.flatnonzero(given == label) for label in dict.fromkeys(given.tolist()))
    if given.ndim == 1 and given.dtype.kind in "iu" and given.min() > 0 and given.sum() == samples:
        return tuple(np.split(np.arange(samples), np.cumsum(given)[:-1]))
    raise InvalidValueError(
        f"`runs` must be lengths of runs that add up to {samples} spectra, or one label for each; got shape "
        f"{given.shape}."
    )


def constrained(
    mixture: Mixture,
    concentrations: Array,
    components: Array,
    constraints: Sequence[Constraint],
    *,
    enough: float = 0.0,
) -> tuple[Array, Array, list[Report]]:
    """Concentrations (n, k) and components (k, d) that describe spectra best under constraints.

    Both factors in turn, each by the alternating direction method of multipliers, so that every constraint is one
    projection and the fit is that of least squares (Huang, Sidiropoulos and Liavas, IEEE Transactions on Signal
    Processing 64, 2016).

    Parameters
    ----------
    mixture : Mixture
    concentrations, components : ndarray, (n, k) and (k, d)
        Where the fit starts.
    constraints : sequence of Constraint
    enough : float
        The weighted residual with which it need not go on.

    Returns
    -------
    concentrations, components : ndarray
    reports : list of Report
        One for each constraint, from a fit without it.
    """
    found = fitted(mixture, concentrations, components, constraints, enough=enough)
    error, reports = _nmse(mixture, *found), []
    for i, one in enumerate(constraints):
        without = _fit(mixture, *found, [*constraints[:i], *constraints[i + 1 :]])
        factor = without[0] if one.on == "concentrations" else without[1].T
        change = float(np.abs(_projected(mixture, factor, [one]) - factor).max(initial=0.0))
        active = change > _ACTIVE * float(np.abs(factor).max(initial=0.0))
        reports.append(Report(one.name, active, max(error - _nmse(mixture, *without), 0.0) if active else 0.0))
    return *found, reports


def fitted(
    mixture: Mixture,
    concentrations: Array,
    components: Array,
    constraints: Sequence[Constraint],
    *,
    enough: float = 0.0,
) -> tuple[Array, Array]:
    """`constrained` without the reports."""
    start = _scaled(mixture, concentrations, components, constraints)
    return _fit(mixture, *start, constraints, enough)


def weighted_residual(mixture: Mixture, concentrations: Array, components: Array) -> float:
    """Sum of squared residuals, weighted."""
    left = mixture.residual(concentrations, components) * mixture.row_weights[:, None] * mixture.band_weights
    return float((left * left).sum())


def _nmse(mixture: Mixture, concentrations: Array, components: Array) -> float:
    left = mixture.residual(concentrations, components)
    return float((left * left).sum() / (mixture.weighted_spectra**2).sum())


def _rows(mixture: Mixture, one: Constraint, factor: Array) -> list[NDArray[np.int64]]:
    if one.on == "spectra":
        return [np.arange(len(factor))]
    return [run for i, run in enumerate(mixture.runs) if one.runs is None or i in one.runs]


def _projected(mixture: Mixture, factor: Array, constraints: Sequence[Constraint]) -> Array:
    found = factor.copy()
    for one in constraints:
        columns, places = one.columns(mixture.ids, mixture.free)
        if len(columns) and isinstance(one, Trilinear):
            runs = _rows(mixture, one, factor)
            every = np.ix_(np.concatenate(runs), columns)
            found[every] = one.project_runs(found[every], runs)
        elif len(columns):
            for rows in _rows(mixture, one, factor):
                found[np.ix_(rows, columns)] = one.project(found[np.ix_(rows, columns)], rows, places)
    return found


def _scaled(
    mixture: Mixture, concentrations: Array, components: Array, constraints: Sequence[Constraint]
) -> tuple[Array, Array]:
    """The same mixture, its components of the size that constraints know."""
    factors = np.ones(len(components))
    for one in constraints:
        table = concentrations if one.on == "concentrations" else components.T
        columns, places = one.columns(mixture.ids, mixture.free)
        rows = np.concatenate(_rows(mixture, one, table) or [np.empty(0, np.int64)])
        if not len(columns) or not len(rows) or len(places) != places.max() + 1:
            continue
        order = np.argsort(places)
        sizes = one.scale(table[np.ix_(rows, columns[order])], rows)
        if sizes is not None:
            factors[columns[order]] = sizes if one.on == "concentrations" else 1.0 / sizes
    factors[mixture.held] = 1.0
    return concentrations * factors, components / factors[:, None]


def _fit(
    mixture: Mixture,
    concentrations: Array,
    components: Array,
    constraints: Sequence[Constraint],
    enough: float = 0.0,
) -> tuple[Array, Array]:
    of_rows = [one for one in constraints if one.on == "concentrations"]
    of_bands = [one for one in constraints if one.on == "spectra"]
    rows, bands = mixture.row_weights[:, None] ** 2, mixture.band_weights**2
    kept = components[mixture.held]

    def amounts(values: Array) -> Array:
        return _allowed(mixture, values, of_rows)

    def shapes(values: Array) -> Array:
        values = np.maximum(values, 0.0) if mixture.non_negative else values
        values = _projected(mixture, values, of_bands)
        values[:, mixture.held] = kept.T
        return values

    shape, amount = components.T.copy(), amounts(concentrations)
    shape_left, amount_left = np.zeros_like(shape), np.zeros_like(amount)
    power, before = float((rows * mixture.weighted_spectra**2 * bands).sum()), np.inf
    spectra = mixture.spectra
    for _ in range(_MOST_ROUNDS if enough == 0 else _TO_ENOUGH * _MOST_ROUNDS):
        if mixture.shares is not None:
            # The fit to these lowers the weighted residual as well (Kiers, Psychometrika 62, 1997).
            fit = amount @ shape.T
            spectra = fit + mixture.shares * (mixture.spectra - fit)
        weighted = amount * rows
        shape, shape_left = _descended(shape, shape_left, weighted.T @ spectra, weighted.T @ amount, shapes)
        weighted = shape * bands[:, None]
        amount, amount_left = _descended(amount, amount_left, (spectra @ weighted).T, weighted.T @ shape, amounts)
        left = mixture.residual(amount, shape.T)
        error = float((rows * left * left * bands).sum()) / power
        if abs(before - error) < _SETTLED * max(error, _SETTLED) or error * power <= enough:
            break
        before = error
    return amount, shape.T.copy()


def _allowed(mixture: Mixture, amounts: Array, constraints: Sequence[Constraint]) -> Array:
    """Concentrations (n, k) that obey what is known of them."""
    if mixture.signed:
        return _projected(mixture, amounts, constraints)
    return np.maximum(_projected(mixture, np.maximum(amounts, 0.0), constraints), 0.0)


def concentrations_of(
    mixture: Mixture, concentrations: Array, components: Array, constraints: Sequence[Constraint]
) -> Array:
    """Concentrations (n, k) that describe spectra best under constraints, for components (k, d) as they are."""
    bands = mixture.band_weights**2
    weighted = components * bands
    overlap, left = weighted @ components.T, np.zeros_like(concentrations)
    amount, spectra = _allowed(mixture, concentrations, constraints), mixture.spectra
    for _ in range(_MOST_ROUNDS):
        if mixture.shares is not None:
            fit = amount @ components
            spectra = fit + mixture.shares * (mixture.spectra - fit)
        before = amount
        amount, left = _descended(
            amount, left, weighted @ spectra.T, overlap, lambda values: _allowed(mixture, values, constraints)
        )
        if np.sum((amount - before) ** 2) <= _SETTLED**2 * max(float(np.vdot(amount, amount)), 1e-300):
            break
    return amount


def for_any_spectra(constraints: Sequence[Constraint], *, in_runs: bool) -> list[Constraint]:
    """Those on concentrations that hold for spectra which were not fitted; in runs, or for single spectra."""
    return [
        one
        for one in constraints
        if one.on == "concentrations"
        and getattr(one, "values", getattr(one, "where", None)) is None
        and (in_runs or (one.of_single_spectra and one.runs is None))
    ]


def as_plain(constraints: Sequence[Constraint]) -> list[dict[str, Any]]:
    """Those that hold for spectra which were not fitted, as plain values for a file."""
    own = {kind.__name__: kind for kind in Constraint.__subclasses__() if kind.__module__ == __name__}
    plain = []
    for one in for_any_spectra(constraints, in_runs=True):
        if own.get(type(one).__name__) is type(one):
            values = {part.name: getattr(one, part.name) for part in fields(one)}
            sequences = {k: list(map(int, values[k])) for k in ("components", "runs") if values[k] is not None}
            plain.append({"kind": type(one).__name__, **values, **sequences})
    return plain


def from_plain(plain: Sequence[dict[str, Any]]) -> list[Constraint]:
    """What `as_plain` gave."""
    own = {kind.__name__: kind for kind in Constraint.__subclasses__() if kind.__module__ == __name__}
    return [own[one["kind"]](**{k: v for k, v in one.items() if k != "kind"}) for one in plain]


def _descended(factor: Array, dual: Array, along: Array, overlap: Array, project: Any) -> tuple[Array, Array]:
    """Steps of a factor (m, k) towards its constrained optimum, from products (k, m) and (k, k)."""
    penalty = max(float(np.trace(overlap)) / len(overlap), 1e-12)
    solver = cho_factor(overlap + penalty * np.eye(len(overlap)))
    for _ in range(_INNER):
        free = cho_solve(solver, along + penalty * (factor + dual).T).T
        before, factor = factor, project(free - dual)
        dual = dual + factor - free
        still = _AGREED * np.vdot(factor, factor)
        if np.sum((factor - free) ** 2) < still and np.sum((factor - before) ** 2) < still:
            break
    return factor, dual


def _onto_simplex(rows: Array, total: float) -> Array:
    """The nearest non-negative rows that sum to `total` (Duchi et al., 2008)."""
    ordered = np.sort(rows, axis=1)[:, ::-1]
    steps = (np.cumsum(ordered, axis=1) - total) / np.arange(1, rows.shape[1] + 1)
    last = np.count_nonzero(ordered > steps, axis=1) - 1
    return np.maximum(rows - steps[np.arange(len(rows)), last][:, None], 0.0)


def unimodal(profile: Array) -> Array:
    """The nearest profile (m,) that rises to one maximum and falls from it.

    Isotonic regression of all beginnings and all ends, of which the best pair is taken (Bro and Sidiropoulos, Journal
    of Chemometrics 12, 1998; prefixes in one pass as Stout, 2008).
    """
    # Errors of [0, i) rising and [i, m) falling.
    errors = _prefix_errors(profile) + _prefix_errors(profile[::-1])[::-1]
    split = int(np.argmin(errors))
    return np.concatenate([_rising(profile[:split]), _rising(profile[split:][::-1])[::-1]])


def _blocks(profile: Array) -> tuple[list[tuple[float, int]], list[float]]:
    """Blocks (mean, length) of the isotonic regression, and the squared error of every prefix: m + 1 of them."""
    blocks: list[tuple[float, int, float, float]] = []  # mean, length, squared error, error of those before
    errors = [0.0]
    for value in profile.tolist():
        mean, length, error = value, 1, 0.0
        while blocks and blocks[-1][0] >= mean:
            other, count, squared, _ = blocks.pop()
            together = length + count
            error += squared + (mean - other) ** 2 * length * count / together
            mean, length = (mean * length + other * count) / together, together
        before = blocks[-1][2] + blocks[-1][3] if blocks else 0.0
        blocks.append((mean, length, error, before))
        errors.append(before + error)
    return [(mean, length) for mean, length, _, _ in blocks], errors


def _prefix_errors(profile: Array) -> Array:
    return np.array(_blocks(profile)[1])


def _rising(profile: Array) -> Array:
    blocks = _blocks(profile)[0]
    return np.repeat([mean for mean, _ in blocks], [length for _, length in blocks]) if blocks else profile
