"""pyMCR's call: `McrAR().fit(D, ST=...)`, `C_opt_`, `ST_opt_`, with constraints of either package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.io.validate import as_numeric
from spectrafuse.mcr import inputs
from spectrafuse.mcr.constraints import (
    Array,
    Constraint,
    Equality,
    Mixture,
    NonNegative,
    check,
    check_runs,
    constrained,
    runs_of,
)
from spectrafuse.mcr.estimator import EBgMCR


@dataclass(frozen=True, eq=False, kw_only=True)
class _Foreign(Constraint):
    """A constraint of pyMCR, whose `transform` takes a factor as it is: concentrations (n, k), or spectra (k, d)."""

    constraint: Any

    @property
    def name(self) -> str:
        return f"{type(self.constraint).__name__} on {self.on}"

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        factor = profiles.T if self.on == "spectra" else profiles
        found = np.asarray(self.constraint.transform(factor.copy()), np.float64)
        return found.T if self.on == "spectra" else found


def _start_from(name: str, given: ArrayLike | None) -> Array | None:
    if given is None:
        return None
    found = as_numeric(name, given).astype(np.float64)
    if not np.isfinite(found).all():
        raise InvalidValueError(f"`{name}` must be finite; got NaN or infinity.")
    return found


class McrAR(BaseEstimator):
    """Alternating least squares from a start that is given, as pyMCR's class of that name is called.

    Parameters
    ----------
    c_constraints, st_constraints : sequence or None
        Of concentrations, and of spectra: those of `spectrafuse.mcr.constraints`, or of pyMCR. None: non-negative.

    Attributes
    ----------
    C_opt_, ST_opt_, D_opt_ : ndarray, (n, k), (k, d) and (n, d)
        Concentrations, spectra, and what they make.
    err : list of float
        Mean squared residual of the result.
    reports_ : list of Report
        What each constraint did.
    estimator_ : EBgMCR or None
        What found the count, where no start was given.

    Notes
    -----
    Both factors are found by the alternating direction method of multipliers, so that constraints hold in the fit of
    least squares and not only after it; results agree with pyMCR's where that has converged. Ways of regression and
    rules to stop are not settings here.

    Examples
    --------
    >>> mcr = McrAR().fit(D, ST=guess, st_fix=[0])  # doctest: +SKIP
    >>> mcr.C_opt_, mcr.ST_opt_  # doctest: +SKIP
    """

    def __init__(self, *, c_constraints: Sequence[Any] | None = None, st_constraints: Sequence[Any] | None = None):
        self.c_constraints = c_constraints
        self.st_constraints = st_constraints

    def fit(
        self,
        D: ArrayLike,
        C: ArrayLike | None = None,
        ST: ArrayLike | None = None,
        *,
        c_fix: Sequence[int] | None = None,
        st_fix: Sequence[int] | None = None,
        runs: Any = None,
    ) -> McrAR:
        """Fit from concentrations or spectra.

        Parameters
        ----------
        D : array_like, (n, d)
        C : array_like, (n, k), optional
        ST : array_like, (k, d), optional
            Where the fit starts: one or both; without either `EBgMCR` finds how many components there are, and they
            are the start.
        c_fix, st_fix : sequence of int, optional
            Components whose concentrations, or spectra, stay as they are given.
        runs : array_like, optional
            As in `EBgMCR.fit`.

        Returns
        -------
        McrAR
            Itself.

        Raises
        ------
        ValueError, TypeError
            If shapes do not fit, or what is to stay is not given.
        """
        spectra = inputs.read(D, zeros="check", name="D").astype(np.float64)
        for name, fix, given in (("c_fix", c_fix, C), ("st_fix", st_fix, ST)):
            if fix is not None and given is None:
                raise InvalidTypeError(f"`{name}` is about `{name[:-4].upper()}`, which is not given.")
        self.estimator_ = None
        if C is None and ST is None:
            self.estimator_ = EBgMCR().fit(spectra)
            C, ST = self.estimator_.C_opt_, self.estimator_.ST_opt_
        amounts, shapes = self._start(spectra, C, ST)
        every = np.arange(len(shapes))
        fixed = self._numbers("st_fix", st_fix, len(shapes))
        kept = self._numbers("c_fix", c_fix, len(shapes))
        own = [*self._constraints("c_constraints", "concentrations"), *self._constraints("st_constraints", "spectra")]
        if len(kept):
            own.append(Equality(components=kept.tolist(), values=amounts[:, kept]))
        n, d = spectra.shape
        known, spans = check(own, n, d), runs_of(runs, n)
        check_runs(known, spans)
        signs = {one.on for one in known if isinstance(one, NonNegative) and one.components is None}
        mixture = Mixture(
            spectra,
            np.ones(n),
            np.ones(d),
            every,
            every >= 0,
            np.isin(every, fixed),
            "spectra" in signs,
            spans,
            signed="concentrations" not in signs,
        )
        with single_blas_thread:
            self.C_opt_, self.ST_opt_, self.reports_ = constrained(mixture, amounts, shapes, known)
        self.D_opt_ = self.C_opt_ @ self.ST_opt_
        self.err = [float(np.mean((spectra - self.D_opt_) ** 2))]
        return self

    @staticmethod
    def _start(spectra: Array, C: ArrayLike | None, ST: ArrayLike | None) -> tuple[Array, Array]:
        amounts, shapes = _start_from("C", C), _start_from("ST", ST)
        n, d = spectra.shape
        if amounts is not None and (amounts.ndim != 2 or len(amounts) != n):
            raise InvalidValueError(f"`C` must have shape ({n}, k); got {amounts.shape}.")
        if shapes is not None and (shapes.ndim != 2 or shapes.shape[1] != d):
            raise InvalidValueError(f"`ST` must have shape (k, {d}); got {shapes.shape}.")
        if shapes is None:
            shapes = np.asarray(np.linalg.lstsq(np.asarray(amounts), spectra, rcond=None)[0], np.float64)
        if amounts is None:
            amounts = np.asarray(np.linalg.lstsq(shapes.T, spectra.T, rcond=None)[0].T, np.float64)
        if amounts.shape[1] != len(shapes):
            raise InvalidValueError(f"`C` has {amounts.shape[1]} components, `ST` {len(shapes)}.")
        return amounts, shapes

    @staticmethod
    def _numbers(name: str, given: Sequence[int] | None, count: int) -> NDArray[np.int64]:
        numbers = np.asarray(() if given is None or not len(given) else given)
        if numbers.size and numbers.dtype.kind not in "iu":
            raise InvalidTypeError(f"`{name}` must hold whole numbers; got {given!r:.200}.")
        numbers = numbers.astype(np.int64)
        if ((numbers < 0) | (numbers >= count)).any():
            raise InvalidValueError(f"`{name}` must hold numbers from 0 to {count - 1}; got {numbers.tolist()}.")
        return numbers

    def _constraints(self, name: str, on: Any) -> list[Constraint]:
        given = getattr(self, name)
        if given is None:
            return [NonNegative(on=on)]
        found: list[Constraint] = []
        for one in given:
            if isinstance(one, Constraint):
                if one.on != on:
                    raise InvalidValueError(f"`{name}` must be about {on}; got {one.name}.")
                found.append(one)
            elif type(one).__name__ == "ConstraintNonneg":
                found.append(NonNegative(on=on))
            elif hasattr(one, "transform"):
                found.append(_Foreign(on=on, constraint=one))
            else:
                raise InvalidTypeError(f"`{name}` must hold constraints; got {type(one).__name__}.")
        return found
