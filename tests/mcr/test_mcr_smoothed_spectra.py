"""Spectra that were smoothed or drift: their noise cannot be read off them, and what counts as a component then."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.noise import noise_level
from spectrafuse.mcr.recipes import corrected
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.synthesize import MixtureSynthesizer

RECIPE = dataclasses.replace(corrected, hidden_size_extension=1, hidden_layers=1)


def _quick(pool_size: int = 16, **options: Any) -> EBgMCR:
    return EBgMCR(pool_size, recipe=RECIPE, learning_rate=1e-2, max_epoch=5, non_negative=False, **options)


def _smoothed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two components of either sign with noise smoothed along the bands, and stronger along a few shapes."""
    generator = np.random.default_rng(20)
    rows = generator.normal(size=(2 + 60, 98))
    rows[2:] += 2 * generator.normal(size=(60, 4)) @ generator.normal(size=(4, 98))
    smooth = np.apply_along_axis(np.convolve, 1, rows, np.hanning(9), mode="valid")
    components, noise = smooth[:2] / np.linalg.norm(smooth[:2], axis=1, keepdims=True), smooth[2:]
    concentrations = generator.uniform(0.1, 1, (60, 2))
    concentrations[0, 0] = concentrations[1, 1] = 0
    clean = concentrations @ components
    return clean + 0.02 * noise * np.linalg.norm(clean) / np.linalg.norm(noise), components, concentrations


def test_noise_is_assumed_where_singular_values_never_level_off() -> None:
    spectra, _, _ = _smoothed()
    level = noise_level(torch.from_numpy(spectra), floor=2e-3)
    assert level.structured
    assert level.nmse == 2e-3
    assert "assumed" in level.source
    assert not noise_level(torch.from_numpy(spectra), 0.01).structured
    # A tail that says more than the floor is believed.
    assert not noise_level(torch.from_numpy(spectra), floor=1e-12).structured
    mixtures = MixtureSynthesizer(4, 60, max_mixing=3, snr_db=30.0, random_state=0).generate(24)
    assert not noise_level(mixtures.spectra).structured


@pytest.mark.slow
def test_drifts_are_not_counted_and_pure_spectra_part_the_components() -> None:
    spectra, components, concentrations = _smoothed()
    estimator = _quick().fit(spectra.astype(np.float32))
    assert estimator.n_components_ == 2
    assert match_components(estimator.components_, components).cosine.min() > 0.99
    assert "cannot be told" in estimator.count_evidence_["cautions"][0]
    match = match_components(estimator.components_, components)
    found = estimator.C_opt_[:, match.found]
    for i in range(2):
        assert np.corrcoef(found[:, i], concentrations[:, match.true][:, i])[0, 1] > 0.99
    counted = _quick(pool_size=6, noise=5e-4).fit(spectra.astype(np.float32))
    assert counted.n_components_ > 3


def test_the_purest_spectra_close_gates_and_keep_the_mixture() -> None:
    generator = np.random.default_rng(11)
    concentrations = generator.uniform(1, 2, (9, 3))
    concentrations[:4, 2] = 0
    start = Factors(concentrations, generator.normal(size=(3, 20)), np.arange(3))
    for fixed in ((), (0, 1, 2)):
        found = Refinement(np.zeros((9, 20)), 1.0, 1.0, non_negative=False, fixed=fixed).purest(start)
        assert found.concentrations @ found.components == pytest.approx(concentrations @ start.components, abs=1e-12)
        assert (found.concentrations >= 0).all()
        gates = np.count_nonzero(found.concentrations)
        assert gates == np.count_nonzero(concentrations) if fixed else gates <= np.count_nonzero(concentrations) - 3
