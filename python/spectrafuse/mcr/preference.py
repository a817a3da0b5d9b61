"""Which of the mixtures that fit equally well is taken: the purest, the smoothest, or that of least volume."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.mcr.constraints import (
    NOTHING,
    Array,
    Knowledge,
    Mixture,
    Report,
    concentrations_of,
    constrained,
    fitted,
    weighted_residual,
)
from spectrafuse.mcr.feasible_bands import MOST_OPTIMIZED, Aim, rotated
from spectrafuse.mcr.matching import cosine_matrix

Preference = Literal["first", "pure", "smooth", "least volume"]
_SAID = {
    "first": "the one that was found first",
    "least volume": "the one whose spectra span the least volume",
    "pure": "the one that the purest spectra lead to",
    "smooth": "the one of smoothest spectra",
    "pure bands": "the one that the purest bands lead to",
}

_STOP = 0.3
"""A preferred mixture is fitted down to that share of what noise may explain: further, it would leave its place."""

_FAINT, _EXCHANGES = 0.5, 2
"""Of the purest spectra: the share of the loudest one's size below which others count less; times that each of them is
chosen anew, the others given."""
_HIDDEN, _SEEN = 2.5, 10.0
"""Standard deviations below which a value may be zero, and above which spectra and bands show that something is
there."""
_ORDER = ("least volume", "first", "pure")
_AS_MANY, _APART, _MORE, _TIMES = 0.03, 0.07, 0.1, 1.25
"""Zeros as shares of the values. A mixture has as many as another with so many fewer. That of the purest bands is taken
with so many apart from the neighbors of these bands, which are nearly zero too; or with so many more, and so many
times those of any other."""
_SETTLED = 0.4
"""The share of zero concentrations from which on a mixture cannot turn: what was found first stays."""
_ALIKE, _LARGEST, _MOST_SPECTRA = 0.999, 2_000_000, 5000
"""The cosine above which there is nothing to choose; numbers and spectra up to which mixtures are compared."""


def check(prefer: object) -> None:
    """Raise where `prefer` is none of those that are known."""
    if prefer is not None and prefer not in get_args(Preference):
        known = ", ".join(map(repr, get_args(Preference)))
        raise InvalidValueError(f"`prefer` must be None or one of {known}; got {prefer!r}.")


class Choice(NamedTuple):
    """A mixture of those that fit equally well.

    Attributes
    ----------
    concentrations, components : ndarray, (n, k) and (k, d)
    sentence : str
        Which one it is, and why.
    tried : dict of str to dict
        Of each one that was compared: `concentrations` and `bands`, the shares of those that may be zero, and `times`,
        what it leaves beside what the first one leaves.
    """

    concentrations: Array
    components: Array
    sentence: str
    tried: dict[str, dict[str, float]]


def comparable(shape: tuple[int, ...], count: int) -> bool:
    """Whether so many components of spectra of a shape (n, d) are few enough to compare several mixtures."""
    return 2 <= count <= MOST_OPTIMIZED and shape[0] <= _MOST_SPECTRA and shape[0] * shape[1] <= _LARGEST


def best_supported(mixture: Mixture, concentrations: Array, components: Array) -> Choice | None:
    """Of mixtures that fit equally well one that the data support; None: the one that was found first.

    A mixture whose components are what they seem has concentrations and bands that are zero: substances that some
    spectra do not hold, bands where a substance shows nothing. In one that is turned away from it these are mixed with
    others. So of mixtures that fit, those with most values that may be zero within the noise are taken, and of these
    the one of least volume, which needs no pure spectra (Craig, IEEE Transactions on Geoscience and Remote Sensing 32,
    1994). What was found first stays where it has many zero concentrations already. The purest bands are another
    start, for spectra whose bands are narrow and which all hold all components.

    Parameters
    ----------
    mixture : Mixture
    concentrations, components : ndarray, (n, k) and (k, d)
        What was found first.
    """
    if not (concentrations.any(0) & components.any(1)).all():
        return None
    first = fitted(mixture, concentrations, components, ())
    left = weighted_residual(mixture, *first)
    if _zeros(mixture, *first)[0]["concentrations"] > _SETTLED:
        return None
    fits, tried = {"first": first}, dict[str, dict[str, float]]()
    margin = margin_of(*mixture.spectra.shape)
    for name in ("pure", "least volume", "pure bands"):
        if name == "pure bands" and mixture.held.any():
            continue
        start = _start(mixture, fits.get("pure", first), left, NOTHING, name)
        fits[name] = fitted(mixture, *start, (), enough=left * (1 + _STOP * margin))
    zeros, apart = dict[str, float](), dict[str, float]()
    for name, fit in fits.items():
        times = weighted_residual(mixture, *fit) / max(left, 1e-300)
        if times <= 1 + margin:
            shares, apart[name] = _zeros(mixture, *fit)
            tried[name] = {**shares, "times": times}
            zeros[name] = sum(shares.values())
    most = max(zeros[name] for name in _ORDER if name in zeros)
    taken = next(name for name in _ORDER if zeros.get(name, -1.0) >= most - _AS_MANY)
    rows = "least volume" if "least volume" in zeros else "pure"
    if zeros.get("pure bands", 0.0) > max(most + _MORE, _TIMES * most) or (
        apart.get("pure bands", 0.0) > max(_APART, apart.get(rows, 0.0))
        and zeros["pure bands"] > max(zeros.get(rows, 0.0), most - _AS_MANY)
    ):
        taken = "pure bands"
    if taken == "first" or float(np.diagonal(cosine_matrix(fits[taken][1], first[1])).min()) > _ALIKE:
        return None
    mine, its = tried[taken], tried["first"]
    said = (
        f"Several mixtures fit equally well with all gates open, and {_SAID[taken]} was taken: {_percent(mine)} may "
        f"be zero, {_percent(its)} of the one that was found first. It leaves {mine['times']:.4g} times as much."
    )
    return Choice(*fits[taken], said, tried)


def _percent(facts: dict[str, float]) -> str:
    return f"{100 * facts['concentrations']:.0f} % of its concentrations and {100 * facts['bands']:.0f} % of its bands"


def margin_of(samples: int, bands: int) -> float:
    """What noise lets one component of spectra (n, d) explain, as a share of all noise."""
    return float((np.sqrt(samples) + np.sqrt(bands)) ** 2 / (samples * bands))


def _zeros(mixture: Mixture, concentrations: Array, components: Array) -> tuple[dict[str, float], float]:
    """Shares of the concentrations, and of the values of components, that may be zero within the noise.

    Each value is compared with its standard deviation in a fit of its spectrum, or band, alone. Spectra and bands in
    which nothing is seen do not count.

    Returns
    -------
    shares : dict of str to float
        `concentrations` and `bands`.
    apart : float
        Of both together, without zeros beside the spectra and bands in which another component is purest.
    """
    (n, d), k = mixture.spectra.shape, len(components)
    sigma = np.sqrt(weighted_residual(mixture, concentrations, components) / max(n * d - k * (n + d), 1))
    amounts, shapes = concentrations * mixture.row_weights[:, None], components * mixture.band_weights
    shares, apart = dict[str, float](), 0.0
    for name, values, beside in (("concentrations", amounts, shapes.T), ("bands", shapes.T, amounts)):
        errors = sigma * np.sqrt(np.maximum(np.diagonal(np.linalg.pinv(beside.T @ beside, hermitian=True)), 1e-300))
        seen = values[(values > _SEEN * errors).any(1)]
        zero = seen < _HIDDEN * errors
        shares[name] = float(zero.mean()) if len(seen) else 0.0
        apart += _apart(zero, seen * np.linalg.norm(beside, axis=0)) if len(seen) else 0.0
    return shares, apart


def _apart(zero: NDArray[np.bool_], parts: Array) -> float:
    """The share of zeros (m, k) that are in no row where another component's part is purest, nor beside such a zero."""
    left, shares = zero.copy(), parts / np.maximum(parts.sum(1, keepdims=True), 1e-300)
    for row in shares.argmax(0):
        for column in np.flatnonzero(zero[row]):
            ends = np.flatnonzero(~zero[:, column])
            low, high = ends[ends < row], ends[ends > row]
            left[(low[-1] + 1 if len(low) else 0) : (high[0] if len(high) else None), column] = False
    return float(left.mean())


def preferred(
    mixture: Mixture,
    concentrations: Array,
    components: Array,
    knowledge: Knowledge,
    prefer: Literal["pure", "smooth", "least volume"],
) -> tuple[Array, Array, list[Report], str]:
    """A mixture that fits as well as the one that was found, and a sentence that says why it was taken.

    Parameters
    ----------
    mixture : Mixture
    concentrations, components : ndarray, (n, k) and (k, d)
        What was found.
    knowledge : Knowledge
    prefer : {"pure", "smooth", "least volume"}

    Returns
    -------
    concentrations, components : ndarray
    reports : list of Report
    sentence : str

    Notes
    -----
    The residual may be larger by as much as noise lets one component explain, (sqrt n + sqrt d)^2 of n d values.
    """
    amounts, shapes, reports = constrained(mixture, concentrations, components, knowledge.constraints)
    left, margin = weighted_residual(mixture, amounts, shapes), margin_of(*mixture.spectra.shape)
    start = _start(mixture, (amounts, shapes), left, knowledge, prefer)
    other = constrained(mixture, *start, knowledge.constraints, enough=left * (1 + _STOP * margin))
    times = weighted_residual(mixture, other[0], other[1]) / max(left, 1e-300)
    if times > 1 + margin:
        said = (
            f"Of mixtures that fit equally well the one that was found first was taken: {_SAID[prefer]} leaves "
            f"{times:.3g} times as much, which is more than noise explains."
        )
        return amounts, shapes, reports, said
    said = f"Of mixtures that fit equally well {_SAID[prefer]} was taken, which leaves {times:.4g} times as much as "
    return *other, said + "the one that was found first."


def _start(
    mixture: Mixture, found: tuple[Array, Array], left: float, knowledge: Knowledge, what: str
) -> tuple[Array, Array]:
    """Where the fit of another mixture starts, from one that was found and leaves `left`."""
    if what == "pure":
        return _purest(mixture, found[1])
    if what == "pure bands":
        return _purest_bands(mixture, len(found[1]))
    level = np.sqrt(left / mixture.spectra.size)
    sigma = level / np.maximum(mixture.band_weights * np.median(mixture.row_weights), 1e-300)
    aim = _volume(found[1]) if what == "least volume" else _roughness(found[1])
    return rotated(*found, sigma, aim, mixture, knowledge)


def _purest(mixture: Mixture, found: Array) -> tuple[Array, Array]:
    """Held components, then spectra that are least alike, one after another, each in the place of its likest."""
    weighted = mixture.spectra * mixture.row_weights[:, None] * mixture.band_weights
    if mixture.shares is not None:
        weighted = mixture.shares * weighted
    shapes = found.copy()
    rows = _least_alike(weighted, len(found), shapes[mixture.held] * mixture.band_weights)
    learned = np.flatnonzero(~mixture.held)
    spectra = mixture.spectra[rows]
    if mixture.shares is not None:
        # A pure spectrum whose values are missing takes them from the component it is likest.
        spectra = np.where(mixture.shares[rows] > 0, spectra, 0.0)
    spectra = np.maximum(spectra, 0.0) if mixture.non_negative else spectra
    lengths = np.linalg.norm(spectra, axis=1, keepdims=True), np.linalg.norm(found[learned], axis=1, keepdims=True)
    unit = spectra / np.maximum(lengths[0], 1e-300)
    places = linear_sum_assignment(-(found[learned] / np.maximum(lengths[1], 1e-300)) @ unit.T)[1]
    shapes[learned] = unit[places] * lengths[1]
    start = np.zeros((len(mixture.spectra), len(found)))
    return concentrations_of(mixture, start, shapes, ()), shapes


def _purest_bands(mixture: Mixture, count: int) -> tuple[Array, Array]:
    """The concentrations that bands which are least alike show, if each is of one component alone."""
    weighted = mixture.spectra * mixture.row_weights[:, None]
    bands = _least_alike(np.ascontiguousarray((weighted * mixture.band_weights).T), count, np.empty((0, len(weighted))))
    amounts = np.maximum(mixture.spectra[:, bands], 0.0)
    shapes = np.linalg.lstsq(amounts * mixture.row_weights[:, None], weighted, rcond=None)[0]
    return amounts, np.maximum(shapes, 0.0)


def _least_alike(weighted: Array, count: int, held: Array) -> list[int]:
    """Rows that are least alike, one after another, so many with those that are held."""
    # Faint ones are noise; of others the shape counts, and not how loud they are.
    size, rows = np.linalg.norm(weighted, axis=1, keepdims=True), list[int]()
    scaled = weighted / (size + _FAINT * size.max())
    for at in [*range(count - len(held)), *(_EXCHANGES * list(range(count - len(held))))]:
        others = [row for i, row in enumerate(rows) if i != at]
        left = _without(scaled, np.vstack([held, scaled[others]]))
        rows = [*rows[:at], int((left**2).sum(1).argmax()), *rows[at + 1 :]]
    return rows


def _without(rows: Array, directions: Array) -> Array:
    """What rows (n, d) hold beside so many directions (m, d)."""
    if not len(directions):
        return rows
    basis = np.linalg.qr(directions.T)[0]
    return rows - (rows @ basis) @ basis.T


def _volume(spectra: Array) -> Aim:
    """Logarithm of the squared volume that the spectra T^-1 S of unit norm span, and its derivatives by T."""
    overlap = spectra @ spectra.T

    def aim(turn: Array) -> tuple[float, Array]:
        back = np.linalg.inv(turn)
        along = back @ overlap
        squares = np.einsum("ij,ij->i", along, back)
        value = -2 * np.log(abs(np.linalg.det(turn))) - np.log(squares).sum()
        # The inverse changes by -T^-1 dT T^-1.
        by_norms = 2 * np.einsum("ka,kb->ab", back, (along @ back.T) / squares[:, None])
        return float(value), -2 * back.T + by_norms

    return aim


def _roughness(spectra: Array) -> Aim:
    """Squared second differences of the spectra T^-1 S as shares of their squares, in all, and derivatives by T."""
    bent = np.diff(spectra, 2, axis=1)
    overlap, rough = spectra @ spectra.T, bent @ bent.T
    usual = float((np.diagonal(rough) / np.diagonal(overlap)).sum()) or 1.0

    def aim(turn: Array) -> tuple[float, Array]:
        back = np.linalg.inv(turn)
        along, bends = back @ overlap, back @ rough
        squares, sizes = np.einsum("ij,ij->i", along, back), np.einsum("ij,ij->i", bends, back)
        slope = (bends @ back.T) / squares[:, None] - (along @ back.T) * (sizes / squares**2)[:, None]
        return float((sizes / squares).sum()) / usual, -2 * np.einsum("ka,kb->ab", back, slope) / usual

    return aim
