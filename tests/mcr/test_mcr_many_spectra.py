"""Fits of more spectra than are searched: a sample, those that are described badly, and all of them in the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectrafuse.io.errors import DataError
from spectrafuse.mcr import inputs
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.inputs import MappedSpectra
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


@pytest.mark.parametrize("kind", ["map", "path", "float64", "writable"])
def test_a_large_file_stays_where_it_is(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAPPED_BYTES", 1000)
    spectra, _, _ = _mixtures(False)
    path = tmp_path / "spectra.npy"
    np.save(path, spectra.astype(np.float64 if kind == "float64" else np.float32))
    given = path if kind == "path" else np.load(path, mmap_mode="r+" if kind == "writable" else "r")
    assert isinstance(inputs.open_rows(given, zeros="check"), MappedSpectra)
    mapped, whole = EBgMCR().fit(given), EBgMCR().fit(spectra)
    assert mapped.components_.tobytes() == whole.components_.tobytes()
    assert mapped.C_opt_.tobytes() == whole.C_opt_.tobytes()
    assert mapped.C_opt_.dtype == np.float32
    concentrations = mapped.transform(given)
    assert concentrations.dtype == (np.float64 if kind == "float64" else np.float32)
    assert concentrations.astype(np.float32).tobytes() == whole.C_opt_.tobytes()
    assert mapped.score(given) == pytest.approx(whole.score(spectra), rel=1e-6)


def test_bands_of_unlike_noise_in_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAPPED_BYTES", 1000)
    drawn = MixtureSynthesizer(3, 120, random_state=5).generate(40).spectra.numpy()
    noise = np.where(np.arange(120) < 40, 0.4, 0.01) * np.random.default_rng(6).normal(size=drawn.shape)
    np.save(tmp_path / "spectra.npy", (drawn + noise).astype(np.float32))
    mapped, whole = (EBgMCR().fit(np.load(tmp_path / "spectra.npy", mmap_mode=mode)) for mode in ("r", None))
    assert mapped.model_.gates.weights is not None
    assert mapped.components_.tobytes() == whole.components_.tobytes()
    assert mapped.C_opt_.tobytes() == whole.C_opt_.tobytes()


def test_a_large_file_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAPPED_BYTES", 1000)
    path, spectra = tmp_path / "spectra.npy", np.ones((600, 8), np.float32)
    spectra[300, 5] = spectra[500, 6] = np.inf
    np.save(path, spectra)
    with pytest.raises(DataError, match=r"2 values that are not finite .*, the first at spectrum 300, band 5"):
        EBgMCR().fit(path)
    spectra[:] = 0
    np.save(path, spectra)
    with pytest.raises(DataError, match="`X` is zero everywhere"):
        EBgMCR().fit(np.load(path, mmap_mode="r"))
    # Rows that do not lie side by side, and small tables, are read as a whole.
    np.save(path, np.asfortranarray(np.ones((600, 8))))
    assert isinstance(inputs.open_rows(np.load(path, mmap_mode="r"), zeros="check"), np.ndarray)


@pytest.mark.slow
def test_pages_of_a_large_file_are_given_back(tmp_path: Path) -> None:
    path, megabytes = tmp_path / "spectra.npy", 800
    np.lib.format.open_memmap(path, "w+", dtype=np.float64, shape=(megabytes * 2**20 // 8 // 200, 200)).flush()
    program = f"""
import resource
import numpy as np
from spectrafuse.mcr.inputs import open_rows
from spectrafuse.mcr.noise import noise_of_rows, NoiseLevel, squares
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
spectra = open_rows({str(path)!r}, zeros="accept")
squares(spectra), noise_of_rows(spectra, NoiseLevel(0.1, 0.1, "given")), spectra[::500]
print((peak() - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < megabytes // 4
