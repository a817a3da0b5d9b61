"""`spectrafuse segment`: from scenes to label maps, pictures and a record of the run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError, SpectrafuseError
from spectrafuse._runtime.progress import as_part, in_parts
from spectrafuse._runtime.text import distinct_names
from spectrafuse.cli.processes import agreed, working_together
from spectrafuse.cli.run_folder import RECORD, STATE, RunFolder, fit_in_folder, set_threads, working_in
from spectrafuse.cli.scene_options import content, read_mask, split_key
from spectrafuse.cli.terminal import CommandError, output_console, print_blocks, waiting
from spectrafuse.reports.page import Block, title_of

if TYPE_CHECKING:
    from rich.console import Console

    from spectrafuse.dgc.doubt import Doubt
    from spectrafuse.dgc.estimator import DeepGlobalClustering
    from spectrafuse.io.bands import BandsOf
    from spectrafuse.io.cubes import Cube

# Clusters and labels in the pictures that are tried before the training.
_MOST_TRIED = 8
# Pixels from which on a label map stays in a file.
_LARGE_MAP = 1 << 24
# Of the time that labeling and looking at the labels take.
_SHARE_OF_LABELS = 0.7
# In labels.npy, classes.img and confidence.img.
BYTES_OF_PIXEL = 13
CURVE_NAMES = {
    "balance": "balance (entropy of the shares)",
    "entropy": "entropy of the label maps",
    "clusters": "clusters in use",
    "nmi": "stability: NMI with the epoch before",
    "vi": "change: VI with the epoch before",
}
# In the output folder beside the folders of several scenes.
RESULTS = ("loss.png", "report.html", "model")
CAPTIONS = {
    "map.png": "the scene, and the cluster of each pixel",
    "tree.png": "fewer clusters, how well halves of the scene agree on them, and how clusters merge",
    "spectra.png": "mean spectrum of each cluster, with the standard deviation of its pixels",
    "labels.png": "the clusters alone, a pixel for each pixel of the scene",
    "loss.png": "course of the training",
}
"""What pictures show, in the order that a report has them in."""

# Numbers of clusters in the picture of the tree; and that of all.
LEVELS = (2, 3, 5, 8, 16)
MOST_DRAWN = 64

Statistics = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pixels (k,), mean spectra and standard deviations (k, bands) of clusters."""


@dataclass(frozen=True)
class SegmentRequest:
    """What the command line asked for; None leaves a setting to the recipe.

    Attributes
    ----------
    settings : dict
        Arguments of `DeepGlobalClustering`.
    merge : dict of int to list of int
        New label: clusters that become it.
    ignore_label : int or None
        The value in the label files that means no label.
    classes : dict of str to int, or None
        Numbers of the labels of LabelMe files.
    masks : sequence of str
        `FILE[:KEY]` of the pixels without data, none or one a scene.
    tree : bool
        Whether fewer clusters are shown as well, and how they merge.
    """

    scenes: Sequence[Path]
    output: Path
    settings: dict[str, Any]
    key: str | None = None
    layout: str = "auto"
    rows: int | None = None
    columns: int | None = None
    labels: Sequence[str] = ()
    ignore_label: int | None = None
    merge: dict[int, list[int]] = field(default_factory=dict)
    classes: dict[str, int] | None = None
    masks: Sequence[str] = ()
    threads: int | None = None
    restart: bool = False
    tree: bool = False


@dataclass(frozen=True, eq=False)
class Maps:
    """Labels of scenes as they are written and drawn.

    Attributes
    ----------
    cubes : list of Cube
    labels, confidences : list of ndarray, shape (rows, columns)
    statistics : list of Statistics
    truth : list of ndarray, shape (rows, columns)
        True labels; empty if there are none.
    scores : dict or None
        How the labels compare with them.
    doubt : list of Doubt
        What speaks against them.
    """

    cubes: list[Cube]
    labels: list[np.ndarray]
    confidences: list[np.ndarray]
    statistics: list[Statistics]
    truth: list[np.ndarray]
    scores: dict[str, Any] | None = None
    doubt: list[Doubt] = field(default_factory=list)

    def cluster_rows(self) -> list[list[dict[str, Any]]]:
        """A row for each cluster of each scene, for `run.json`."""
        return [
            _cluster_rows(*parts) for parts in zip(self.cubes, self.labels, self.statistics, self.doubt, strict=True)
        ]


def parse_merge(text: str | None) -> dict[int, list[int]]:
    """`"0=0,2;1=1"` as {0: [0, 2], 1: [1]}: new label = clusters."""
    mapping: dict[int, list[int]] = {}
    for part in (text or "").split(";"):
        if not part.strip():
            continue
        label, equals, clusters = part.partition("=")
        try:
            if not equals:
                raise ValueError
            members = [int(cluster) for cluster in clusters.split(",")]
            mapping.setdefault(int(label), []).extend(members)
        except ValueError:
            raise CommandError(
                f"--merge must read like '0=0,2;1=1' (new label = clusters, separated by ';'); got {text!r}."
            ) from None
    return mapping


def parse_classes(text: str | None) -> dict[str, int] | None:
    """`"background,leaf,root"` as {"background": 0, "leaf": 1, "root": 2}, or what a JSON file says.

    The file holds an object of names and numbers, or a list of names counted from 0.
    """
    from spectrafuse.io.arrays import existing_file

    if text is None:
        return None
    names: Any = [part.strip() for part in text.split(",")]
    if text.lower().endswith(".json"):
        try:
            names = json.loads(existing_file(text, (".json",)).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise CommandError(f"--classes: '{text}' cannot be read as JSON: {error}.") from None
    if isinstance(names, dict):
        if all(name and type(number) is int and number >= 0 for name, number in names.items()) and names:
            return names
        raise CommandError(f"--classes: '{text}' must give each name a whole number from 0.")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or not names:
        raise CommandError(
            f"--classes must be names like 'background,leaf,root', or a JSON file of them; got {text!r}."
        )
    if len(set(names)) < len(names):
        raise CommandError(f"--classes must name every class once; got {text!r}.")
    return {name: number for number, name in enumerate(names)}


def parse_bytes(text: str | None) -> int | None:
    """`"700MB"`, `"1.5 GiB"` or `"1000000"` as a number of bytes."""
    from spectrafuse.io.limits import bytes_of

    if text is None:
        return None
    found = bytes_of(text)
    if found is None:
        raise CommandError(f"--max-memory must read like '700MB' or '1.5GiB'; got {text!r}.")
    return found


def read_request_scenes(request: SegmentRequest, *, bands: BandsOf | None = None) -> list[Cube]:
    """The scenes of a request, opened and checked, with their masks; `bands` are those of a model."""
    from spectrafuse.dgc.scenes import common_bands
    from spectrafuse.io.cubes import open_cube
    from spectrafuse.io.errors import ReadingNote

    _once_per_scene("--mask", request.masks, request)
    masks: list[Any] = [read_mask(text) for text in request.masks] or [None] * len(request.scenes)
    with warnings.catch_warnings():
        # The line that describes a scene says it.
        warnings.simplefilter("ignore", ReadingNote)
        scenes = [
            open_cube(
                path,
                key=request.key,
                layout=request.layout,
                rows=request.rows,
                columns=request.columns,
                nodata=request.settings.get("nodata"),
                mask=mask,
                bands=request.settings.get("bands") if bands is None else bands,
                zeros="check" if bands is None else "accept",
            )
            for path, mask in in_parts(list(zip(request.scenes, masks, strict=True)))
        ]
    return common_bands(scenes) if bands is None else scenes


def described(paths: Sequence[Path], cubes: Sequence[Cube]) -> list[dict[str, Any]]:
    """What `run.json` says of scenes that were read."""
    return [
        {
            "file": str(path),
            "sha256": cube.sha256,
            "key": cube.key,
            "layout": cube.layout,
            "bands": cube.shape[0],
            "rows": cube.shape[1],
            "columns": cube.shape[2],
            "bands_used": cube.band_numbers.tolist(),
            "bands_left_out": {reason: which.tolist() for reason, which in cube.left_out},
            "wavelength_unit": cube.unit,
            "reading": cube.description,
            "place": cube.place,
            "pixels_without_data": 0 if cube.valid is None else int((~cube.valid).sum()),
        }
        for path, cube in in_parts(list(zip(paths, cubes, strict=True)))
    ]


def _once_per_scene(option: str, given: Sequence[str], request: SegmentRequest) -> None:
    if given and len(given) != len(request.scenes):
        raise CommandError(
            f"{option} must be given once per scene, in the same order; got {len(given)} for "
            f"{len(request.scenes)} scenes."
        )


def read_truth(request: SegmentRequest, cubes: Sequence[Cube]) -> list[np.ndarray]:
    """The true labels of every scene (rows, columns), -1 where there is none; empty without label files."""
    from spectrafuse.io.labels import read_labels

    labelme = [text for text in request.labels if split_key(text)[0].lower().endswith(".json")]
    if request.classes is not None and not labelme:
        raise CommandError("--classes gives the names in LabelMe files numbers, but no --labels file is one (.json).")
    _once_per_scene("--labels", request.labels, request)
    truth = []
    for text, cube in zip(request.labels, cubes, strict=False):
        path, key = split_key(text)
        labels = read_labels(path, key=key, shape=cube.shape[1:], class_to_index=request.classes)
        truth.append(np.where(labels == request.ignore_label, -1, labels))
    return truth


def trains(request: SegmentRequest) -> bool:
    """Whether a network is trained."""
    from spectrafuse.dgc.estimator import DeepGlobalClustering

    try:
        return DeepGlobalClustering(**request.settings).trains_network
    except InvalidValueError as error:
        raise CommandError(f"--no-network: {error}") from None


def check_merge(request: SegmentRequest) -> None:
    """A wrong --merge must not come to light after the training."""
    from spectrafuse.dgc.metrics import label_of_cluster

    if request.tree and request.settings["n_clusters"] > MOST_DRAWN:
        raise CommandError(f"--tree draws at most {MOST_DRAWN} clusters; got {request.settings['n_clusters']}.")
    if not request.merge:
        return
    if request.tree:
        raise CommandError("--tree shows how clusters merge, and --merge merges them: give one of the two.")
    count = request.settings["n_clusters"]
    try:
        named = len(label_of_cluster(request.merge, range(count)))
    except SpectrafuseError as error:
        raise CommandError(f"--merge: {error}") from None
    if named > count:
        raise CommandError(f"--merge names cluster {named - 1}, but there are {count}, numbered from 0.")


def scene_names(paths: Sequence[Path]) -> list[str]:
    """A folder name for each scene: its file's stem, numbered where another scene or a result has that name."""
    return distinct_names([path.stem for path in paths], "scene", (*RESULTS, STATE, RECORD))


def segment(request: SegmentRequest) -> None:
    """Segment the scenes and write the output folder; of several processes the first writes and speaks."""
    with working_together() as first:
        (_segment if first else _help_segment)(request)


def _help_segment(request: SegmentRequest) -> None:
    """The share of another process than the first: of training and labels."""
    from spectrafuse._runtime import ranks
    from spectrafuse.dgc.estimator import DeepGlobalClustering

    set_threads(request.threads)
    cubes, _ = agreed(lambda: _read(request))
    agreed(lambda: None)
    if ranks.from_first(lambda: True):
        return
    estimator = DeepGlobalClustering(**request.settings).fit(cubes[0] if len(cubes) == 1 else cubes)
    if request.merge:
        estimator.merge_clusters(request.merge)
    _label(estimator, cubes, request.output / STATE)


def _read(request: SegmentRequest) -> tuple[list[Cube], list[np.ndarray]]:
    from spectrafuse.io.limits import at_least

    with at_least(request.settings.get("max_memory")):
        cubes = read_request_scenes(request)
        return cubes, read_truth(request, cubes)


def _segment(request: SegmentRequest) -> None:
    from spectrafuse._runtime import ranks

    console = output_console()
    check_merge(request)
    trains(request)
    set_threads(request.threads)
    with waiting("reading"):
        with as_part(0.0, 0.5):
            cubes, truth = agreed(lambda: _read(request))
        with as_part(0.5, 1.0):
            inputs = described(request.scenes, cubes)
    for item in inputs:
        console.print(item["reading"], soft_wrap=True)
    asked = {
        "command": "segment",
        # How much memory there is decides nothing.
        "parameters": {name: value for name, value in request.settings.items() if name != "max_memory"},
        "merge": request.merge,
        "tree": request.tree,
        "labels": [content(text) for text in request.labels],
        "ignore_label": request.ignore_label,
        "classes": request.classes,
        "masks": [content(text) for text in request.masks],
        "data": [{k: item[k] for k in ("sha256", "key", "layout")} for item in inputs],
    }
    folder = agreed(
        lambda: RunFolder(
            request.output,
            asked,
            restart=request.restart,
            trial=lambda place: _try_results(place, request, cubes, truth),
            space=sum(BYTES_OF_PIXEL * cube.shape[1] * cube.shape[2] for cube in cubes),
            reads=[*request.scenes, *(split_key(text)[0] for text in (*request.labels, *request.masks))],
        )
    )
    if ranks.from_first(lambda: folder.finished):
        console.print(f"Nothing to do: '{request.output}' already holds these results. --restart computes them again.")
        return
    with working_in(folder):
        _fit_and_write(request, cubes, truth, inputs, folder, console)


def _try_results(place: Path, request: SegmentRequest, cubes: list[Cube], truth: list[np.ndarray]) -> None:
    """Write all results for scenes of a few pixels, with the names, bands and labels of the real ones."""
    from types import SimpleNamespace

    try_maps(place, request, cubes, truth, max(request.merge) + 1 if request.merge else request.settings["n_clusters"])
    history = [{"epoch": 1, "loss": 1.0}] if trains(request) else []
    estimator = SimpleNamespace(history_=history, stop_reason_="", save=lambda path: path.mkdir())
    _write_training(place, estimator)
    (place / RESULTS[-1] / "config.json").touch()


def try_maps(place: Path, request: SegmentRequest, cubes: list[Cube], truth: list[np.ndarray], k: int) -> None:
    """Write maps of a few pixels, with the names, bands and labels of the real ones."""
    from spectrafuse.io.cubes import Cube

    values = [np.unique(image)[:_MOST_TRIED] for image in truth] or [np.zeros(1, int)] * len(cubes)
    labels = [np.zeros((1, len(found)), int) for found in values]
    k = min(k, _MOST_TRIED)
    sketches, statistics = [], []
    for cube, image in zip(cubes, labels, strict=True):
        bands = cube.shape[0]
        numbers = np.zeros((bands, *image.shape), np.float32)
        axis, unit = cube.wavelengths, cube.wavelength_unit
        sketches.append(Cube(numbers, wavelengths=axis, wavelength_unit=unit, source=cube.source, key=cube.key))
        statistics.append((np.ones(k, int), np.zeros((k, bands)), np.zeros((k, bands))))
    shown = [found[None] for found in values] if truth else []
    sure = [np.zeros(image.shape, np.float32) for image in labels]
    write_maps(place, request, Maps(sketches, labels, sure, statistics, shown))


def _fit_and_write(
    request: SegmentRequest,
    cubes: list[Cube],
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
    maps = labeled(estimator, cubes, truth, folder)
    tree = _tree_levels(estimator) if request.tree else []
    record = {
        "inputs": inputs,
        "parameters": estimator.get_params(),
        "seed": request.settings.get("random_state"),
        "device": str(next(estimator.model_.parameters()).device),
        "epochs": getattr(estimator, "n_iter_", None),
        "stop_reason": estimator.stop_reason_,
        "normalization": estimator.normalization_.method,
        "normalization_reason": estimator.normalization_reason_,
        "clusters": maps.cluster_rows(),
        "doubt": [found.record for found in maps.doubt],
        "tree": {"merges": estimator.merges_.tolist(), "levels": tree} if tree else None,
        "scores": maps.scores,
    }
    blocks = summary(request, record)
    with waiting("writing"), folder.results(record) as results:
        write_maps(results, request, maps)
        _write_training(results, estimator)
        if tree:
            _write_trees(results, request, estimator, maps, tree)
        title = title_of("Segmentation", scene_names(request.scenes))
        folder.write_report(results, record, title=title, blocks=blocks, captions=CAPTIONS)
    print_blocks(console, blocks)
    more = [*(["loss.png"] if estimator.history_ else []), *(["tree.png"] if tree else []), "model/"]
    console.print(where_results_are(request.output, inputs, *more))


def labeled(estimator: Any, cubes: list[Cube], truth: list[np.ndarray], folder: RunFolder) -> Maps:
    """The maps of a fitted estimator; large ones stay in files of the folder's state."""
    from spectrafuse.dgc.doubt import doubts
    from spectrafuse.reports.style import cluster_statistics

    with waiting("labeling"):
        labels, confidences = _label(estimator, cubes, folder.state)
        mapping = estimator.cluster_mapping_
        k = max(mapping) + 1 if mapping else len(estimator.cluster_centers_)
        statistics = [cluster_statistics(cube, image, k) for cube, image in zip(cubes, labels, strict=True)]
        how = estimator.normalization_
        searched = len(estimator.cluster_centers_)
        doubt = [doubts(*found, how, k, searched) for found in zip(cubes, labels, confidences, strict=True)]
        return Maps(cubes, labels, confidences, statistics, truth, _scores(labels, truth), doubt)


def _label(estimator: Any, cubes: list[Cube], state: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Labels and confidences of the scenes, large ones in files of the folder's state."""
    labels: list[np.ndarray] = []
    confidences: list[np.ndarray] = []
    for index, cube in in_parts(list(enumerate(cubes)), _SHARE_OF_LABELS):
        large = cube.shape[1] * cube.shape[2] > _LARGE_MAP
        found, sure = estimator.predict_with_confidence(cube, out=state / f"labels-{index}.npy" if large else None)
        labels.append(found)
        confidences.append(sure)
    return labels, confidences


def _tree_levels(estimator: DeepGlobalClustering) -> list[dict[str, Any]]:
    """Fewer clusters: what each group is made of, and how well halves of the scenes agree on the groups."""
    from spectrafuse.dgc.tree import groups_at

    merges = estimator.merges_
    levels = [*(level for level in LEVELS if level <= len(merges)), len(merges) + 1]
    agreement = estimator.level_agreement([level for level in levels if level > 1])
    return [
        {"clusters": level, "groups": groups_at(merges, level), "agreement": agreement.get(level)} for level in levels
    ]


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


def _cluster_rows(cube: Cube, labels: np.ndarray, statistics: Statistics, doubt: Doubt) -> list[dict[str, Any]]:
    pixels, mean, std = statistics
    rows = []
    for cluster in range(len(pixels)):
        row: dict[str, Any] = {"cluster": cluster, "pixels": int(pixels[cluster])}
        row["share"] = round(float(pixels[cluster] / max(1, (labels >= 0).sum())), 6)
        if pixels[cluster]:
            peak = int(np.argmax(mean[cluster]))
            row["peak_band"] = peak + 1
            if cube.wavelengths is not None:
                row["peak_wavelength"] = float(cube.wavelengths[peak])
            row["mean_value"] = float(mean[cluster].mean())
            row["spread"] = float(std[cluster].mean())
            row["confidence"] = round(doubt.confidence[cluster], 4)
            row["rows_and_columns_of_98_percent"] = doubt.place[cluster]
            again = doubt.found_again[cluster]
            row["found_again"] = None if np.isnan(again) else round(again, 4)
        rows.append(row)
    return rows


def write_maps(results: Path, request: SegmentRequest, maps: Maps) -> None:
    """Write the maps of all scenes, with the spectra of their clusters; of several scenes each in a folder."""
    from spectrafuse.io.class_maps import write_class_map
    from spectrafuse.io.labeled import write_label_store
    from spectrafuse.io.rasters import write_class_tiff
    from spectrafuse.io.results import write_class_spectra, write_image, write_label_map
    from spectrafuse.io.zarr_stores import is_store
    from spectrafuse.reports.maps import save_map
    from spectrafuse.reports.style import save_cluster_spectra

    names = scene_names(request.scenes)
    match = _match(maps.scores)
    parts = zip(maps.cubes, maps.labels, maps.confidences, maps.statistics, names, strict=True)
    for index, (cube, image, sure, (pixels, mean, std), name) in enumerate(parts):
        target = results if len(names) == 1 else results / name
        target.mkdir(exist_ok=True)
        write_label_map(target, image)
        header, _ = write_class_map(target, image, place=cube.place)
        if cube.place is not None:
            write_class_tiff(header)
        if is_store(cube.source):
            clusters = [f"cluster {i}" for i in range(len(pixels))]
            write_label_store(target / "labels.zarr", image, clusters, cube.source, cube.key)
        write_image(target, sure[None], ["confidence"], place=cube.place, name="confidence")
        true = maps.truth[index] if maps.truth else None
        save_map(
            target / "map.png",
            image,
            cube,
            k=len(pixels),
            wavelengths=cube.wavelengths,
            unit=cube.wavelength_unit,
            truth=true,
            unlabeled=-1 if true is not None and bool((true < 0).any()) else None,
            match=match,
            truth_names=_truth_names(request.classes),
            title=name,
        )
        axis, unit = cube.wavelengths, cube.wavelength_unit
        save_cluster_spectra(target / "spectra.png", mean, std, pixels, wavelengths=axis, unit=unit)
        write_class_spectra(target, mean, std, pixels, axis=axis, axis_unit=unit)


def _write_trees(
    results: Path, request: SegmentRequest, estimator: DeepGlobalClustering, maps: Maps, tree: list[dict[str, Any]]
) -> None:
    from spectrafuse.reports.tree import save_tree

    names = scene_names(request.scenes)
    levels = [(level["clusters"], level["groups"], level["agreement"]) for level in tree]
    for name, image in zip(names, maps.labels, strict=True):
        target = results if len(names) == 1 else results / name
        save_tree(target / "tree.png", image, estimator.merges_, levels, title=name)


def _write_training(results: Path, estimator: Any) -> None:
    from spectrafuse.reports.style import save_curves

    if estimator.history_:
        title = f"Training. {estimator.stop_reason_}"
        save_curves(results / "loss.png", estimator.history_, names=CURVE_NAMES, title=title)
    estimator.save(results / "model")


def _truth_names(classes: dict[str, int] | None) -> list[str] | None:
    """Names of the labels 0, 1, ...; None without any."""
    if classes is None:
        return None
    names = {number: name for name, number in classes.items()}
    return [names.get(number, f"label {number}") for number in range(max(names) + 1)]


def summary(request: SegmentRequest, record: dict[str, Any]) -> list[Block]:
    """What a person is told at the end."""
    from spectrafuse.reports.page import Grid

    scores = record["scores"]
    match = {cluster: label for label, cluster in _match(scores).items()}
    columns = ["cluster", "pixels", "share", "peak at", "confidence", "found again"]
    columns += ["matched label", "IoU"] if scores is not None else []
    units = [item["wavelength_unit"] for item in record["inputs"]]
    blocks: list[Block] = []
    for name, rows, unit in zip(scene_names(request.scenes), record["clusters"], units, strict=True):
        grid = Grid(name, columns)
        for row in rows:
            cells = [str(row["cluster"]), str(row["pixels"]), f"{100 * row['share']:.1f} %"]
            if row["pixels"]:
                at = row.get("peak_wavelength")
                cells += [f"band {row['peak_band']}" if at is None else f"{at:.5g} {unit or ''}".rstrip()]
                again = row["found_again"]
                cells += [f"{row['confidence']:.2f}", "-" if again is None else f"{again:.2f}"]
            else:
                cells += ["-"] * 3
            if scores is not None:
                label = match.get(row["cluster"])
                iou = scores.get(f"iou_class_{label}")
                cells += ["-", "-"] if iou is None else [str(label), f"{iou:.3f}"]
            grid.rows.append(cells)
        blocks.append(grid)
    if scores is not None:
        blocks.append(
            f"Scores ({scores['matching']}): mean IoU {scores['mean_iou']:.3f}, accuracy "
            f"{scores['accuracy']:.3f}, Dice {scores['mean_dice']:.3f}, NMI {scores['nmi']:.3f}"
        )
        alone = [label for label in _scored_labels(scores) if label not in match.values()]
        if alone:
            blocks.append(f"Labels without a cluster (IoU 0): {', '.join(map(str, alone))}")
    for name, found in zip(scene_names(request.scenes), record["doubt"], strict=True):
        blocks += [f"{name}: {caution}" for caution in found["cautions"]]
    tree = record.get("tree") or {"levels": []}
    agreed = [level for level in tree["levels"] if level["agreement"] is not None]
    blocks += [
        f"{x['clusters']} clusters: halves of the scene agree to {x['agreement']:.2f} (1: fully)" for x in agreed
    ]
    reason = record.get("normalization_reason")
    return [*blocks, *([reason] if reason else []), record["stop_reason"]]


def where_results_are(output: Path, inputs: Sequence[dict[str, Any]], *more: str) -> str:
    """The sentence about the files of a segmentation."""
    from spectrafuse.io.zarr_stores import is_store

    tiff = ""
    if any(item["place"] for item in inputs):
        tiff = ", classes.tif" if find_spec("rasterio") else " (as GeoTIFF: pip install 'spectrafuse[geo]')"
    store = ", labels.zarr" if any(is_store(item["file"]) for item in inputs) else ""
    return (
        f"Results are in '{output}': report.html (all on one page), map.png, labels.npy{store}, classes.hdr{tiff}, "
        "confidence.hdr (0: two clusters fit alike, 1: no doubt), spectra.csv, spectra.npz, spectra.hdr (spectral "
        f"library), spectra.png, {', '.join([*more, 'run.json'])}"
    )
