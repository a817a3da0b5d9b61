"""Which of equal fits is taken: what is preferred is so, it fits as well, and the sentence says what was done."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat
from scipy.optimize import approx_fprime

from spectrafuse.mcr import preference
from spectrafuse.mcr.constraints import Unimodal
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components

Array = np.ndarray


def _mixtures() -> tuple[Array, Array]:
    """Three broad spectra that overlap, in mixtures that all hold all three but for the purest."""
    x = np.arange(60)
    shapes = np.array([np.exp(-0.5 * ((x - c) / s) ** 2) + 0.1 for c, s in ((15, 8), (27, 9), (42, 10))])
    random = np.random.default_rng(0)
    amounts = random.uniform(0.1, 1, (40, 3))
    amounts[:3] = np.eye(3) + 0.02
    return amounts @ shapes + 0.003 * random.standard_normal((40, 60)), shapes


def _unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _volume(rows: Array) -> float:
    return float(np.linalg.slogdet(_unit(rows) @ _unit(rows).T)[1])


def _roughness(rows: Array) -> float:
    return float((np.diff(_unit(rows), 2, axis=1) ** 2).sum())


@pytest.fixture(scope="module")
def fits() -> dict[str | None, EBgMCR]:
    spectra = _mixtures()[0].astype(np.float32)
    return {
        prefer: EBgMCR(8, prefer=prefer).fit(spectra) for prefer in ("first", "pure", "smooth", "least volume", None)
    }


@pytest.mark.slow
def test_each_is_what_was_preferred(fits: dict[str | None, EBgMCR]) -> None:
    found, shapes = fits["first"].components_.astype(float), _mixtures()[1]
    assert _volume(fits["least volume"].components_.astype(float)) < _volume(found)
    assert _roughness(fits["smooth"].components_.astype(float)) < _roughness(found)
    pure = match_components(fits["pure"].components_, shapes).cosine
    assert pure.min() > 0.998
    assert pure.min() >= match_components(found, shapes).cosine.min() - 1e-3


def test_each_fits_as_well_and_says_by_how_much(fits: dict[str | None, EBgMCR]) -> None:
    spectra = _mixtures()[0].astype(np.float32)
    left = {
        prefer: float(((spectra - fitted.C_opt_ @ fitted.components_) ** 2).sum()) for prefer, fitted in fits.items()
    }
    margin = (np.sqrt(40) + np.sqrt(60)) ** 2 / 2400
    for prefer in ("pure", "smooth", "least volume"):
        said = re.search(r"was taken, which leaves ([0-9.]+) times as much", fits[prefer].chosen_reason_)
        assert said is not None, fits[prefer].chosen_reason_
        assert left[prefer] <= (1 + margin) * left["first"]
        assert float(said[1]) <= 1 + margin
        # The first is fitted without a price of gates before it is compared.
        assert left[prefer] / left["first"] == pytest.approx(float(said[1]), rel=0.03)
        np.testing.assert_allclose(fits[prefer].transform(spectra), fits[prefer].C_opt_, atol=0.02)
    assert "equally well" not in fits["first"].chosen_reason_


def test_by_default_one_with_most_zeros_is_taken(fits: dict[str | None, EBgMCR]) -> None:
    spectra, shapes = _mixtures()
    evidence = fits[None].count_evidence_
    assert evidence is not None
    found = {name: facts["concentrations"] + facts["bands"] for name, facts in evidence["mixtures"].items()}
    assert set(found) == {"first", "pure", "least volume", "pure bands"}
    assert "whose spectra span the least volume was taken" in fits[None].chosen_reason_
    assert found["least volume"] >= max(found["first"], found["pure"]) - 0.03
    assert match_components(fits[None].components_, shapes).cosine.min() > 0.998
    assert match_components(fits["first"].components_, shapes).cosine.min() < 0.99
    np.testing.assert_allclose(fits[None].transform(spectra), fits[None].C_opt_, atol=0.02)


def test_narrow_bands_in_all_spectra_lead_to_the_purest_bands() -> None:
    """No spectrum is pure, and a baseline is in all: only bands can tell, and the purest spectra mislead."""
    x, random = np.arange(150), np.random.default_rng(1)
    shapes = np.array([sum(1 / (1 + ((x - c) / 2) ** 2) for c in places) for places in ((20, 60, 110), (35, 80, 130))])
    shapes = np.vstack([shapes, np.exp(-x / 80)])
    amounts = random.uniform([0.2, 0.2, 0.6], [1, 1, 2], (30, 3))
    spectra = amounts @ shapes + 0.005 * random.standard_normal((30, 150))
    fitted = EBgMCR(8).fit(spectra)
    assert "the one that the purest bands lead to was taken" in fitted.chosen_reason_
    least = match_components(fitted.components_, shapes).cosine.min()
    assert least > 0.98
    assert least > match_components(EBgMCR(8, prefer="pure").fit(spectra).components_, shapes).cosine.min() + 0.05


def test_where_one_mixture_fits_nothing_is_chosen() -> None:
    shapes = np.kron(np.eye(3), np.ones(12)) + 0.0
    random = np.random.default_rng(2)
    amounts = np.vstack([np.eye(3), random.uniform(0, 1, (30, 3)) * (random.random((30, 3)) < 0.6)])
    spectra = amounts @ shapes + 0.003 * random.standard_normal((33, 36))
    fitted = EBgMCR(8).fit(spectra)
    assert fitted.count_evidence_ is not None
    assert fitted.count_evidence_["mixtures"] == {}
    np.testing.assert_array_equal(fitted.components_, EBgMCR(8, prefer="first").fit(spectra).components_)


def test_a_start_that_fits_worse_is_not_taken() -> None:
    """The loudest spectra are two disturbances, which are no components."""
    spectra = _mixtures()[0]
    spectra = np.vstack([spectra, 3 * np.random.default_rng(4).random((2, 60))])
    weights = np.ones(42)
    weights[40:] = 1e-8
    fitted = EBgMCR(8, prefer="pure").fit(spectra, sample_weight=weights)
    assert match_components(fitted.components_, _mixtures()[1]).cosine.min() > 0.99


@pytest.mark.parametrize("name", ["_volume", "_roughness"])
def test_derivatives(name: str) -> None:
    random = np.random.default_rng(5)
    spectra = random.random((3, 20))
    aim = getattr(preference, name)(spectra)
    turn = np.eye(3) + 0.1 * random.standard_normal((3, 3))
    value, slopes = aim(turn)
    numeric = approx_fprime(turn.ravel(), lambda x: aim(x.reshape(3, 3))[0], 1e-7).reshape(3, 3)
    np.testing.assert_allclose(slopes, numeric, rtol=1e-4, atol=1e-4)
    turned = np.linalg.solve(turn, spectra)
    if name == "_volume":
        whole = np.linalg.slogdet(spectra @ spectra.T)[1]
        assert value + whole == pytest.approx(_volume(turned))
    else:
        assert value == pytest.approx(_roughness(turned) / _roughness(spectra))


def test_another_word_is_refused() -> None:
    with pytest.raises(
        ValueError, match="`prefer` must be None or one of 'first', 'pure', 'smooth', 'least volume'; got 'best'"
    ):
        EBgMCR(prefer="best").fit(_mixtures()[0])  # type: ignore[arg-type]


@pytest.mark.slow
def test_chromatography_with_a_diode_array(shared_data: Path) -> None:
    """Four runs, unimodal in each: the truth is inside the bands, and the purest start leads near it.

    Of every second spectrum and band; seeds 0 and 2 find different mixtures first.
    """
    stored = loadmat(shared_data / "als2004" / "als2004dataset.MAT")
    rows = np.concatenate([np.arange(51 * run, 51 * (run + 1), 2) for run in range(4)])
    spectra, amounts = stored["MATRIX"][rows, ::2], stored["cpure"][rows]
    shapes = stored["spure"][[1, 2, 0, 3], ::2]
    parts = np.stack([np.outer(c, s).ravel() for c, s in zip(amounts.T, shapes, strict=True)], axis=1)
    sizes = np.linalg.lstsq(parts, spectra.ravel(), rcond=None)[0]
    whole = (amounts * sizes) @ shapes
    share = sizes * np.linalg.norm(amounts, axis=0) * np.linalg.norm(shapes, axis=1) / np.linalg.norm(whole)
    for seed in (0, 2):
        fitted = EBgMCR(random_state=seed, constraints=[Unimodal()], prefer="pure").fit(spectra, runs=[26] * 4)
        match = match_components(fitted.components_, shapes)
        assert len(match.found) == fitted.n_components_ == 4
        assert match.cosine.min() >= 0.985
        bands = fitted.feasible_bands(spectra)
        assert (bands.lowest[match.found] <= share[match.true]).all()
        assert (share[match.true] <= bands.highest[match.found]).all()
