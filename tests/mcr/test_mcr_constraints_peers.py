"""Every constraint against MCR-ALS on the same data and from the same start: a plain one always, pyMCR where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from helpers.plain_als import Array, plain_als
from spectrafuse.mcr.constraints import (
    Bounds,
    Calibration,
    Closure,
    Constraint,
    Equality,
    Knowledge,
    Mixture,
    NonNegative,
    Smooth,
    Trilinear,
    Unimodal,
    Zero,
    constrained,
    unimodal,
)
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.feasible_bands import feasible_bands
from spectrafuse.mcr.matching import match_components

NOISE = 0.004
PEAK, RUNS = 24, 2


def _shapes() -> Array:
    x = np.arange(60)
    return np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((15, 6), (25, 7), (42, 9))])


def _eluting() -> Array:
    t = np.arange(PEAK)[:, None]
    profile = np.exp(-0.5 * ((t - np.array([7, 11, 16])) / 3) ** 2)
    return np.vstack([profile * [1.0, 0.7, 0.8], profile * [0.4, 1.0, 0.6]])


def _closed() -> Array:
    return np.random.default_rng(3).dirichlet(np.full(3, 0.6), RUNS * PEAK)


def _each_run(project: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda values: np.vstack([project(run) for run in np.split(values, RUNS)])


def _one_shape(values: Array) -> Array:
    found = values.copy()
    for k in range(values.shape[1]):
        runs = values[:, k].reshape(RUNS, -1)
        u, s, v = np.linalg.svd(runs)
        found[:, k] = (s[0] * np.outer(u[:, 0], v[0])).ravel()
    return np.maximum(found, 0.0)


def _columns(project: Callable[[Array], Array], values: Array) -> Array:
    return np.stack([project(column) for column in values.T], axis=1)


def _smoothed(values: Array) -> Array:
    bend = np.diff(np.eye(values.shape[1]), 2, axis=0)
    return np.maximum(np.linalg.solve(np.eye(values.shape[1]) + 2.0 * bend.T @ bend, values.T).T, 0.0)


def _on_a_line(known: Array, values: Array) -> Array:
    found = values.copy()
    found[:, 0] = np.polyval(np.polyfit(known, values[:, 0], 1), known)
    return np.maximum(found, 0.0)


class Case(NamedTuple):
    name: str
    truth: Array
    constraint: Constraint
    amounts: Callable[[Array], Array] = lambda values: values
    spectra: Callable[[Array], Array] = lambda values: values


def _zeros() -> Array:
    zeros = np.zeros((RUNS * PEAK, 3), bool)
    zeros[:5, 2] = zeros[PEAK : PEAK + 5, 2] = True
    return zeros


def _with(values: Array, places: Array, known: Array) -> Array:
    return np.where(places, known, values)


_CALIBRATED = _closed()[:, 0] * 12.0 + 3.0
CASES = [
    Case("unimodal", _eluting(), Unimodal(), _each_run(lambda run: np.maximum(_columns(unimodal, run), 0.0))),
    Case("trilinear", _eluting(), Trilinear(), _one_shape),
    Case("closure", _closed(), Closure(1.0), lambda values: values / values.sum(1, keepdims=True)),
    Case("zero", _eluting(), Zero(where=_zeros()), lambda values: _with(values, _zeros(), 0.0)),
    Case("bounds", _closed(), Bounds(0.0, 1.0), lambda values: np.clip(values, 0.0, 1.0)),
    Case(
        "equality", _closed(), Equality(on="spectra", components=[0], values=_shapes()[:1]),
        spectra=lambda values: np.vstack([_shapes()[:1], values[1:]]),
    ),
    Case("smooth", _closed(), Smooth(on="spectra", strength=2.0), spectra=_smoothed),
    Case(
        "calibration", _closed(), Calibration(components=[0], values=_CALIBRATED),
        lambda values: _on_a_line(_CALIBRATED, values),
    ),
    Case("non-negative", _closed(), NonNegative()),
]  # fmt: skip


def _mixture(spectra: Array, *, signed: bool = False) -> Mixture:
    every = np.arange(3)
    n, d = spectra.shape
    runs = tuple(np.split(np.arange(n), RUNS))
    return Mixture(
        spectra, np.ones(n), np.ones(d), every, every >= 0, every < 0, non_negative=True, runs=runs, signed=signed
    )


def _data(truth: Array) -> Array:
    clean = truth @ _shapes()
    return clean + NOISE * np.random.default_rng(1).standard_normal(clean.shape)


def _nmse(spectra: Array, amounts: Array, shapes: Array) -> float:
    return float(((spectra - amounts @ shapes) ** 2).sum() / (spectra**2).sum())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_against_plain_alternating_least_squares(case: Case) -> None:
    """A fit not worse by more than 1 %, spectra within a cosine of 0.01, and the constraint is obeyed."""
    spectra = _data(case.truth)
    # Projections of least squares do not find the bounded fit if sizes start elsewhere.
    start = np.maximum(_shapes() + 0.05 * np.random.default_rng(2).random((3, 60)), 0.0)
    amounts, shapes, reports = constrained(_mixture(spectra), np.maximum(case.truth, 1e-3), start, [case.constraint])
    other = plain_als(spectra, start, amounts=case.amounts, spectra_of=case.spectra)
    # A smoother is a penalty here, which every step pays, and there what happens to each result of least squares.
    margin = 1.05 if isinstance(case.constraint, Smooth) else 1.01
    assert _nmse(spectra, amounts, shapes) <= margin * _nmse(spectra, *other)
    ours, theirs = (match_components(found, _shapes()).cosine.min() for found in (shapes, other[1]))
    assert ours >= theirs - 0.01
    assert len(reports) == 1
    obeyed = case.amounts(amounts) if case.spectra is Case._field_defaults["spectra"] else case.spectra(shapes)
    if not isinstance(case.constraint, Smooth):
        np.testing.assert_allclose(obeyed, amounts if obeyed.shape == amounts.shape else shapes, atol=2e-3)


def test_signed_concentrations_against_plain_alternating_least_squares() -> None:
    """Differences of mixtures: concentrations of either sign."""
    truth = _closed() - _closed().mean(0)
    spectra = _data(truth)
    amounts, shapes, _ = constrained(_mixture(spectra, signed=True), truth, _shapes(), [])
    other = plain_als(spectra, _shapes(), signed=True)
    # Nothing bounds the factors, and the plain one goes on to fit noise by spectra that are nearly alike.
    assert _nmse(spectra, amounts, shapes) <= 1.05 * _nmse(spectra, *other)
    assert amounts.min() < -0.1
    bound, _, _ = constrained(_mixture(spectra, signed=True), truth, _shapes(), [NonNegative(components=[1])])
    assert bound[:, 1].min() >= 0
    assert bound[:, 0].min() < -0.1


@pytest.mark.slow
def test_the_estimator_lets_concentrations_be_negative() -> None:
    spectra = _data(_closed()).astype(np.float32)
    fitted = EBgMCR(8, non_negative_concentrations=False).fit(spectra)
    usual = EBgMCR(8).fit(spectra)
    assert fitted.C_opt_.min() < 0 <= usual.C_opt_.min()
    left = [float(((spectra - one.C_opt_ @ one.components_) ** 2).sum()) for one in (fitted, usual)]
    assert left[0] < left[1]
    np.testing.assert_allclose(fitted.transform(spectra), fitted.C_opt_, atol=2e-3)
    bound = EBgMCR(8, non_negative_concentrations=False, constraints=[NonNegative()]).fit(spectra)
    assert bound.C_opt_.min() >= 0
    with pytest.raises(ValueError, match="no bands"):
        fitted.feasible_bands(spectra)


@pytest.mark.slow
def test_transform_obeys(tmp_path: Path) -> None:
    spectra = _data(_closed()).astype(np.float32)
    fitted = EBgMCR(8, constraints=[Closure(2.0), Unimodal(components=[0])]).fit(spectra, runs=[PEAK, PEAK])
    new = spectra[::-1][:7].copy()
    np.testing.assert_allclose(fitted.transform(new).sum(1), 2.0, atol=1e-4)
    # One after another or alone: the same, but for what links them.
    np.testing.assert_allclose(fitted.transform(new)[3:4], fitted.transform(new[3:4]), atol=1e-4)
    linked = fitted.transform(new, runs=[7])[:, list(fitted.component_ids_).index(0)]
    np.testing.assert_allclose(unimodal(linked.astype(float)), linked, atol=1e-3)
    assert np.abs(unimodal(fitted.transform(new)[:, 0].astype(float)) - fitted.transform(new)[:, 0]).max() > 0.01
    parts = fitted.parse(new)
    np.testing.assert_allclose(parts["concentration"].sum(1), 2.0, atol=1e-4)
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert [one.name for one in loaded.constraints] == [one.name for one in fitted.constraints]
    np.testing.assert_array_equal(loaded.transform(new), fitted.transform(new))


def test_bands_know_what_is_known_of_concentrations() -> None:
    truth, shapes = _eluting(), _shapes()
    runs = tuple(np.split(np.arange(len(truth)), RUNS))
    share = np.linalg.norm(truth, axis=0) * np.linalg.norm(shapes, axis=1) / np.linalg.norm(truth @ shapes)
    bands = {
        name: feasible_bands(truth, shapes, 1e-3, knowledge=Knowledge(tuple(constraints), runs))
        for name, constraints in (
            ("free", []),
            ("unimodal", [Unimodal()]),
            ("zero", [Zero(where=_zeros())]),
            ("unknown", [Smooth(on="spectra")]),
        )
    }
    widths = {name: float((one.highest - one.lowest).sum()) for name, one in bands.items()}
    assert widths["unimodal"] < widths["free"]
    assert widths["zero"] < widths["free"] == widths["unknown"]
    for name, one in bands.items():
        assert (one.lowest <= share + 1e-9).all()
        assert (share <= one.highest + 1e-9).all()
        assert ("do not know these constraints" in one.sentences[-1]) == (name == "unknown")
    for turned in (bands["unimodal"].concentrations_lowest, bands["unimodal"].concentrations_highest):
        for profile in np.vstack(np.split(turned.T, RUNS, axis=1)):
            assert np.abs(unimodal(profile) - profile).max() < 0.02 * profile.max()
    fixed = feasible_bands(
        truth, shapes, 1e-3, knowledge=Knowledge((Equality(on="spectra", components=[1], values=shapes[1:2]),), runs)
    )
    np.testing.assert_allclose(fixed.spectra_upper[1], shapes[1], atol=1e-12)


@pytest.mark.slow
def test_bands_of_closed_concentrations_stay_closed() -> None:
    spectra = _data(_closed()).astype(np.float32)
    fitted = EBgMCR(8, constraints=[Closure(1.0)]).fit(spectra)
    bands = fitted.feasible_bands(spectra)
    assert (bands.lowest < bands.highest).any()
    assert (bands.concentrations_upper <= 1.05).all()
    assert np.isfinite(bands.spectra_upper).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["unimodal", "zero", "bounds", "equality", "non-negative"])
def test_against_pymcr(name: str) -> None:
    peers = pytest.importorskip("pymcr.constraints", reason="the part peers is not installed")
    from pymcr.mcr import McrAR

    case = next(case for case in CASES if case.name == name)

    class Known(peers.Constraint):
        def __init__(self, project: Callable[[Array], Array]) -> None:
            self.project = project

        def transform(self, A: Array) -> Array:
            return self.project(A)

    spectra = _data(case.truth)
    start = np.maximum(_shapes() + 0.05 * np.random.default_rng(2).random((3, 60)), 0.0)
    other = McrAR(
        max_iter=60, tol_increase=50, c_regr="NNLS", st_regr="NNLS",
        c_constraints=[peers.ConstraintNonneg(), Known(case.amounts)],
        st_constraints=[peers.ConstraintNonneg(), Known(case.spectra)],
    )  # fmt: skip
    other.fit(spectra, ST=start)
    amounts, shapes, _ = constrained(_mixture(spectra), np.maximum(case.truth, 1e-3), start, [case.constraint])
    assert _nmse(spectra, amounts, shapes) <= 1.01 * _nmse(spectra, other.C_opt_, other.ST_opt_)
    ours, theirs = (match_components(found, _shapes()).cosine.min() for found in (shapes, other.ST_opt_))
    assert ours >= theirs - 0.01
