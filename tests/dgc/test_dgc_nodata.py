"""Segmentation of scenes with pixels that hold no data, and of scenes that stay in their files."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import seeds
from spectrafuse import DeepGlobalClustering
from spectrafuse.dgc import normalise, windows
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import METHODS, Normalization
from spectrafuse.dgc.prediction.inference import cluster_mass, halo_rows, predict_labels, predict_probs
from spectrafuse.dgc.recipes import corrected, published
from spectrafuse.dgc.training import batches as batches_module
from spectrafuse.dgc.training.batches import CropBatches
from spectrafuse.dgc.training.stop_rule import StabilityWatch
from spectrafuse.dgc.windows import WindowedScene, fill_nearest, fill_rows
from spectrafuse.io.cubes import Cube, array_cube, as_cube, open_cube, read_cube
from spectrafuse.io.errors import DataError
from spectrafuse.random import RandomStream

BANDS = 6
CPU = torch.device("cpu")


def scene(seed: int = 0, height: int = 26, width: int = 23) -> np.ndarray:
    return np.random.default_rng(seed).random((BANDS, height, width)).astype(np.float32) + 0.2


def gaps(height: int = 26, width: int = 23) -> np.ndarray:
    """A border on the left, a block in the middle, and single pixels: True where there are no data."""
    absent = np.zeros((height, width), bool)
    absent[:, :3] = absent[8:17, 9:14] = True
    absent[::5, ::4] = True
    return absent


def hidden(cube: np.ndarray, absent: np.ndarray, stored: float = 0.0) -> Cube:
    """The scene with `stored` in the pixels without data."""
    return array_cube("X", np.where(absent, np.float32(stored), cube), mask=absent, zeros="check")


def write(folder: Path, cube: np.ndarray, kind: str, *, ignored: float | None = None) -> Path:
    """A `.npy` or an ENVI BIP file."""
    if kind == "npy":
        np.save(folder / "x.npy", cube)
        return folder / "x.npy"
    bands, rows, columns = cube.shape
    (folder / "x.img").write_bytes(np.moveaxis(cube, 0, -1).astype("<f4").tobytes())
    (folder / "x.hdr").write_text(
        f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {bands}\ndata type = 4\ninterleave = bip\n"
        + ("" if ignored is None else f"data ignore value = {ignored}\n")
    )
    return folder / "x.hdr"


def small(**options: Any) -> DeepGlobalClustering:
    defaults = {"n_clusters": 3, "embed_dim": 8, "crop_size": 12, "batch_size": 2, "max_epoch": 2, "reuse_iter": 2}
    return DeepGlobalClustering(**{**defaults, "device": "cpu", **options})


def model_of(seed: int = 0) -> SegmentationModel:
    return SegmentationModel(BANDS, 8, 4, bias=True, stream=RandomStream(seed)).double().eval()


@pytest.mark.parametrize("method", METHODS)
def test_statistics_are_those_of_the_pixels_with_data(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, absent = scene(), gaps()
    absent[4:7] = True
    alone = Normalization(method).fit(cube[:, ~absent][:, :, None].astype(np.float64))
    if method == "signal+meanstd":  # looks at neighbours
        alone = Normalization(method).fit(hidden(cube, absent, -3.0))
    for values in (1, 1 << 20):
        monkeypatch.setattr(normalise, "_BLOCK_VALUES", values)
        fitted = Normalization(method).fit(hidden(cube, absent, 1e6))
        if fitted.offset is not None and alone.offset is not None:
            assert fitted.scale is not None
            torch.testing.assert_close(fitted.offset, alone.offset, rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(fitted.scale, alone.scale, rtol=1e-6, atol=1e-7)


def test_filling_takes_the_nearest_pixel_with_data() -> None:
    cube, valid = torch.from_numpy(scene()), ~gaps()
    filled = fill_nearest(cube, valid)
    places = np.argwhere(valid)
    for row in range(cube.shape[1]):
        for column in range(cube.shape[2]):
            distance = np.hypot(*(places - (row, column)).T)
            nearest = places[distance == distance.min()]
            assert any(torch.equal(filled[:, row, column], cube[:, y, x]) for y, x in nearest)
    assert fill_nearest(cube, np.ones_like(valid)) is cube
    assert not fill_nearest(cube, np.zeros_like(valid)).any()


def test_rows_are_filled_from_within_a_distance() -> None:
    cube, absent = scene(), gaps()
    absent[20:] = True
    source, places = hidden(cube, absent), np.argwhere(~absent)
    for first, last in ((0, 26), (7, 9), (9, 17), (22, 26)):
        filled = fill_rows(source, first, last, 3).numpy()
        for row in range(first, last):
            for column in range(cube.shape[2]):
                distance = np.hypot(*(places - (row, column)).T)
                nearest = places[distance == distance.min()]
                if distance.min() > 3:
                    assert not filled[:, row - first, column].any()
                else:
                    assert any(np.array_equal(filled[:, row - first, column], cube[:, y, x]) for y, x in nearest)
    assert not fill_rows(dataclasses.replace(source, valid=np.zeros_like(absent)), 20, 22, 3).any()


@pytest.mark.parametrize("recipe", [corrected, published], ids=lambda recipe: recipe.name)
def test_what_is_stored_without_data_changes_nothing(recipe: Any) -> None:
    cube, absent = scene(), gaps()
    runs = []
    for stored in (0.0, np.nan):
        segmentation = small(recipe=recipe, nodata=np.nan)
        labels = segmentation.fit_predict(np.where(absent, np.float32(stored), cube), mask=absent)
        np.testing.assert_array_equal(labels == -1, absent)
        assert segmentation.cluster_mass_ is not None
        assert segmentation.cluster_mass_.sum() == pytest.approx(1)
        runs.append((labels, segmentation.history_, segmentation.cluster_centers_))
    for labels, history, centers in runs[1:]:
        np.testing.assert_array_equal(labels, runs[0][0])
        np.testing.assert_array_equal(centers, runs[0][2])
        assert history == runs[0][1]


@pytest.mark.slow
def test_the_ways_to_say_it_agree(tmp_path: Path) -> None:
    cube, absent = scene(), gaps()
    marked, with_nan = np.where(absent, -1, cube), np.where(absent, np.nan, cube)
    expected = small().fit_predict(cube, mask=absent)
    np.testing.assert_array_equal(small(nodata=-1).fit_predict(marked), expected)
    np.testing.assert_array_equal(small(nodata="nan").fit_predict(torch.from_numpy(with_nan)), expected)
    np.testing.assert_array_equal(small().fit_predict([cube], mask=[absent])[0], expected)
    path = write(tmp_path, marked, "envi", ignored=-1)
    np.testing.assert_array_equal(small().fit_predict(path), expected)
    np.testing.assert_array_equal(small().fit_predict(read_cube(path)), expected)
    np.testing.assert_array_equal(small().fit_predict(open_cube(path)), expected)
    masked = np.ma.MaskedArray(cube, np.broadcast_to(absent, cube.shape))
    np.testing.assert_array_equal(small().fit_predict(masked), expected)


def test_the_value_is_kept_with_the_model(tmp_path: Path) -> None:
    cube, absent = np.where(gaps(), np.float32(np.nan), scene()), gaps()
    segmentation = small(nodata=float("nan")).fit(cube, checkpoint_dir=tmp_path / "state")
    again = small(nodata=float("nan")).fit(cube, checkpoint_dir=tmp_path / "state")
    np.testing.assert_array_equal(again.cluster_centers_, segmentation.cluster_centers_)
    segmentation.merge_clusters({0: [0, 1], 1: [2]}).save(tmp_path / "model")
    labels = DeepGlobalClustering.load(tmp_path / "model", device="cpu").predict(cube)
    np.testing.assert_array_equal(labels == -1, absent)
    assert set(np.unique(labels)) <= {-1, 0, 1}
    with pytest.raises(ValueError, match="nodata was nan, now None"):
        small().fit(scene(), checkpoint_dir=tmp_path / "state")


@pytest.mark.parametrize(
    ("options", "mask", "words"),
    [
        ({}, None, "not finite .*nodata=nan leaves"),
        ({"nodata": "nan"}, np.zeros((3, 3), bool), r"`mask` must have the shape \(26, 23\) of `X`"),
        ({"nodata": "nan"}, np.ones((26, 23), bool), "no pixel with data"),
    ],
)
def test_errors(options: dict[str, Any], mask: Any, words: str) -> None:
    cube = np.where(gaps(), np.float32(np.nan), scene())
    with pytest.raises(DataError, match=words):
        small(**options).fit(cube, mask=mask)


def test_masks_of_a_list_and_of_what_was_read() -> None:
    with pytest.raises(DataError, match="one mask or None for each of the 2 scenes"):
        small().fit([scene(), scene()], mask=[None])
    with pytest.raises(DataError, match=r"`X` has been read already"):
        small().fit(hidden(scene(), gaps()), mask=gaps())


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_strips_equal_the_whole_scene(rows: int) -> None:
    cube, absent = scene(), gaps()
    absent[:, 3:] |= seeds.generator().random((26, 20)) < 0.3
    model, unit = model_of(), Normalization("unit+meanstd")
    source = hidden(cube, absent)
    whole = predict_probs(model, source, unit, rows=100)
    torch.testing.assert_close(predict_probs(model, source, unit, rows=rows), whole, rtol=0, atol=1e-6)
    assert not whole[torch.from_numpy(absent)].any()
    labels = predict_labels(model, source, unit, rows=rows)
    assert torch.equal(labels == -1, torch.from_numpy(absent))
    assert halo_rows(model, 23) < 26
    mass = cluster_mass(model, [source], unit)
    torch.testing.assert_close(mass, whole[torch.from_numpy(~absent)].double().mean(0), rtol=0, atol=1e-6)


def batches_of(given: list[Any], recipe: Any, *, windowed: bool, crop: int = 12) -> CropBatches:
    normalization = Normalization("unit+meanstd")
    fitted = [normalization.fit(cube) for cube in given]
    if windowed:
        made: list[Any] = [WindowedScene(as_cube(cube), own, CPU) for cube, own in zip(given, fitted, strict=True)]
    else:
        made = [own.transform(cube) for cube, own in zip(given, fitted, strict=True)]
    return CropBatches(made, dataclasses.replace(recipe, reuse_iter=3), crop, 4, 3)


@pytest.mark.parametrize("crop", [12, 64])
@pytest.mark.parametrize("recipe", [corrected, published], ids=lambda recipe: recipe.name)
def test_crops_read_by_windows_are_the_same(recipe: Any, crop: int) -> None:
    given = [scene(1), scene(2, 9, 30)]
    held, read = (batches_of(given, recipe, windowed=w, crop=crop) for w in (False, True))
    for expected, got in zip(held.epoch(1), read.epoch(1), strict=True):
        assert got.valid is None
        torch.testing.assert_close(got.views, expected.views, rtol=0, atol=1e-6)
        assert torch.equal(got.geometry, expected.geometry)


def test_crops_show_enough_pixels_with_data(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = np.ones((60, 60), bool)
    absent[40:56, 30:50] = False
    source = array_cube("X", scene(0, 60, 60), mask=absent, zeros="check")

    def shares() -> list[float]:
        batches = batches_of([source], corrected, windowed=True)
        found = []
        for batch in batches.epoch(1):
            for pair in batch.geometry:
                valid = batches.scenes[0].valid(*batches._box(pair))
                found.append(float(valid.mean()))
                assert batch.views.abs().amax(dim=1).gt(0).all()
        return found

    redrawn = shares()
    monkeypatch.setattr(batches_module, "_MOST_DRAWS", 0)
    assert sum(share >= 0.25 for share in redrawn) > len(redrawn) / 2
    monkeypatch.undo()
    assert np.mean(redrawn) > 0.2


def test_windows_show_pixels_with_data_only() -> None:
    cube, absent = scene(), gaps()
    source = hidden(cube, absent)
    fitted = Normalization("meanstd").fit(source)
    present = fitted.transform(cube)[:, ~absent]
    for windowed in (
        WindowedScene(source, fitted, CPU),
        WindowedScene(source, fitted, CPU).surrounded(6, 6),
    ):
        for place in [(2, 1, 15, 12), (0, 0, 40, 40), (7, 8, 3, 3)]:
            window, valid = windowed.window(*place), windowed.valid(*place)
            assert valid is not None
            assert window.shape[1:] == valid.shape
            for spectrum in window.flatten(1).t():
                assert (spectrum[:, None] == present).all(dim=0).any()


def test_the_stop_rule_looks_where_there_are_data() -> None:
    absent = np.ones((600, 40), bool)
    absent[560:, 5:30] = False
    source = array_cube("X", scene(0, 600, 40), mask=absent, zeros="check")
    fitted = Normalization("unit").fit(source)
    watch = StabilityWatch([WindowedScene(source, fitted, CPU)], patience=0, tolerance=0)
    values = watch.update(model_of().float())
    assert watch.previous is not None
    assert int((watch.previous[0] >= 0).sum()) == 40 * 25
    assert values["clusters"] == len(set(watch.previous[0].unique().tolist()) - {-1})


@pytest.mark.parametrize("kind", ["npy", "envi"])
def test_files_left_in_place_give_what_arrays_give(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = scene()
    path = write(tmp_path, cube, kind)
    options: dict[str, Any] = {"layout": "chw"} if kind == "npy" else {}
    held = small().fit(cube)
    read: list[tuple[int, ...]] = []
    original = Cube._read

    def recorded(self: Cube, bands: slice, rows: slice, columns: slice) -> np.ndarray:
        values = original(self, bands, rows, columns)
        read.append(values.shape[1:])
        return values

    monkeypatch.setattr(Cube, "_read", recorded)
    read_whole = small().fit(open_cube(path, **options))
    assert all(columns == 23 for _, columns in read)
    np.testing.assert_array_equal(read_whole.predict(cube), held.predict(cube))
    monkeypatch.setattr(windows, "_MOST_NUMBERS", cube.size - 1)
    in_place = small().fit(open_cube(path, **options))
    assert any(columns < 23 for _, columns in read)
    for mine, theirs in zip(in_place.history_, held.history_, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert (in_place.predict(open_cube(path, **options)) == held.predict(cube)).mean() > 0.99


def test_statistics_of_a_file_are_kept_and_those_of_memory_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, scene(), "envi")
    calls: list[Any] = []
    original = Normalization._fit

    def counted(*arguments: Any) -> Normalization:
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(Normalization, "_fit", counted)
    in_file, in_memory = open_cube(path), read_cube(path)
    segmentation = small().fit(in_file)
    expected = segmentation.predict(in_file)
    assert len(calls) == 2  # one for each normalization that is tried
    np.testing.assert_array_equal(segmentation.predict(in_memory), expected)
    in_memory.data[:3] *= 4
    np.testing.assert_array_equal(segmentation.predict(in_memory), segmentation.predict(in_memory.data.copy()))
    assert len(calls) == 5


_SCRIPT = """
import resource, sys, numpy as np, torch
torch.set_num_threads(1)
from spectrafuse import DeepGlobalClustering
segmentation = DeepGlobalClustering(2, embed_dim=4, n_spectral_layers=1, crop_size=16, batch_size=1, max_epoch=1,
    reuse_iter=1, num_iters=1, window=3, device="cpu", max_memory=1 << 24, normalization="meanstd")
segmentation.fit(sys.argv[1]).predict(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels = segmentation.fit(sys.argv[2]).predict(sys.argv[2])
assert labels.shape == (int(sys.argv[3]), 64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def _sparse_envi(folder: Path, rows: int) -> Path:
    """BIL, float32, 512 bands and 64 columns: mostly a hole in the file."""
    (folder / "x.hdr").write_text(f"ENVI\nsamples = 64\nlines = {rows}\nbands = 512\ndata type = 4\ninterleave = bil\n")
    row = np.random.default_rng(0).random(64 * 512, dtype=np.float32).tobytes()
    with (folder / "x.img").open("wb") as file:
        for at in range(0, rows, 97):
            file.seek(at * len(row))
            file.write(row)
        file.truncate(rows * len(row))
    return folder / "x.hdr"


@pytest.mark.process
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    rows = 2000
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    small_file, large_file = _sparse_envi(tmp_path / "small", 150), _sparse_envi(tmp_path / "large", rows)
    size = (tmp_path / "large" / "x.img").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(small_file), str(large_file), str(rows)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert size > 200e6
    # What the allocator keeps of the windows that a thread reads varies by some 80 MB from run to run.
    assert int(done.stdout) < size / 2
