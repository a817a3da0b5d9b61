"""Streaming fit metrics and the noise level."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import golden
from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.noise import noise_level
from spectrafuse.mcr.synthesize import MixtureSynthesizer


@pytest.mark.parametrize("batch", [1, 3, 10])
@pytest.mark.parametrize("name", ["dense", "threshold"])
def test_published_figures(name: str, batch: int) -> None:
    values = golden("ebgmcr_training_rules")
    x, y = values["X"], values["Y"]
    metrics = FitMetrics(x.shape[1], threshold=values["eps"] if name == "threshold" else None)
    for start in range(0, len(x), batch):
        metrics.update(x[start : start + batch], y[start : start + batch])
    assert metrics.compute()[:2] == pytest.approx(values[name].tolist(), rel=1e-6)


@pytest.mark.parametrize("seed", [3, 4])
def test_mse_is_the_unweighted_mean_of_batches(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 7, 5, generator=generator, dtype=torch.float64)
    metrics = FitMetrics(5)
    metrics.update(x[:6], y[:6])
    metrics.update(x[6:], y[6:])
    expected = 0.5 * ((x - y)[:6].square().mean() + (x - y)[6:].square().mean())
    assert metrics.compute()[2] == pytest.approx(expected.item(), rel=1e-12)


def test_without_variation_or_signal_the_figures_are_defined() -> None:
    one = torch.ones(1, 5)
    for x, y, expected in [
        (one, one, (0.0, 1.0)),
        (one, 0 * one, (1.0, 0.0)),
        (0 * one, 0 * one, (0.0, 1.0)),
        (0 * one, one, (float("inf"), 0.0)),
    ]:
        metrics = FitMetrics(5)
        metrics.update(x, y)
        assert metrics.compute()[:2] == expected


@pytest.mark.parametrize("snr_db", [20.0, 30.0])
@pytest.mark.parametrize(("components", "samples", "features"), [(4, 40, 200), (16, 64, 512), (3, 150, 40)])
def test_noise_is_estimated_within_a_fifth(components: int, samples: int, features: int, snr_db: float) -> None:
    drawn = MixtureSynthesizer(components, features, snr_db=snr_db, random_state=components).generate(samples)
    clean = drawn.concentrations @ drawn.components
    true = ((drawn.spectra - clean).square().sum() / drawn.spectra.square().sum()).item()
    level = noise_level(drawn.spectra)
    assert level.nmse == pytest.approx(true, rel=0.2)
    assert level.sigma == pytest.approx((drawn.spectra - clean).square().mean().sqrt().item(), rel=0.1)


def test_even_noise_is_estimated_too() -> None:
    drawn = MixtureSynthesizer(5, 120, random_state=1).generate(50)
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 0.07, drawn.spectra.shape)).float()
    assert noise_level(drawn.spectra + noise).sigma == pytest.approx(0.07, rel=0.1)


def test_given_noise_is_a_standard_deviation() -> None:
    spectra = torch.full((10, 20), 3.0)
    level = noise_level(spectra, 0.3)
    assert level.sigma == 0.3
    assert level.nmse == pytest.approx(0.01)
    assert level.source == "given"


@pytest.mark.parametrize("shape", [(1, 5), (2, 100), (4, 2)])
def test_too_few_spectra_fall_back_and_say_so(shape: tuple[int, int]) -> None:
    level = noise_level(torch.ones(shape))
    assert level.nmse == 0.005
    assert "too few" in level.source


def test_no_signal_has_no_noise() -> None:
    assert noise_level(torch.zeros(10, 10)).nmse == 0.0
