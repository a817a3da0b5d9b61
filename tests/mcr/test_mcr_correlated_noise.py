"""Noise that goes along from band to band: recognized, filtered, and left alone where it is something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components, score_concentrations
from spectrafuse.mcr.noise import noise_level
from spectrafuse.mcr.refinement import many_spectra
from spectrafuse.mcr.refinement.band_noise import correlated
from spectrafuse.mcr.refinement.whitening import restored, whitened
from spectrafuse.mcr.synthesize import Mixtures, MixtureSynthesizer

COUNT, SPECTRA, BANDS, SHARE = 8, 48, 160, 1e-2


def _mixtures(seed: int = 0, spectra: int = SPECTRA, **options: Any) -> Mixtures:
    return MixtureSynthesizer(COUNT, BANDS, max_mixing=3, random_state=seed, **options).generate(spectra)


def _noise(shape: tuple[int, int], correlation: float, seed: int = 100) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(shape[0], shape[1] + 200))
    return lfilter([np.sqrt(1 - correlation**2)], [1.0, -correlation], drawn, axis=1)[:, 200:]


def _noisy(mixtures: Mixtures, noise: np.ndarray) -> np.ndarray:
    clean = mixtures.spectra.double().numpy()
    return (clean + np.sqrt(SHARE * np.square(clean).mean(1, keepdims=True)) * noise).astype(np.float32)


def test_the_filter_makes_such_noise_white_and_can_be_undone() -> None:
    rows = _noise((400, BANDS), 0.8)
    filtered = whitened(rows, 0.8)
    assert restored(filtered, 0.8) == pytest.approx(rows, abs=1e-12)
    error = 4 / np.sqrt(rows.size)
    assert np.square(filtered).mean() == pytest.approx(1.0, abs=2 * error)
    assert abs((filtered[:, 1:] * filtered[:, :-1]).mean()) < error
    assert whitened(rows, 0.0) is rows
    assert restored(rows, 0.0) is rows


@pytest.mark.parametrize("correlation", [0.3, 0.8, 0.9])
@pytest.mark.parametrize("even", [False, True])
def test_correlation_and_level_are_found(correlation: float, even: bool) -> None:
    mixtures = _mixtures()
    noise = _noise((SPECTRA, BANDS), correlation)
    spectra = _noisy(mixtures, noise)
    if even:
        clean = mixtures.spectra.double().numpy()
        spectra = (clean + np.sqrt(SHARE * np.square(clean).mean()) * noise).astype(np.float32)
    found = correlated(spectra, noise_level(spectra))
    assert found.correlation == pytest.approx(correlation, abs=0.03)
    assert found.nmse == pytest.approx(SHARE, rel=0.1)
    assert found.proportional is not even
    assert found.white
    given = correlated(spectra, noise_level(spectra, 0.123))
    assert (given.sigma, given.source, given.correlation) == (0.123, "given", found.correlation)


def test_white_noise_and_smoothed_spectra_stay_as_they_are() -> None:
    mixtures = _mixtures()
    white = _noisy(mixtures, _noise((SPECTRA, BANDS), 0.0))
    kernel = np.hanning(9) / np.linalg.norm(np.hanning(9))
    wide = np.random.default_rng(1).normal(size=(SPECTRA, BANDS + 8))
    smoothed = _noisy(mixtures, np.apply_along_axis(np.convolve, 1, wide, kernel, mode="valid"))
    few = white[:7]
    for spectra in (white, smoothed, few, np.zeros_like(white)):
        noise = noise_level(spectra)
        assert correlated(spectra, noise) is noise


@pytest.mark.parametrize("seed", range(2))
def test_correlated_noise_costs_no_components(seed: int, tmp_path: Path) -> None:
    mixtures = _mixtures(seed)
    spectra = _noisy(mixtures, _noise((SPECTRA, BANDS), 0.8, seed))
    fitted = EBgMCR(32).fit(spectra)
    assert fitted.n_components_ == COUNT
    match = match_components(fitted.components_, mixtures.components.numpy())
    assert match.cosine.min() > 0.97
    assert score_concentrations(fitted.C_opt_, mixtures.concentrations.numpy(), match).r2.min() > 0.995
    assert (fitted.components_ >= 0).all()
    evidence = fitted.count_evidence_
    assert evidence["rank_check"] == COUNT
    assert evidence["residual_colour"] < 1.2
    assert any("neighboring bands is correlated (" in told for told in evidence["cautions"])
    assert fitted.noise_.correlation == pytest.approx(0.8, abs=0.03)
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert loaded.noise_ == fitted.noise_
    assert loaded.transform(spectra).tobytes() == fitted.transform(spectra).tobytes() == fitted.C_opt_.tobytes()


@pytest.mark.slow
def test_known_components_a_background_and_either_sign() -> None:
    mixtures = _mixtures()
    noise = _noise((SPECTRA, BANDS), 0.8)
    spectra, true = _noisy(mixtures, noise), mixtures.components.numpy()
    known = EBgMCR(32).fit(spectra, components=true[:2], fixed=[1])
    assert known.n_components_ == COUNT
    assert known.component_ids_[:2].tolist() == [0, 1]
    assert known.components_[1] == pytest.approx(true[1], abs=1e-6)
    signed = EBgMCR(32, non_negative=False).fit(spectra)
    assert signed.n_components_ == COUNT
    peaks = _mixtures(sparsity=0.5)
    offset = EBgMCR(32, background=True).fit(_noisy(peaks, noise) + 0.5)
    assert offset.n_components_ == COUNT
    assert offset.background_row_ is not None
    assert match_components(offset.components_[:-1], peaks.components.numpy()).cosine.min() > 0.97


@pytest.mark.slow
def test_more_spectra_than_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_spectra, "MOST_SEARCHED", 200)
    monkeypatch.setattr(many_spectra, "_SAMPLE", 100)
    mixtures = _mixtures(spectra=600)
    spectra = _noisy(mixtures, _noise((600, BANDS), 0.8))
    fitted = EBgMCR(32).fit(spectra)
    assert fitted.n_components_ == COUNT
    match = match_components(fitted.components_, mixtures.components.numpy())
    assert match.cosine.min() > 0.99
    assert score_concentrations(fitted.C_opt_, mixtures.concentrations.numpy(), match).r2.min() > 0.995
