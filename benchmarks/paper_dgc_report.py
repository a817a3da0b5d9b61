"""Tables and pictures of the rows that `paper_dgc.py` leaves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import paper_dgc as runs
from paper_dgc_scenes import MADE
from spectrafuse.dgc import metrics
from spectrafuse.reports.style import new_figure, palette, tidy

Rows = Sequence[Mapping[str, Any]]
# In mean IoU; what is asked of a run.
TOLERATED_FALL = 0.02
TITLES = {
    "samson": "Samson",
    "indian_pines": "Indian Pines",
    "wheat": "Wheat grains",
    "muufl": "MUUFL",
    "moffett": "Moffett",
} | {name: f"made, {made.height} x {made.width} x {made.bands}" for name, made in MADE.items()}
CLUSTERS = {"samson": 3, "indian_pines": 16, "wheat": 2, "muufl": 5, "moffett": 3} | {
    name: made.materials for name, made in MADE.items()
}


def _grouped(rows: Rows) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["scene"], row["method"]].append(row)
    return groups


def _spread(rows: Rows, key: str) -> str:
    values = np.array([row[key] for row in rows])
    return f"{values.mean():.3f} ± {values.std():.3f} ({values.min():.3f})"


def yardstick(rows: Rows) -> list[str]:
    """Lines of the table of all seeds: mean ± standard deviation (worst)."""
    lines = [
        "| scene | method | seeds | mean IoU | accuracy | NMI | collapsed | best - last | processor seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups = _grouped(rows)
    for scene in runs.SCENES:
        for method in (*runs.SINGLE_PIXELS, runs.SMOOTHED, "corrected", "published"):
            own = groups.get((scene, method), [])
            if not own:
                continue
            lost = sum(row["clusters"] < CLUSTERS[scene] for row in own)
            trained = "curve" in own[0]
            fall = f"{max(row['best_mean_iou'] - row['mean_iou'] for row in own):.3f}" if trained else ""
            clocks = [row["processor_seconds"] for row in own if "processor_seconds" in row]
            seconds = f"{np.median(clocks):.1f}" if clocks else ""
            cells = [TITLES[scene], method, str(len(own)), *(_spread(own, k) for k in ("mean_iou", "accuracy", "nmi"))]
            lines.append("| " + " | ".join([*cells, f"{lost} of {len(own)}", fall, seconds]) + " |")
    return lines


def ablation(rows: Rows) -> list[str]:
    """Lines of the table of single changes, on Samson."""
    lines = ["| recipe | seeds | mean IoU | NMI | collapsed | best - last |", "|---|---|---|---|---|---|"]
    groups = _grouped(rows)
    for method in runs.ABLATION:
        if own := groups.get(("samson", method), []):
            fall = max(row["best_mean_iou"] - row["mean_iou"] for row in own)
            lost = sum(row["clusters"] < 3 for row in own)
            cells = [method, str(len(own)), _spread(own, "mean_iou"), _spread(own, "nmi")]
            lines.append("| " + " | ".join([*cells, f"{lost} of {len(own)}", f"{fall:.3f}"]) + " |")
    return lines


def labels(rows: Rows) -> list[str]:
    """Lines of the table of changes in how the labels are made: mean IoU, and the largest fall."""
    groups = _grouped(rows)
    scenes = [scene for scene in runs.LABEL_SCENES if any((scene, method) in groups for method in runs.LABELS)]
    heads = [f"{TITLES[scene]}, mean IoU | best - last" for scene in scenes]
    lines = [f"| changed | {' | '.join(heads)} |", "|---" * (1 + 2 * len(scenes)) + "|"]
    for method in ("corrected", *runs.LABELS):
        cells = [method if method in runs.LABELS else "nothing"]
        for scene in scenes:
            own = [row for row in groups.get((scene, method), []) if row["seed"] < runs.SEEDS["labels"]]
            fall = f"{max(row['best_mean_iou'] - row['mean_iou'] for row in own):.3f}" if own else ""
            cells += [_spread(own, "mean_iou") if own else "", fall]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def falls(rows: Rows) -> list[str]:
    """A paragraph for every scene where seeds of the corrected recipe end clearly below their best mean IoU."""
    lines = []
    for (scene, method), own in _grouped(rows).items():
        curves = [row["curve"] for row in own if method == "corrected"]
        fell = [c for c in curves if max(point["mean_iou"] for point in c) - c[-1]["mean_iou"] > TOLERATED_FALL]
        if fell:
            best = sorted(max(range(len(c)), key=lambda epoch: c[epoch]["mean_iou"]) + 1 for c in fell)
            nmi = max(max(point["nmi"] for point in c) - c[-1]["nmi"] for c in fell)
            lines += [
                f"{TITLES[scene]}: {len(fell)} of {len(own)} seeds ended more than {TOLERATED_FALL:g} below their best "
                f"mean IoU (that of epoch {', '.join(map(str, best))} of {len(fell[0])}), in NMI at most {nmi:.3f} "
                "below their best.",
                "",
            ]
    return lines


def draw_curves(rows: Rows, path: Path) -> None:
    """Mean IoU over the epochs: mean of the seeds, and their range."""
    groups = _grouped(rows)
    shown = [method for method in runs.ABLATION if ("samson", method) in groups]
    figure = new_figure(7.5, 4.2, layout="constrained")
    axes = figure.subplots()
    for color, method in zip(palette(len(shown)), shown, strict=True):
        curves = np.array([[p["mean_iou"] for p in row["curve"]] for row in groups["samson", method]])
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.plot(epochs, curves.mean(axis=0), color=color, label=method)
        axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="epoch", ylabel="mean IoU", ylim=(0, 1), title="Samson, all seeds")
    tidy(axes)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=90)


def _colored(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    picture = np.full((*labels.shape, 3), 0.9)
    picture[labels >= 0] = colors[labels[labels >= 0]]
    return picture


def _pseudo_color(cube: np.ndarray) -> np.ndarray:
    bands = [round(share * (len(cube) - 1)) for share in (0.75, 0.5, 0.25)]
    low, high = np.percentile(cube[bands], (2, 98), axis=(1, 2))
    stretched = (cube[bands] - low[:, None, None]) / np.maximum(high - low, 1e-12)[:, None, None]
    return np.moveaxis(stretched.clip(0, 1), 0, 2)


def draw_maps(name: str, maps: np.ndarray, scene: runs.Scene, path: Path) -> None:
    """Pseudo-colour, label maps over the training, and the known labels, in the colours of the matched labels."""
    truth = np.asarray(scene.labels[0], dtype=np.int64)
    chosen = sorted({0, len(maps) // 4, len(maps) // 2, len(maps) - 1})
    colors = palette(3 * scene.n_clusters)
    figure = new_figure(2.1 * (len(chosen) + 2), 2.4, layout="constrained")
    axes = figure.subplots(1, len(chosen) + 2)
    pictures = [("bands as colours", _pseudo_color(scene.cubes[0]))]
    for epoch in chosen:
        labels = maps[epoch].astype(np.int64)
        mapping = metrics.match_clusters(labels, truth)
        # Clusters that lie outside the labelled pixels have no match.
        for cluster in sorted(set(np.unique(labels).tolist()) - {c for own in mapping.values() for c in own}):
            mapping[max(mapping) + 1] = [cluster]
        named = metrics.apply_mapping(labels, mapping).numpy()
        pictures.append((f"epoch {epoch + 1}", _colored(named, colors)))
    pictures.append(("known", _colored(truth, colors)))
    for ax, (title, picture) in zip(axes, pictures, strict=True):
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(title, fontsize=8)
        ax.set_axis_off()
    figure.suptitle(name, fontsize=9)
    figure.savefig(path, dpi=90)


def write(folder: Path, rows: Rows, data: Path | None) -> None:
    """`README.md` and pictures in `folder`; maps only of scenes that can be read."""
    quick = sum(row.get("processor_seconds", row["seconds"]) for row in rows if row["seed"] < runs.QUICK_SEEDS)
    machines = sorted({" | ".join(f"{k} {v}" for k, v in row["machine"].items()) for row in rows})
    text = [
        "# DGC on scenes with known materials",
        "",
        "Written by `paper_dgc.py` from `runs.jsonl`. Mean ± standard deviation over the seeds, and the worst of them.",
        "Clusters are matched to labels by the Hungarian method on the labelled pixels; labels serve for nothing else.",
        "`k-means`: on spectra of unit length with standardised bands, ten starts. `default`: labels that are",
        "smoothed, without a network. `corrected`: `network=True`. `prototypes alone`: the labels of single pixels",
        "that the network is trained on. A run has collapsed where a cluster is empty at its end.",
        "`best - last`: the largest over the seeds, of the mean IoU. Made scenes (`paper_dgc_scenes.py`) are others",
        "with every seed; the recipe was chosen with these scenes and others of their kinds in view.",
        "",
        *yardstick(rows),
        "",
        *falls(rows),
        "## One change at a time, on Samson",
        "",
        "All recipes run as many epochs as the corrected one, on crops of its size.",
        "",
        *ablation(rows),
        "",
        "## How the labels are made",
        "",
        "Five seeds of the corrected recipe, with one change to `spectrafuse.dgc.training.prototypes`.",
        "",
        *labels(rows),
        "",
        "![curves](curves.png)",
        "",
    ]
    trained = [row for row in rows if "curve" in row]
    if any(row["scene"] == "samson" for row in trained):
        draw_curves(trained, folder / "curves.png")
    for file in sorted(folder.glob("*.npz")):
        name, _, method = file.stem.partition("-")
        try:
            scene = runs.load(name, data)
        except FileNotFoundError:
            continue
        with np.load(file) as content:
            draw_maps(f"{TITLES[name]}, {method}, seed 0", content["maps"], scene, file.with_suffix(".png"))
    for file in sorted(folder.glob("*-*.png")):
        text += [f"![{file.stem}]({file.name})", ""]
    text += [f"The rows that `--quick` takes are here after {quick / 60:.0f} minutes of one processor.", ""]
    text += ["Taken with:", "", *(f"- {machine}" for machine in machines), ""]
    (folder / "README.md").write_text("\n".join(text), encoding="utf-8")
