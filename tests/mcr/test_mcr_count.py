"""The count of components: exact gates, refinement, the search, its evidence, and what an estimator makes of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from spectrafuse._runtime.progress import Progress
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.noise import NoiseLevel, noise_level, noise_of_rows, numerical_rank
from spectrafuse.mcr.recipes import corrected
from spectrafuse.mcr.refinement import evidence
from spectrafuse.mcr.refinement.count_search import CountSearch, component_price, residual_colour, residual_excess
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.refinement.hard_gates import (
    ExactGates,
    opened,
    price_of_gate,
    update_components,
    update_concentrations,
)
from spectrafuse.mcr.seed_stability import count_stability
from spectrafuse.mcr.synthesize import Mixtures, MixtureSynthesizer

BANDS, POOL = 60, 16
RECIPE = dataclasses.replace(corrected, hidden_size_extension=1, hidden_layers=1)


def _mixtures(count: int = 4, seed: int = 0, snr: float = 30.0, **options: Any) -> Mixtures:
    synthesizer = MixtureSynthesizer(count, BANDS, max_mixing=3, snr_db=snr, random_state=seed, **options)
    return synthesizer.generate(6 * count)


def _search(mixtures: Mixtures, start: Factors, noise: NoiseLevel) -> Any:
    spectra = mixtures.spectra.double().numpy()
    level = noise_of_rows(spectra, noise)[:, None]
    search = CountSearch(Refinement(spectra / level, 0.0, 0.0), POOL)
    return search.run(start._replace(concentrations=start.concentrations / level))


def _random_start(samples: int, seed: int = 0) -> Factors:
    generator = np.random.default_rng(seed)
    components = np.abs(generator.normal(size=(POOL, BANDS)))
    return Factors(np.abs(generator.normal(size=(samples, POOL))), components, np.arange(POOL))


def _quick(**options: Any) -> EBgMCR:
    settings: dict[str, Any] = {"recipe": RECIPE, "max_epoch": 60, "learning_rate": 1e-2, **options}
    return EBgMCR(settings.pop("pool_size", POOL), **settings)


@pytest.fixture(scope="module")
def mixtures() -> Mixtures:
    return _mixtures()


@pytest.fixture(scope="module", params=["spectra", "training"])
def fitted(mixtures: Mixtures, request: pytest.FixtureRequest) -> EBgMCR:
    return _quick(recipe=dataclasses.replace(RECIPE, start=request.param)).fit(mixtures.spectra.numpy())


def test_a_gate_opens_for_what_noise_does_not_explain() -> None:
    components = np.eye(3, 8)
    spectra = np.array([[5.0, 2.0, 0.0, 0, 0, 0, 0, 0], [0.0, 3.1, -4.0, 0, 0, 0, 0, 0]])
    found = update_concentrations(spectra, np.zeros((2, 3)), components, price=9.0)
    assert found.tolist() == [[5.0, 0.0, 0.0], [0.0, 3.1, 0.0]]
    assert price_of_gate(64, 64) == pytest.approx(2 * math.log(4096))


def test_all_gates_open_is_non_negative_least_squares() -> None:
    from scipy.optimize import nnls

    generator = np.random.default_rng(3)
    components = np.abs(generator.normal(size=(5, 23)))
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    spectra = generator.normal(size=(7, 23)) + 3 * components[:1]
    found = update_concentrations(spectra, np.zeros((7, 5)), components, 0.0, sweeps=300)
    expected = np.stack([nnls(components.T, row)[0] for row in spectra])
    assert found == pytest.approx(expected, abs=1e-9)
    sparse = opened(spectra, components, 4.0)
    assert ((sparse == 0) | (sparse**2 >= 4.0)).all()


def test_held_components_stay_and_weak_bands_close() -> None:
    generator = np.random.default_rng(4)
    components, concentrations = np.abs(generator.normal(size=(3, 9))), np.abs(generator.normal(size=(12, 3)))
    spectra = concentrations @ np.abs(generator.normal(size=(3, 9)))
    held = np.array([False, True, False])
    found = update_components(spectra, concentrations, components, non_negative=True, held=held)
    assert (found[1] == components[1]).all()
    assert (found[[0, 2]] != components[[0, 2]]).any()
    assert ((spectra - concentrations @ found) ** 2).sum() < ((spectra - concentrations @ components) ** 2).sum()
    gated = update_components(spectra, concentrations, components, non_negative=True, price=5.0)
    power = (concentrations**2).sum(0)[:, None]
    assert ((gated == 0) | (gated**2 * power >= 5.0)).all()
    assert (gated == 0).any()


def test_noise_of_each_spectrum() -> None:
    spectra = np.array([[3.0, 4.0], [0.0, 0.0], [30.0, 40.0]])
    even = noise_of_rows(spectra, NoiseLevel(0.5, 0.1, "given"))
    assert even.tolist() == [0.5, 0.5, 0.5]
    grown = noise_of_rows(spectra, NoiseLevel(0.5, 0.01, "given", True))
    assert grown[[0, 2]] == pytest.approx(np.array([5, 50]) / math.sqrt(2) * 0.1)
    assert 0 < grown[1] < 0.1, "a spectrum without signal has a small noise, not none"


def test_whether_noise_grows_is_read_off_the_spectra_even_if_it_is_given(mixtures: Mixtures) -> None:
    assert noise_level(mixtures.spectra, 0.1).proportional
    even = mixtures.concentrations @ mixtures.components
    even = even + 0.05 * torch.randn(even.shape, generator=torch.Generator().manual_seed(0))
    assert not noise_level(even, 0.05).proportional


def test_one_component_among_others_is_replaced_by_their_sum() -> None:
    generator = np.random.default_rng(5)
    components = np.abs(generator.normal(size=(3, 30)))
    components[2] = 0.6 * components[0] + 0.4 * components[1]
    factors = Factors(np.abs(generator.normal(size=(10, 3))), components, np.arange(3)).at_unit_norm()
    spectra = factors.concentrations @ factors.components
    refinement = Refinement(spectra, 1.0, 1.0)
    shares, lost = refinement.substitutes(factors)
    assert lost[2] == pytest.approx(0.0, abs=1e-6 * (spectra**2).sum())
    assert min(lost[:2]) > 0.01
    less = factors.without(2, shares[2])
    assert less.ids.tolist() == [0, 1]
    assert less.concentrations @ less.components == pytest.approx(spectra, rel=1e-3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_count_is_found_whatever_noise_is_assumed(seed: int, factor: float) -> None:
    mixtures = _mixtures(seed=seed)
    noise = noise_level(mixtures.spectra, factor * float(mixtures.noise.square().mean().sqrt()))
    outcome = _search(mixtures, _random_start(len(mixtures.spectra), seed), noise)
    assert len(outcome.factors.ids) == 4
    match = match_components(outcome.factors.components, mixtures.components.numpy())
    assert match.cosine.min() > 0.95
    assert outcome.path[outcome.chosen].size == 4
    assert outcome.path[-1].size < 4, "the path goes on to what cannot be left out"
    assert outcome.rise > 2 * outcome.component_price
    assert (outcome.excess > 2) == (factor == 0.5), "noise given too low shows in the residual"


def test_pure_noise_has_no_more_than_one_component() -> None:
    generator = np.random.default_rng(6)
    refinement = Refinement(generator.normal(size=(40, BANDS)), 0.0, 0.0, non_negative=False)
    outcome = CountSearch(refinement, POOL).run(_random_start(40))
    assert len(outcome.factors.ids) <= 1


def test_what_noise_explains_of_one_component() -> None:
    generator = np.random.default_rng(7)
    largest = [np.linalg.norm(generator.normal(size=(30, 200)), ord=2) ** 2 for _ in range(20)]
    assert max(largest) < 1.1 * component_price(30, 200)
    assert max(largest) > 0.8 * component_price(30, 200)


def test_coloured_and_larger_residuals_are_recognised() -> None:
    generator = np.random.default_rng(8)
    white = generator.normal(size=(40, 300))
    assert residual_colour(white) < 1.3
    smooth = np.apply_along_axis(np.convolve, 1, generator.normal(size=(40, 308)), np.ones(9) / 3, mode="valid")
    assert 5 < residual_colour(smooth) < 12
    empty = Factors(np.zeros((40, 0)), np.zeros((0, 300)), np.zeros(0, np.int64))
    assert residual_excess(Refinement(2 * white, 1, 1), empty) == pytest.approx(4, rel=0.05)
    assert residual_excess(Refinement(0.5 * white, 1, 1), empty) == 1.0


def test_a_component_of_a_single_spectrum_is_added() -> None:
    mixtures = _mixtures(6, seed=4)
    concentrations = mixtures.concentrations.double().numpy()
    concentrations[:, 5] = 0
    concentrations[0] = [0, 4, 0, 4, 0, 4]
    spectra = concentrations @ mixtures.components.double().numpy()
    spectra += 0.02 * np.random.default_rng(5).normal(size=spectra.shape)
    refinement = Refinement(spectra / 0.02, 0.0, 0.0)
    search = CountSearch(refinement, POOL)
    five = Factors(concentrations[:, :5] / 0.02, mixtures.components.double().numpy()[:5], np.arange(5))
    search._noise_settled = True
    added = search._add(refinement.settle(five))
    assert added is not None
    assert len(added.ids) == 6


def test_the_rank_check_counts_what_stands_out() -> None:
    generator = np.random.default_rng(9)
    signal = generator.normal(size=(50, 5)) @ generator.normal(size=(5, 120))
    assert numerical_rank(signal + generator.normal(size=signal.shape)) == 5
    assert numerical_rank(generator.normal(size=(50, 120))) == 0


def test_components_that_never_occur_alone_are_named() -> None:
    present = np.zeros((12, 3), bool)
    present[:8, 0] = True
    present[2:5, 1] = True
    present[6:12, 2] = True
    ids = np.array([4, 7, 9])
    (told,) = evidence._together(present, ids)
    assert "component 7 without component 4" in told
    assert "9 without" not in told
    assert "Nearly all" in evidence._together(np.ones((5, 2), bool), ids[:2])[0]
    assert not evidence._together(np.eye(3, dtype=bool), ids)


def test_the_estimator_finds_the_count_and_says_why(fitted: EBgMCR, mixtures: Mixtures) -> None:
    assert fitted.n_components_ == 4
    assert match_components(fitted.components_, mixtures.components.numpy()).cosine.min() > 0.98
    found = fitted.count_evidence_
    assert found is not None
    assert found["count"] == found["rank_check"] == 4
    (chosen,) = (row for row in found["path"] if row["chosen"])
    assert chosen["count"] == 4
    assert [row["count"] for row in found["path"]][-1] == 1
    assert chosen["r2"] == pytest.approx(fitted.score(mixtures.spectra.numpy()), abs=1e-3)
    assert found["rise"] > 2
    assert found["reason"] == fitted.chosen_reason_
    assert "4 components" in fitted.chosen_reason_


def test_concentrations_follow_spectra_that_were_not_fitted(fitted: EBgMCR, mixtures: Mixtures) -> None:
    spectra = (mixtures.concentrations @ mixtures.components).numpy()
    match = match_components(fitted.components_, mixtures.components.numpy())
    true = mixtures.concentrations.numpy()[:, match.true]
    for factor in (1.0, 0.01, 300.0):
        concentrations = fitted.transform(factor * spectra)
        error = np.linalg.norm(concentrations[:, match.found] - factor * true)
        assert error < 0.05 * factor * np.linalg.norm(true)
        assert ((concentrations[:, match.found] > 0) == (true > 0)).mean() > 0.9


def test_other_gates_are_shut_in_the_network_too(fitted: EBgMCR, mixtures: Mixtures) -> None:
    output = fitted.model_(mixtures.spectra, None)
    assert set(output.used.nonzero().flatten().tolist()) <= set(fitted.component_ids_.tolist())


def test_a_refined_estimator_is_saved_with_its_gates(fitted: EBgMCR, mixtures: Mixtures, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    spectra = mixtures.spectra.numpy()
    assert isinstance(loaded.model_.gates, ExactGates)
    assert loaded.count_evidence_ == fitted.count_evidence_
    assert loaded.transform(spectra).tobytes() == fitted.transform(spectra).tobytes()
    assert loaded.restrict_to(spectra).component_ids_.tolist() == fitted.component_ids_.tolist()


def test_a_row_of_the_curve_has_the_networks_gates(mixtures: Mixtures) -> None:
    bands = dataclasses.replace(
        RECIPE, start="training", checkpoint_threshold=0.01, checkpoint_interval=0.3, adaptive_bands=False
    )
    estimator = _quick(recipe=bands).fit(mixtures.spectra.numpy())
    assert estimator.count_curve_
    estimator.use_band(estimator.count_curve_[0]["r2_from"])
    assert estimator.model_.gates is None
    assert estimator.count_evidence_ is None


def test_what_is_not_refined_says_so(mixtures: Mixtures) -> None:
    def saturate(concentration: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        return torch.tanh((concentration * components).sum(1))

    spectra = mixtures.spectra.numpy()
    plugged = _quick(max_epoch=3, aggregate=saturate).fit(spectra)
    assert "plug-in" in plugged.chosen_reason_ or plugged.n_components_ == 0
    published = EBgMCR(POOL, recipe="published", max_epoch=2).fit(spectra)
    assert published.model_.gates is None
    assert published.count_evidence_ is None
    assert "refined" not in published.chosen_reason_


@pytest.mark.parametrize("norm", [None, 1, 2])
def test_fixed_components_are_kept_and_counted(norm: int | None, mixtures: Mixtures) -> None:
    given = mixtures.components.numpy()[:2]
    estimator = _quick(component_norm=norm).fit(mixtures.spectra.numpy(), components=given, fixed=[1])
    assert estimator.n_components_ == 4
    assert 1 in estimator.component_ids_
    raw = estimator.model_.vanilla_components.detach().numpy()[1]
    factor = raw.max() / given[1].max()
    assert (raw / factor).tobytes() == given[1].tobytes()
    reconstruction = estimator.transform(mixtures.spectra.numpy()) @ estimator.components_
    assert reconstruction == pytest.approx(
        estimator.parse(mixtures.spectra.numpy())["reconstruction"], rel=1e-4, abs=1e-4
    )


def test_the_sparse_form_closes_bands() -> None:
    mixtures = _mixtures(seed=3, sparsity=0.8)
    estimator = _quick(sparse=True).fit(mixtures.spectra.numpy())
    assert estimator.n_components_ == 4
    match = match_components(estimator.components_, mixtures.components.numpy())
    assert match.cosine.min() > 0.95
    zeros = mixtures.components.numpy()[match.true] == 0
    assert (estimator.components_[match.found][zeros] == 0).mean() > 0.9


def test_components_of_either_sign() -> None:
    mixtures = _mixtures(seed=2, non_negative=False)
    estimator = _quick(non_negative=False).fit(mixtures.spectra.numpy())
    assert estimator.n_components_ == 4
    assert match_components(estimator.components_, mixtures.components.numpy()).cosine.min() > 0.95


@pytest.mark.slow
def test_other_seeds_find_the_same_components(fitted: EBgMCR, mixtures: Mixtures) -> None:
    spectra = mixtures.spectra.numpy()
    before = fitted.components_.tobytes()
    stability = count_stability(fitted, spectra, 2)
    assert stability.seeds == [0, 1]
    assert stability.counts == [4, 4]
    assert stability.cosines.shape == (1, 4)
    assert stability.cosines.min() > 0.98
    assert stability.reason.startswith("2 of 2 seeds find 4 components")
    assert fitted.components_.tobytes() == before
    with pytest.raises(ValueError, match="n_seeds"):
        count_stability(fitted, spectra, 1)
    with pytest.raises(TypeError, match="random_state"):
        count_stability(_quick(random_state=None, max_epoch=2).fit(spectra), spectra)


def test_the_same_bits_at_any_number_of_threads(mixtures: Mixtures) -> None:
    # Large enough for the products to be shared among threads.
    drawn = MixtureSynthesizer(12, 700, max_mixing=4, snr_db=25, random_state=1).generate(300)
    wide, shapes = drawn.spectra.numpy(), drawn.components.numpy()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                level = noise_level(drawn.spectra)
                gated = ExactGates(level, 12.0, tuple(range(12))).concentrations(wide, shapes).tobytes()
                estimator = _quick(max_epoch=5).fit(mixtures.spectra.numpy())
            fitted = estimator.components_.tobytes(), estimator.C_opt_.tobytes(), estimator.noise_
            found.append((level, gated, estimator.count_evidence_, *fitted))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.slow
def test_the_refinement_reports_and_can_be_ended(mixtures: Mixtures, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9))
    monkeypatch.setattr("spectrafuse.mcr.refinement.refine.time.monotonic", lambda: float(next(clock)))
    reports: list[Progress] = []
    untrained: list[Progress] = []
    _quick().fit(mixtures.spectra.numpy(), callback=untrained.append)
    assert len(untrained) > 3
    assert {(report.epoch, report.total_epochs) for report in untrained} == {(0, None)}
    training = dataclasses.replace(RECIPE, start="training")
    estimator = _quick(max_epoch=4, recipe=training).fit(mixtures.spectra.numpy(), callback=reports.append)
    refining = reports[4:]
    assert len(refining) > 3
    assert {(report.epoch, report.total_epochs) for report in refining} == {(4, 4)}
    assert all("refining" in report.message for report in refining)
    assert refining[0].values == estimator.history_[-1]

    def stop(progress: Progress) -> None:
        if "refining" in progress.message:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        _quick(max_epoch=4).fit(mixtures.spectra.numpy(), callback=stop)
