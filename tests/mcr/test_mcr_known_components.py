"""Components given to `fit`: where they start, that fixed ones stay, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectrafuse._runtime.progress import Progress
from spectrafuse.io.errors import DataError
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.recipes import trained
from spectrafuse.mcr.synthesize import MixtureSynthesizer
from spectrafuse.mcr.training import known_components

POOL, CHANNELS = 7, 13
RECIPE = dataclasses.replace(
    trained, name="quick", hidden_size_extension=1, hidden_layers=1, temperature_eval=0.1, select_threshold=0.9
)
SPECTRA = MixtureSynthesizer(3, CHANNELS, snr_db=20.0, random_state=2).generate(17).spectra.numpy()


def _known(count: int = 3, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Known spectra with channels that are exactly 0."""
    values = np.random.default_rng(seed).random((count, CHANNELS)) - 0.3
    return (np.maximum(values, 0) * scale).astype(np.float32)


def _quick(**options: Any) -> EBgMCR:
    settings: dict[str, Any] = {"recipe": RECIPE, "max_epoch": 8, "learning_rate": 2e-2, "batch_size": 4, **options}
    return EBgMCR(settings.pop("pool_size", POOL), **settings)


def _raw(estimator: EBgMCR) -> np.ndarray:
    return estimator.model_.vanilla_components.detach().numpy()


def _directions(components: np.ndarray) -> np.ndarray:
    return components / np.linalg.norm(components, axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 3e5])
@pytest.mark.parametrize("norm", [None, 1, 2, 3])
def test_the_model_starts_with_the_components_given(norm: int | None, scale: float) -> None:
    given = _known(scale=scale)
    model = UnmixingModel(POOL, CHANNELS, sparse_component=False, component_norm=norm)
    drawn = model.components().detach().clone()
    known_components.place(model, known_components.KnownComponents(given, np.array([1])))
    start = model.components().detach().numpy()
    expected = given if norm is None else given / np.linalg.norm(given, ord=norm, axis=1, keepdims=True)
    assert start[:3] == pytest.approx(expected, rel=1e-6, abs=2e-7 * float(expected.max()))
    assert torch.equal(model.components()[3:], drawn[3:])


def test_known_components_are_as_large_as_random_ones_by_an_exact_factor() -> None:
    given = _known(scale=1e4)
    model = UnmixingModel(POOL, CHANNELS, sparse_component=False, component_norm=2)
    known_components.place(model, known_components.KnownComponents(given, np.arange(3)))
    raw = model.vanilla_components.detach().numpy()[:3]
    factors = raw[given > 0] / given[given > 0]
    assert (np.frexp(factors)[0] == 0.5).all(), "powers of two"
    rms = np.sqrt((raw**2).mean(axis=1))
    assert (np.abs(np.log2(rms / 0.1)) <= 0.501).all()


@pytest.mark.filterwarnings("ignore:No component was found")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("recipe", [RECIPE, "published"])
@pytest.mark.parametrize("norm", [2, None])
def test_fixed_rows_keep_every_bit_and_the_others_train(norm: int | None, recipe: Any, sparse: bool) -> None:
    given = _known()
    options: dict[str, Any] = {"component_norm": norm, "recipe": recipe, "sparse": sparse, "max_epoch": 4}
    estimator = _quick(**options).fit(SPECTRA, components=given, fixed=[2, 0])
    raw = _raw(estimator)
    for row in (0, 2):
        factor = raw[row].max() / given[row].max()
        assert np.frexp(factor)[0] == 0.5
        assert (raw[row] / factor).tobytes() == given[row].tobytes()
    assert np.abs(_directions(np.abs(raw[1:2])) - _directions(given[1:2])).max() > 1e-3
    effective = estimator.model_.effective_components().detach().numpy()
    expected = given if norm is None else _directions(given)
    assert effective[[0, 2]] == pytest.approx(expected[[0, 2]], rel=1e-6)


def test_a_channel_that_is_zero_can_be_learned_unless_its_row_is_fixed() -> None:
    given = _known()
    estimator = _quick(max_epoch=12).fit(SPECTRA, components=given, fixed=[0])
    raw = np.abs(_raw(estimator))
    assert (given == 0).any(axis=1).all()
    assert (raw[0][given[0] == 0] == 0).all()
    assert (raw[1:3][given[1:3] == 0] > 1e-3).all()


@pytest.mark.slow
def test_a_mask_row_numbers_and_other_containers_say_the_same() -> None:
    given = _known()
    fits = [
        _quick().fit(SPECTRA, components=components, fixed=fixed)
        for components, fixed in [
            (given, [True, False, True]),
            (torch.from_numpy(given), np.array([0, 2])),
            (given.astype(np.float64).tolist(), (2, 0, 2)),
        ]
    ]
    assert _raw(fits[0]).tobytes() == _raw(fits[1]).tobytes() == _raw(fits[2]).tobytes()
    assert fits[0].history_ == fits[1].history_ == fits[2].history_
    seeded = [_quick().fit(SPECTRA, components=given, fixed=fixed).history_ for fixed in (None, [], [False] * 3)]
    assert seeded[0] == seeded[1] == seeded[2] != fits[0].history_


@pytest.mark.slow
def test_components_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "known.npy", _known())
    from_file = _quick().fit(SPECTRA, components=tmp_path / "known.npy", fixed=[0])
    assert from_file.history_ == _quick().fit(SPECTRA, components=_known(), fixed=[0]).history_


def test_a_pool_of_fixed_components_only() -> None:
    synthesizer = MixtureSynthesizer(3, CHANNELS, snr_db=40.0, random_state=5)
    spectra = synthesizer.generate(24).spectra.numpy()
    scores = []
    for components in (synthesizer.components.numpy(), _known(seed=7)):
        estimator = _quick(pool_size=3, max_epoch=60, component_norm=None)
        estimator.fit(spectra, components=components, fixed=[0, 1, 2])
        assert not estimator.model_.learnable_component
        assert estimator.ST_opt_.tobytes() == components[estimator.component_ids_].tobytes()
        scores.append(estimator.score(spectra))
    assert scores[0] > scores[1] + 0.2, "true components describe the spectra better than any others"


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 5])
def test_an_interrupted_fit_goes_on_with_equal_bits(stop_at: int, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.epoch == stop_at:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"components": _known(), "fixed": [0, 2]}
    whole = _quick().fit(SPECTRA, **given)
    with pytest.raises(KeyboardInterrupt):
        _quick().fit(SPECTRA, **given, callback=interrupt, checkpoint_dir=tmp_path)
    others: list[tuple[dict[str, Any], str]] = [
        ({"components": _known(seed=1), "fixed": [0, 2]}, "components"),
        ({"components": _known(), "fixed": [0]}, "fixed"),
        ({}, "components"),
    ]
    for other, name in others:
        with pytest.raises(ValueError, match=f"{name} (was|changed)"):
            _quick().fit(SPECTRA, **other, checkpoint_dir=tmp_path)
    resumed = _quick().fit(SPECTRA, **given, checkpoint_dir=tmp_path)
    assert _raw(resumed).tobytes() == _raw(whole).tobytes()
    assert resumed.history_ == whole.history_


def test_a_saved_estimator_keeps_its_known_components(tmp_path: Path) -> None:
    estimator = _quick(pool_size=3).fit(SPECTRA, components=_known(), fixed=[True] * 3)
    estimator.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert _raw(loaded).tobytes() == _raw(estimator).tobytes()
    assert np.array_equal(loaded.transform(SPECTRA), estimator.transform(SPECTRA))


def _with(row: int, column: int, value: float) -> np.ndarray:
    changed = _known().astype(np.float64)
    changed[row, column] = value
    return changed


@pytest.mark.parametrize(
    ("components", "fixed", "message"),
    [
        (None, [0], "`fixed` says .* needs `components`"),
        (np.ones((POOL + 1, CHANNELS)), None, r"`components` must be of at most 7 rows .* got shape \(8, 13\)"),
        (np.ones((2, CHANNELS - 1)), None, r"`components` must be .* 13 columns"),
        (np.ones(CHANNELS), None, "`components` must be a table"),
        (_with(1, 4, np.nan), None, "`components` has 1 value that is not finite .* spectrum 1, band 4"),
        (_with(2, 3, -0.25), None, "`components` must be non-negative.* got -0.25 in row 2, column 3"),
        (_known() * np.array([[1], [0], [1]]), None, "`components` must be other than zero.* row 1"),
        (_known(), [3], "`fixed` must be a mask of 3 booleans or a list of row numbers .* from 0 to 2"),
        (_known(), [-1], "`fixed` must be"),
        (_known(), [True, False], "`fixed` must be"),
        (_known(), True, "`fixed` must be .* got True"),
        (_known(), 0, "`fixed` must be"),
        (_known(), [0.5], "`fixed` must be"),
        (_known(), ["glucose"], "`fixed` must be"),
        (_known(), [[0], [1, 2]], "`fixed` must be"),
    ],
)
def test_what_cannot_be_known_is_refused(components: Any, fixed: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _quick().fit(SPECTRA, components=components, fixed=fixed)
    assert isinstance(caught.value, DataError) or str(caught.value).count(". ") == 0


@pytest.mark.filterwarnings("ignore:No component was found")
def test_negative_components_are_taken_where_components_may_be_negative() -> None:
    given = _with(0, 0, -0.5).astype(np.float32)
    estimator = _quick(non_negative=False, component_norm=None, max_epoch=2).fit(SPECTRA, components=given, fixed=[0])
    assert _raw(estimator)[0].tobytes() == given[0].tobytes()
