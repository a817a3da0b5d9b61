"""Which of the mixtures that fit equally well is taken: the purest, the smoothest, or that of least volume."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.mcr.constraints import (
    Array,
    Knowledge,
    Mixture,
    Report,
    concentrations_of,
    constrained,
    weighted_residual,
)
from spectrafuse.mcr.feasible_bands import Aim, rotated

Preference = Literal["pure", "smooth", "least volume"]
_SAID = {
    "pure": "the one that the purest spectra lead to",
    "smooth": "the one of smoothest spectra",
    "least volume": "the one whose spectra span the least volume",
}

_STOP = 0.3
"""A preferred mixture is fitted down to that share of what noise may explain: further, it would leave its place."""

_FAINT, _EXCHANGES = 0.5, 2
"""Of the purest spectra: the share of the loudest one's size below which others count less; times that each of them is
chosen anew, the others given."""


def check(prefer: object) -> None:
    """Raise where `prefer` is none of those that are known."""
    if prefer is not None and prefer not in get_args(Preference):
        raise InvalidValueError(f"`prefer` must be None or one of {', '.join(map(repr, _SAID))}; got {prefer!r}.")


def preferred(
    mixture: Mixture,
    concentrations: Array,
    components: Array,
    knowledge: Knowledge,
    prefer: Preference,
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
    left = weighted_residual(mixture, amounts, shapes)
    n, d = mixture.spectra.shape
    margin = (np.sqrt(n) + np.sqrt(d)) ** 2 / (n * d)
    if prefer == "pure":
        start = _purest(mixture, shapes)
    else:
        sigma = np.sqrt(left / (n * d)) / np.maximum(mixture.band_weights * np.median(mixture.row_weights), 1e-300)
        aim = _volume(shapes) if prefer == "least volume" else _roughness(shapes)
        start = rotated(amounts, shapes, sigma, aim, mixture, knowledge)
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


def _purest(mixture: Mixture, found: Array) -> tuple[Array, Array]:
    """Held components, then spectra that are least alike, one after another, each in the place of its likest."""
    weighted = mixture.spectra * mixture.row_weights[:, None] * mixture.band_weights
    if mixture.shares is not None:
        weighted = mixture.shares * weighted
    # Faint spectra are noise; of others the shape counts, and not how loud they are.
    size, shapes = np.linalg.norm(weighted, axis=1, keepdims=True), found.copy()
    scaled = weighted / (size + _FAINT * size.max())
    held = list(shapes[mixture.held] * mixture.band_weights)
    rows = list[int]()
    for at in [*range(len(found) - len(held)), *(_EXCHANGES * list(range(len(found) - len(held))))]:
        others = [row for i, row in enumerate(rows) if i != at]
        left = _without(scaled, np.array([*held, *scaled[others]]))
        rows = [*rows[:at], int((left**2).sum(1).argmax()), *rows[at + 1 :]]
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
