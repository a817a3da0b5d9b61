"""Feasible bands: against the closed form of two components, the truth of simulated chromatography, and themselves."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.feasible_bands import MOST_OPTIMIZED, FeasibleBands, feasible_bands
from spectrafuse.mcr.matching import match_components

Pair = tuple[np.ndarray, np.ndarray]


def two_components(seed: int, offset: float = 0.0) -> Pair:
    generator, x = np.random.default_rng(seed), np.arange(80.0)
    spectra = np.array([np.exp(-0.5 * ((x - c) / 12) ** 2) for c in (30, 45)]) + offset
    return generator.uniform(0.05, 1, (40, 2)) * [1, 0.4], spectra


def closed_form(concentrations: np.ndarray, spectra: np.ndarray) -> Pair:
    """Lowest and highest contribution of two components: (2,) each.

    Of c1 + b c2, c2 + a c1 and (s1 - a s2) / (1 - a b), (s2 - b s1) / (1 - a b) all four must be non-negative, which
    bounds a and b one by one; both contributions are monotone in a and in b.
    """

    def least(over: np.ndarray, under: np.ndarray) -> float:
        return float(np.min(over[under > 0] / under[under > 0]))

    (c1, c2), (s1, s2) = concentrations.T, spectra
    low_a, high_a, low_b, high_b = -least(c2, c1), least(s1, s2), -least(c1, c2), least(s2, s1)
    whole = np.linalg.norm(concentrations @ spectra)

    def contributions(a: float, b: float) -> list[float]:
        first = np.linalg.norm(c1 + b * c2) * np.linalg.norm(s1 - a * s2)
        second = np.linalg.norm(c2 + a * c1) * np.linalg.norm(s2 - b * s1)
        return [first / (1 - a * b) / whole, second / (1 - a * b) / whole]

    corners = np.array([contributions(a, b) for a in (low_a, high_a) for b in (low_b, high_b)])
    return corners.min(0), corners.max(0)


@pytest.mark.parametrize("seed", range(5))
def test_two_components_against_the_closed_form(seed: int) -> None:
    concentrations, spectra = two_components(seed, offset=0.02 * (seed % 2))
    bands = feasible_bands(concentrations, spectra, 0.0)
    lowest, highest = closed_form(concentrations, spectra)
    assert bands.lowest == pytest.approx(lowest, rel=1e-4)
    assert bands.highest == pytest.approx(highest, rel=1e-4)
    assert (bands.highest - bands.lowest > 0.05).all()


@pytest.mark.parametrize("seed", range(2))
def test_two_fitted_components_against_the_closed_form(seed: int) -> None:
    concentrations, spectra = two_components(seed, offset=0.02 * seed)
    bands = (estimator := EBgMCR().fit(concentrations @ spectra)).feasible_bands(concentrations @ spectra)
    order = match_components(estimator.components_, spectra).found
    lowest, highest = closed_form(concentrations, spectra)
    assert bands.lowest[order] == pytest.approx(lowest, rel=0.01)
    assert bands.highest[order] == pytest.approx(highest, rel=0.01)


def chromatography(runs: int = 2) -> Pair:
    t, x = np.arange(50.0), np.arange(60.0)
    elution = [[20, 5], [25, 5], [31, 6]]
    profiles = np.vstack(
        [np.stack([np.exp(-0.5 * ((t - m - run) / w) ** 2) for m, w in elution], 1) for run in range(runs)]
    )
    spectra = np.array([np.exp(-0.5 * ((x - c) / w) ** 2) for c, w in ((15, 9), (25, 10), (40, 12))]) + 0.02
    return profiles * [1, 0.7, 0.8], spectra


def shares(concentrations: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    parts = np.linalg.norm(concentrations, axis=0) * np.linalg.norm(spectra, axis=1)
    return np.asarray(parts / np.linalg.norm(concentrations @ spectra))


@pytest.fixture(scope="module")
def noisy() -> tuple[EBgMCR, np.ndarray, FeasibleBands]:
    concentrations, spectra = chromatography()
    X = concentrations @ spectra + 0.002 * np.random.default_rng(0).standard_normal((100, 60))
    estimator = EBgMCR().fit(X)
    return estimator, X, estimator.feasible_bands(X)


@pytest.mark.slow
def test_the_truth_lies_inside(noisy: tuple[EBgMCR, np.ndarray, FeasibleBands]) -> None:
    estimator, _, bands = noisy
    concentrations, spectra = chromatography()
    match = match_components(estimator.components_, spectra)
    true = shares(concentrations, spectra)[match.true]
    assert (bands.lowest[match.found] <= true).all()
    assert (true <= bands.highest[match.found]).all()
    lengths = np.linalg.norm(bands.spectra_lowest[match.found], axis=1, keepdims=True)
    truth = spectra[match.true] / np.linalg.norm(spectra[match.true], axis=1, keepdims=True) * lengths
    room = 0.02 * truth.max(1, keepdims=True)
    assert (truth >= bands.spectra_lower[match.found] - room).all()
    assert (truth <= bands.spectra_upper[match.found] + room).all()


@pytest.mark.slow
def test_extremes_fit_as_well_and_keep_to_the_constraints(noisy: tuple[EBgMCR, np.ndarray, FeasibleBands]) -> None:
    concentrations, spectra = chromatography()
    bands = feasible_bands(concentrations, spectra, 0.001)
    for index in range(3):
        for spectrum, profile, share in (
            (bands.spectra_lowest[index], bands.concentrations_lowest[:, index], bands.lowest[index]),
            (bands.spectra_highest[index], bands.concentrations_highest[:, index], bands.highest[index]),
        ):
            # In the space of the mixture, so that two others make up what is left of it.
            assert np.linalg.lstsq(spectra.T, spectrum, rcond=None)[1] < 1e-12
            assert np.linalg.lstsq(concentrations, profile, rcond=None)[1] < 1e-12
            left = concentrations @ spectra - np.outer(profile, spectrum)
            assert np.linalg.svd(left, compute_uv=False)[2] < 1e-6
            made = np.linalg.norm(spectrum) * np.linalg.norm(profile) / np.linalg.norm(concentrations @ spectra)
            assert made == pytest.approx(share, rel=1e-6)
            for values in (spectrum, profile):
                assert values.min() >= -2.01 * bands.tolerance[index] * values.max()
    assert (bands.spectra_lower <= bands.spectra_lowest + 1e-12).all()
    assert (bands.spectra_upper >= bands.spectra_highest - 1e-12).all()
    assert (bands.concentrations_lower <= bands.concentrations_lowest + 1e-12).all()
    assert (bands.concentrations_upper >= bands.concentrations_highest - 1e-12).all()


def test_the_sentences_are_those_numbers(noisy: tuple[EBgMCR, np.ndarray, FeasibleBands]) -> None:
    estimator, _, bands = noisy
    assert len(bands.sentences) == 3
    for index, sentence in enumerate(bands.sentences):
        low, high = bands.spectra_lowest[index], bands.spectra_highest[index]
        cosine = low @ high / np.linalg.norm(low) / np.linalg.norm(high)
        assert sentence == (
            f"Component {estimator.component_ids_[index]}: relative contribution {bands.lowest[index]:.2f} to "
            f"{bands.highest[index]:.2f}, found {bands.contribution[index]:.2f}; the cosine between its extreme "
            f"spectra is {cosine:.3f}."
        )


def test_a_known_spectrum_stays_and_narrows_the_others() -> None:
    concentrations, spectra = chromatography()
    free = feasible_bands(concentrations, spectra, 0.0)
    held = feasible_bands(concentrations, spectra, 0.0, fixed=np.array([False, True, False]))
    assert held.spectra_lower[1] == pytest.approx(spectra[1], abs=1e-9)
    assert held.spectra_upper[1] == pytest.approx(spectra[1], abs=1e-9)
    assert held.cosine[1] == pytest.approx(1.0)
    narrower = (held.highest - held.lowest) / (free.highest - free.lowest)
    assert (narrower < 1.0001).all()
    assert narrower.min() < 0.9
    every = feasible_bands(concentrations, spectra, 0.0, fixed=np.ones(3, bool))
    assert every.lowest == pytest.approx(every.highest)


def test_nothing_can_turn_where_every_component_is_pure_somewhere() -> None:
    spectra = np.zeros((3, 30))
    for index in range(3):
        spectra[index, 10 * index : 10 * index + 12] = 1.0
    concentrations = np.vstack([np.eye(3), np.random.default_rng(0).dirichlet(np.ones(3), 20)])
    spectra[:2, 20:] = 0.0
    bands = feasible_bands(concentrations, spectra, 0.0)
    assert bands.lowest == pytest.approx(bands.highest, abs=1e-6)
    assert bands.cosine == pytest.approx(1.0)


@pytest.mark.slow
def test_many_components_are_sampled() -> None:
    x = np.arange(120.0)
    spectra = np.array([np.exp(-0.5 * ((x - c) / 9) ** 2) for c in np.linspace(10, 110, MOST_OPTIMIZED + 1)])
    concentrations = np.random.default_rng(0).dirichlet(np.ones(len(spectra)), 60)
    bands = feasible_bands(concentrations, spectra, 0.001)
    assert bands.method == "sampled"
    assert (bands.lowest < bands.contribution).all()
    assert (bands.contribution < bands.highest).all()
    values = np.concatenate([bands.concentrations_lowest.T, bands.concentrations_highest.T])
    assert (values.min(1) >= -2.01 * np.tile(bands.tolerance, 2) * values.max(1)).all()


def test_one_component_has_no_freedom() -> None:
    bands = feasible_bands(np.linspace(1, 2, 9)[:, None], np.ones((1, 5)), 0.0)
    assert bands.lowest.tolist() == bands.highest.tolist() == [pytest.approx(1.0)]


def test_the_tables(tmp_path: Path, noisy: tuple[EBgMCR, np.ndarray, FeasibleBands]) -> None:
    _, _, bands = noisy
    paths = bands.write(tmp_path, axis=np.linspace(200, 400, 60))
    rows = [list(csv.reader(path.open(encoding="utf-8"))) for path in paths]
    assert rows[0][0] == ["component", "contribution", "lowest", "highest", "cosine", "tolerance"]
    assert np.array(rows[0][1:], float)[:, 2] == pytest.approx(bands.lowest, rel=1e-5)
    assert rows[1][0][:3] == ["component", "bound", "200.0"]
    assert np.array([row[2:] for row in rows[1][2::2]], float) == pytest.approx(bands.spectra_upper, rel=1e-5)
    table = np.array(rows[2][1:], float)[:, 1:]
    assert table[:, ::2] == pytest.approx(bands.concentrations_lower, rel=1e-5)
    assert table[:, 1::2] == pytest.approx(bands.concentrations_upper, rel=1e-5)


@pytest.mark.slow
def test_they_survive_saving(tmp_path: Path, noisy: tuple[EBgMCR, np.ndarray, FeasibleBands]) -> None:
    estimator, X, bands = noisy
    estimator.save(tmp_path)
    again = EBgMCR.load(tmp_path).feasible_bands(X)
    assert again.lowest == pytest.approx(bands.lowest, abs=1e-6)


@pytest.mark.slow
def test_of_a_file(tmp_path: Path, noisy: tuple[EBgMCR, np.ndarray, FeasibleBands]) -> None:
    estimator, X, bands = noisy
    np.save(tmp_path / "spectra.npy", X.astype(np.float32))
    assert estimator.feasible_bands(tmp_path / "spectra.npy").lowest == pytest.approx(bands.lowest, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"non_negative": False}, {"background": True}, {"sparse": True}])
def test_every_form(options: dict[str, bool]) -> None:
    concentrations, spectra = chromatography(1)
    X = concentrations @ spectra + 0.002 * np.random.default_rng(1).standard_normal((50, 60))
    estimator = EBgMCR(**options).fit(X)
    bands = estimator.feasible_bands(X)
    assert (bands.lowest <= bands.contribution).all()
    assert (bands.contribution <= bands.highest).all()
    assert (bands.highest <= 1.001).all()
    if options.get("background"):
        row = estimator.background_row_
        assert row is not None
        assert np.ptp(bands.spectra_lower[row]) == pytest.approx(0, abs=1e-6)


def test_what_cannot_have_bands_says_so() -> None:
    concentrations, spectra = two_components(0)
    X = concentrations @ spectra
    plugged = EBgMCR(8, max_epoch=1, post_processing=lambda components: components).fit(X)
    with pytest.raises(ValueError, match="plug-in"):
        plugged.feasible_bands(X)


def test_another_order_moves_everything_of_a_component() -> None:
    concentrations, spectra = two_components(0)
    bands = feasible_bands(concentrations, spectra, 0.0, component_ids=np.array([7, 3]))
    turned = bands.ordered(np.array([1, 0]))
    assert turned.component_ids.tolist() == [1, 2]
    other = feasible_bands(concentrations[:, ::-1].copy(), spectra[::-1].copy(), 0.0)
    for name in set(FeasibleBands._fields) - {"component_ids", "method"}:
        np.testing.assert_allclose(getattr(turned, name), getattr(other, name), rtol=1e-3, atol=1e-3)
