"""How often `spectrafuse segment` reads a scene that stays in its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command_line import run
from spectrafuse.io import cubes
from spectrafuse.io.mapped import MappedArray

BANDS, ROWS, COLUMNS = 5, 300, 280
MOST_PASSES = 6
"""Hash, check, statistics, prediction, and two for the clusters' spectra: their means come before their spread."""


class Reads:
    """Counts how often every stored number of a file is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts = np.zeros(BANDS * ROWS * COLUMNS, dtype=np.int64)
        pieces, sha256 = MappedArray.pieces, cubes.sha256

        def counted(array: MappedArray, index: Any, *sizes: int) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
            own = self.counts[(array.offset - self.offset) // array.dtype.itemsize :]
            steps = [step // array.dtype.itemsize * own.itemsize for step in array.strides]
            whole = np.lib.stride_tricks.as_strided(own, array.shape, steps)
            for place, part in pieces(array, index, *sizes):
                whole[index][place] += 1
                yield place, part

        def hashed(path: Any) -> str:
            self.counts += 1
            return sha256(path)

        monkeypatch.setattr(MappedArray, "pieces", counted)
        monkeypatch.setattr(cubes, "sha256", hashed)

    def passes(self) -> int:
        """Complete ones: training reads windows of the scene, and never all of them."""
        return int(self.counts.min())

    offset = 0


def written(folder: Path, kind: str) -> tuple[Path, Path, int]:
    """A scene and its labels in files, and where its numbers begin."""
    rng = np.random.default_rng(0)
    labels = np.zeros((ROWS, COLUMNS), dtype=np.int64)
    labels[:, COLUMNS // 2 :] = 1
    spectra = np.stack([np.linspace(1, 2, BANDS), np.linspace(2, 1, BANDS)])
    scene = (spectra[labels].transpose(2, 0, 1) + 0.05 * rng.standard_normal((BANDS, ROWS, COLUMNS))).astype("<f4")
    np.save(folder / "labels.npy", labels)
    if kind == "npy":
        np.save(folder / "scene.npy", scene)
        return folder / "scene.npy", folder / "labels.npy", (folder / "scene.npy").stat().st_size - scene.nbytes
    if kind == "no data":
        scene[:, :20, :30] = -1
    interleave, axes = ("bip", (1, 2, 0)) if kind == "no data" else (kind, {"bsq": (0, 1, 2), "bil": (1, 0, 2)}[kind])
    (folder / "scene.img").write_bytes(scene.transpose(axes).tobytes())
    (folder / "scene.hdr").write_text(
        f"ENVI\nsamples = {COLUMNS}\nlines = {ROWS}\nbands = {BANDS}\ndata type = 4\ninterleave = {interleave}\n"
        + ("data ignore value = -1\n" if kind == "no data" else "")
    )
    return folder / "scene.hdr", folder / "labels.npy", 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "bsq", "bil", "no data"])
def test_a_scene_is_read_in_few_passes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, labels, offset = written(tmp_path, kind)
    reads = Reads(monkeypatch)
    reads.offset = offset
    words = ["--n-clusters", 2, "--max-epoch", 1, "--device", "cpu", "--labels", labels]
    result = run("segment", scene, "-o", tmp_path / "out", *words, *(["--layout", "chw"] if kind == "npy" else []))
    assert result.exit_code == 0, result.output
    assert {"map.png", "spectra.png", "loss.png", "run.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert reads.passes() == MOST_PASSES
