"""What `spectrafuse segment` is given: options as text, scenes, masks and labels from files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse.cli.terminal import CommandError

if TYPE_CHECKING:
    from spectrafuse.io.sources import CubeSource

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


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
    if text is None:
        return None
    names: Any = [part.strip() for part in text.split(",")]
    if text.lower().endswith(".json"):
        try:
            names = json.loads(Path(text).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
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
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", text.lower()) if text is not None else None
    if text is None:
        return None
    if found is None or float(found[1]) == 0:
        raise CommandError(f"--max-memory must read like '700MB' or '1.5GiB'; got {text!r}.")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def split_key(text: str) -> tuple[str, str | None]:
    """`FILE:KEY` as file and key; a file whose own name holds the colon is a file."""
    if ":" in text and not Path(text).exists():
        path, _, key = text.rpartition(":")
        return path, key or None
    return text, None


def read_request_scenes(request: SegmentRequest) -> list[CubeSource]:
    from spectrafuse.io.cubes import open_cube

    _once_per_scene("--mask", request.masks, request)
    masks: list[Any] = [_read_mask(text) for text in request.masks] or [None] * len(request.scenes)
    return [
        open_cube(
            path,
            key=request.key,
            layout=request.layout,
            rows=request.rows,
            columns=request.columns,
            nodata=request.settings.get("nodata"),
            mask=mask,
        )
        for path, mask in zip(request.scenes, masks, strict=True)
    ]


def _once_per_scene(option: str, given: Sequence[str], request: SegmentRequest) -> None:
    if given and len(given) != len(request.scenes):
        raise CommandError(
            f"{option} must be given once per scene, in the same order; got {len(given)} for "
            f"{len(request.scenes)} scenes."
        )


def _read_mask(text: str) -> np.ndarray:
    """Pixels without data, (H, W) bool: 1 in a map, any shape in a LabelMe file."""
    from spectrafuse.io.labels import read_labels

    path, key = split_key(text)
    values = read_labels(path, key=key)
    if path.lower().endswith(".json"):
        return values > 0
    other = values[(values != 0) & (values != 1)]
    if other.size:
        raise CommandError(f"--mask: '{path}' must be 1 where a pixel has no data and 0 elsewhere; it has {other[0]}.")
    return values == 1


def read_truth(request: SegmentRequest, cubes: Sequence[CubeSource]) -> list[np.ndarray]:
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


def check_merge(request: SegmentRequest) -> None:
    """A wrong --merge must not come to light after the training."""
    from spectrafuse.dgc.metrics import label_of_cluster

    if not request.merge:
        return
    count = request.settings["n_clusters"]
    try:
        named = len(label_of_cluster(request.merge, range(count)))
    except (TypeError, ValueError) as error:
        raise CommandError(f"--merge: {error}") from None
    if named > count:
        raise CommandError(f"--merge names cluster {named - 1}, but there are {count}, numbered from 0.")


def scene_names(paths: Sequence[Path]) -> list[str]:
    """A folder name for each scene: its file's stem, numbered where two are the same."""
    names: list[str] = []
    for path in paths:
        stem = path.stem or "scene"
        name, number = stem, 2
        while name in names:
            name, number = f"{stem}-{number}", number + 1
        names.append(name)
    return names
