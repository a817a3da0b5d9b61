"""Compare found components and concentrations with known ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectrafuse._runtime import checks
from spectrafuse.mcr.metrics import nmse_of, r2_of


class Match(NamedTuple):
    """Which found component is which true one.

    Attributes
    ----------
    found, true : ndarray of int, (k,)
        Row `found[i]` of the found components belongs to row `true[i]` of the true ones, sorted by `true`.
    cosine : ndarray, (k,)
        Cosine of each pair, in [-1, 1].
    unmatched_found, unmatched_true : ndarray of int
        Rows without a partner.
    """

    found: NDArray[np.int64]
    true: NDArray[np.int64]
    cosine: NDArray[np.float64]
    unmatched_found: NDArray[np.int64]
    unmatched_true: NDArray[np.int64]


class ConcentrationScores(NamedTuple):
    """Concentrations of matched components after scaling; one entry a pair in every array.

    Attributes
    ----------
    scale : ndarray, (k,)
        The factor, at least 0, that brings the found concentrations closest to the true ones.
    rmse, r2, nmse : ndarray, (k,)
        After scaling; `rmse` in the true concentrations' unit.
    """

    scale: NDArray[np.float64]
    rmse: NDArray[np.float64]
    r2: NDArray[np.float64]
    nmse: NDArray[np.float64]


def _matrix(name: str, value: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2:
        raise checks.fail(name, "a matrix (rows, columns)", f"shape {array.shape}")
    return array


def cosine_matrix(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Cosines (m, k) between the rows of two matrices (m, d) and (k, d); 0 where a row is zero."""
    a, b = _matrix("first", first), _matrix("second", second)
    if a.shape[1] != b.shape[1]:
        raise checks.fail("second", f"of {a.shape[1]} columns like the first", f"{b.shape[1]} columns")
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    return np.divide(a @ b.T, norms, out=np.zeros_like(norms), where=norms > 0)


def match_components(found: ArrayLike, true: ArrayLike) -> Match:
    """Pair found and true components one to one so that the sum of cosines is largest (Hungarian method).

    Parameters
    ----------
    found : array_like, (m, d)
    true : array_like, (k, d)

    Returns
    -------
    Match
        min(m, k) pairs; a pair may be a bad one, its cosine says so.

    Examples
    --------
    >>> from spectrafuse.mcr import match_components
    >>> match = match_components([[0, 2, 0], [3, 0, 0]], [[1, 0, 0], [0, 1, 0]])
    >>> match.found, match.cosine
    (array([1, 0]), array([1., 1.]))
    """
    from scipy.optimize import linear_sum_assignment

    cosines = cosine_matrix(found, true)
    rows, columns = linear_sum_assignment(-cosines)
    order = np.argsort(columns)
    rows, columns = rows[order], columns[order]
    return Match(
        found=rows,
        true=columns,
        cosine=cosines[rows, columns],
        unmatched_found=np.setdiff1d(np.arange(cosines.shape[0]), rows),
        unmatched_true=np.setdiff1d(np.arange(cosines.shape[1]), columns),
    )


def score_concentrations(found: ArrayLike, true: ArrayLike, match: Match) -> ConcentrationScores:
    """Scores of the matched components' concentrations, each scaled by its best factor of at least 0.

    Parameters
    ----------
    found : array_like, (n, m)
    true : array_like, (n, k)
    match : Match
        Of the components that belong to the columns.

    Returns
    -------
    ConcentrationScores
        A true column without variation has an R2 of 1 if it is met exactly and of 0 otherwise.
    """
    found, true = _matrix("found", found), _matrix("true", true)
    if len(found) != len(true):
        raise checks.fail("found", f"of {len(true)} rows like `true`", f"{len(found)} rows")
    f, t = found[:, match.found], true[:, match.true]
    power = (f * f).sum(0)
    scale = np.maximum(np.divide((f * t).sum(0), power, out=np.zeros_like(power), where=power > 0), 0.0)
    residual = ((f * scale - t) ** 2).sum(0)
    total = ((t - t.mean(0)) ** 2).sum(0) if len(t) else np.zeros_like(power)
    return ConcentrationScores(
        scale=scale,
        rmse=np.sqrt(residual / max(len(t), 1)),
        r2=np.array([r2_of(r, s) for r, s in zip(residual, total, strict=True)]),
        nmse=np.array([nmse_of(r, s) for r, s in zip(residual, (t * t).sum(0), strict=True)]),
    )
