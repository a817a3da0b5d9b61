"""Pixels without data, by value, NaN or mask; and scenes read window by window, in every format alike."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from helpers import seeds
from helpers.io_files import write_archive, write_array, write_matlab5, write_matlab73
from spectrafuse.io import nodata as nodata_module
from spectrafuse.io import open_cube, read_cube
from spectrafuse.io.cubes import array_cube
from spectrafuse.io.errors import DataError, ReadingNote

BANDS, ROWS, COLUMNS = 4, 6, 5


def _write_envi(folder: Path, cube: np.ndarray) -> Path:
    (folder / "x.img").write_bytes(cube.astype("<f8").tobytes())
    bands, rows, columns = cube.shape
    (folder / "x.hdr").write_text(
        f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {bands}\ndata type = 5\ninterleave = bsq\n"
    )
    return folder / "x.hdr"


FORMATS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "envi": _write_envi,
    "npy": lambda folder, cube: write_array(folder / "x.npy", cube),
    "npz": lambda folder, cube: write_archive(folder / "x.npz", {"cube": cube}),
    "mat5": lambda folder, cube: write_matlab5(folder / "x.mat", {"cube": cube}),
    "mat7.3": lambda folder, cube: write_matlab73(folder / "x.mat", {"cube": cube}),
}


def scene(seed: int | None = None) -> np.ndarray:
    return np.random.default_rng(seed).random((BANDS, ROWS, COLUMNS)) + 0.5


def holes(value: float) -> tuple[np.ndarray, np.ndarray]:
    """A scene with a third of its pixels at `value` in all bands, and where they are."""
    cube = scene()
    absent = seeds.generator().permutation(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 3 == 0
    cube[:, absent] = value
    return cube, absent


@pytest.fixture(params=[1, 1 << 20])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, and all at once."""
    monkeypatch.setattr(nodata_module.row_blocks, "__defaults__", (request.param,))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize("value", [-9999.0, 0.0, np.nan, np.inf, -sys.float_info.max])
def test_value_in_every_format(tmp_path: Path, name: str, value: float) -> None:
    cube, absent = holes(value)
    path = FORMATS[name](tmp_path, cube)
    expected = np.where(absent, 0, cube).astype("float32")
    for marker in (value, str(value)):
        got = read_cube(path, layout="chw", nodata=marker)
        assert got.valid is not None
        np.testing.assert_array_equal(got.valid, ~absent)
        np.testing.assert_array_equal(got.data, expected)
    opened = open_cube(path, layout="chw", nodata=value)
    assert opened.file_backed == (name != "mat5")
    np.testing.assert_array_equal(opened.read_window(1, 4, 2, 5), expected[:, 1:4, 2:5])
    np.testing.assert_array_equal(opened.read_rows(2, 3), expected[:, 2:3])
    if not np.isfinite(value):
        with pytest.raises(DataError, match=r"has 40 values that are not finite|that float32 cannot hold"):
            read_cube(path, layout="chw")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_mask(tmp_path: Path, name: str) -> None:
    cube, absent = holes(7.0)
    path = FORMATS[name](tmp_path, cube)
    for mask in (absent, absent.astype("uint8"), absent.tolist(), torch.from_numpy(absent)):
        got = read_cube(path, layout="chw", mask=mask)
        np.testing.assert_array_equal(got.valid, ~absent)
        np.testing.assert_array_equal(got.data, np.where(absent, 0, cube).astype("float32"))
    assert read_cube(path, layout="chw", mask=np.zeros((ROWS, COLUMNS), bool)).valid is None
    with pytest.raises(
        DataError, match=r"`mask` must have the shape \(6, 5\) of .*; got \(5, 6\) \(it is transposed\)"
    ):
        read_cube(path, layout="chw", mask=absent.T)
    with pytest.raises(DataError, match="`mask` must be true where"):
        read_cube(path, layout="chw", mask=absent * 2)
    with pytest.raises(DataError, match="has no pixel with data"):
        read_cube(path, layout="chw", mask=np.ones((ROWS, COLUMNS), bool))


@pytest.mark.usefixtures("blocks")
def test_nan_in_one_band_hides_the_pixel_once_declared() -> None:
    cube = scene()
    cube[2, 3, 4] = np.nan
    for options in ({"nodata": np.nan}, {"nodata": -1}, {"mask": np.zeros((ROWS, COLUMNS), bool)}):
        source = array_cube("X", cube, zeros="check", **options)  # type: ignore[arg-type]
        assert source.valid is not None
        assert np.argwhere(~source.valid).tolist() == [[3, 4]]
        assert not source.read_rows(3, 4)[:, 0, 4].any()
    with pytest.raises(DataError, match=r"`X` has 1 value .* at band 2, row 3, column 4 .*: nan; nodata=nan leaves"):
        array_cube("X", cube, zeros="check")


@pytest.mark.usefixtures("blocks")
def test_value_in_some_bands_that_lies_outside_hides_the_pixel() -> None:
    cube = scene()
    cube[1, 2, 0], cube[:3, 4, 1], cube[:, 5, 3] = -1, -1, -1
    source = array_cube("X", cube, nodata=-1, zeros="check")
    assert source.valid is not None
    assert np.argwhere(~source.valid).tolist() == [[2, 0], [4, 1], [5, 3]]
    assert source.shape[0] == BANDS
    assert "2 of these pixels have no data in some bands only" in source.description


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [0.75, 0.0])
def test_value_in_some_bands_that_can_be_measured_is_data_with_a_warning(value: float) -> None:
    cube = scene() - (0.5 if value == 0 else 0)
    cube[1, 2, 0], cube[:, 5, 3] = value, value
    with pytest.warns(
        UserWarning, match=rf"`X`: 1 pixels hold the no-data value {value:g} in some bands only, .*row 2, column 0"
    ):
        source = array_cube("X", cube, nodata=value, zeros="check")
    assert source.valid is not None
    assert np.argwhere(~source.valid).tolist() == [[5, 3]]
    assert source.read_rows(2, 3)[1, 0, 0] == np.float32(value)


@pytest.mark.usefixtures("blocks")
def test_few_bands_without_data_in_many_pixels_are_left_out_instead() -> None:
    cube = np.random.default_rng(0).random((20, ROWS, COLUMNS)) + 0.5
    cube[3, 1:] = cube[4, 2:] = -1
    cube[7, 0, 0] = -1
    with pytest.warns(ReadingNote, match=r"2 of 20 bands left out \(no data in many pixels: 3-4, counted from 0\)"):
        source = array_cube("X", cube, nodata=-1, zeros="check")
    assert source.band_numbers.tolist() == [*range(3), *range(5, 20)]
    assert np.argwhere(~source.valid).tolist() == [[0, 0]]
    cube[8, :3] = cube[9, 3:] = -1
    with pytest.raises(DataError, match="no pixel with data in all its bands"):
        array_cube("X", cube, nodata=-1, zeros="check", bands=[8, 9])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_bands_without_any_data_are_left_out(value: float) -> None:
    cube, absent = holes(-1.0)
    cube[1] = value
    cube[3, ~absent] = np.nan
    with pytest.warns(ReadingNote, match=r"2 of 4 bands left out \(only zeros or no data: 1, 3, counted from 0\)"):
        source = array_cube("X", cube, nodata=-1, zeros="check")
    assert source.band_numbers.tolist() == [0, 2]
    np.testing.assert_array_equal(source.valid, ~absent)
    cube[:, absent] = 0
    np.testing.assert_array_equal(source.read_rows(0, ROWS), cube[[0, 2]].astype("float32"))
    source = array_cube("X", np.where(absent, -1, cube), nodata=-1, zeros="accept")
    np.testing.assert_array_equal(source.valid, ~absent)
    cube[[1, 3]] = 0
    np.testing.assert_array_equal(source.read_rows(0, ROWS), cube.astype("float32"))


@pytest.mark.usefixtures("blocks")
def test_bands_of_nan_are_left_out_without_a_word_about_pixels() -> None:
    cube = scene()
    cube[2] = np.nan
    with pytest.warns(ReadingNote, match="1 of 4 bands left out"):
        source = array_cube("X", cube, zeros="check")
    assert (source.band_numbers.tolist(), source.valid) == ([0, 1, 3], None)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("value", [0.0, -0.005])
def test_padding_that_nothing_declares_is_named(value: float) -> None:
    cube = np.random.default_rng(0).random((6, ROWS, COLUMNS)) + 0.5
    cube[:, :2] = value
    with pytest.warns(UserWarning, match=rf"10 pixels hold {value:g} in every band .*nodata={value:g}"):
        assert array_cube("X", cube, zeros="check").valid is None


@pytest.mark.usefixtures("blocks")
def test_fillings_that_nothing_declares_are_named() -> None:
    fill, few = np.linspace(-0.9, -0.5, 8), {"zeros": "check"}
    cube = seeds.generator().random((8, 12, 15)) + 0.5
    cube[:, :2, :4] = fill[:, None, None]
    with pytest.warns(
        UserWarning, match=r"8 pixels hold one and the same spectrum \(-0\.9 to -0\.5\).*mask=\.\.\. leaves"
    ):
        array_cube("cube", cube, **few)
    # Of a scene without noise many spectra are the same.
    cube[:, -3:] = fill[::-1, None, None]
    assert array_cube("cube", cube, **few).valid is None
    cube = seeds.generator().random((8, 12, 15)) * 1e4 - 200
    cube[6, 2:5] = -9999
    with pytest.warns(UserWarning, match=r"45 values are -9999, far outside all others,.*with nodata=-9999\."):
        array_cube("cube", cube, **few)


@pytest.mark.usefixtures("blocks")
def test_huge_values_are_declared_with_few_digits() -> None:
    cube, absent = holes(-sys.float_info.max)
    cube[cube < 0] = np.float32(-3.4028235e38)
    found = array_cube("cube", cube, nodata=-3.402e38, zeros="check")
    assert found.valid is not None
    np.testing.assert_array_equal(found.valid, ~absent)


@pytest.mark.usefixtures("blocks")
def test_infinity_is_no_data_once_a_value_is_declared() -> None:
    cube = scene()
    cube[2, 3, 1] = np.inf
    for value in (np.nan, -1):
        assert np.argwhere(~array_cube("X", cube, nodata=value, zeros="check").valid).tolist() == [[3, 1]]
    with pytest.raises(DataError, match=r"1 value .* at band 2, row 3, column 1 .*: inf; nodata=nan"):
        array_cube("X", cube, zeros="check")
    with pytest.raises(DataError, match="at band 2, row 3, column 1"):
        array_cube("X", cube, mask=np.zeros((ROWS, COLUMNS), bool), zeros="check")


def test_masked_arrays_of_numpy() -> None:
    cube, absent = holes(-1.0)
    masked = np.ma.MaskedArray(cube, np.broadcast_to(absent, cube.shape))
    np.testing.assert_array_equal(array_cube("X", masked, zeros="check").valid, ~absent)
    whole = np.ma.MaskedArray(cube, np.zeros(cube.shape, bool))
    assert array_cube("X", whole, zeros="check").valid is None
    other = np.roll(absent, 1)
    np.testing.assert_array_equal(array_cube("X", masked, mask=other, zeros="check").valid, ~(absent | other))


@pytest.mark.parametrize(("value", "words"), [("x", "got 'x'"), ([1], "a mask array goes to `mask`"), (True, "True")])
def test_values_that_are_none(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"`nodata` must be None or a number.*{words}"):
        array_cube("X", scene(), nodata=value, zeros="check")


@pytest.mark.parametrize("stored", ["chw", "hwc"])
@pytest.mark.parametrize("name", ["npy", "mat7.3"])
def test_windows_of_any_layout(tmp_path: Path, name: str, stored: str) -> None:
    cube = scene()
    path = FORMATS[name](tmp_path, cube if stored == "chw" else np.moveaxis(cube, 0, -1))
    opened = open_cube(path, layout=stored)
    assert opened.file_backed
    np.testing.assert_array_equal(opened[:, 2:5, 1:3], cube[:, 2:5, 1:3].astype("float32"))
    np.testing.assert_array_equal(opened[1:3], cube[1:3].astype("float32"))


def test_a_matrix_of_pixels_is_read_as_a_whole_or_mapped(tmp_path: Path) -> None:
    cube = scene()
    matrix = cube.transpose(0, 2, 1).reshape(BANDS, -1)
    for path in (write_array(tmp_path / "x.npy", matrix), write_matlab73(tmp_path / "x.mat", {"Y": matrix})):
        opened = open_cube(path, rows=ROWS, columns=COLUMNS)
        np.testing.assert_array_equal(opened[:, 2:5, 1:3], cube[:, 2:5, 1:3].astype("float32"))


@pytest.mark.parametrize("name", ["envi", "npy", "mat7.3"])
def test_a_file_that_has_gone(tmp_path: Path, name: str) -> None:
    path = FORMATS[name](tmp_path, scene())
    opened = open_cube(path, layout="chw")
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        opened.read_rows(0, 1)


@pytest.mark.parametrize("name", ["envi", "npy", "mat7.3"])
def test_windows_take_memory_for_themselves_only(tmp_path: Path, name: str) -> None:
    cube = np.ones((8, 1000, 250), dtype=np.float64)
    path = FORMATS[name](tmp_path, cube)
    tracemalloc.start()
    try:
        opened = open_cube(path, layout="chw")
        for row in range(0, 1000, 50):
            opened.read_rows(row, row + 50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Blocks of a million values with their temporaries, whatever the size of the scene.
    budget = 6 * 4 * nodata_module.BLOCK_VALUES
    assert peak < budget < 2 * cube.nbytes


def test_an_empty_data_set_of_any_size_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file.create_dataset("cube", shape=(10**5, 10**5, 10**5), chunks=(1, 100, 100), dtype="f8")
        file.create_dataset("Y", shape=(10**6, 10**6), chunks=(1, 100), dtype="f8")
    for options in ({"key": "cube"}, {"key": "Y", "rows": 1000, "columns": 1000}):
        with pytest.raises(DataError, match="far more than the file can hold"):
            read_cube(tmp_path / "x.mat", **options)  # type: ignore[arg-type]
