"""Weights of spectra and of single values, and missing values: against smaller data and a plain reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls

from spectrafuse.io.errors import DataError
from spectrafuse.mcr.constraints import Closure, Unimodal
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.refinement import weighted
from spectrafuse.mcr.weighting import filled, weighting_of

Array = NDArray[np.float64]
NOISE = 0.004


def _shapes(bands: int = 90) -> Array:
    x = np.arange(bands)
    return np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((25, 9), (38, 11), (60, 13))])


def _data(count: int = 30, seed: int = 0) -> tuple[NDArray[np.float32], Array]:
    random = np.random.default_rng(seed)
    amounts = random.dirichlet(np.full(3, 0.3), count)
    amounts[:3] = np.eye(3)
    return (amounts @ _shapes() + NOISE * random.standard_normal((count, 90))).astype(np.float32), amounts


def _with_gaps(spectra: NDArray[np.float32], share: float, seed: int = 1) -> NDArray[np.float32]:
    gaps = np.random.default_rng(seed).random(spectra.shape) < share
    return np.where(gaps, np.float32(np.nan), spectra)


def _left(spectra: Array, weights: Array, amounts: Array, shapes: Array) -> float:
    return float((weights * (spectra - amounts @ shapes) ** 2).sum())


def _reference(spectra: Array, weights: Array, shapes: Array, rounds: int) -> float:
    """What plain alternating weighted non-negative least squares leaves."""
    root = np.sqrt(weights)
    for _ in range(rounds):
        amounts = np.array([nnls((shapes * w).T, x * w)[0] for x, w in zip(spectra, root, strict=True)])
        shapes = np.array([nnls(amounts * w[:, None], x * w)[0] for x, w in zip(spectra.T, root.T, strict=True)]).T
    return _left(spectra, weights, amounts, shapes)


def _matched(fitted: EBgMCR) -> Array:
    return match_components(fitted.components_, _shapes()).cosine


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_missing_values_take_no_part(share: float) -> None:
    spectra, _amounts = _data()
    holes = _with_gaps(spectra, share)
    fitted = EBgMCR().fit(holes)
    assert fitted.n_components_ == 3
    assert _matched(fitted).min() > 0.999
    missing = int(np.isnan(holes).sum())
    assert fitted.count_evidence_["cautions"][-1] == f"{missing} of 2700 values are missing and take no part."
    assert fitted.noise_.sigma == pytest.approx(NOISE, rel=0.05)
    # Whatever stands in their places.
    there = ~np.isnan(holes)
    weights, values = there.astype(float), np.where(there, spectra, 0.0).astype(float)
    left = _left(values, weights, fitted.C_opt_.astype(float), fitted.components_.astype(float))
    assert left <= 1.001 * _reference(values, weights, fitted.components_.astype(float), 3)
    np.testing.assert_allclose(fitted.transform(holes), fitted.C_opt_, atol=1e-4)
    nmse = left / (values**2).sum()
    assert fitted.count_evidence_["path"][[r["chosen"] for r in fitted.count_evidence_["path"]].index(True)][
        "nmse"
    ] == pytest.approx(nmse, rel=1e-4)
    mean = values.sum(0) / there.sum(0)
    assert fitted.score(holes) == pytest.approx(1 - left / (weights * (values - mean) ** 2).sum(), abs=1e-6)


def test_a_block_that_is_missing_is_as_good_as_data_without_it() -> None:
    """Half of the spectra end where the others go on."""
    spectra, _ = _data()
    holes = spectra.copy()
    holes[:20, 60:] = np.nan
    fitted = EBgMCR().fit(holes)
    whole = EBgMCR().fit(spectra)
    assert match_components(fitted.components_, whole.components_).cosine.min() > 0.9995


def test_a_missing_value_may_hold_anything_before_it_is_taken_out() -> None:
    """The result depends on the values that are there alone."""
    spectra, _ = _data()
    holes = _with_gaps(spectra, 0.05)
    first = EBgMCR().fit(holes)
    wild = np.where(np.isnan(holes), np.float32(10), holes)
    second = EBgMCR().fit(wild, sample_weight=(~np.isnan(holes)).astype(float))
    assert match_components(first.components_, second.components_).cosine.min() > 0.995
    np.testing.assert_allclose(first.C_opt_ @ first.components_, second.C_opt_ @ second.components_, atol=NOISE)


@pytest.mark.slow
def test_a_noise_map_weighs_every_value() -> None:
    random = np.random.default_rng(3)
    amounts = _data()[1]
    sigma = NOISE * (1 + 5 * random.random((30, 1))) * (1 + 3 * random.random((1, 90))) * (1 + random.random((30, 90)))
    spectra = (amounts @ _shapes() + sigma * random.standard_normal((30, 90))).astype(np.float32)
    plain, fitted = EBgMCR().fit(spectra), EBgMCR().fit(spectra, sample_weight=sigma**-2.0)
    assert fitted.n_components_ == 3
    assert _matched(fitted).min() > max(0.997, _matched(plain).min())
    weights, values = sigma**-2, spectra.astype(float)
    left = _left(values, weights, fitted.C_opt_.astype(float), fitted.components_.astype(float))
    assert 0.85 < left / spectra.size < 1.0
    shapes = fitted.components_.astype(float)
    reference = _reference(values, weights, shapes, 20)
    # Gates are closed for what noise explains.
    assert left <= 1.06 * reference
    free = weighted.fitted(
        values, weights, fitted.C_opt_.astype(float), shapes, price=0.0, non_negative=True, held=np.zeros(3, bool)
    )
    assert _left(values, weights, *free) <= 1.0005 * reference
    chosen = next(row for row in fitted.count_evidence_["path"] if row["chosen"])
    assert chosen["nmse"] == pytest.approx(left / (weights * values**2).sum(), rel=1e-3)
    assert (
        "Noise, nMSE, cost and the path of counts are those of weighted spectra." in fitted.count_evidence_["cautions"]
    )


@pytest.mark.slow
def test_spectra_without_weight_take_no_part() -> None:
    spectra, _ = _data()
    broken = np.vstack([np.random.default_rng(2).random((3, 90)), spectra])
    weights = np.ones(33)
    weights[:3] = 1e-6
    fitted, without = EBgMCR().fit(broken, sample_weight=weights), EBgMCR().fit(spectra)
    assert fitted.n_components_ == without.n_components_ == 3
    assert match_components(fitted.components_, without.components_).cosine.min() > 0.9995
    same = EBgMCR().fit(spectra, sample_weight=np.full(30, 7.0))
    assert match_components(same.components_, EBgMCR().fit(spectra).components_).cosine.min() > 0.9999


def test_constraints_leave_missing_values_out() -> None:
    spectra, _ = _data()
    holes = _with_gaps(spectra, 0.1)
    fitted = EBgMCR(constraints=[Closure(1.0)]).fit(holes)
    np.testing.assert_allclose(fitted.C_opt_.sum(1), 1.0, atol=1e-5)
    assert _matched(fitted).min() > 0.9995
    there = ~np.isnan(holes)
    left = np.where(there, spectra - fitted.C_opt_ @ fitted.components_, 0.0)
    assert np.sqrt((left**2).sum() / there.sum()) == pytest.approx(NOISE, rel=0.1)


def test_robust_fits_and_bands_take_gaps() -> None:
    spectra, _ = _data()
    spectra[7, 40] += 3
    holes = _with_gaps(spectra, 0.02)
    holes[7, 39:42] = spectra[7, 39:42]
    fitted = EBgMCR(robust=True).fit(holes)
    assert fitted.n_components_ == 3
    assert [c for c in fitted.count_evidence_["cautions"] if "spectrum 8 at bands 40 to 42" in c]
    bands = fitted.feasible_bands(holes)
    assert (bands.lowest <= bands.contribution).all()
    assert (bands.highest < 1).all()


@pytest.mark.slow
def test_many_spectra_with_gaps() -> None:
    spectra, _ = _data(5600)
    fitted = EBgMCR(max_components=5).fit(_with_gaps(spectra, 0.02))
    assert fitted.n_components_ == 3
    assert _matched(fitted).min() > 0.9995


def test_a_saved_result_is_taken_with_its_concentrations(tmp_path: Path) -> None:
    spectra, _ = _data()
    holes = _with_gaps(spectra, 0.05)
    first = EBgMCR(constraints=[Unimodal(on="spectra")]).fit(holes, checkpoint_dir=tmp_path)
    again = EBgMCR(constraints=[Unimodal(on="spectra")]).fit(holes, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(first.C_opt_, again.C_opt_)
    assert first.count_evidence_ == again.count_evidence_
    with pytest.raises(ValueError, match="sample_weight changed"):
        EBgMCR(constraints=[Unimodal(on="spectra")]).fit(
            holes, sample_weight=np.arange(1.0, 31), checkpoint_dir=tmp_path
        )


def test_what_cannot_be_is_one_clear_sentence() -> None:
    spectra, _ = _data()
    row, column = spectra.copy(), spectra.copy()
    row[4], column[:, 7:9] = np.nan, np.nan
    with pytest.raises(DataError, match=r"no value in spectrum 4 \(counted from 0\).*: leave it out"):
        EBgMCR().fit(row)
    with pytest.raises(DataError, match=r"no value in band 7 .* and 1 more like it: leave them out"):
        EBgMCR().fit(column)
    with pytest.raises(DataError, match="no value in spectrum 0"):
        EBgMCR().fit(np.full((4, 4), np.nan))
    with pytest.raises(DataError, match="not finite"):
        EBgMCR().fit(np.where(row > 0.5, np.inf, row))
    for weights, said in (
        (np.ones(29), "a weight for each of 30 spectra"),
        (-np.ones(30), "not negative"),
        (np.full((30, 90), np.nan), "finite"),
        (np.ones(30) * 1j, "`sample_weight` must hold real numbers.* complex128"),
        (["a"] * 30, "`sample_weight` must hold real numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            EBgMCR().fit(spectra, sample_weight=weights)
    for options in ({"recipe": "trained"}, {"sparse": True}):
        with pytest.raises(ValueError, match=r"NaN.*needs"):
            EBgMCR(**options).fit(_with_gaps(spectra, 0.1))
    fitted = EBgMCR().fit(spectra)
    amounts = fitted.transform(row)
    assert np.isnan(amounts[4]).all()
    assert np.isfinite(np.delete(amounts, 4, 0)).all()
    np.testing.assert_allclose(np.delete(amounts, 4, 0), np.delete(fitted.transform(spectra), 4, 0), atol=1e-4)


def test_what_a_search_begins_with_is_no_richer_than_what_is_there() -> None:
    spectra, amounts = _data()
    holes = _with_gaps(spectra, 0.4)
    weighting = weighting_of("X", holes, None, banded=True)
    assert weighting is not None
    whole, there = filled(holes, weighting), ~np.isnan(holes)
    np.testing.assert_array_equal(whole[there], holes[there])
    error = (whole - amounts @ _shapes())[~there]
    assert np.sqrt((error**2).mean()) < NOISE
