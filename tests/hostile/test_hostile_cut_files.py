"""Scenes and tables that another program cuts short while they are read: one sentence, and never a killed process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command_line import SEGMENT, UNMIX, fails_with, run
from helpers.cut_files import cut_short_at
from spectrafuse.dgc import DeepGlobalClustering
from spectrafuse.io.errors import DataError
from spectrafuse.mcr import inputs
from spectrafuse.mcr.estimator import EBgMCR

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pictures_left_empty")]


@pytest.fixture
def large_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Spectra that stay in their file."""
    monkeypatch.setattr(inputs, "MAPPED_BYTES", 1000)
    peaks = np.exp(-((np.arange(12) - np.array([[3], [8]])) ** 2) / 4)
    np.save(tmp_path / "large.npy", (np.random.default_rng(0).random((40, 2)) @ peaks).astype(np.float32))
    return tmp_path / "large.npy"


@pytest.fixture
def cube(scene: Path, tmp_path: Path) -> Path:
    np.save(tmp_path / "scene.npy", np.load(scene)["cube"].transpose(2, 0, 1))
    return tmp_path / "scene.npy"


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_a_scene_that_is_cut_while_segment_reads_it(
    share: float, cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["segment", cube, *SEGMENT, "--max-epoch", 1, "--layout", "chw"]
    whole = shutil.copy(cube, tmp_path / "whole")
    with monkeypatch.context() as counting:
        count = cut_short_at(counting, cube, -1)
        assert run(*words, "-o", tmp_path / "first").exit_code == 0
    with monkeypatch.context() as cutting:
        cut_short_at(cutting, cube, 1 + round(share * (count[0] - 1)))
        fails_with(run(*words, "-o", tmp_path / "out"), "scene.npy", "it has changed since it was opened")
    # What was trained is there for the file as it was.
    assert not (tmp_path / "out" / "run.json").exists()
    shutil.copy(whole, cube)
    again = run(*words, "-o", tmp_path / "out")
    assert again.exit_code == 0, again.output
    labels = [np.load(tmp_path / name / "labels.npy") for name in ("first", "out")]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("kind", ["path", "map"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_table_that_is_cut_while_it_is_fitted(
    share: float, kind: str, large_table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given() -> Any:
        return large_table if kind == "path" else np.load(large_table, mmap_mode="r")

    with monkeypatch.context() as counting:
        count = cut_short_at(counting, large_table, -1)
        EBgMCR(pool_size=5).fit(given())
    opened = given()
    # A map is compared with its file at its ends first.
    first = 3 if kind == "map" else 1
    cut_short_at(monkeypatch, large_table, first + round(share * (count[0] - first)))
    with pytest.raises(DataError, match="it has changed since it was opened"):
        EBgMCR(pool_size=5).fit(opened)


def test_a_table_that_is_cut_while_unmix_reads_it(
    large_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short_at(monkeypatch, large_table, 1)
    fails_with(run("unmix", large_table, *UNMIX, "-o", tmp_path / "out"), "large.npy", "it has changed")


def test_a_scene_that_is_cut_while_a_model_reads_it(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DeepGlobalClustering(n_clusters=2, crop_size=8, batch_size=2, max_epoch=1, device="cpu")
    model.fit(cube, layout="chw")
    cut_short_at(monkeypatch, cube, 3)
    with pytest.raises(DataError, match="it has changed since it was opened"):
        model.predict(cube, layout="chw")
