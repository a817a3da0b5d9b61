"""Segmentation of a scene in a file: time, and the largest memory of the whole process.

`python benchmarks/bench_scene_inference.py [--rows 1024] [--columns 1024] [--bands 301] [--threads N] [--json FILE]`

The scene is made in a temporary folder, float32, contiguous HDF5 as MATLAB 7.3 lays it out. A fresh process opens it,
takes its statistics and predicts; its peak is what the kernel counted (`VmHWM`). In turns with the predictions the
encoder alone runs on data in memory, so that a busy moment of the machine hits both; the ratio is also that of the
processors' time. Another process compares the labels of a part of the scene with a run over that part as a whole.

As a part of `spectrafuse-bench run`, a smaller scene in memory is segmented by every implementation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse.benchmarks import measure

MODEL = {"embed_dim": 32, "n_clusters": 4}
WHOLE_SIDE, BANDS = 256, 301
# Rows the encoder alone is given at once; the fastest counts.
ENCODER_ROWS = (8, 16, 32, 64)


def write_scene(path: Path, bands: int, rows: int, columns: int) -> None:
    """A scene with smooth regions, light and noise, written band by band; MATLAB shows it as (rows, columns, bands)."""
    import h5py

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (-(-rows // 32), -(-columns // 32)))
    labels = np.kron(coarse, np.ones((32, 32), dtype=np.int64))[:rows, :columns]
    light = rng.uniform(0.7, 1.3, (rows, columns)).astype(np.float32)
    spectra = rng.uniform(0.2, 1.0, (4, bands)).astype(np.float32)
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("cube", (bands, columns, rows), dtype="f4")
        for band in range(bands):
            noise = 0.02 * rng.standard_normal((rows, columns), dtype=np.float32)
            stored[band] = (spectra[labels, band] * light + noise).T


def model_of(bands: int) -> Any:
    """A model with drawn weights."""
    from spectrafuse.dgc.model import SegmentationModel
    from spectrafuse.random import RandomStream

    return SegmentationModel(bands, **MODEL, stream=RandomStream(0)).eval()


def reset_peak() -> int:
    """Bytes the process holds now, from which on its peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return measure.peak_resident()


def predict(path: str, memory: int | None, out: str, rounds: int) -> dict[str, Any]:
    """Open, take the statistics, predict; in turns with it the encoder alone. Seconds, and the peak of the process."""
    import torch

    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.prediction.inference import DEFAULT_MEMORY, budget, label_map
    from spectrafuse.io.cubes import open_cube

    memory = DEFAULT_MEMORY if memory is None else memory
    start = time.perf_counter()
    scene = open_cube(path)
    opened = time.perf_counter()
    normalization = Normalization("unit+meanstd").fit(scene)
    fitted = time.perf_counter()
    model, before = model_of(scene.shape[0]), measure.peak_resident()
    rows = scene.shape[1]
    blocks = {min(n, rows): normalization.transform(scene.read_rows(0, min(n, rows)))[None] for n in ENCODER_ROWS}
    predictions, encodings, largest = [], [], 0
    for _ in range(rounds):
        # The blocks and what the encoder needs at once are no part of a prediction.
        held = reset_peak()
        predictions.append(_seconds(lambda: label_map(model, scene, normalization, memory=memory, file=out)))
        largest = max(largest, before + measure.peak_resident() - held)
        with torch.no_grad():
            alone = {n: _seconds(lambda block=block: model.encoder(block)) for n, block in blocks.items()}
        encodings += [[t * rows / n for t in seconds] for n, seconds in alone.items()]
    sizes = budget(model, scene.shape, memory, mapped=scene.mapped is not None)
    (wall, processor), (encoder_wall, encoder_processor) = map(_least, (predictions, encodings))
    return {
        "open_and_check_seconds": opened - start,
        "statistics_seconds": fitted - opened,
        "predict_seconds": wall,
        "predict_processor_seconds": processor,
        "encoder_alone_seconds": encoder_wall,
        "encoder_alone_processor_seconds": encoder_processor,
        "predict_over_encoder": wall / encoder_wall,
        "predict_over_encoder_processor": processor / encoder_processor,
        "peak_mb": largest / 2**20,
        "peak_before_predict_mb": before / 2**20,
        "max_memory_mb": memory / 2**20,
        "strip_rows": sizes.rows,
        "group_rows": sizes.group,
        "piece_pixels": sizes.pixels,
    }


def _seconds(call: Callable[[], object]) -> list[float]:
    """Wall-clock time, and time of the processors in this process."""
    begin = time.perf_counter(), time.process_time()
    call()
    return [time.perf_counter() - begin[0], time.process_time() - begin[1]]


def _least(measured: list[list[float]]) -> list[float]:
    return [min(column) for column in zip(*measured, strict=True)]


def unequal_labels(path: str) -> dict[str, int]:
    """How many labels of a part of the scene differ between strips and a run over that part as a whole."""
    import torch

    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.prediction.inference import predict_labels
    from spectrafuse.io.cubes import open_cube

    scene = open_cube(path)
    model = model_of(scene.shape[0])
    part = scene[:, :WHOLE_SIDE, :WHOLE_SIDE]
    fitted = Normalization("unit+meanstd").fit(part)
    with torch.no_grad():
        whole = model.labels(fitted.transform(part).unsqueeze(0))[0]
    strips = predict_labels(model, part, fitted, memory=1 << 26)
    return {"labels_unequal_to_whole": int((whole != strips).sum())}


def test_scene_inference(benchmark):
    import torch

    from spectrafuse import use_backend
    from spectrafuse.benchmarks import harness
    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.prediction.inference import predict_labels

    scene = torch.rand(BANDS, WHOLE_SIDE, WHOLE_SIDE, generator=torch.Generator().manual_seed(0)) + 0.1
    model, fitted = model_of(BANDS), Normalization("unit+meanstd").fit(scene)

    def predict_with(name: str) -> object:
        with use_backend(name):
            return predict_labels(model, scene, fitted)

    calls = {name: partial(predict_with, name) for name in ("auto", *harness.BASELINES)}
    found = harness.timed(measure.in_turns(calls, rounds=3), "auto")
    found["peak_memory_mb"] = measure.peak_memory(calls["auto"]) / 2**20
    harness.record(benchmark, calls["auto"], "scene inference", "auto", "paper", "forward", found)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--bands", type=int, default=BANDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--max-memory", type=int, help="bytes")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = str(Path(folder, "scene.mat"))
        write_scene(Path(path), asked.bands, asked.rows, asked.columns)
        out = str(Path(folder, "labels.npy"))
        found: dict[str, Any] = {"bands": asked.bands, "rows": asked.rows, "columns": asked.columns}
        predicting = f"predict({path!r}, {asked.max_memory}, {out!r}, {asked.rounds})"
        found |= measure.in_a_fresh_process(__file__, predicting, asked.threads)
        found |= measure.in_a_fresh_process(__file__, f"unequal_labels({path!r})", asked.threads)
    found |= measure.machine() | ({"threads": str(asked.threads)} if asked.threads else {})
    text = json.dumps(found, indent=2)
    print(text)
    if asked.json is not None:
        asked.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
