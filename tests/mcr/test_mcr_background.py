"""The background: a component that is the same in all bands, fixed and not counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.recipes import corrected
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.synthesize import Mixtures, MixtureSynthesizer

POOL, BANDS, LEVEL = 12, 80, 0.5
RECIPE = dataclasses.replace(corrected, hidden_size_extension=1, hidden_layers=1)


def _mixtures() -> Mixtures:
    """Components with bands at zero, as peaks have them."""
    return MixtureSynthesizer(3, BANDS, max_mixing=3, snr_db=30.0, sparsity=0.5, random_state=4).generate(24)


def _fitted(spectra: np.ndarray, **options: Any) -> EBgMCR:
    settings: dict[str, Any] = {"recipe": RECIPE, "max_epoch": 40, "learning_rate": 1e-2, "background": True, **options}
    return EBgMCR(settings.pop("pool_size", POOL), **settings).fit(spectra)


@pytest.fixture(scope="module")
def spectra() -> np.ndarray:
    noise = 0.05 * np.random.default_rng(5).normal(size=(24, BANDS))
    return (_mixtures().spectra.numpy() + LEVEL + noise).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(spectra: np.ndarray) -> EBgMCR:
    return _fitted(spectra)


def test_an_offset_is_found_and_not_counted(fitted: EBgMCR, spectra: np.ndarray) -> None:
    assert fitted.n_components_ == 3
    assert fitted.background_row_ == 3
    assert fitted.component_ids_[3] == fitted.model_.num_components - 1
    assert np.unique(fitted.components_[3]).size == 1
    assert fitted.C_opt_.shape == (24, 4)
    assert fitted.C_opt_[:, 3] * fitted.components_[3, 0] == pytest.approx(LEVEL, abs=0.25)
    assert match_components(fitted.components_[:3], _mixtures().components.numpy()).cosine.min() > 0.99
    found = fitted.count_evidence_
    assert found is not None
    assert found["count"] == 3
    (chosen,) = (row for row in found["path"] if row["chosen"])
    assert chosen["count"] == 3
    assert fitted.chosen_reason_.startswith("3 components")
    assert not any(f" {fitted.component_ids_[3]}" in sentence for sentence in found["cautions"])
    assert fitted.inverse_transform(fitted.transform(spectra)).shape == spectra.shape
    assert len(fitted.get_feature_names_out()) == 4
    assert fitted.score(spectra) > 0.98


@pytest.mark.slow
def test_without_an_option_there_is_no_background(spectra: np.ndarray) -> None:
    plain = _fitted(spectra, background=False, prefer="first")
    assert plain.background_row_ is None
    assert plain.n_components_ == len(plain.components_)
    shifted = match_components(plain.components_, _mixtures().components.numpy()).cosine.min()
    assert shifted < 0.99


@pytest.mark.slow
def test_a_background_is_saved_and_stays_beside_known_components(
    fitted: EBgMCR, spectra: np.ndarray, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert loaded.background_row_ == 3
    assert loaded.n_components_ == 3
    assert loaded.transform(spectra).tobytes() == fitted.transform(spectra).tobytes()
    given = _mixtures().components.numpy()
    known = EBgMCR(4, recipe=RECIPE, background=True, max_epoch=5).fit(spectra, components=given, fixed=[0, 1, 2])
    assert known.component_ids_.tolist() == [0, 1, 2, 3]
    assert known.n_components_ == 3
    with pytest.raises(ValueError, match="at most 2 rows"):
        EBgMCR(3, recipe=RECIPE, background=True, max_epoch=5).fit(spectra, components=given)
    with pytest.raises(ValueError, match="pool_size"):
        EBgMCR(1, background=True).fit(spectra)


def test_the_sparse_form_has_one_too(spectra: np.ndarray) -> None:
    estimator = _fitted(spectra, sparse=True)
    if estimator.background_row_ is not None:
        assert (estimator.components_[estimator.background_row_] > 0).all()
    assert estimator.n_components_ >= 3


def test_what_bands_share_moves_without_changing_the_mixture() -> None:
    generator = np.random.default_rng(6)
    shapes = generator.random((2, 50)) * (generator.random((2, 50)) > 0.3) + 0.4
    amounts = generator.uniform(1e4, 2e4, (9, 2))
    refinement = Refinement(amounts @ shapes, 1.0, 1.0, fixed=(7,), background=7)
    start = Factors(amounts, shapes, np.array([0, 3])).at_unit_norm()
    found = refinement.levelled(start)
    assert found.ids.tolist() == [0, 3, 7]
    assert found.concentrations @ found.components == pytest.approx(amounts @ shapes, rel=1e-3)
    assert found.components[:2].min() == 0.0
    assert found.concentrations[:, 2] * found.components[2, 0] == pytest.approx(0.4 * amounts.sum(1), rel=1e-2)
    assert Refinement(amounts @ shapes, 1.0, 1.0).levelled(start) is start
