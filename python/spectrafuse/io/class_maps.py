"""Label maps as ENVI classification images, which ENVI, QGIS and Spectral Python open with names and colors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse._runtime.errors import fail
from spectrafuse._runtime.text import printable
from spectrafuse.io.atomic import atomic_write
from spectrafuse.io.envi import place_lines
from spectrafuse.io.palette import colors

_MOST_CLASSES = (1 << 16) - 1


def write_class_map(
    folder: str | os.PathLike[str],
    labels: Any,
    *,
    name: str = "classes",
    class_names: Sequence[str] | None = None,
    place: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write a label map as an ENVI class map.

    ENVI keeps class 0 for pixels without a class, so class i is stored as i + 1; the header says so with the class name
    "Unclassified" and the data ignore value 0.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    labels : array_like of int, shape (H, W)
        Classes from 0, at most 65534; negative: none.
    name : str
        The files' name without suffix.
    class_names : sequence of str, optional
        Names of the classes 0, 1, ...; without it "cluster 0", "cluster 1", ...
    place : mapping of str to str, optional
        Where the map lies on Earth: `Cube.place` of its scene.

    Returns
    -------
    tuple of Path
        `<name>.hdr`, text, and `<name>.img`, one band of uint8 (or little-endian uint16 for more than 255 classes).
        Colors are those of `spectrafuse.io.colors`, as in the pictures.
    """
    array = np.asarray(labels)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "iu":
        got = f"shape {array.shape}, dtype {array.dtype}"
        raise fail("labels", "an integer array (rows, columns)", got)
    count = max(int(array.max()) + 1, 0)
    if count > _MOST_CLASSES:
        raise fail("labels", f"below {_MOST_CLASSES}", f"class {count - 1}")
    if class_names is not None:
        if len(class_names) < count:
            raise fail("class_names", f"{count} names, one for each class", f"{len(class_names)} of them")
        count = len(class_names)
    names = [f"cluster {i}" for i in range(count)] if class_names is None else list(map(str, class_names))
    dtype, code = (np.dtype("u1"), 1) if count <= 255 else (np.dtype("<u2"), 12)
    rows, columns = array.shape
    lookup = [0, 0, 0, *colors(count).reshape(-1).tolist()]
    header = f"""ENVI
description = {{Classes of a label map; 0: no class, i + 1: class i.}}
samples = {columns}
lines = {rows}
bands = 1
header offset = 0
file type = ENVI Classification
data type = {code}
interleave = bsq
byte order = 0
classes = {count + 1}
class lookup = {{{", ".join(map(str, lookup))}}}
class names = {{{", ".join(["Unclassified", *map(plain_name, names)])}}}
data ignore value = 0
{place_lines(place)}"""
    text, numbers = Path(folder, f"{name}.hdr"), Path(folder, f"{name}.img")
    with atomic_write(numbers) as temporary, temporary.open("wb") as file:
        for row in array:
            file.write(np.where(row < 0, 0, row.astype(np.int64) + 1).astype(dtype).data)
    with atomic_write(text) as temporary:
        temporary.write_text(header, encoding="utf-8")
    return text, numbers


def plain_name(name: str) -> str:
    """A name without what separates names in a header."""
    return printable(" ".join("".join(" " if c in ",{}=;" else c for c in name).split())) or "-"
