"""How time and memory grow with a scene: prediction and training on squares of 32 to 1024 pixels.

`python benchmarks/scaling.py [--sides 32 64 ...] [--bands 301] [--threads N]`

Writes `results/scaling/rows.jsonl`, a row a size with the machine, versions and commit, and `scaling.png`. Every size
is a contiguous HDF5 file in a temporary folder and is measured in a process of its own: seconds of prediction after the
statistics pass (least of the rounds), seconds of a training step, and by how much the peak of the process in each
exceeds what it held with torch and the model loaded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_scene_inference as scenes
import measure

RESULTS = Path(__file__).parent / "results" / "scaling"
SIDES = (32, 64, 128, 256, 512, 1024)
STEPS = 6


def predicting(path: str, out: str, rounds: int) -> dict[str, float]:
    """Seconds of a prediction, and the bytes by which it raises the peak of the process."""
    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.prediction.inference import label_map
    from spectrafuse.io.cubes import open_cube

    with open_cube(path) as scene:
        model = scenes.model_of(scene.shape[0])
        fitted = Normalization("unit+meanstd").fit(scene)
        before, seconds = scenes.reset_peak(), []
        for _ in range(rounds):
            begin = time.perf_counter()
            label_map(model, scene, fitted, file=out)
            seconds.append(time.perf_counter() - begin)
    return {"predict_seconds": min(seconds), "predict_bytes": measure.peak_resident() - before}


def training(path: str) -> dict[str, float]:
    """Seconds of a training step on crops read from the file, and the bytes by which training raises the peak."""
    import torch

    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.recipes import resolve
    from spectrafuse.dgc.training.trainer import Trainer
    from spectrafuse.dgc.windows import for_training
    from spectrafuse.io.cubes import open_cube
    from spectrafuse.random import RandomStream

    recipe = resolve("corrected", max_epoch=2, reuse_iter=STEPS)
    with open_cube(path) as scene:
        model = scenes.model_of(scene.shape[0])
        before = scenes.reset_peak()
        given = for_training([scene], Normalization("signal+meanstd"), torch.device("cpu"))
        trainer = Trainer(model, given, recipe, RandomStream(0), crop_size=64, batch_size=4)
        ends = [0.0]
        trainer.run(callback=lambda progress: ends.append(time.perf_counter()))
    # The first epoch also looks for the first centres and warms up.
    return {"step_seconds": (ends[2] - ends[1]) / STEPS, "train_bytes": measure.peak_resident() - before}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against pixels, on logarithmic axes."""
    from matplotlib.figure import Figure

    pixels = [row["pixels"] for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(pixels, [row["predict_seconds"] for row in rows], "o-", label="prediction")
    last = rows[-1]
    linear = [last["predict_seconds"] * n / last["pixels"] for n in pixels]
    left.loglog(pixels, linear, "--", color="grey", label="linear in pixels")
    left.loglog(pixels, [row["step_seconds"] for row in rows], "s-", label="training step")
    left.set(xlabel="pixels", ylabel="seconds", title="Time")
    right.semilogx(pixels, [row["predict_bytes"] / 2**20 for row in rows], "o-", label="prediction")
    right.semilogx(pixels, [row["train_bytes"] / 2**20 for row in rows], "s-", label="training")
    right.semilogx(pixels, [row["file_bytes"] / 2**20 for row in rows], "--", color="grey", label="the file")
    right.set(xlabel="pixels", ylabel="MiB above the start", title="Peak memory")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every size, write the figures and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--bands", type=int, default=301)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows = []
    for side in asked.sides:
        with tempfile.TemporaryDirectory() as folder:
            path, out = Path(folder, "scene.mat"), Path(folder, "labels.npy")
            scenes.write_scene(path, asked.bands, side, side)
            rounds = 1 if side >= 1024 else 3
            row: dict[str, Any] = {"side": side, "pixels": side * side, "file_bytes": path.stat().st_size}
            for call in (f"predicting({str(path)!r}, {str(out)!r}, {rounds})", f"training({str(path)!r})"):
                row |= measure.in_a_fresh_process(__file__, call, asked.threads)
        rows.append(row)
        print(row, flush=True)
    asked.output.mkdir(parents=True, exist_ok=True)
    machine = measure.machine() | ({"threads": str(asked.threads)} if asked.threads else {})
    lines = [json.dumps(row | {"bands": asked.bands} | machine) for row in rows]
    (asked.output / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(rows, asked.output / "scaling.png")


if __name__ == "__main__":
    main()
