"""Fits without training: candidates chosen among the spectra, and what an estimator makes of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from threadpoolctl import threadpool_limits

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.recipes import corrected
from spectrafuse.mcr.refinement.start import from_spectra, number_of_candidates
from spectrafuse.mcr.synthesize import Mixtures, MixtureSynthesizer


def _mixtures(count: int = 5, samples: int = 30, bands: int = 60, **options: object) -> Mixtures:
    settings = {"max_mixing": 3, "snr_db": 30.0, "random_state": 1, **options}
    return MixtureSynthesizer(count, bands, **settings).generate(samples)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mixtures() -> Mixtures:
    return _mixtures()


@pytest.fixture(scope="module")
def fitted(mixtures: Mixtures) -> EBgMCR:
    return EBgMCR().fit(mixtures.spectra.numpy())


def test_pure_spectra_are_chosen_first() -> None:
    generator = np.random.default_rng(0)
    shapes = np.abs(generator.normal(size=(4, 50)))
    shares = generator.dirichlet(np.ones(4), size=40)
    pure = [3, 11, 25, 38]
    shares[pure] = np.eye(4)
    spectra = 100 * shares @ shapes + 0.01 * generator.normal(size=(40, 50))
    start = from_spectra(spectra, np.empty((0, 50)), 4)
    assert not start.concentrations.any()
    assert match_components(start.components, shapes).cosine.min() > 0.9999
    assert start.ids.tolist() == [0, 1, 2, 3]


def test_what_is_known_comes_first_and_is_not_chosen_again() -> None:
    generator = np.random.default_rng(1)
    shapes = np.abs(generator.normal(size=(3, 50)))
    spectra = 100 * np.repeat(np.eye(3), 5, axis=0) @ shapes + 0.01 * generator.normal(size=(15, 50))
    start = from_spectra(spectra, 7 * shapes[1:], 3)
    assert start.components[:2] == pytest.approx(shapes[1:] / np.linalg.norm(shapes[1:], axis=1, keepdims=True))
    assert match_components(start.components[2:], shapes).true.tolist() == [0]


def test_the_number_of_candidates_follows_the_rank() -> None:
    generator = np.random.default_rng(2)

    def spectra(rank: int, rows: int = 40) -> np.ndarray:
        signal = 50 * generator.random((rows, rank)) @ generator.normal(size=(rank, 60))
        return signal + generator.normal(size=(rows, 60))

    assert number_of_candidates(spectra(2)) == 8
    assert number_of_candidates(spectra(12)) == 17
    assert number_of_candidates(spectra(2, rows=5)) == 5
    # Nearly as many as there can be: there may be more components than bands.
    assert number_of_candidates(spectra(60, rows=200)) == 200


def test_an_untrained_fit(fitted: EBgMCR, mixtures: Mixtures) -> None:
    assert fitted.n_components_ == 5
    assert match_components(fitted.components_, mixtures.components.numpy()).cosine.min() > 0.98
    assert fitted.component_ids_.tolist() == [0, 1, 2, 3, 4]
    assert fitted.model_.num_components == 5, "the rest of the pool is never made"
    assert (fitted.history_, fitted.n_iter_) == ([], 0)
    assert "Nothing was trained" in fitted.stop_reason_
    assert fitted.count_evidence_ is not None
    assert fitted.count_evidence_["trained_count"] is None
    assert fitted.count_curve_
    for row in fitted.count_curve_:
        assert row["r2_from"] <= row["r2"] < row["r2_to"]
    with pytest.raises(ValueError, match="trained networks"):
        fitted.use_band(fitted.count_curve_[0]["r2_from"])


@pytest.mark.slow
def test_the_pool_is_an_upper_bound_only(fitted: EBgMCR, mixtures: Mixtures) -> None:
    spectra = mixtures.spectra.numpy()
    larger = EBgMCR(100_000).fit(spectra)
    assert larger.components_ == pytest.approx(fitted.components_, abs=1e-2)
    assert EBgMCR(3).fit(spectra).n_components_ == 3


def test_saved_and_loaded(fitted: EBgMCR, mixtures: Mixtures, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert loaded.recipe == "corrected"
    assert loaded.pool_size == 1024
    assert loaded.count_curve_ == fitted.count_curve_
    spectra = mixtures.spectra.numpy()
    assert loaded.transform(spectra).tobytes() == fitted.transform(spectra).tobytes() == fitted.C_opt_.tobytes()


@pytest.mark.slow
def test_known_components_and_a_background_keep_their_places(mixtures: Mixtures) -> None:
    spectra, true = mixtures.spectra.numpy() + 0.3, mixtures.components.numpy()
    unneeded = np.linspace(0, 1, 60, dtype=np.float32)[None] ** 8
    given = np.vstack([3 * true[2:3], unneeded, true[:1]]).astype(np.float32)
    found = EBgMCR(12, background=True).fit(spectra, components=given, fixed=[0, 1])
    ids = found.component_ids_.tolist()
    assert 0 in ids
    assert 1 not in ids, "a component that no spectrum needs keeps its place, and does not appear"
    assert 2 in ids
    assert found.background_row_ == len(ids) - 1
    assert ids[-1] == found.model_.num_components - 1
    assert np.corrcoef(found.components_[0], true[2])[0, 1] == pytest.approx(1.0)
    assert np.unique(found.components_[-1]).size == 1


def test_a_finished_fit_is_taken_from_its_folder(
    mixtures: Mixtures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectra = mixtures.spectra.numpy()
    first = EBgMCR(32).fit(spectra, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="noise was None, now 0.1"):
        EBgMCR(32, noise=0.1).fit(spectra, checkpoint_dir=tmp_path)
    monkeypatch.setattr("spectrafuse.mcr.estimator.refine_spectra", None)  # a second search would fail
    again = EBgMCR(32).fit(spectra, checkpoint_dir=tmp_path)
    assert again.components_.tobytes() == first.components_.tobytes()
    assert again.C_opt_.tobytes() == first.C_opt_.tobytes()
    assert again.count_evidence_ == first.count_evidence_
    assert again.count_curve_ == first.count_curve_
    assert (again.chosen_reason_, again.stop_reason_) == (first.chosen_reason_, first.stop_reason_)


def test_plug_ins_and_other_recipes_train(mixtures: Mixtures) -> None:
    def saturate(concentration: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        return torch.tanh((concentration * components).sum(1))

    small = dataclasses.replace(corrected, hidden_size_extension=1, hidden_layers=1)
    spectra = mixtures.spectra.numpy()
    for options in ({"aggregate": saturate}, {"post_processing": lambda rows: rows}):
        assert EBgMCR(8, recipe=small, max_epoch=2, **options).fit(spectra).n_iter_ == 2
    for recipe in ("trained", "published"):
        assert EBgMCR(8, recipe=recipe, max_epoch=2).fit(spectra).n_iter_ == 2


@pytest.mark.slow
def test_another_seed_may_choose_other_spectra(mixtures: Mixtures) -> None:
    spectra = mixtures.spectra.double().numpy()
    weights = [1 - 0.2 * np.random.default_rng(seed).random(len(spectra)) for seed in range(6)]
    starts = [from_spectra(spectra, np.empty((0, 60)), 8, weights=w).components.tobytes() for w in weights]
    assert len(set(starts)) > 1
    counts = {EBgMCR(random_state=seed).fit(mixtures.spectra.numpy()).n_components_ for seed in range(3)}
    assert counts == {5}


@pytest.mark.parametrize("correlation", [0.0, pytest.param(0.8, marks=pytest.mark.slow)])
def test_the_same_bits_at_any_number_of_threads(correlation: float) -> None:
    # Large enough for products to be shared among threads.
    clean = _mixtures(6, 64, 200, snr_db=None).spectra.double().numpy()
    drawn = np.random.default_rng(0).normal(size=clean.shape)
    noise = lfilter([np.sqrt(1 - correlation**2)], [1.0, -correlation], drawn, axis=1)
    spectra = (clean + 0.03 * np.sqrt(np.square(clean).mean(1, keepdims=True)) * noise).astype(np.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            with threadpool_limits(threads):
                fitted = EBgMCR().fit(spectra)
                concentrations = fitted.transform(spectra)
            bits = (fitted.components_.tobytes(), fitted.C_opt_.tobytes(), concentrations.tobytes())
            found.append((*bits, fitted.noise_, fitted.count_evidence_))
    finally:
        torch.set_num_threads(before)
    assert found[0][3].correlation == pytest.approx(correlation, abs=0.05)
    assert all(other == found[0] for other in found[1:])


def test_gates_have_no_price_where_nearly_all_spectra_hold_all_components(fitted: EBgMCR) -> None:
    axis = np.arange(80)
    shapes = np.exp(-(((axis - np.array([[25], [38], [52]])) / 9.0) ** 2))
    amounts = np.exp(-(((np.arange(60)[:, None] - np.array([20, 30, 41])) / 8.0) ** 2)) + 0.003
    spectra = amounts @ shapes + 0.003 * np.random.default_rng(8).normal(size=(60, 80))
    dense = EBgMCR().fit(spectra.astype(np.float32))
    assert dense.n_components_ == 3
    assert dense.model_.gates is not None
    assert dense.model_.gates.price == 0
    assert fitted.model_.gates is not None
    assert fitted.model_.gates.price > 0
    # The tails of the profiles are there.
    match = match_components(dense.components_, shapes)
    found = dense.C_opt_[:, match.found]
    assert (found > 0).mean() > 0.9
