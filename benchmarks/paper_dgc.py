"""Does DGC find the materials of a scene, whatever the seed? One default, no labels in the loop.

`python benchmarks/paper_dgc.py [--quick] [--only GROUP ...] [--scenes NAME ...] [--data FOLDER] [--seeds N]`

Each run is a row in `results/dgc/runs.jsonl`, with seed, versions and machine; a run that is there already is not
repeated, so a run of this program can be stopped and continued. `--quick` takes two seeds. `--report` writes tables and
pictures from the rows alone. Samson and the wheat grains are read from `--data` (folders `samson` and
`wheat_grains_envi`), which is not part of this package; Indian Pines comes with the package tensorly. Scenes that are
made differ from seed to seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import history
import measure
from paper_dgc_scenes import MADE, SCENES, Scene, load
from spectrafuse import DeepGlobalClustering, RandomStream
from spectrafuse.dgc import metrics
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction.inference import predict_labels
from spectrafuse.dgc.recipes import AUTO, corrected, resolve
from spectrafuse.dgc.training import prototypes
from spectrafuse.dgc.training.choice import resolve_normalization
from spectrafuse.dgc.training.initialise import new_model
from spectrafuse.dgc.training.trainer import Trainer
from spectrafuse.io.cubes import Cube

FOLDER = Path(__file__).parent / "results" / "dgc"
GROUPS = ("yardstick", "ablation", "labels")
QUICK_SECONDS, QUICK_SEEDS = 1200.0, 2
SEEDS = {"yardstick": 10, "ablation": 5, "labels": 5}
# As long as the corrected recipe, on crops of the same size.
_LENGTH = {"max_epoch": corrected.max_epoch, "crop_size": corrected.crop_size}
# From a random start the way is longer.
_AT_RANDOM = {"spectral_start": False, "learning_rate": 2e-3}
_NO_LABELS = {**_AT_RANDOM, "spectral_labels": False, "uniform": 0.0, "balance": 1.0}
# What the spectra say pixel by pixel.
SINGLE_PIXELS = ("k-means", "prototypes alone")
# The estimator's default: labels are smoothed, and no network is trained.
SMOOTHED = "default"
SEEDS_OF_SINGLE_PIXELS = 3
SEEDS_MADE = 5
ABLATION: dict[str, tuple[str, dict[str, Any]]] = {
    "published": ("published", _LENGTH),
    "published, overlap aligned": ("published", {**_LENGTH, "aligned": True}),
    "published, balance signed": ("published", {**_LENGTH, "maximise_balance": True, "uniform": 0.0}),
    "published, centres paired": ("published", {**_LENGTH, "memory_order_sums": False}),
    "published, labels from spectra": ("published", {**_LENGTH, "spectral_labels": True}),
    "corrected, no labels": ("corrected", _NO_LABELS),
    "corrected, spectral term, no labels": ("corrected", {**_NO_LABELS, "spectral": 20.0}),
    "corrected, encoder starts at random": ("corrected", _AT_RANDOM),
    "corrected, bandwidth learned from 1": ("corrected", {"bandwidth": 1.0}),
    "corrected": ("corrected", {}),
}
"""Recipes and their changes. Without labels nothing but the balance keeps clusters apart."""
LABELS: dict[str, dict[str, Any]] = {
    "prototypes of single pixels": {"_NEIGHBOURS": 1},
    "prototypes of mixed pixels too": {"_SMOOTH_SHARE": 1.0},
    "prototypes of one start": {"_STARTS": 1},
}
"""Constants of `spectrafuse.dgc.training.prototypes` that are changed under the corrected recipe."""
LABEL_SCENES = ("samson", "indian_pines", "made_noisy")


def scores(maps: list[Any], scene: Scene) -> dict[str, float]:
    """Mean IoU, accuracy and NMI against the known pixels, and the clusters that occur."""
    found = metrics.evaluate(maps, scene.labels)
    clusters = {int(k) for labels in maps for k in np.unique(np.asarray(labels))}
    return {**{key: found[key] for key in ("mean_iou", "accuracy", "nmi")}, "clusters": len(clusters)}


def train(scene: Scene, recipe_name: str, changes: dict[str, Any], seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Row and last label maps of a run with the estimator's defaults, scored after every epoch."""
    recipe = resolve(recipe_name, **changes)
    method, _ = resolve_normalization(
        recipe.normalization, [Cube(cube) for cube in scene.cubes], scene.n_clusters, seed
    )
    fitted = [Normalization(method).fit(cube) for cube in scene.cubes]
    normalised = [how.transform(cube) for how, cube in zip(fitted, scene.cubes, strict=True)]
    stream, curve = RandomStream(seed), []
    model = new_model(recipe, len(normalised[0]), scene.n_clusters, stream)
    trainer = Trainer(model, normalised, recipe, stream)

    def score(progress: object) -> None:
        # What is watched is the middle of a scene, and the whole of most. Early and late maps are kept for the picture.
        nonlocal scoring
        before = clocks()
        maps = [labels.long() for labels in trainer.watch.previous or ()]
        if [labels.shape for labels in maps] != [cube.shape[1:] for cube in normalised]:
            maps = [predict_labels(model, cube, how) for cube, how in zip(scene.cubes, fitted, strict=True)]
        curve.append(scores(maps, scene))
        kept.append(maps[0].numpy().astype(np.int8))
        scoring = scoring + clocks() - before

    def clocks() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    kept: list[np.ndarray] = []
    begin, scoring = clocks(), np.zeros(2)
    trainer.run(callback=score)
    seconds, processor_seconds = (clocks() - begin - scoring).tolist()
    row = {
        **curve[-1],
        "best_mean_iou": max(point["mean_iou"] for point in curve),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "stability": trainer.history[-1].get("nmi"),
        "curve": [{key: round(value, 4) for key, value in point.items()} for point in curve],
    }
    return row, kept


def smoothed(scene: Scene, seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Row and label maps of the default."""
    cubes = [Cube(cube) for cube in scene.cubes]
    begin = time.perf_counter(), time.process_time()
    maps = DeepGlobalClustering(scene.n_clusters, random_state=seed).fit_predict(cubes)
    seconds, processor_seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
    row = {**scores(maps, scene), "seconds": seconds, "processor_seconds": processor_seconds}
    return row, [maps[0].astype(np.int8)]


def single_pixels(scene: Scene, method: str, seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Row and label maps of k-means on the normalised spectra, or of the nearest spectral prototype."""
    normalization = Normalization("unit+meanstd")
    if method != "k-means":
        cubes = [Cube(cube) for cube in scene.cubes]
        normalization = Normalization(resolve_normalization(AUTO, cubes, scene.n_clusters, seed)[0])
    cubes = [normalization.fit(cube).transform(cube) for cube in scene.cubes]
    begin = time.perf_counter()
    if method == "k-means":
        from sklearn.cluster import KMeans

        points = torch.cat([cube.flatten(1).t() for cube in cubes]).numpy()
        labels = torch.from_numpy(KMeans(scene.n_clusters, n_init=10, random_state=seed).fit_predict(points))
        parts = labels.long().split([cube[0].numel() for cube in cubes])
        maps = [part.reshape(cube.shape[1:]) for part, cube in zip(parts, cubes, strict=True)]
    else:
        found = prototypes.find_prototypes(cubes, scene.n_clusters, RandomStream(seed), prototypes.FOR_PIXELS)
        maps = [found.maps(cube.unsqueeze(0))[0] for cube in cubes]
    return {**scores(maps, scene), "seconds": time.perf_counter() - begin}, [maps[0].numpy().astype(np.int8)]


def run(scene: Scene, method: str, seed: int) -> tuple[dict[str, Any], list[Any]]:
    """Row and label maps of any method."""
    if method in SINGLE_PIXELS:
        return single_pixels(scene, method, seed)
    if method == SMOOTHED:
        return smoothed(scene, seed)
    if method in LABELS:
        with mock.patch.multiple(prototypes, **LABELS[method]):
            return train(scene, *ABLATION["corrected"], seed)
    return train(scene, *ABLATION[method], seed)


def runs(groups: tuple[str, ...], names: tuple[str, ...], seeds: int | None) -> Iterator[tuple[str, str, str, int]]:
    """Group, scene, method and seed of all runs, seed by seed."""
    for group in groups:
        methods, scenes = {
            "yardstick": ((*SINGLE_PIXELS, SMOOTHED, "corrected"), SCENES),
            "ablation": (tuple(ABLATION), ("samson",)),
            "labels": (tuple(LABELS), LABEL_SCENES),
        }[group]
        scenes = tuple(name for name in scenes if name in names)
        for seed in range(SEEDS[group] if seeds is None else min(seeds, SEEDS[group])):
            for name, method in itertools.product(scenes, methods):
                # A made scene is another one with every seed.
                most = SEEDS_MADE if name in MADE else SEEDS_OF_SINGLE_PIXELS if method in SINGLE_PIXELS else seed + 1
                if seed < most:
                    yield group, name, method, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    parser.add_argument("--data", type=Path, help="folder that holds samson/ and wheat_grains_envi/")
    parser.add_argument("--seeds", type=int, help="at most so many of each group's")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--report", action="store_true", help="tables and pictures only")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    file = arguments.output / "runs.jsonl"
    done = {(row["scene"], row["method"], row["seed"]) for row in history.read(file)} if file.is_file() else set()
    loaded: tuple[str, int] | None = None
    begin = time.perf_counter()
    seeds = QUICK_SEEDS if arguments.quick else arguments.seeds
    for group, name, method, seed in (
        () if arguments.report else runs(tuple(arguments.only), tuple(arguments.scenes), seeds)
    ):
        if (name, method, seed) in done:
            continue
        if arguments.quick and time.perf_counter() - begin > QUICK_SECONDS:
            print("The time for --quick is over; the same command goes on.", file=sys.stderr)
            break
        key = name, seed if name in MADE else 0
        if key != loaded:
            scene, loaded = load(name, arguments.data, seed), key
        values, maps = run(scene, method, seed)
        row = {"group": group, "scene": name, "method": method, "seed": seed, **values, "machine": measure.machine()}
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        done.add((name, method, seed))
        if seed == 0 and method in ("corrected", "published"):
            np.savez_compressed(arguments.output / f"{name}-{method}.npz", maps=np.stack(maps))
        print(
            f"{name} {method} seed {seed}: IoU {row['mean_iou']:.3f}, accuracy {row['accuracy']:.3f}, "
            f"NMI {row['nmi']:.3f}, {row['clusters']} clusters, {row['seconds']:.0f} s",
            flush=True,
        )
    if file.is_file():
        import paper_dgc_report

        paper_dgc_report.write(arguments.output, history.read(file), arguments.data)


if __name__ == "__main__":
    main()
