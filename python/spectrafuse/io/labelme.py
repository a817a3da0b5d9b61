"""Label maps from LabelMe's JSON files: polygons drawn by hand, filled in the file's order."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np

from spectrafuse._runtime import arguments
from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.io.arrays import existing_file
from spectrafuse.io.errors import DataError
from spectrafuse.io.limits import check_size

SUFFIX = ".json"
_LARGEST = 1e9
_MOST_PIXELS = 1 << 28
# Pixels of boxes around shapes and crossings of their sides with rows, all shapes together: some seconds.
_MOST_WORK = 1 << 30
_WORK_OF_CROSSING = 16
_CROSSINGS_AT_ONCE = 1 << 20
_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_CIRCLE_POINTS = 128


def read_labelme(
    path: str | os.PathLike[str],
    *,
    shape: tuple[int, int] | None = None,
    class_to_index: Mapping[str, int] | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """Draw the shapes of a LabelMe file.

    Shapes are filled in the file's order, later ones over earlier ones, on a background of 0. A pixel belongs to a
    shape if its center lies inside by the even-odd rule; LabelMe's point (0, 0) is the outer corner of the first
    pixel, whose center is (0.5, 0.5). Polygons, rectangles (two corners) and circles (center and a point on it)
    have an area; points and lines have none and are left out with a warning.

    Parameters
    ----------
    path : path
        The `.json` file.
    shape : (H, W), optional
        Shape of the scene. Without it, `imageHeight` and `imageWidth` of the file; with both, they must agree.
    class_to_index : mapping of str to int, optional
        Class of each label; labels that it lacks are drawn as background, with a warning. Without it, labels are
        counted from 1 in the order in which they first appear.

    Returns
    -------
    labels : ndarray, shape (H, W), int64
    classes : dict of str to int
        Class of each label that occurs.

    Raises
    ------
    DataError
        If the file is no LabelMe file, or a shape cannot be drawn.
    """
    classes = _check_classes(class_to_index)
    content = _load(path)
    height, width = _size(path, content, shape)
    shapes = content.get("shapes")
    if not isinstance(shapes, list):
        raise DataError(f"'{path}' is not a LabelMe file: it has no list of 'shapes'.")
    labels = np.zeros((height, width), dtype=np.int64)
    found: dict[str, int] = {}
    unknown, flat, work = [], 0, 0
    for number, item in enumerate(shapes):
        where = f"'{path}', shape {number}"
        name = item.get("label") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{where} (counted from 0) has no text as 'label'.")
        kind = item.get("shape_type", "polygon")
        points = _points(where, item.get("points"))
        if kind in _WITHOUT_AREA:
            flat += 1
            continue
        if classes is None:
            found.setdefault(name, len(found) + 1)
        else:
            found[name] = classes.get(name, 0)
            unknown += [name] if name not in classes and name not in unknown else []
        outline = _outline(f"{where} ({name!r})", kind, points)
        work += _fill(labels, outline, found[name], _MOST_WORK - work)
        if work > _MOST_WORK:
            raise DataError(f"'{path}' has more and larger shapes than can be drawn: up to shape {number}, too many.")
    if flat:
        warnings.warn(f"'{path}': {flat} points or lines have no area and are left out.", UserWarning, stacklevel=2)
    if unknown:
        listed = ", ".join(map(repr, unknown[:10]))
        warnings.warn(f"'{path}': `class_to_index` lacks {listed}, drawn as background (0).", UserWarning, stacklevel=2)
    return labels, found


def _check_classes(class_to_index: Mapping[str, int] | None) -> dict[str, int] | None:
    if class_to_index is None:
        return None
    if not isinstance(class_to_index, Mapping):
        raise InvalidTypeError(f"`class_to_index` must be a mapping of names to classes; got {class_to_index!r}.")
    for name, index in class_to_index.items():
        if isinstance(index, bool) or not isinstance(index, Integral):
            raise InvalidTypeError(f"`class_to_index` must give a whole number for {name!r}; got {index!r}.")
    return {name: int(index) for name, index in class_to_index.items()}


def _load(path: str | os.PathLike[str]) -> dict[str, Any]:
    file = existing_file(path, (SUFFIX,))
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' is not a LabelMe file: it holds no JSON object.")
    return content


def _size(path: str | os.PathLike[str], content: dict[str, Any], shape: tuple[int, int] | None) -> tuple[int, int]:
    sides = [content.get(name) for name in ("imageHeight", "imageWidth")]
    whole = [side for side in sides if type(side) is int and side >= 1]
    own = (whole[0], whole[1]) if len(whole) == 2 else None
    if shape is not None:
        shape = arguments.size("shape", shape)
        if own is not None and own != shape:
            hint = " (it is transposed)" if own == shape[::-1] else ""
            raise DataError(
                f"'{path}' is drawn on {own[0]} rows and {own[1]} columns{hint}, but the scene has {shape[0]} rows, "
                f"{shape[1]} columns."
            )
        return shape
    if own is None:
        raise DataError(f"'{path}' does not say the size of its image (imageHeight, imageWidth); give the shape.")
    if own[0] * own[1] > _MOST_PIXELS:
        raise DataError(f"'{path}' says its image has {own[0]} x {own[1]} pixels; at most {_MOST_PIXELS} can be drawn.")
    check_size(f"'{path}', drawn,", 8 * own[0] * own[1], os.path.getsize(path))
    return own


def _points(where: str, points: Any) -> np.ndarray:
    """Points (n, 2): x to the right, y down."""
    pairs = points if isinstance(points, list) else None
    if pairs is None or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise DataError(f"{where} must have 'points' as a list of pairs [x, y].")
    for pair in pairs:
        for x in pair:
            if type(x) not in (int, float) or not abs(x) <= _LARGEST or not math.isfinite(x):
                raise DataError(f"{where} has a point that is no pair of numbers: {str(pair)[:60]}.")
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _outline(where: str, kind: Any, points: np.ndarray) -> np.ndarray:
    """The corners of a shape as a polygon (n, 2)."""
    count = len(points)
    if kind == "circle" and count == 2:
        radius = float(np.hypot(*(points[1] - points[0])))
        angles = np.arange(_CIRCLE_POINTS) * (2 * np.pi / _CIRCLE_POINTS)
        return points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind == "rectangle" and count == 2:
        (x0, y0), (x1, y1) = points
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    if kind in ("polygon", "rectangle", None) and count >= 3:
        return points
    if kind in ("polygon", "rectangle", "circle", None):
        raise DataError(f"{where} is a {kind or 'polygon'} of {count} points, which has no area.")
    raise DataError(f"{where} has the shape type {str(kind)[:40]!r}, which cannot be drawn.")


def _fill(labels: np.ndarray, corners: np.ndarray, value: int, most: int) -> int:
    """Give `value` to the pixels whose centers lie inside a polygon, by the even-odd rule.

    Returns how much work it is; nothing is drawn where that is more than `most`.
    """
    height, width = labels.shape
    top = max(int(np.floor(corners[:, 1].min())), 0)
    bottom = min(int(np.ceil(corners[:, 1].max())), height)
    left = max(int(np.floor(corners[:, 0].min())), 0)
    right = min(int(np.ceil(corners[:, 0].max())), width)
    if top >= bottom or left >= right:
        return len(corners)
    sides = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
    rising = sides[:, 0, 1] > sides[:, 1, 1]
    sides[rising] = sides[rising, ::-1]
    first = np.ceil(sides[:, 0, 1] - 0.5).clip(top, bottom).astype(np.int64)
    last = np.ceil(sides[:, 1, 1] - 0.5).clip(top, bottom).astype(np.int64)
    crossed = first < last
    (x0, y0), (x1, y1) = sides[crossed].transpose(1, 2, 0)
    first, count = first[crossed], (last - first)[crossed]
    work = (bottom - top) * (right - left + 1) + len(corners) + _WORK_OF_CROSSING * int(count.sum())
    if work > most:
        return work
    # A crossing of a row's center line changes inside to outside for all pixels to its right.
    crossings = np.zeros((bottom - top, right - left + 1), dtype=np.uint8)
    slope = (x1 - x0) / (y1 - y0)
    parts = np.cumsum(count) // _CROSSINGS_AT_ONCE
    for part in np.split(np.arange(len(count)), np.flatnonzero(np.diff(parts)) + 1):
        side = np.repeat(part, count[part])
        rows = np.arange(len(side)) + np.repeat(first[part] - (np.cumsum(count[part]) - count[part]), count[part])
        x = x0[side] + (rows + 0.5 - y0[side]) * slope[side]
        columns = np.ceil(x - 0.5).clip(left, right).astype(np.int64)
        np.bitwise_xor.at(crossings, (rows - top, columns - left), 1)
    inside = np.cumsum(crossings[:, :-1], axis=1, dtype=np.uint8) & 1
    labels[top:bottom, left:right][inside.astype(bool)] = value
    return work
