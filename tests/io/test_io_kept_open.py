"""Files that stay open between reads, and how many of them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from spectrafuse import DeepGlobalClustering
from spectrafuse.io import kept_open, open_cube


def _open_files(folder: Path) -> int:
    links = (os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    return sum(link.startswith(f"{folder}/") for link in links)


def _scenes(folder: Path, count: int) -> list[Path]:
    paths = []
    for i in range(count):
        paths.append(folder / f"{i}.h5")
        values = np.random.default_rng(i).random((5, 24, 24)).astype(np.float32)
        with h5py.File(paths[-1], "w") as file:
            file.create_dataset("cube", data=values, chunks=(5, 8, 8))
    return paths


def test_a_fit_over_fifty_files_has_few_of_them_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrafuse.dgc.windows._MOST_NUMBERS", 1000)
    paths = _scenes(tmp_path, 50)
    counts: list[int] = []
    quick = {"embed_dim": 4, "crop_size": 8, "batch_size": 25, "max_epoch": 1, "reuse_iter": 1, "patience": 0}
    segmentation = DeepGlobalClustering(2, recipe="published", **quick).fit(  # type: ignore[arg-type]
        paths, layout="chw", callback=lambda progress: counts.append(_open_files(tmp_path))
    )
    assert counts
    assert 0 < max(counts) <= kept_open.MOST_OPEN
    assert {scene.source for scene in segmentation._scenes} == set(map(str, paths))


def test_threads_that_read_more_files_than_stay_open(tmp_path: Path) -> None:
    scenes = [open_cube(path, layout="chw") for path in _scenes(tmp_path, kept_open.MOST_OPEN + 3)]
    expected = [np.random.default_rng(i).random((5, 24, 24)).astype(np.float32) for i in range(len(scenes))]
    wrong: list[int] = []

    def read(start: int) -> None:
        for step in range(2 * len(scenes)):
            i = (start + step) % len(scenes)
            if not np.array_equal(scenes[i][:, 3:9], expected[i][:, 3:9]):
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert _open_files(tmp_path) <= kept_open.MOST_OPEN + len(threads)
    for scene in scenes:
        scene.close()
    assert _open_files(tmp_path) == 0
