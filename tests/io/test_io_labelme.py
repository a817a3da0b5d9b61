"""Labels from LabelMe's polygons and from tensors in files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from helpers import seeds
from spectrafuse.io import labelme
from spectrafuse.io.errors import DataError
from spectrafuse.io.labelme import _fill, read_labelme
from spectrafuse.io.labels import read_labels

SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3]]


def write_labelme(path: Path, shapes: list[Any], size: tuple[int, int] | None = (5, 7), **fields: Any) -> Path:
    """A file with shapes as (label, points) or (label, points, type)."""
    content: dict[str, Any] = {"version": "5.0", "shapes": []}
    if size is not None:
        content |= {"imageHeight": size[0], "imageWidth": size[1]}
    for shape in shapes:
        item = dict(zip(("label", "points", "shape_type"), shape, strict=False)) if isinstance(shape, tuple) else shape
        content["shapes"].append(item)
    path.write_text(json.dumps({**content, **fields}))
    return path


def test_shapes_are_filled_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write_labelme(
        tmp_path / "x.json",
        [
            ("leaf", SQUARE),
            ("stem", [[2, 0], [3, 5]], "rectangle"),
            ("leaf", [[5, 4], [7, 4], [7, 5], [5, 5]], "polygon"),
        ],
    )
    expected = np.zeros((5, 7), int)
    expected[1:3, 1:4] = 1
    expected[:, 2] = 2
    expected[4, 5:] = 1
    np.testing.assert_array_equal(read_labels(path), expected)
    labels, classes = read_labelme(path, class_to_index={"stem": 1, "leaf": 7})
    np.testing.assert_array_equal(labels, np.array([0, 7, 1])[expected])
    assert classes == {"leaf": 7, "stem": 1}
    assert labels.dtype == np.int64


def test_labels_without_a_class_are_background(tmp_path: Path) -> None:
    path = write_labelme(tmp_path / "x.json", [("a", SQUARE), ("b", SQUARE[:3])])
    with pytest.warns(UserWarning, match="lacks 'b', drawn as background"):
        labels = read_labels(path, class_to_index={"a": 3})
    assert 0 < (labels == 3).sum() < 6


def test_points_and_lines_are_left_out(tmp_path: Path) -> None:
    path = write_labelme(tmp_path / "x.json", [("p", [[1, 1]], "point"), ("l", SQUARE, "linestrip"), ("a", SQUARE)])
    with pytest.warns(UserWarning, match="2 points or lines"):
        labels, classes = read_labelme(path)
    assert classes == {"a": 1}
    assert labels.sum() == 6


def test_circle(tmp_path: Path) -> None:
    path = write_labelme(tmp_path / "x.json", [("disc", [[10, 12], [10, 18]], "circle")], (30, 20))
    rows, columns = np.mgrid[:30, :20] + 0.5
    distance = np.hypot(rows - 12, columns - 10)
    labels = read_labels(path)
    assert labels[distance < 5.95].all()
    assert not labels[distance > 6].any()


@settings(max_examples=100, deadline=None, database=None)
@given(
    corners=st.lists(st.tuples(st.floats(-9, 20), st.floats(-9, 20)), min_size=3, max_size=9),
    height=st.integers(1, 13),
    width=st.integers(1, 13),
)
def test_filling_is_the_even_odd_rule(corners: list[tuple[float, float]], height: int, width: int) -> None:
    labels = np.zeros((height, width), int)
    points = np.array(corners)
    _fill(labels, points, 3, 1 << 30)
    for row in range(height):
        for column in range(width):
            y, x = row + 0.5, column + 0.5
            crossings, near = 0, False
            for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
                if (y0 > y) != (y1 > y):
                    at = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                    crossings += at > x
                    near |= abs(at - x) < 1e-6
            assert near or labels[row, column] == 3 * (crossings % 2)


def test_filling_agrees_with_matplotlib() -> None:
    rng = seeds.generator()
    for _ in range(20):
        angles = np.sort(rng.random(9)) * 2 * np.pi
        # A star around the middle has no edges that cross, so all rules agree.
        points = 16 + (rng.random(9) * 14 + 1)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        labels = np.zeros((32, 32), int)
        _fill(labels, points, 1, 1 << 30)
        rows, columns = np.mgrid[:32, :32] + 0.5
        inside = Outline(points).contains_points(np.stack([columns.ravel(), rows.ravel()], axis=1))
        assert (inside.reshape(32, 32) != labels).mean() < 0.005


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "holds no JSON object"),
        (b"{}", "does not say the size of its image"),
        (b'{"imageHeight": 3, "imageWidth": 4}', "has no list of 'shapes'"),
        (b'{"imageHeight": 3, "imageWidth": true, "shapes": []}', "does not say the size"),
        (b'{"imageHeight": 300000, "imageWidth": 40000, "shapes": []}', "can be drawn"),
    ],
)
def test_files_that_are_not_of_labelme(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^'{re.escape(str(path))}' .*{words}"):
        read_labels(path)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (3, "shape 1 .counted from 0. has no text as 'label'"),
        ((None, SQUARE), "has no text as 'label'"),
        (("a", SQUARE[:2]), r"shape 1 \('a'\) is a polygon of 2 points, which has no area"),
        (("a", []), "polygon of 0 points"),
        (("a", [[1, 2, 3]]), "pairs"),
        (("a", None), "pairs"),
        (("a", [[1, "2"], [1, 1], [2, 2]]), "no pair of numbers"),
        (("a", [[1, float("nan")], [1, 1], [2, 2]]), "no pair of numbers"),
        (("a", [[1, 10**400], [1, 1], [2, 2]]), "no pair of numbers"),
        (("a", [[1, True], [1, 1], [2, 2]]), "no pair of numbers"),
        (("a", SQUARE, "mask"), "shape type 'mask', which cannot be drawn"),
        (("a", SQUARE, ["circle"]), "cannot be drawn"),
        (("a", SQUARE, "circle"), "circle of 4 points"),
    ],
)
def test_shapes_that_cannot_be_drawn(tmp_path: Path, shape: Any, words: str) -> None:
    path = write_labelme(tmp_path / "x.json", [("a", SQUARE), shape])
    with pytest.raises(DataError, match=words):
        read_labels(path)


def test_size_of_the_scene(tmp_path: Path) -> None:
    path = write_labelme(tmp_path / "x.json", [("a", SQUARE)])
    with pytest.raises(DataError, match=r"5 rows and 7 columns \(it is transposed\), but the scene has 7 rows, 5 col"):
        read_labels(path, shape=(7, 5))
    write_labelme(path, [("a", SQUARE)], None)
    assert read_labels(path, shape=(9, 4)).shape == (9, 4)
    with pytest.raises(DataError, match="leave key='a' out"):
        read_labels(path, key="a")


@pytest.mark.parametrize(("classes", "words"), [(["a"], "a mapping"), ({"a": 1.5}, "a whole number for 'a'")])
def test_classes_that_are_none(tmp_path: Path, classes: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        read_labels(write_labelme(tmp_path / "x.json", []), class_to_index=classes)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32, torch.bfloat16, torch.bool])
def test_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    expected = torch.from_numpy(seeds.generator().integers(0, 2, (5, 7)))
    path = tmp_path / "x.pth"
    torch.save(expected.to(dtype), path)
    labels = read_labels(path, shape=(5, 7))
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, expected)
    torch.save({"gt": expected.to(dtype).t(), "name": "x"}, path)
    np.testing.assert_array_equal(read_labels(path), expected.t())
    np.testing.assert_array_equal(read_labels(path, key="gt"), expected.t())


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"gt": torch.ones(2, 2), "evil": Evil(tmp_path / "made")}, path)
    with pytest.raises(DataError, match="is not a file of plain tensors.*unpickling"):
        read_labels(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "must hold a dense tensor of plain numbers; got list"),
        ({"a": torch.ones(2, 2), "b": torch.ones(2, 3)}, r"choose one with key= \(FILE:KEY\): a \(2, 2\), b \(2, 3\)"),
        ({"a": 3}, "no tensors"),
        (torch.ones(2, 2).to_sparse(), "dense tensor"),
        (torch.ones(2, 2) * 1j, "real numbers"),
        (torch.ones(2, 2, 2, 2), r"got shape \(2, 2, 2, 2\)"),
        (torch.full((2, 2), 0.5), "whole numbers"),
    ],
)
def test_tensor_files_without_labels(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(DataError, match=words):
        read_labels(path)


def test_tensor_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(torch.ones(4, 4), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"1234", b"PK\x03\x04"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is not a file of plain tensors"):
            read_labels(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match="leave key='a' out"):
        read_labels(path, key="a")


def test_shapes_of_many_sides_are_drawn_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(3).uniform(-3, 25, (200, 2)).round(1).tolist()
    path = tmp_path / "x.json"
    content = {"imageHeight": 20, "imageWidth": 23, "shapes": [{"label": "a", "points": points}]}
    path.write_text(json.dumps(content))
    whole = read_labels(path)
    assert 0 < whole.sum() < whole.size
    monkeypatch.setattr(labelme, "_CROSSINGS_AT_ONCE", 7)
    assert (read_labels(path) == whole).all()
