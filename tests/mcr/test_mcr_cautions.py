"""Cautions say what the result holds: thresholds that were used, components of single spectra."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.noise import NoiseLevel, noise_level
from spectrafuse.mcr.refinement import evidence
from spectrafuse.mcr.refinement.count_search import CountSearch, Outcome, Step
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.refinement.hard_gates import update_concentrations
from spectrafuse.mcr.spikes import find_spikes, without_spikes
from spectrafuse.mcr.synthesize import MixtureSynthesizer


def _outcome(concentrations: np.ndarray, components: np.ndarray, excess: float = 1.0) -> Outcome:
    factors = Factors(concentrations, components, np.arange(len(components)))
    path = [Step(len(components), 1.0, 1.0, np.ones(len(concentrations)))]
    price = excess * len(concentrations) * components.shape[1]
    return Outcome(factors, path, 0, 100.0 * price, price, excess, 1.0, 1.0)


def _cautions(outcome: Outcome, noise: NoiseLevel) -> str:
    return " ".join(evidence.cautions(outcome, noise.nmse, len(outcome.factors.ids), noise))


def _drifting(excess: float) -> tuple[np.ndarray, np.ndarray]:
    """Two strong components and a third, in noise that is smooth along both axes; and what each count leaves."""
    generator = np.random.default_rng(1)
    x, t = np.linspace(0, 1, 120), np.linspace(0, 1, 60)
    shapes = np.array([0.4 + 0.6 * x, *(np.exp(-0.5 * ((x - c) / 0.06) ** 2) for c in (0.25, 0.7))])
    amounts = np.c_[0.5 + t, 1.2 - t, 0.4 * np.exp(-0.5 * ((t - 0.5) / 0.15) ** 2)]
    drift = uniform_filter(generator.standard_normal((60, 120)), (5, 20))
    clean = amounts @ shapes
    spectra = clean + drift * np.sqrt(excess * (clean**2).sum() / (drift**2).sum())
    squares = np.square(np.linalg.svd(spectra, compute_uv=False))
    return spectra, np.append(squares[::-1].cumsum()[::-1], 0.0) / squares.sum()


@pytest.mark.parametrize("excess", [0.001, 0.0035])
def test_what_explains_more_than_the_threshold_that_is_said_is_counted_and_nothing_else(excess: float) -> None:
    spectra, left = _drifting(excess)
    fitted = EBgMCR(16).fit(spectra.astype(np.float32))
    found, count = fitted.count_evidence_, fitted.n_components_
    assert fitted.noise_.structured
    said = float(re.search(r"more than ([0-9.e-]+) of the sum of squares was counted", found["cautions"][0])[1])
    (chosen,) = (row for row in found["path"] if row["chosen"])
    fewer = min(row["nmse"] for row in found["path"] if row["count"] == count - 1)
    assert count == 3
    assert fewer - chosen["nmse"] > said
    # Not even a mixture without constraints gains as much by one more.
    assert chosen["nmse"] - left[count + 1] < said


def test_three_overlapping_spectra_are_not_four() -> None:
    """Components that are alike part slowly: the search alone may end with one too many."""
    generator = np.random.default_rng(0)
    w = np.arange(210.0, 360.0, 2)

    def peak(c: float, s: float, h: float = 1.0) -> np.ndarray:
        return h * np.exp(-0.5 * ((w - c) / s) ** 2)

    shapes = np.array(
        [
            peak(266, 9) + peak(292, 6, 0.3) + peak(219, 7, 0.35),
            peak(262, 11) + peak(291, 5, 0.25) + peak(225, 14, 0.3),
            peak(256, 9) + peak(238, 7, 0.35) + peak(300, 14, 0.33),
        ]
    )
    spectra = generator.uniform(0, 1, (60, 3)) * [1, 0.5, 0.1] @ shapes + 0.0015 * generator.standard_normal((60, 75))
    level = noise_level(spectra.astype(np.float32))
    refinement = Refinement(spectra / level.sigma, 0.0, 0.0)
    search = CountSearch(refinement, 16)
    # Four, one of them the middle of two others: three fit as well.
    start = np.vstack([shapes, shapes[0] + shapes[1]])
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    amounts = update_concentrations(refinement.spectra, np.zeros((60, 4)), start, 0.0, sweeps=200)
    four = refinement.settle(Factors(amounts, start, np.arange(4)))
    assert len(four.ids) == 4
    found = search._compared_with_neighbors(four)
    assert len(found.ids) == 3
    assert search.path[-1].size == 3
    assert refinement.cost(found) < refinement.cost(four)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "offset"),
    [({}, 0.0), ({"background": True}, 0.5), ({"n_components": 2}, 0.0), ({"max_components": 2}, 0.0)],
    ids=["plain", "background", "asked", "most"],
)
def test_path_count_ids_and_sentences_describe_one_state(options: dict[str, Any], offset: float) -> None:
    drawn = MixtureSynthesizer(3, 40, max_mixing=3, snr_db=30, random_state=2).generate(30)
    fitted = EBgMCR(12, **options).fit(drawn.spectra.numpy() + offset)
    found, count = fitted.count_evidence_, fitted.n_components_
    (chosen,) = (row for row in found["path"] if row["chosen"])
    ids = set(fitted.component_ids_.tolist())
    assert chosen["count"] == found["count"] == count
    assert len(ids) == count + (fitted.background_row_ is not None)
    assert fitted.chosen_reason_.startswith(f"{count} component")
    residual = drawn.spectra.numpy() + offset - fitted.C_opt_.astype(float) @ fitted.components_
    nmse = float((residual**2).sum() / ((drawn.spectra.numpy() + offset) ** 2).sum())
    assert chosen["nmse"] == pytest.approx(nmse, rel=1e-5)
    assert f"nMSE {nmse:.3g}" in fitted.chosen_reason_
    for number in re.findall(r"Component (\d+)", " ".join(found["cautions"])):
        assert int(number) in ids


def test_a_component_of_one_or_two_spectra_is_named_with_them_and_its_bands() -> None:
    concentrations, components = np.ones((9, 3)), np.zeros((3, 12))
    concentrations[:, 1:] = 0.0
    concentrations[[2, 7], 1] = concentrations[4, 2] = 3.0
    components[0], components[1, 4:6], components[2, 10] = 1.0, 0.7, 1.0
    noise = NoiseLevel(0.1, 0.01, "given")
    told = _cautions(_outcome(concentrations, components), noise)
    assert "Component 1 occurs only in spectra 3 and 8, strongest at bands 5 to 6 (counted from 1)" in told
    assert "Component 2 occurs only in spectrum 5, strongest at band 11 (counted from 1)" in told
    assert "Component 0 occurs only" not in told
    few = _cautions(_outcome(concentrations[:5], components), noise)
    assert "occurs only" not in few


def _peaks(seed: int = 0) -> np.ndarray:
    """60 mixtures of three wide peaks."""
    generator, x = np.random.default_rng(seed), np.arange(120)
    shapes = np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((20, 10), (50, 12), (85, 14))])
    return generator.uniform(0, 1, (60, 3)) @ shapes + 0.005 * generator.standard_normal((60, 120))


@pytest.mark.slow
def test_spikes_are_no_components_if_asked_and_are_named() -> None:
    clean, spectra = _peaks(), _peaks()
    where = [(7, 33), (31, 71), (50, 100)]
    for row, band in where:
        spectra[row, band : band + 2] += 3
    found = find_spikes(spectra)
    assert {(int(r), int(b)) for r, b in np.argwhere(found)} == {(r, b + i) for r, b in where for i in range(-1, 3)}
    fitted = EBgMCR(16, robust=True).fit(spectra.astype(np.float32))
    assert fitted.n_components_ == 3
    told = fitted.count_evidence_["cautions"][-1]
    assert "spectrum 8 at bands 33 to 36" in told
    assert "spectrum 51 at bands 100 to 103" in told
    cleaned, _ = without_spikes(spectra.astype(np.float32))
    np.testing.assert_allclose(cleaned[~found], spectra.astype(np.float32)[~found], rtol=0)
    assert np.abs(cleaned - clean).max() < 0.1


def test_narrow_bands_of_components_are_no_spikes() -> None:
    generator, x = np.random.default_rng(1), np.arange(200)
    shapes = np.array([np.exp(-0.5 * ((x - c) / 1.0) ** 2) for c in (40, 90, 150)])
    amounts = generator.uniform(1, 5, (60, 3)) * (generator.uniform(size=(60, 3)) < [1.0, 0.5, 0.1])
    assert (amounts > 0).sum(0).min() > 2
    assert not find_spikes(amounts @ shapes + 0.02 * generator.standard_normal((60, 200))).any()
    assert not find_spikes(amounts[:5] @ shapes).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "count", "said"),
    [
        (lambda X: X[:4], None, "too few to tell their noise: it was assumed to be 0.005"),
        (lambda X: np.gradient(X, axis=1), None, "is negative, as in derivative or centered spectra"),
        (lambda X: X - X.mean(0), None, "is negative, as in derivative or centered spectra"),
        (lambda X: X + 10, None, "An offset that all bands of a spectrum share makes up 9"),
        (lambda X: X, 3, None),
    ],
    ids=["few", "derivative", "centered", "offset", "plain"],
)
def test_spectra_that_call_for_another_option_are_recognized(made: Any, count: int | None, said: str | None) -> None:
    fitted = EBgMCR(16).fit(made(_peaks()).astype(np.float32))
    told = " ".join(fitted.count_evidence_["cautions"])
    for sentence in ("too few to tell", "is negative, as in", "An offset that all"):
        assert (sentence in told) == (said is not None and sentence in said)
    assert said is None or said in told
    assert count is None or fitted.n_components_ == count


@pytest.mark.slow
def test_the_named_options_take_derivatives_and_offsets() -> None:
    assert EBgMCR(16, background=True).fit((_peaks() + 10).astype(np.float32)).n_components_ == 3
    derivative = EBgMCR(16, non_negative=False).fit(np.gradient(_peaks(), axis=1).astype(np.float32))
    assert derivative.n_components_ == 3
    assert not any("is negative" in told for told in derivative.count_evidence_["cautions"])


def test_sentences_speak_of_components_by_the_names_they_were_given() -> None:
    told = "Component 0 occurs only in spectrum 3; component 12 without component 1, component 10 without component 0."
    names = {0: "component 2", 1: "component 1", 12: "glucose"}
    assert evidence.named(told, names) == (
        "Component 2 occurs only in spectrum 3; glucose without component 1, component 10 without component 2."
    )
    assert evidence.named(told, {}) == told
    assert evidence.named("Component 12 is weak.", names) == "Glucose is weak."
