"""`read_labels`: maps and abundances, found for the scene or named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import seeds
from helpers.io_files import write_archive, write_array, write_matlab5, write_matlab73
from spectrafuse.io.errors import DataError
from spectrafuse.io.labels import read_labels

WRITERS = [write_matlab5, write_matlab73, write_archive]
ROWS, COLUMNS = 5, 7


def labels(low: int = 0) -> np.ndarray:
    return seeds.generator().integers(low, 4, (ROWS, COLUMNS))


def suffix(write: Callable[..., Path]) -> str:
    return ".npz" if write is write_archive else ".mat"


def abundances(classes: np.ndarray) -> np.ndarray:
    """Abundances (H, W, 4), the largest one where `classes` says."""
    values = seeds.generator().random((*classes.shape, 4))
    np.put_along_axis(values, classes[..., None], 1.5, axis=-1)
    return values


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "float64", "int8"])
@pytest.mark.parametrize("write", WRITERS)
def test_map(tmp_path: Path, write: Callable[..., Path], dtype: str) -> None:
    expected = labels(0 if dtype == "uint8" else -1)
    path = write(tmp_path / f"x{suffix(write)}", {"gt": expected.astype(dtype), "wl": np.arange(9.0)[None]})
    for options in ({}, {"key": "gt"}, {"shape": (ROWS, COLUMNS)}):
        got = read_labels(path, **options)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, expected)


def test_map_without_a_name_and_logical(tmp_path: Path) -> None:
    expected = labels() > 1
    np.testing.assert_array_equal(read_labels(write_array(tmp_path / "x.npy", expected)), expected)
    for write in (write_matlab5, write_matlab73):
        np.testing.assert_array_equal(read_labels(write(tmp_path / "x.mat", {"mask": expected})), expected)


@pytest.mark.parametrize("write", WRITERS)
def test_abundances(tmp_path: Path, write: Callable[..., Path]) -> None:
    expected = labels()
    layers = abundances(expected)
    path = tmp_path / f"x{suffix(write)}"
    scene = {"Y": np.ones((9, ROWS * COLUMNS)), "lines": np.array(ROWS), "cols": np.array(COLUMNS)}
    for stored in (layers, np.moveaxis(layers, -1, 0)):
        write(path, {"S_GT": stored, "GT": np.ones((4, 9)), **scene})
        np.testing.assert_array_equal(read_labels(path), expected)
        np.testing.assert_array_equal(read_labels(path, key="S_GT", shape=(ROWS, COLUMNS)), expected)
    flat = np.moveaxis(layers, -1, 0).transpose(0, 2, 1).reshape(4, -1)
    for stored in (flat, flat.T):
        np.testing.assert_array_equal(read_labels(write(path, {"A": stored, **scene}), key="A"), expected)


def test_pixel_without_abundance_has_no_class(tmp_path: Path) -> None:
    expected = labels()
    layers = abundances(expected)
    layers[2, 3] = 0
    expected[2, 3] = -1
    np.testing.assert_array_equal(read_labels(write_matlab5(tmp_path / "x.mat", {"A": layers})), expected)


@pytest.mark.parametrize("shape", [(ROWS, COLUMNS, 1), (1, ROWS, COLUMNS), (1, ROWS * COLUMNS), (ROWS * COLUMNS, 1)])
def test_single_layer_is_a_map(tmp_path: Path, shape: tuple[int, ...]) -> None:
    expected = labels()
    stored = expected.reshape(shape, order="F")
    path = write_matlab5(tmp_path / "x.mat", {"gt": stored})
    np.testing.assert_array_equal(read_labels(path, key="gt", shape=(ROWS, COLUMNS)), expected)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (
            np.ones((COLUMNS, ROWS), int),
            r"has shape \(7, 5\) \(it is transposed\), but the scene has 5 rows, 7",
        ),
        (np.ones((3, 3), int), r"has shape \(3, 3\), but the scene"),
        (np.ones((3, 3, 2), int), r"has shape \(3, 3, 2\), but the scene"),
        (np.ones(ROWS * COLUMNS, int), r"has shape \(35,\), but the scene"),
        (np.full((ROWS, COLUMNS), 0.5), r"whole numbers; 35 are not, the first at row 0, column 0 .*: 0\.5"),
        (np.full((ROWS, COLUMNS), np.nan), r"whole numbers; 35 are not"),
        (np.full((ROWS, COLUMNS), 2**63, np.uint64), r"whole numbers; 35 are not"),
        (np.full((ROWS, COLUMNS, 2), np.inf), r"70 abundances that are not finite, the first of class 0 at row 0"),
        (np.full((ROWS, COLUMNS), "a"), r"real numbers; got dtype <U1"),
    ],
)
def test_errors(tmp_path: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(write_array(tmp_path / "x.npy", array), shape=(ROWS, COLUMNS))


def test_what_is_ambiguous_or_missing_lists_the_keys(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.npz", {"a": labels(), "b": labels(), "c": np.ones(3)})
    with pytest.raises(DataError, match=r"several variables that can be labels; .*a \(5, 7\), b \(5, 7\), c \(3,\)"):
        read_labels(path)
    with pytest.raises(DataError, match=r"no variable that can be labels for 2 rows and 3 columns"):
        read_labels(path, shape=(2, 3))
    with pytest.raises(DataError, match=r"no variable 'gt'"):
        read_labels(path, key="gt")


def test_ambiguous_abundances_without_a_scene(tmp_path: Path) -> None:
    layers = abundances(labels())
    path = write_array(tmp_path / "x.npy", layers)
    with pytest.raises(DataError, match=r"\(5, 7, 4\), and can be"):
        read_labels(path)
    assert read_labels(path, shape=(5, 7)).shape == (5, 7)
    with pytest.raises(ValueError, match=r"`shape\[0\]` must be"):
        read_labels(path, shape=(0, 7))
