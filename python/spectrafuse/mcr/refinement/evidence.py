"""What a count rests on, in numbers and words: the path that led to it, an independent check, and its limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrafuse.mcr.inputs import Table
from spectrafuse.mcr.matching import cosine_matrix
from spectrafuse.mcr.noise import NoiseLevel, row_blocks
from spectrafuse.mcr.refinement.asked_count import FREELY, AskedCount
from spectrafuse.mcr.refinement.count_search import Outcome
from spectrafuse.mcr.refinement.factors import Factors
from spectrafuse.mcr.refinement.hard_gates import Array

_FEW, _ALIKE, _LOUD, _COLOURED, _MISFIT, _NOISY = 2.0, 0.95, 1.3, 1.5, 10.0, 0.05
_MOST_PAIRS = 6
_NEGATIVE, _OFFSET = 0.02, 0.5
"""Shares of the sum of squares: of negative values, and of the least band of each spectrum in all others."""
_RARE, _MANY_SPECTRA, _NEARLY_ALL = 2, 8, 0.99
"""A component of so few spectra, which hold that share of its squares, may be a disturbance of them where there are so
many."""

AT_WHITE_PRICES = (
    "With a level of noise that the singular values do not show, the first search ended in components that leave "
    "more than ten times as much unexplained. It was repeated as if the noise were white at that level: drifts may be "
    "counted as components."
)
AT_A_LOWER_LEVEL = (
    "There are more components than the singular values can tell, as with more components than bands or spectra. The "
    "level of the noise was measured on what the components leave."
)
"""Why a search was repeated."""


def path_rows(outcome: Outcome, squares: Array, power: float, variation: float) -> list[dict[str, Any]]:
    """The path as plain rows.

    Parameters
    ----------
    outcome : Outcome
    squares : ndarray, (n,)
        Variance of each spectrum's noise.
    power, variation : float
        Sum of squares of the spectra, and about their column means.
    """
    rows = []
    for i, step in enumerate(outcome.path):
        residual = float(step.power @ squares)
        rows.append(
            {
                "count": step.size,
                "r2": 1.0 - residual / variation if variation > 0 else 0.0,
                "nmse": residual / power if power > 0 else 0.0,
                "cost": step.cost,
                "chosen": i == outcome.chosen,
            }
        )
    return rows


def reason(count: int, nmse: float, outcome: Outcome, noise: NoiseLevel, asked: AskedCount = FREELY) -> str:
    """Why this count, in a sentence; of one that the user decided, what the spectra say to it."""
    names = "component" if count == 1 else "components"
    if outcome.found is not None:
        return _against_the_spectra(count, nmse, outcome, noise, asked)
    if math.isinf(outcome.rise):
        needed = "nothing can be left out"
    else:
        times = outcome.rise / outcome.component_price
        needed = f"without the least of them the residual rises by {times:.3g} times what noise explains"
    agreed = ", as asked for and as the spectra say" if asked.exactly is not None else ""
    return (
        f"{count} {names}{agreed}, nMSE {nmse:.3g}: {needed}, and one more would gain no more than noise "
        f"explains (noise {noise.source}, {noise.nmse:.3g} of the sum of squares)."
    )


def _against_the_spectra(count: int, nmse: float, outcome: Outcome, noise: NoiseLevel, asked: AskedCount) -> str:
    assert outcome.found is not None
    other = outcome.found.path[outcome.found.chosen]
    gap = count - other.size
    times = abs(other.residual - outcome.path[outcome.chosen].residual) / (abs(gap) * outcome.component_price)
    if gap > 0:
        said = f"the {gap} more explain" if gap > 1 else "the one more explains"
    else:
        said = f"the {-gap} left out explain" if gap < -1 else "the one left out explains"
    wanted = "as asked for" if asked.exactly is not None else "the most asked for"
    each = "on average " if abs(gap) > 1 else ""
    return (
        f"{count} component{'s' * (count != 1)}, {wanted}, nMSE {nmse:.3g}. The spectra ask for {other.size}: "
        f"{said} {each}{times:.3g} times what noise explains (noise {noise.source}, {noise.nmse:.3g} of the sum of "
        "squares)."
    )


def misfits(nmse: float, noise: NoiseLevel) -> bool:
    """Whether a mixture leaves far more of the spectra unexplained than the noise is."""
    return nmse > _MISFIT * noise.nmse > 0


def as_expected(outcome: Outcome) -> bool:
    """Whether the residual is the white noise that was expected."""
    return outcome.excess <= _LOUD and outcome.colour <= _COLOURED


def cautions(
    outcome: Outcome,
    nmse: float,
    rank: int,
    noise: NoiseLevel,
    background: int | None = None,
    *,
    again: str = "",
    weighted: bool = False,
    asked: bool = False,
) -> list[str]:
    """What the data cannot tell, a sentence each.

    Parameters
    ----------
    outcome : Outcome
    nmse : float
        Of the mixture, weighted as the noise is.
    rank : int
        The numerical rank.
    noise : NoiseLevel
    background : int or None
    again : str
        Why the outcome is that of a second search, if it is.
    weighted : bool
        Bands were weighted.
    asked : bool
        The user gave weights.
    """
    factors = outcome.factors
    told = []
    if noise.structured:
        of_what = "each spectrum's sum of squares, on average," if noise.proportional else "the sum of squares"
        told.append(
            "The singular values do not end in those of white noise, as after smoothing or with drifts, so that the "
            f"noise cannot be told. What explains more than {noise.nmse:.2g} of {of_what} was counted; drifts and weak "
            "components below that were not. Give `noise` to count them."
        )
    elif noise.assumed:
        told.append(
            f"These spectra are too few to tell their noise: it was assumed to be {noise.nmse:.2g} of the sum of "
            "squares, and what explains no more than such noise was not counted. Give `noise` if it is known."
        )
    elif not noise.white or (noise.nmse > _NOISY and noise.source != "given"):
        told.append(
            f"What was taken for noise ({noise.nmse:.2g} of the sum of squares) may hold weak components too, as where "
            "there are nearly as many components as spectra or bands, or more. Give `noise` if it is known."
        )
    if asked:
        told.append("Noise, nMSE, cost and the path of counts are those of weighted spectra.")
    elif weighted:
        told.append(
            "The noise of the bands is unlike, so that they were weighted by it; noise, cost and the path of counts "
            "are those of weighted spectra."
        )
    if noise.correlation:
        told.append(
            f"The noise of neighboring bands is correlated ({noise.correlation:.2f}): spectra and components were "
            "filtered for it, and noise, cost and the path of counts are those behind the filter."
        )
    if again:
        told.append(again)
    if misfits(nmse, noise):
        told.append(
            f"The components leave {nmse:.3g} of the sum of squares unexplained, more than ten times the noise "
            f"({noise.nmse:.2g}): do not rely on their number. Mixing may not be linear, or the noise is another."
        )
    if 1.0 < outcome.rise / outcome.component_price < _FEW:
        told.append("The least component stands out of the noise by less than a factor of two: it may be none.")
    if not noise.structured and not as_expected(outcome):
        told.append(
            f"The residual is not the white noise that was expected (variance {outcome.excess:.3g} times as large, "
            f"spectral density up to {outcome.colour:.3g} times its mean): the noise is larger or coloured, or mixing "
            "is not linear. Only what stands out of that residual was counted."
        )
    if rank != len(factors.ids):
        told.append(
            f"{rank} singular values stand out of the noise. More than there are components: mixing may be nonlinear, "
            "or components change shape. Fewer: components are weak or always occur in fixed proportions."
        )
    counted = factors.ids != background
    told += _rare(factors, counted)
    told += _together(factors.concentrations[:, counted] > 0, factors.ids[counted])
    alike = np.argwhere(np.triu(cosine_matrix(factors.components, factors.components) > _ALIKE, 1))
    if len(alike):
        pairs = _listed(factors.ids[alike], " and ")
        told.append(f"Of nearly the same shape, and perhaps one component that varies: {pairs}.")
    return told


def named(sentence: str, names: Mapping[int, str]) -> str:
    """A sentence with components by their names, where they have one, instead of their numbers."""

    def name(match: re.Match[str]) -> str:
        found = names.get(int(match[2]), match[0])
        return found[:1].upper() + found[1:] if match[1] == "C" else found

    return re.sub(r"\b([Cc])omponent (\d+)\b", name, sentence)


def of_spectra(spectra: Table, noise: NoiseLevel, *, non_negative: bool, background: bool) -> list[str]:
    """What the spectra themselves say against the kind of mixture that is fitted, a sentence each."""
    power = negative = offset = 0.0
    for _, block in row_blocks(spectra):
        power += float((block * block).sum())
        negative += float((np.minimum(block, 0.0) ** 2).sum())
        offset += float(block.shape[1] * (np.maximum(block.min(1), 0.0) ** 2).sum())
    told = []
    # White noise about zero is negative in half of the bands.
    if non_negative and negative > max(_NEGATIVE, noise.nmse) * power:
        told.append(
            f"{100 * negative / power:.0f} % of the sum of squares is negative, as in derivative or centered spectra: "
            "non-negative components cannot describe that. Fit derivatives with `non_negative=False` "
            "(`--no-non-negative`), and spectra that were not centered."
        )
    if not background and offset > _OFFSET * power:
        told.append(
            f"An offset that all bands of a spectrum share makes up {100 * offset / power:.0f} % of the sum of "
            "squares: components hold parts of it, and may be too many. Fit with `background=True` (`--background`) to "
            "set it apart."
        )
    return told


def of_spikes(spikes: np.ndarray) -> str:
    """What was drawn through: bool (n, d)."""
    rows = np.flatnonzero(spikes.any(1))
    named = []
    for row in rows[:_MOST_PAIRS]:
        bands = np.flatnonzero(spikes[row]) + 1
        named.append(f"spectrum {row + 1} at bands {bands[0]} to {bands[-1]}")
    more = f" and {len(rows) - _MOST_PAIRS} more" if len(rows) > _MOST_PAIRS else ""
    spectra = "spectrum" if len(rows) == 1 else "spectra"
    return (
        f"Spikes of {len(rows)} {spectra} were taken for cosmic rays and drawn through: {', '.join(named)}{more} "
        "(counted from 1)."
    )


def rare(concentrations: np.ndarray) -> NDArray[np.bool_]:
    """Which components live in one or two of many spectra: (k,), of concentrations (n, k)."""
    squares = np.sort(np.square(concentrations, dtype=np.float64), axis=0)
    most = squares[-_RARE:].sum(0)
    return (most > 0) & (most >= _NEARLY_ALL * squares.sum(0)) & (len(squares) >= _MANY_SPECTRA)


def _rare(factors: Factors, counted: np.ndarray) -> list[str]:
    """Components that live in one or two of many spectra, with those spectra and the bands of their peaks."""
    told = []
    for i in np.flatnonzero(counted & rare(factors.concentrations)):
        shape, squares = np.abs(factors.components[i]), factors.concentrations[:, i] ** 2
        rows, only = np.flatnonzero(squares) + 1, "only"
        if len(rows) > _RARE:
            loudest = np.argsort(-squares, kind="stable")
            enough = 1 + int(squares[loudest[0]] < _NEARLY_ALL * squares.sum())
            rows, only = np.sort(loudest[:enough]) + 1, "nearly only"
        bands = np.flatnonzero(shape >= 0.5 * shape.max()) + 1
        where = f"band {bands[0]}" if len(bands) == 1 else f"bands {bands[0]} to {bands[-1]}"
        spectra = "spectrum" if len(rows) == 1 else "spectra"
        told.append(
            f"Component {factors.ids[i]} occurs {only} in {spectra} {' and '.join(map(str, rows))}, strongest at "
            f"{where} (counted from 1): it may be a cosmic ray or another disturbance; "
            "`robust=True` (`--robust`) removes narrow spikes."
        )
    return told


def _together(present: np.ndarray, ids: np.ndarray) -> list[str]:
    """Components that never occur without another one, by their ids."""
    count = present.shape[1]
    if count < 2:
        return []
    if present.mean() > 0.9:
        return [
            "Nearly all spectra hold all components, so that their number can be told but their shapes only within the "
            "bounds that non-negativity sets."
        ]
    both = present.T.astype(float) @ present
    inside = (both == both.diagonal()[:, None]) & ~np.eye(count, dtype=bool) & (both.diagonal()[:, None] > 0)
    pairs = ids[np.argwhere(inside)]
    if not len(pairs):
        return []
    return [
        f"Components that never occur without another: {_listed(pairs, ' without ')}. How much of the other's spectrum "
        "belongs to them cannot be told, nor whether one that always occurs in fixed proportion to another is two."
    ]


def _listed(pairs: np.ndarray, between: str) -> str:
    shown = ", ".join(f"component {i}{between}component {j}" for i, j in pairs[:_MOST_PAIRS])
    return shown + (f" and {len(pairs) - _MOST_PAIRS} pairs more" if len(pairs) > _MOST_PAIRS else "")
