"""Results in files: read back to the same numbers, with the right pixels transparent and no half-written file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from helpers import seeds
from spectrafuse.io import DataError, open_cube, results
from spectrafuse.io.palette import MOST_COLORS
from spectrafuse.io.results import (
    colors,
    write_class_spectra,
    write_components,
    write_concentrations,
    write_json,
    write_label_map,
    write_label_rows,
)
from spectrafuse.io.spectra import read_spectra


@pytest.mark.parametrize("k", [0, 1, 2, 7, 33, 300])
def test_colors_differ_and_stay(k: int) -> None:
    got = colors(k)
    assert got.shape == (k, 3)
    assert got.dtype == np.uint8
    assert len(np.unique(got, axis=0)) == k
    np.testing.assert_array_equal(colors(k + 40)[:k], got)
    if k > 1:
        # Numbers alone: neighbors in a list of 300 still differ by more than a rounding error.
        distance = np.abs(got[:, None].astype(int) - got).sum(-1) + 1000 * np.eye(k, dtype=int)
        assert distance.min() > (80 if k < 8 else 10)


def test_colors_repeat_beyond_the_most() -> None:
    many = colors(MOST_COLORS + 2)
    np.testing.assert_array_equal(many[-2:], many[:2])


@pytest.mark.parametrize(("most", "step"), [(35 * 22, 1), (35 * 22 - 1, 2), (200, 2), (192, 3), (10, 9)])
def test_pictures_of_large_maps_are_thinned(
    tmp_path: Path, most: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = seeds.generator().integers(-1, 5, (35, 22))
    monkeypatch.setattr(results, "_MOST_PICTURE_PIXELS", most)
    monkeypatch.setattr(results, "_BLOCK_PIXELS", 50)
    numbers, picture = write_label_map(tmp_path, labels)
    np.testing.assert_array_equal(np.load(numbers), labels)
    pixels = np.round(imread(picture) * 255).astype(np.uint8)
    np.testing.assert_array_equal(pixels[..., 3] > 0, labels[::step, ::step] >= 0)


def test_label_rows_make_up_the_map_or_leave_no_file(tmp_path: Path) -> None:
    labels = seeds.generator().integers(-1, 5, (9, 4)).astype(np.int32)
    strips = [labels[:5], labels[5:6], labels[6:6], labels[6:]]
    got = write_label_rows(tmp_path / "x.npy", (9, 4), iter(strips))
    np.testing.assert_array_equal(got, labels)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), labels)
    for wrong, words in ((strips[:2], "9 rows together; got 6"), ([labels[:, :3]], "of 4 columns")):
        with pytest.raises(ValueError, match=words):
            write_label_rows(tmp_path / "y.npy", (9, 4), wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (13, 5)])
@pytest.mark.parametrize("k", [1, 4, 257, 5000])
def test_label_map(tmp_path: Path, shape: tuple[int, int], k: int) -> None:
    labels = seeds.generator().integers(-1, k, shape)
    numbers, picture = write_label_map(tmp_path / "out", labels)
    got = np.load(numbers, allow_pickle=False)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, labels)
    pixels = np.round(imread(picture) * 255).astype(np.uint8)
    assert pixels.shape == (*shape, 4)
    np.testing.assert_array_equal(pixels[..., 3], np.where(labels < 0, 0, 255))
    inside = labels >= 0
    np.testing.assert_array_equal(pixels[inside][:, :3], colors(k)[labels[inside]])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["labels.npy", "labels.png"]


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros(3, int), np.zeros((0, 2), int)])
def test_wrong_label_map(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"`labels` must be an integer array"):
        write_label_map(tmp_path, labels)
    assert not list(tmp_path.iterdir())


def spectra(n: int, d: int) -> np.ndarray:
    """Float32 numbers over many magnitudes."""
    rng = seeds.generator()
    return (rng.normal(size=(n, d)) * 10.0 ** rng.integers(-30, 30, (n, d))).astype(np.float32)


@pytest.mark.parametrize("axis", [None, np.linspace(200.1, 1600, 9), np.linspace(1600, 200, 9)])
@pytest.mark.parametrize("n", [1, 5])
def test_components_come_back(tmp_path: Path, n: int, axis: np.ndarray | None) -> None:
    components, ids = spectra(n, 9), seeds.generator().permutation(50)[:n]
    text, binary = write_components(tmp_path, components, axis, ids=ids)
    for got in (read_spectra(text), read_spectra(binary)):
        np.testing.assert_array_equal(got.data, components)
        if axis is None:
            assert got.axis is None
        else:
            np.testing.assert_array_equal(got.axis, axis)
    assert read_spectra(text).names == [str(i) for i in ids]
    with np.load(binary, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["component_ids"], ids)


@pytest.mark.parametrize("names", [None, ["a, b", 'c"d', "é"]])
def test_concentrations_come_back(tmp_path: Path, names: list[str] | None) -> None:
    values = np.abs(spectra(3, 4))
    text, binary = write_concentrations(tmp_path, values, ids=[3, 17, 20, 41], names=names)
    got = read_spectra(text)
    np.testing.assert_array_equal(got.data, values)
    np.testing.assert_array_equal(read_spectra(binary).data, values)
    assert got.names == (names or ["0", "1", "2"])
    assert got.band_names == ["component_3", "component_17", "component_20", "component_41"]


def test_nothing_found_can_be_written(tmp_path: Path) -> None:
    text, binary = write_components(tmp_path, np.zeros((0, 3)))
    assert list(csv.reader(text.open())) == [["component", "0", "1", "2"]]
    text, binary = write_concentrations(tmp_path, np.zeros((2, 0)))
    assert list(csv.reader(text.open())) == [["spectrum"], ["0"], ["1"]]
    with np.load(binary) as archive:
        assert archive["concentrations"].shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "name"), [({"axis": np.ones(3)}, "axis"), ({"ids": [1]}, "ids"), ({"ids": [0.5, 1.5]}, "ids")]
)
def test_wrong_components(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        write_components(tmp_path, np.ones((2, 4)), **options)
    with pytest.raises(ValueError, match="`names` must be"):
        write_concentrations(tmp_path, np.ones((2, 4)), names=["a"])
    with pytest.raises(ValueError, match="`components` must be"):
        write_components(tmp_path, np.ones(4))
    assert not list(tmp_path.iterdir())


def test_json_is_plain_and_sorted(tmp_path: Path) -> None:
    values = {
        "b": [np.float32(0.5), np.int64(3), np.bool_(True), float("nan"), np.float64("inf")],
        "a": {"path": Path("x") / "y", "tuple": (1, None, "é"), 3: np.array([[1.0, np.nan]])},
        "c": torch.tensor(2.5),
    }
    path = write_json(tmp_path / "run.json", values)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": {"3": [[1.0, None]], "path": "x/y", "tuple": [1, None, "é"]},
        "b": [0.5, 3, True, None, None],
        "c": 2.5,
    }
    assert text.index('"a"') < text.index('"b"') < text.index('"c"')
    with pytest.raises(TypeError, match=r"`values\['a'\]\[1\]` cannot be written as JSON: object"):
        write_json(path, {"a": [1, object()]})
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("axis", "unit"), [(None, None), ([400.0, 500.5, 600.0], "Nanometers"), ([900, 800, 700], "cm-1")]
)
def test_class_spectra(tmp_path: Path, axis: list[float] | None, unit: str | None) -> None:
    mean = np.array([[1, 2, 3], [np.nan] * 3, [0.1, 0.2, 0.3]])
    written = write_class_spectra(tmp_path, mean, mean / 10, [5, 0, 7], axis=axis, axis_unit=unit)
    assert [path.name for path in written] == ["spectra.csv", "spectra.npz", "spectra.hdr", "spectra.sli"]
    table, arrays, header, library = written
    lines = [line.split(",") for line in table.read_text(encoding="utf-8-sig").splitlines()]
    title = {None: "band", "Nanometers": "wavelength (nm)", "cm-1": "wavenumber (cm⁻¹)"}[unit]
    assert lines[0][:4] == [title, "cluster 0", "cluster 1", "cluster 2"]
    assert lines[0][6] == "cluster 2 standard deviation"
    assert lines[2] == [
        "1" if axis is None else str(axis[1]),
        "2",
        "",
        "0.200000003",
        "0.200000003",
        "",
        "0.0199999996",
    ]
    with np.load(arrays) as found:
        np.testing.assert_array_equal(found["mean"], mean.astype("f4"))
        assert found["count"].tolist() == [5, 0, 7]
        assert ("wavelengths" in found) == (axis is not None)
    for path in (header, library):
        spectra = read_spectra(path)
        np.testing.assert_array_equal(spectra.data, mean[[0, 2]].astype("f4"))
        assert spectra.names == ["cluster 0", "cluster 2"]
        assert (None if spectra.axis is None else spectra.axis.tolist()) == axis
        assert spectra.axis_unit == {None: None, "Nanometers": "nm", "cm-1": "cm⁻¹"}[unit]
    with pytest.raises(DataError, match="describes a spectral library"):
        open_cube(header)


def test_the_library_is_the_one_that_spectral_python_reads(tmp_path: Path) -> None:
    spectral = pytest.importorskip("spectral", reason="the part peers is not installed")
    mean = np.arange(8.0).reshape(2, 4)
    header = write_class_spectra(tmp_path, mean, mean, [1, 1], axis=[4, 5, 6, 7], axis_unit="um")[2]
    library = spectral.io.envi.open(str(header))
    np.testing.assert_array_equal(library.spectra, mean)
    assert library.names == ["cluster 0", "cluster 1"]
    assert library.bands.centers == [4, 5, 6, 7]
