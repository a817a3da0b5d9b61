"""The noise level where components are nearly as many as spectra or spectra are smooth; what a misfit leads to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.noise import NoiseLevel, noise_level
from spectrafuse.mcr.refinement.band_noise import band_weights
from spectrafuse.mcr.synthesize import MixtureSynthesizer


@pytest.mark.parametrize("snr", [20, 30, 40])
@pytest.mark.parametrize("spectra", [24, 28, 32, 40])
def test_the_level_is_found_where_components_are_many(spectra: int, snr: int) -> None:
    true = 10 ** (-snr / 10)
    # Seeds with components that all but drown in the noise among them.
    for seed in (0, 1, 11, 14):
        drawn = MixtureSynthesizer(16, 512, max_mixing=4, snr_db=snr, random_state=seed).generate(spectra)
        level = noise_level(drawn.spectra)
        assert level.white
        assert level.proportional
        # Where all of a weak component is taken for noise, there is a tenth more of it.
        assert level.nmse == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("count", [128, 256])
def test_the_level_is_found_at_the_papers_largest_sizes(count: int) -> None:
    drawn = MixtureSynthesizer(count, 512, max_mixing=4, snr_db=30, random_state=0).generate(4 * count)
    assert noise_level(drawn.spectra).nmse == pytest.approx(1e-3, rel=0.02)


@pytest.mark.parametrize(("rows", "bands"), [(20, 200), (24, 512), (40, 100)])
@pytest.mark.parametrize("decay", [0.7, 0.85, 0.95])
def test_smooth_spectra_have_no_white_tail(rows: int, bands: int, decay: float) -> None:
    for seed in range(5):
        generator = np.random.default_rng(seed)
        kernel = np.hanning(17)
        shapes = generator.normal(size=(rows, bands + 16))
        shapes = np.apply_along_axis(np.convolve, 1, shapes, kernel, mode="valid")
        amounts = generator.normal(size=(rows, rows)) * decay ** np.arange(rows)
        level = noise_level(torch.from_numpy((amounts @ shapes).astype(np.float32)))
        assert not level.white
        assert level.structured == (level.nmse == 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("spectra", "snr", "seed"), [(24, 40, 0), (28, 30, 2), (32, 30, 0), (32, 20, 3), (40, 20, 2)])
def test_sixteen_components_are_counted_in_few_spectra(spectra: int, snr: int, seed: int) -> None:
    drawn = MixtureSynthesizer(16, 512, max_mixing=4, snr_db=snr, random_state=seed).generate(spectra)
    fitted = EBgMCR(64, random_state=seed).fit(drawn.spectra.numpy())
    assert fitted.n_components_ == 16
    cosines = match_components(fitted.components_, drawn.components.numpy()).cosine
    assert (cosines > 0.95).sum() >= 12


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
def test_more_components_than_bands_are_counted(known: bool, tmp_path: Path) -> None:
    drawn = MixtureSynthesizer(48, 32, max_mixing=4, snr_db=35, random_state=0).generate(192)
    spectra, sigma = drawn.spectra.numpy(), float(drawn.noise.square().mean().sqrt())
    fitted = EBgMCR(192, noise=sigma if known else None).fit(spectra)
    assert fitted.n_components_ == 48
    assert match_components(fitted.components_, drawn.components.numpy()).cosine.min() > 0.95
    # The tail of the singular values is no noise at all, so that its level is measured on the residual.
    assert noise_level(spectra).nmse > 100 * 10**-3.5
    assert fitted.noise_.sigma == pytest.approx(sigma, rel=0.1)
    assert known != any("than the singular values can tell" in told for told in fitted.count_evidence_["cautions"])
    fitted.save(tmp_path)
    assert EBgMCR.load(tmp_path).transform(spectra).tobytes() == fitted.C_opt_.tobytes()


@pytest.mark.slow
def test_noise_that_may_be_components_is_said() -> None:
    drawn = MixtureSynthesizer(12, 8, max_mixing=4, snr_db=35, random_state=0).generate(48)
    estimator = EBgMCR(12).fit(drawn.spectra.numpy())
    assert any("may hold weak components" in told for told in estimator.count_evidence_["cautions"])
    given = estimator.set_params(noise=1.0).fit(drawn.spectra.numpy())
    assert not any("may hold weak components" in told for told in given.count_evidence_["cautions"])


@pytest.mark.slow
def test_a_misfit_is_searched_again_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = MixtureSynthesizer(16, 512, max_mixing=4, snr_db=30, random_state=1).generate(32)
    right = noise_level(drawn.spectra)
    assert right.white
    wrong = right._replace(structured=True, white=False)
    monkeypatch.setattr("spectrafuse.mcr.weighting.noise_level", lambda *args, **options: wrong)
    estimator = EBgMCR().fit(drawn.spectra.numpy())
    # A level that is assumed is the threshold: it costs those components that explain less.
    assert 13 <= estimator.n_components_ <= 16
    assert any("cannot be told" in told for told in estimator.count_evidence_["cautions"])
    # Where the second search fits no better, that is said besides.
    hopeless = EBgMCR(2).fit(drawn.spectra.numpy()).count_evidence_["cautions"]
    assert any("repeated as if the noise were white" in told for told in hopeless)
    assert any("do not rely on their number" in told for told in hopeless)


def test_a_misfit_that_remains_is_said() -> None:
    generator = np.random.default_rng(0)
    spectra = np.abs(generator.normal(size=(12, 8))).astype(np.float32)
    estimator = EBgMCR(1, noise=1e-3).fit(spectra)
    assert estimator.n_components_ <= 1
    assert any("do not rely on their number" in told for told in estimator.count_evidence_["cautions"])
    assert isinstance(estimator.noise_, NoiseLevel)


def test_bands_of_unlike_noise_are_weighted(tmp_path: Path) -> None:
    clean = MixtureSynthesizer(3, 120, max_mixing=3, random_state=5).generate(40)
    level = np.where(np.arange(120) < 40, 0.4, 0.01)
    spectra = clean.spectra.numpy() + level * np.random.default_rng(6).normal(size=(40, 120))
    spectra = spectra.astype(np.float32)
    noise = noise_level(spectra)
    weights = band_weights(spectra, noise)
    assert weights is not None
    assert weights[60:].min() > 4 * weights[:30].max()
    fitted = EBgMCR().fit(spectra)
    assert fitted.n_components_ == 3
    true = clean.components.numpy()
    quiet = match_components(fitted.components_[:, 40:], true[:, 40:])
    assert quiet.cosine.min() > 0.999
    assert any("bands is unlike" in told for told in fitted.count_evidence_["cautions"])
    fitted.save(tmp_path)
    assert EBgMCR.load(tmp_path).transform(spectra).tobytes() == fitted.transform(spectra).tobytes()
    # One component is not enough for three, which shows in the metric that noise is known in.
    one = EBgMCR(1).fit(spectra)
    assert any("do not rely on their number" in told for told in one.count_evidence_["cautions"])
    # Of many spectra the noise of loud bands looks like components, and weighing the wrong way round is no remedy.
    many = MixtureSynthesizer(3, 120, max_mixing=3, random_state=5).generate(100).spectra.numpy()
    many = (many + level * np.random.default_rng(6).normal(size=many.shape)).astype(np.float32)
    weights = band_weights(many, noise_level(many))
    assert weights is not None
    assert weights[60:].min() > 4 * weights[:30].max()
    # What is the same in all bands, given, or not white, is left as it is.
    even = (clean.spectra.numpy() + 0.01 * np.random.default_rng(7).normal(size=(40, 120))).astype(np.float32)
    assert band_weights(even, noise_level(even)) is None
    assert band_weights(spectra, noise_level(spectra, 0.1)) is None
    assert band_weights(spectra, noise._replace(structured=True)) is None
