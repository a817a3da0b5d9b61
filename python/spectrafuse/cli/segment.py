"""`spectrafuse segment`: from scenes to label maps, pictures and a record of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse.cli.fitting import fit_in_folder, set_threads, working_in
from spectrafuse.cli.run_folder import RunFolder
from spectrafuse.cli.segment_inputs import (
    SegmentRequest,
    check_merge,
    read_request_scenes,
    read_truth,
    scene_names,
    split_key,
)
from spectrafuse.cli.terminal import output_console

if TYPE_CHECKING:
    from rich.console import Console

    from spectrafuse.io.sources import CubeSource

MOST_TABLE_ROWS = 64
# Pixels from which on a label map stays in a file.
_LARGE_MAP = 1 << 24
CURVE_NAMES = {
    "balance": "balance (entropy of the shares)",
    "entropy": "entropy of the label maps",
    "clusters": "clusters in use",
    "nmi": "stability: NMI with the epoch before",
    "vi": "change: VI with the epoch before",
}


def segment(request: SegmentRequest) -> None:
    """Segment the scenes and write the output folder."""
    from spectrafuse.io.arrays import sha256

    console = output_console()
    check_merge(request)
    set_threads(request.threads)
    cubes = read_request_scenes(request)
    truth = read_truth(request, cubes)
    inputs = [
        {
            "file": str(path),
            "sha256": cube.sha256,
            "key": cube.key,
            "layout": cube.layout,
            "bands": cube.shape[0],
            "rows": cube.shape[1],
            "columns": cube.shape[2],
            "pixels_without_data": 0 if cube.valid is None else int((~cube.valid).sum()),
        }
        for path, cube in zip(request.scenes, cubes, strict=True)
    ]
    for item in inputs:
        console.print(
            f"{item['file']}: {item['rows']} rows, {item['columns']} columns, {item['bands']} bands "
            f"([dim]{item['layout']}[/])"
            + (f", {item['pixels_without_data']} pixels without data" if item["pixels_without_data"] else "")
        )
    folder = RunFolder(
        request.output,
        {
            "command": "segment",
            # How much memory there is decides nothing.
            "parameters": {name: value for name, value in request.settings.items() if name != "max_memory"},
            "merge": request.merge,
            "labels": list(request.labels),
            "ignore_label": request.ignore_label,
            "classes": request.classes,
            "masks": [{"file": text, "sha256": sha256(split_key(text)[0])} for text in request.masks],
            "data": [{k: item[k] for k in ("sha256", "key", "layout")} for item in inputs],
        },
        restart=request.restart,
    )
    if folder.finished:
        console.print(f"Nothing to do: '{request.output}' already holds the results of this command (--restart).")
        return
    with working_in(folder):
        _fit_and_write(request, cubes, truth, inputs, folder, console)


def _fit_and_write(
    request: SegmentRequest,
    cubes: list[CubeSource],
    truth: list[np.ndarray],
    inputs: list[dict[str, Any]],
    folder: RunFolder,
    console: Console,
) -> None:
    from spectrafuse.dgc.estimator import DeepGlobalClustering

    estimator = DeepGlobalClustering(**request.settings)
    fit_in_folder(estimator, cubes[0] if len(cubes) == 1 else cubes, folder, "segmenting")
    if request.merge:
        estimator.merge_clusters(request.merge)
    labels: list[np.ndarray] = []
    for index, cube in enumerate(cubes):
        large = cube.shape[1] * cube.shape[2] > _LARGE_MAP
        labels += estimator.predict([cube], out=[folder.state / f"labels-{index}.npy" if large else None])
    k = max(request.merge) + 1 if request.merge else len(estimator.cluster_centers_)
    scores = _scores(labels, truth)
    record = {
        "inputs": inputs,
        "parameters": estimator.get_params(),
        "seed": request.settings.get("random_state"),
        "device": str(next(estimator.model_.parameters()).device),
        "epochs": getattr(estimator, "n_iter_", None),
        "stop_reason": estimator.stop_reason_,
        "clusters": [_cluster_rows(cube, image, k) for cube, image in zip(cubes, labels, strict=True)],
        "scores": scores,
    }
    with folder.results(record) as results:
        _write(results, request, estimator, cubes, labels, truth, scores, k)
    _print_summary(console, request, record, scores)


def _scores(labels: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, Any] | None:
    """Scores of the maps, with the classes that occur and the clusters matched to them."""
    if not truth:
        return None
    from spectrafuse.dgc.metrics import evaluate

    found = evaluate(labels, truth)
    present = {int(value) for image in truth for value in np.unique(image[image >= 0])}
    mapping = {label: members for label, members in found.pop("mapping").items() if label in present}
    scores = {name: value for name, value in found.items() if "_class_" not in name or value == value}
    return {"matching": "clusters matched to labels by the Hungarian method", **scores, "mapping": mapping}


def _match(scores: dict[str, Any] | None) -> dict[int, int]:
    """{label: cluster} of the pairs the scores were computed with; clusters that match no label are left out."""
    if scores is None:
        return {}
    pairs = {int(label): int(members[0]) for label, members in scores["mapping"].items() if members}
    return {label: cluster for label, cluster in pairs.items() if label in _scored_labels(scores)}


def _scored_labels(scores: dict[str, Any]) -> list[int]:
    """Labels that occur in a map."""
    prefix = "iou_class_"
    found = {name.removeprefix(prefix): value for name, value in scores.items() if name.startswith(prefix)}
    return [int(label) for label, value in found.items() if value == value]


def _cluster_rows(cube: CubeSource, labels: np.ndarray, k: int) -> list[dict[str, Any]]:
    from spectrafuse.reports.style import cluster_statistics

    pixels, mean, std = cluster_statistics(cube, labels, k)
    rows = []
    for cluster in range(k):
        row: dict[str, Any] = {"cluster": cluster, "pixels": int(pixels[cluster])}
        row["share"] = round(float(pixels[cluster] / max(1, (labels >= 0).sum())), 6)
        if pixels[cluster]:
            peak = int(np.argmax(mean[cluster]))
            row["peak_band"] = peak + 1
            if cube.wavelengths is not None:
                row["peak_wavelength"] = float(cube.wavelengths[peak])
            row["mean_value"] = float(mean[cluster].mean())
            row["spread"] = float(std[cluster].mean())
        rows.append(row)
    return rows


def _write(
    results: Path,
    request: SegmentRequest,
    estimator: Any,
    cubes: list[CubeSource],
    labels: list[np.ndarray],
    truth: list[np.ndarray],
    scores: dict[str, Any] | None,
    k: int,
) -> None:
    from spectrafuse.io.class_maps import write_class_map
    from spectrafuse.io.results import write_label_map
    from spectrafuse.reports.maps import save_map
    from spectrafuse.reports.style import cluster_statistics, save_cluster_spectra, save_curves

    names = scene_names(request.scenes)
    match = _match(scores)
    for index, (cube, image, name) in enumerate(zip(cubes, labels, names, strict=True)):
        target = results if len(cubes) == 1 else results / name
        target.mkdir(exist_ok=True)
        write_label_map(target, image)
        write_class_map(target, image)
        true = truth[index] if truth else None
        save_map(
            target / "map.png",
            image,
            cube,
            k=k,
            wavelengths=cube.wavelengths,
            truth=true,
            unlabelled=-1 if true is not None and bool((true < 0).any()) else None,
            match=match,
            truth_names=_truth_names(request.classes),
            title=name,
        )
        pixels, mean, std = cluster_statistics(cube, image, k)
        save_cluster_spectra(target / "spectra.png", mean, std, pixels, wavelengths=cube.wavelengths)
    save_curves(
        results / "loss.png", estimator.history_, names=CURVE_NAMES, title=f"Training. {estimator.stop_reason_}"
    )
    estimator.save(results / "model")


def _truth_names(classes: dict[str, int] | None) -> list[str] | None:
    """Names of the labels 0, 1, ...; None without any."""
    if classes is None:
        return None
    names = {number: name for name, number in classes.items()}
    return [names.get(number, f"label {number}") for number in range(max(names) + 1)]


def _print_summary(
    console: Console, request: SegmentRequest, record: dict[str, Any], scores: dict[str, Any] | None
) -> None:
    from rich.table import Table

    match = {cluster: label for label, cluster in _match(scores).items()}
    for name, rows in zip(scene_names(request.scenes), record["clusters"], strict=True):
        table = Table(title=f"\n{name}", title_justify="left", title_style="bold")
        for column in ("cluster", "pixels", "share", "peak at", "mean value", "spread"):
            table.add_column(column, justify="right")
        if scores is not None:
            table.add_column("matched label", justify="right")
            table.add_column("IoU", justify="right")
        for row in rows[:MOST_TABLE_ROWS]:
            cells = [str(row["cluster"]), str(row["pixels"]), f"{100 * row['share']:.1f} %"]
            if row["pixels"]:
                at = row.get("peak_wavelength")
                cells += [f"band {row['peak_band']}" if at is None else f"{at:.5g}"]
                cells += [f"{row['mean_value']:.4g}", f"{row['spread']:.4g}"]
            else:
                cells += ["-"] * 3
            if scores is not None:
                label = match.get(row["cluster"])
                iou = scores.get(f"iou_class_{label}")
                cells += ["-", "-"] if iou is None else [str(label), f"{iou:.3f}"]
            table.add_row(*cells)
        console.print(table)
    if scores is not None:
        console.print(
            f"Scores ({scores['matching']}): mean IoU {scores['mean_iou']:.3f}, accuracy "
            f"{scores['accuracy']:.3f}, Dice {scores['mean_dice']:.3f}, NMI {scores['nmi']:.3f}"
        )
        alone = [label for label in _scored_labels(scores) if label not in match.values()]
        if alone:
            console.print(f"Labels without a cluster (IoU 0): {', '.join(map(str, alone))}")
    console.print(f"{record['stop_reason']}")
    console.print(
        f"Results are in '{request.output}': map.png, spectra.png, loss.png, labels.npy, classes.hdr, run.json, model/"
    )
