"""Does the count depend on the seed? The same fit from other random numbers, compared component by component."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from spectrafuse._runtime import checks
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.inputs import Spectra
from spectrafuse.mcr.matching import cosine_matrix


class Stability(NamedTuple):
    """What other seeds find.

    Attributes
    ----------
    seeds, counts : list of int
        The estimator's own seed and count first.
    cosines : ndarray, (n_seeds - 1, k)
        For each other seed and each of the estimator's k components, the cosine of the component found that is most
        alike; 0 where none was found.
    reason : str
        A sentence.
    """

    seeds: list[int]
    counts: list[int]
    cosines: NDArray[np.float64]
    reason: str


def count_stability(estimator: EBgMCR, X: Spectra, n_seeds: int = 3, **fit_params: Any) -> Stability:
    """Fit copies of a fitted estimator from other seeds.

    Parameters
    ----------
    estimator : EBgMCR
        Fitted to X, with an int as `random_state`. It is not changed.
    X : path, ndarray or Tensor, (n, d)
    n_seeds : int
        Seeds in all, at least 2: the estimator's own and those that follow it.
    fit_params
        What else `fit` was given.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError, TypeError
        If `n_seeds` is too small or the estimator has no seed.

    Examples
    --------
    >>> import spectrafuse as sf
    >>> spectra = sf.mcr.MixtureSynthesizer(3, 60, snr_db=30.0).generate(40).spectra
    >>> mcr = sf.EBgMCR(random_state=0).fit(spectra)
    >>> sf.mcr.count_stability(mcr, spectra, n_seeds=2).counts
    [3, 3]
    """
    check_is_fitted(estimator, "model_")
    others = checks.integer("n_seeds", n_seeds, minimum=2) - 1
    first = checks.integer("random_state", estimator.random_state, minimum=0)
    seeds, counts, cosines = [first], [estimator.n_components_], []
    for seed in range(first + 1, first + 1 + others):
        fitted = clone(estimator).set_params(random_state=seed).fit(X, **fit_params)
        alike = cosine_matrix(estimator.components_, fitted.components_)
        seeds.append(seed)
        counts.append(fitted.n_components_)
        cosines.append(alike.max(axis=1, initial=0.0))
    least = np.asarray(cosines).min(initial=1.0)
    agreed = sum(count == counts[0] for count in counts)
    reason = (
        f"{agreed} of {len(seeds)} seeds find {counts[0]} components; the least like any that another seed finds has a "
        f"cosine of {least:.3f}."
    )
    return Stability(seeds, counts, np.asarray(cosines), reason)
