"""Constraints: each projection, fits whose answer is known, and what is said about them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from spectrafuse.mcr.constraints import (
    Array,
    Bounds,
    Calibration,
    Closure,
    Constraint,
    Equality,
    NonNegative,
    Smooth,
    Unimodal,
    Zero,
    unimodal,
)
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components

NOISE = 0.004


def _shapes() -> Array:
    x = np.arange(90)
    return np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((25, 9), (38, 11), (60, 13))])


def _data(amounts: Array, seed: int = 0) -> NDArray[np.float32]:
    clean = amounts @ _shapes()
    return (clean + NOISE * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)


def _closed(count: int = 40) -> Array:
    return np.random.default_rng(3).dirichlet(np.ones(3), count)


def _eluting(shifts: Sequence[float] = (0.0,)) -> Array:
    """Concentrations of runs of 40 spectra: three peaks each, which overlap."""
    t = np.arange(40)
    runs = [
        np.stack([np.exp(-0.5 * ((t - c - shift) / 5) ** 2) for c in (12, 19, 26)], axis=1) * [1.0, 0.7, 0.8]
        for shift in shifts
    ]
    return np.concatenate(runs)


def _in_order(fitted: EBgMCR) -> tuple[Array, Array]:
    """Concentrations and components in the order of the true ones."""
    match = match_components(fitted.components_, _shapes())
    order = match.found[np.argsort(match.true)]
    return fitted.C_opt_[:, order].astype(float), fitted.components_[order].astype(float)


def _number(fitted: EBgMCR, true: int) -> int:
    match = match_components(fitted.components_, _shapes())
    return int(fitted.component_ids_[match.found[match.true == true][0]])


def _nmse(fitted: EBgMCR, spectra: NDArray[np.float32]) -> float:
    left = spectra - fitted.C_opt_.astype(float) @ fitted.components_
    return float((left**2).sum() / (spectra.astype(float) ** 2).sum())


# Projections.


@pytest.mark.parametrize("size", [1, 2, 3, 9, 40])
def test_unimodal_is_the_nearest_of_all_modes(size: int) -> None:
    generator = np.random.default_rng(size)
    for _ in range(20):
        profile = generator.normal(size=size) + np.exp(-0.5 * ((np.arange(size) - size / 2) / 4) ** 2)
        found = unimodal(profile)
        best = min(
            float(((np.r_[isotonic_regression(profile[:i]).x, isotonic_regression(profile[i:], increasing=False).x]
                    - profile) ** 2).sum())
            if 0 < i < size
            else float(((isotonic_regression(profile, increasing=i > 0).x - profile) ** 2).sum())
            for i in range(size + 1)
        )  # fmt: skip
        assert ((found - profile) ** 2).sum() == pytest.approx(best, rel=1e-12, abs=1e-14)
        steps = np.sign(np.diff(found))
        falls = np.flatnonzero(steps < 0)
        assert not len(falls) or (steps[falls[0] :] <= 0).all()


def test_a_tolerance_leaves_what_is_near() -> None:
    profile = np.array([0.0, 0.5, 0.48, 1.0, 0.2, 0.5])
    columns = np.arange(1)
    near = Unimodal(tolerance=0.05).project(profile[:, None], np.arange(6), columns)[:, 0]
    assert near[2] == 0.48
    assert near[5] < 0.5
    strict = Unimodal().project(profile[:, None], np.arange(6), columns)[:, 0]
    assert strict[1] == strict[2] == pytest.approx(0.49)


@pytest.mark.parametrize("at_most", [False, True])
def test_closure_is_the_nearest_sum(at_most: bool) -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(0.4, 0.5, (30, 3))
    found = Closure(1.0, at_most=at_most).project(rows, np.arange(30), np.arange(3))
    grid = np.array([p for p in itertools.product(np.linspace(0, 1, 41), repeat=3) if sum(p) <= 1 + 1e-9])
    if not at_most:
        grid = grid[np.abs(grid.sum(1) - 1) < 1e-9]
    assert (found >= 0).all()
    assert (found.sum(1) <= 1 + 1e-12).all()
    assert at_most or np.abs(found.sum(1) - 1).max() < 1e-12
    nearest = ((rows[:, None] - grid) ** 2).sum(2).min(1)
    assert (((found - rows) ** 2).sum(1) <= nearest + 1e-12).all()


def test_smooth_solves_whittakers_equations() -> None:
    values = np.random.default_rng(0).normal(size=(12, 2))
    second = np.diff(np.eye(12), 2, axis=0)
    expected = np.linalg.solve(np.eye(12) + 7.0 * second.T @ second, values)
    found = Smooth(on="spectra", strength=7.0).project(values, np.arange(12), np.arange(2))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_tables_bounds_and_lines() -> None:
    values, rows, columns = np.arange(8.0).reshape(4, 2), np.array([1, 3]), np.array([1])
    part = values[rows][:, columns]
    known = np.array([[9.0, np.nan], [9, 5], [9, 6], [9, np.nan]])
    assert Equality(known).project(part, rows, columns).ravel().tolist() == [5.0, 7.0]
    assert Zero(known > 4).project(part, rows, columns).ravel().tolist() == [0.0, 7.0]
    assert Zero().project(part, rows, columns).ravel().tolist() == [0.0, 0.0]
    assert Bounds(4.0, 6.0).project(part, rows, columns).ravel().tolist() == [4.0, 6.0]
    assert NonNegative(on="spectra").project(-part, rows, columns).max() == 0
    line = np.array([[1.0], [2.1], [2.9], [7.0]])
    on_it = Calibration([1.0, 2.0, 3.0, np.nan]).project(line, np.arange(4), np.arange(1)).ravel()
    assert np.diff(on_it[:3], 2) == pytest.approx(0.0, abs=1e-12)
    assert on_it[3] == 7.0


def test_the_start_has_the_size_that_is_known() -> None:
    true, sizes = _closed(), np.array([3.0, 0.01, 700.0])
    rows = np.arange(len(true))
    assert Closure(2.0).scale(true * sizes, rows) == pytest.approx(2 / sizes)
    known = np.where(rows[:, None] % 2 == 0, true, np.nan)
    assert Equality(known).scale(true * sizes, rows) == pytest.approx(1 / sizes)


# Fits with a known answer.


def test_closure_gives_concentrations_their_unit() -> None:
    true = _closed()
    spectra = _data(true)
    fitted = EBgMCR(12, constraints=[Closure(1.0)]).fit(spectra)
    found, shapes = _in_order(fitted)
    np.testing.assert_allclose(fitted.C_opt_.sum(1), 1.0, atol=1e-6)
    assert np.abs(found - true).max() < 0.12
    assert np.abs(shapes.max(1) - 1.0).max() < 0.12
    (report,) = fitted.constraint_reports_
    assert report["name"] == "Closure on concentrations"
    (chosen,) = (row for row in fitted.count_evidence_["path"] if row["chosen"])
    assert chosen["nmse"] == pytest.approx(_nmse(fitted, spectra), rel=1e-4)
    assert f"nMSE {chosen['nmse']:.3g}" in fitted.chosen_reason_


@pytest.mark.slow
def test_unimodal_profiles_in_each_run() -> None:
    spectra, rough = _data(_eluting((0.0, 4.0))), 0
    fitted = EBgMCR(12, constraints=[Unimodal()]).fit(spectra, runs=[40, 40])
    for run, column in itertools.product((slice(0, 40), slice(40, 80)), fitted.C_opt_.T):
        np.testing.assert_allclose(column[run], unimodal(column[run].astype(float)), atol=1e-6)
        rough += (np.diff(column[run]) < 0).any()
    assert rough == 6  # each falls after its maximum
    found, _ = _in_order(fitted)
    for i in range(3):
        assert np.corrcoef(found[:, i], _eluting((0.0, 4.0))[:, i])[0, 1] > 0.98
    labels = np.repeat(["first", "second"], 40)
    again = EBgMCR(12, constraints=[Unimodal()]).fit(spectra, runs=labels)
    assert again.C_opt_.tobytes() == fitted.C_opt_.tobytes()
    # As one run, the second peak of each is none.
    assert _nmse(EBgMCR(12, constraints=[Unimodal()]).fit(spectra), spectra) > 100 * _nmse(fitted, spectra)


@pytest.mark.slow
def test_a_substance_that_a_run_lacks() -> None:
    true = _eluting((0.0, 0.0))
    true[40:, 1] = 0.0
    spectra = _data(true)
    number = _number(EBgMCR(12).fit(spectra), 1)
    fitted = EBgMCR(12, constraints=[Zero(components=[number], runs=[1])]).fit(spectra, runs=[40, 40])
    column = fitted.C_opt_[:, fitted.component_ids_.tolist().index(number)]
    assert not column[40:].any()
    assert column[:40].max() > 0


@pytest.mark.slow
def test_known_concentrations_and_spectra() -> None:
    true = np.random.default_rng(5).uniform(0, 2, (40, 3))
    spectra = _data(true)
    plain = EBgMCR(12).fit(spectra)
    order = [_number(plain, i) for i in range(3)]
    known = np.full((40, 3), np.nan)
    known[::4] = true[::4]
    fitted = EBgMCR(12, constraints=[Equality(known, components=order)]).fit(spectra)
    found, _ = _in_order(fitted)
    np.testing.assert_allclose(found[::4], true[::4], rtol=1e-6)
    assert np.abs(found - true).max() < 0.05
    # One spectrum, half of whose bands are known.
    table = np.full((1, 90), np.nan)
    table[0, 45:] = 3 * _shapes()[2, 45:]
    fitted = EBgMCR(12, constraints=[Equality(table, on="spectra", components=order[2:])]).fit(spectra)
    _, shapes = _in_order(fitted)
    np.testing.assert_allclose(shapes[2, 45:], table[0, 45:], rtol=1e-6)


@pytest.mark.slow
def test_values_on_a_line_are_on_it() -> None:
    true = np.random.default_rng(6).uniform(0.2, 1, (40, 3))
    spectra = _data(true)
    number = _number(EBgMCR(12).fit(spectra), 0)
    known = np.where(np.arange(40) % 3 == 0, 5 * true[:, 0] + 2, np.nan)
    fitted = EBgMCR(12, constraints=[Calibration(known, components=[number])]).fit(spectra)
    column = fitted.C_opt_[:, fitted.component_ids_.tolist().index(number)].astype(float)
    there = ~np.isnan(known)
    assert np.corrcoef(column[there], known[there])[0, 1] > 1 - 1e-9
    assert np.corrcoef(column[~there], true[~there, 0])[0, 1] > 0.99


@pytest.mark.slow
def test_bounds_and_smoothness() -> None:
    true = _closed()
    spectra = _data(true)
    plain = EBgMCR(12).fit(spectra)
    most = 0.5 * float(plain.C_opt_.max())
    bounded = EBgMCR(12, constraints=[Bounds(0.0, most)]).fit(spectra)
    assert bounded.C_opt_.max() <= most * (1 + 1e-6)

    def roughness(fitted: EBgMCR) -> float:
        shapes = fitted.components_ / np.linalg.norm(fitted.components_, axis=1, keepdims=True)
        return float((np.diff(shapes, 2, axis=1) ** 2).sum())

    smooth = EBgMCR(12, constraints=[Smooth(on="spectra", strength=5.0)]).fit(spectra)
    assert roughness(smooth) < 0.8 * roughness(plain)
    assert _nmse(smooth, spectra) < 2 * _nmse(plain, spectra)


class _EqualEnds(Constraint):
    """A user's own: the last value is the first."""

    def project(self, profiles: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        found = profiles.copy()
        found[[0, -1]] = 0.5 * (profiles[0] + profiles[-1])
        return found


def test_a_constraint_of_ones_own() -> None:
    fitted = EBgMCR(12, constraints=[_EqualEnds()]).fit(_data(_closed()))
    np.testing.assert_allclose(fitted.C_opt_[0], fitted.C_opt_[-1], rtol=1e-6)
    assert fitted.constraint_reports_[0]["name"] == "_EqualEnds on concentrations"


@pytest.mark.slow
def test_whether_a_constraint_was_active_and_what_it_costs() -> None:
    spectra = _data(np.random.default_rng(5).uniform(0, 2, (40, 3)))
    far = Bounds(0.0, 1e6)
    near = Bounds(0.0, 0.5 * float(EBgMCR(12).fit(spectra).C_opt_.max()))
    both = EBgMCR(12, constraints=[far, near]).fit(spectra)
    loose, tight = both.constraint_reports_
    assert (loose["active"], loose["cost"]) == (False, 0.0)
    closed = EBgMCR(12, constraints=[Closure(1.0)]).fit(spectra)
    (report,) = closed.constraint_reports_
    without = EBgMCR(12, constraints=[Bounds(0.0)]).fit(spectra)
    assert report["active"]
    assert report["cost"] == pytest.approx(_nmse(closed, spectra) - _nmse(without, spectra), rel=0.02)
    assert tight["active"]


@pytest.mark.parametrize(
    ("given", "runs", "said"),
    [
        ([3], None, "must hold objects of spectrafuse.mcr.constraints"),
        ([Bounds(on="bands")], None, "must be 'concentrations' or 'spectra'"),
        ([Closure(on="spectra")], None, "is about concentrations"),
        ([Equality(np.ones((3, 3)))], None, "with n = 40"),
        ([Equality(np.ones((3, 3)), on="spectra")], None, "with d = 90"),
        ([Unimodal()], [10, 20], "lengths of runs that add up to 40 spectra"),
    ],
)
def test_what_cannot_be_is_refused(given: Any, runs: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        EBgMCR(12, constraints=given).fit(_data(_closed()), runs=runs)
    with pytest.raises(ValueError, match="need plain mixing"):
        EBgMCR(12, constraints=[Unimodal()], sparse=True).fit(_data(_closed()))


def test_a_saved_model_keeps_sizes_and_reports(tmp_path: Any) -> None:
    spectra = _data(_closed())
    fitted = EBgMCR(12, constraints=[Closure(1.0)]).fit(spectra)
    fitted.save(tmp_path / "model")
    loaded = EBgMCR.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.components_, fitted.components_)
    assert loaded.constraint_reports_ == fitted.constraint_reports_
    np.testing.assert_array_equal(loaded.transform(spectra), fitted.transform(spectra))


@pytest.mark.filterwarnings("ignore")
def test_closure_against_pymcr() -> None:
    """From the same start: sums of 1 as pyMCR's, a fit not worse by more than 1 %, spectra within a cosine of 0.01."""
    regressors = pytest.importorskip("pymcr.constraints", reason="the part peers is not installed")
    from pymcr.mcr import McrAR

    spectra, true = _data(_closed()), _closed()
    fitted = EBgMCR(12, constraints=[Closure(1.0)]).fit(spectra)
    other = McrAR(
        max_iter=300, tol_increase=50,
        c_constraints=[regressors.ConstraintNonneg(), regressors.ConstraintNorm()],
        st_constraints=[regressors.ConstraintNonneg()],
    )  # fmt: skip
    other.fit(spectra.astype(float), ST=spectra[true.argmax(0)].astype(float))
    np.testing.assert_allclose(other.C_opt_.sum(1), 1.0, atol=1e-6)
    left = spectra - other.C_opt_ @ other.ST_opt_
    assert _nmse(fitted, spectra) <= 1.01 * float((left**2).sum() / (spectra.astype(float) ** 2).sum())
    ours = match_components(fitted.components_, _shapes()).cosine.min()
    assert ours >= match_components(other.ST_opt_, _shapes()).cosine.min() - 0.01
