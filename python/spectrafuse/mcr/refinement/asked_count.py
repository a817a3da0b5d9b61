"""As many components as the user asks for, whatever the spectra say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError

if TYPE_CHECKING:
    from spectrafuse.mcr.refinement.count_search import CountSearch
    from spectrafuse.mcr.refinement.factors import Factors


_TRIAL_SWEEPS = 12
"""Sweeps that tell which of several new components is the best."""


class AskedCount(NamedTuple):
    """How many components the user wants, the background not counted; None: the spectra decide.

    Attributes
    ----------
    exactly : int or None
    most : int or None
    """

    exactly: int | None = None
    most: int | None = None

    def of(self, found: int) -> int:
        """The count to end with where the spectra ask for `found`."""
        if self.exactly is not None:
            return self.exactly
        return found if self.most is None else min(found, self.most)


FREELY = AskedCount()


def reach(search: CountSearch, factors: Factors, count: int) -> Factors:
    """The mixture with so many components: the cheapest leave, or those that the residual asks for come.

    Every step starts from the one before, so that the residual falls with the count, and is noted in the path.

    Parameters
    ----------
    search : CountSearch
    factors : Factors
    count : int
        The background not counted.

    Raises
    ------
    InvalidValueError
        If nothing is left that one more component could describe.
    """
    refinement = search.refinement
    while refinement.count(factors) > count:
        trials = search.without_one(factors)
        enough = [trial for trial in trials if refinement.count(trial[0]) >= count]
        factors = refinement.settle(min(enough or trials, key=lambda trial: trial[1])[0])
        search.note(factors)
    if refinement.count(factors) < count:
        # What one more explains is less than the price of its gates.
        refinement.gate_price = 0.0
        factors = refinement.converged(factors)
        search.note(factors, replace=True)
    while refinement.count(factors) < count:
        factors = _with_one_more(search, factors, count)
        search.note(factors)
    return factors


def _with_one_more(search: CountSearch, factors: Factors, count: int) -> Factors:
    refinement, place = search.refinement, int(search.spare(factors)[0])
    before = refinement.count(factors)
    trials = [
        refinement.descend(factors.having(component, amounts, place), _TRIAL_SWEEPS)
        for component, amounts in search.candidates(factors)
        if amounts.any()
    ]
    more = [trial for trial in trials if refinement.count(trial) > before]
    rounding = float(np.finfo(np.float32).eps) ** 2 * float((refinement.spectra**2).sum())
    if not more or float(refinement.residual_power(factors).sum()) <= rounding:
        raise InvalidValueError(
            f"`n_components` must be at most {before} for these spectra, which leave nothing that one more component "
            f"could describe; got {count}."
        )
    return refinement.converged(min(more, key=refinement.cost))
