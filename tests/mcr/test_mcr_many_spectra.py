"""Fits of more spectra than are searched: a sample, those that are described badly, and all of them in the end."""

from __future__ import annotations

import numpy as np
import pytest

from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components
from spectrafuse.mcr.noise import noise_level, noise_of_rows, row_blocks, singular_values, squares
from spectrafuse.mcr.refinement import many_spectra
from spectrafuse.mcr.synthesize import MixtureSynthesizer
from spectrafuse.random import RandomStream

COUNT, BANDS, RARE = 1500, 40, 5


@pytest.fixture(autouse=True)
def _few_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_spectra, "MOST_SEARCHED", 400)
    monkeypatch.setattr(many_spectra, "_SAMPLE", 150)
    monkeypatch.setattr("spectrafuse.mcr.inputs._BLOCK_ROWS", 256)


def _mixtures(rare: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Four components; with `rare` a fifth, in a few spectra that a sample is likely to miss."""
    synthesizer = MixtureSynthesizer(5, BANDS, max_mixing=3, random_state=3)
    drawn = synthesizer.generate(COUNT)
    concentrations, components = drawn.concentrations.numpy(), drawn.components.numpy()
    concentrations[:, 4] = 0
    missed = np.setdiff1d(np.arange(COUNT), many_spectra.sample(COUNT, RandomStream(0)))
    if rare:
        concentrations[missed[:RARE], 4] = 5
    clean = concentrations @ components
    level = np.sqrt(np.square(clean).mean(1, keepdims=True) / 10**2.5)
    spectra = clean + level * np.random.default_rng(4).normal(size=clean.shape)
    return spectra.astype(np.float32), concentrations, components


@pytest.mark.slow
@pytest.mark.parametrize("rare", [False, True])
def test_all_components_are_found(rare: bool) -> None:
    spectra, concentrations, components = _mixtures(rare)
    fitted = EBgMCR().fit(spectra)
    count = 4 + rare
    assert fitted.n_components_ == count
    match = match_components(fitted.components_, components)
    assert match.cosine.min() > 0.98
    assert fitted.C_opt_.shape == (COUNT, count)
    for found, true in zip(match.found, match.true, strict=True):
        assert np.corrcoef(fitted.C_opt_[:, found], concentrations[:, true])[0, 1] > 0.99
    searched = 150 + RARE if rare else 150
    assert f"worked on {searched} of the {COUNT} spectra" in fitted.stop_reason_
    assert fitted.transform(spectra).tobytes() == fitted.C_opt_.tobytes()
    assert fitted.score(spectra) == pytest.approx(fitted._result.record.r2, abs=1e-5)


def test_a_fixed_component_keeps_its_shape() -> None:
    spectra, _, components = _mixtures(False)
    fitted = EBgMCR().fit(spectra, components=components[:2], fixed=[1])
    assert fitted.n_components_ == 4
    assert fitted.components_[1] == pytest.approx(components[1], abs=1e-6)


def test_blocks_give_what_the_whole_table_gives() -> None:
    spectra, _, _ = _mixtures(False)
    wide = spectra.astype(np.float64)
    blocks = list(row_blocks(spectra))
    assert len(blocks) == 6
    assert np.vstack([block for _, block in blocks]).tobytes() == wide.tobytes()
    assert singular_values(spectra)[::-1] == pytest.approx(np.linalg.svd(wide, compute_uv=False), rel=1e-6)
    assert squares(spectra) == pytest.approx((np.square(wide).sum(), np.square(wide - wide.mean(0)).sum()))
    level = noise_level(spectra)
    assert level.nmse == pytest.approx(10**-2.5, rel=0.1)
    size = np.sqrt(np.square(wide).mean(1))
    signal = size > 0.1
    assert noise_of_rows(spectra, level)[signal] == pytest.approx(size[signal] * np.sqrt(level.nmse))


def test_a_file_that_is_mapped_to_memory(tmp_path: object) -> None:
    spectra, _, _ = _mixtures(False)
    path = f"{tmp_path}/spectra.npy"
    np.save(path, spectra)
    mapped = EBgMCR().fit(np.load(path, mmap_mode="r"))
    assert mapped.components_.tobytes() == EBgMCR().fit(spectra).components_.tobytes()
