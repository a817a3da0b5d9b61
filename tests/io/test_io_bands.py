"""Which bands of a scene are used: by number, by wavelength, by the file; read in place in every format."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from helpers.io_files import write_array
from spectrafuse.io import open_cube, read_cube
from spectrafuse.io.bands import listed, parse_bands, suspicious
from spectrafuse.io.errors import DataError, ReadingNote

WAVELENGTHS = np.arange(400.0, 900.0, 50.0)


@pytest.mark.parametrize(
    ("choice", "kept", "dropped"),
    [
        (None, None, []),
        ("all", range(10), []),
        ("0-2,7-", [0, 1, 2, 7, 8, 9], []),
        ("-1; 4", [0, 1, 4], []),
        ("500-600nm", [2, 3, 4], []),
        ("0.5-0.6 um, 9", [2, 3, 4, 9], []),
        ("-450 nm", [0, 1], []),
        ("16600-20100 cm-1", [2, 3, 4], []),
        ("drop 5-", None, range(5, 10)),
        ("0-6 drop 400-500nm,4", range(7), [0, 1, 2, 4]),
        ([8, 3, -1], [3, 8, 9], []),
        (WAVELENGTHS < 500, [0, 1], []),
    ],
)
def test_choices(choice: Any, kept: Any, dropped: Any) -> None:
    found, out = parse_bands(choice, 10, WAVELENGTHS, "Nanometers")
    assert (found if found is None else found.tolist()) == (kept if kept is None else list(kept))
    assert out.tolist() == list(dropped)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("5-12", "'5-12' is not among the bands 0 to 9"),
        ("400-500", "not among the bands 0 to 9; wavelengths need a unit"),
        ("x", "must read like"),
        ("", "must read like"),
        ("drop", "must read like"),
        ("1-2 furlong", "'furlong' in '1-2 furlong' is no unit"),
        ([0, 0], "each band once"),
        ([10], "from 0 to 9"),
        ([[1]], "must read like"),
        ([True], "1 of 1"),
    ],
)
def test_choices_that_are_none(choice: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_bands(choice, 10, WAVELENGTHS, "nm")


def test_wavelengths_that_the_file_lacks() -> None:
    with pytest.raises(ValueError, match="the file has no wavelengths; give band numbers"):
        parse_bands("400-500nm", 10)
    with pytest.raises(ValueError, match="wavelengths in furlongs"):
        parse_bands("400-500nm", 10, WAVELENGTHS, "furlongs")


def test_bands_in_words() -> None:
    assert listed(np.array([0, 1, 2, 7, 9, 10])) == "0-2, 7, 9-10"
    assert listed(np.arange(0, 40, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, ..."


def test_bands_that_stick_out() -> None:
    means = np.linspace(1, 2, 20)
    means[7] = 9
    assert suspicious(means, np.arange(20)).tolist() == [7]
    # Neighbors in the list that are none in the file do not count.
    assert suspicious(means, np.r_[np.arange(7), np.arange(8, 21)]).tolist() == []
    assert suspicious(np.linspace(1, 2, 20), np.arange(20)).tolist() == []


def _write(folder: Path, name: str, cube: np.ndarray) -> Path:
    if name == "npy":
        return write_array(folder / "x.npy", cube)
    if name == "mat7.3":
        with h5py.File(folder / "x.mat", "w") as file:
            item = file.create_dataset("cube", data=cube.transpose(2, 1, 0).transpose(2, 0, 1), chunks=(2, 3, 4))
            item.attrs["MATLAB_class"] = np.bytes_("double")
        return folder / "x.mat"
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[name]
    (folder / "x.img").write_bytes(cube.transpose(axes).astype("<f8").tobytes())
    bands, rows, columns = cube.shape
    (folder / "x.hdr").write_text(
        f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {bands}\ndata type = 5\ninterleave = {name}\n"
        f"wavelength units = nm\nwavelength = {{{', '.join(map(str, WAVELENGTHS))}}}\n"
    )
    return folder / "x.hdr"


@pytest.mark.parametrize("name", ["bsq", "bil", "bip", "npy", "mat7.3"])
def test_windows_of_some_bands(tmp_path: Path, name: str) -> None:
    cube = np.random.default_rng(0).random((10, 8, 9)) + 0.1
    path = _write(tmp_path, name, cube)
    layout = "hwc" if name == "mat7.3" else "chw" if name == "npy" else "auto"
    opened = open_cube(path, bands="0-1,4,6-8", layout=layout)
    kept = [0, 1, 4, 6, 7, 8]
    assert (opened.shape, opened.file_backed) == ((6, 8, 9), True)
    expected = cube[kept].astype("float32")
    np.testing.assert_array_equal(opened.data, expected)
    np.testing.assert_array_equal(opened[1:4, 2:5, 3:7], expected[1:4, 2:5, 3:7])
    np.testing.assert_array_equal(opened.with_bands([1, 7]).data, cube[[1, 7]].astype("float32"))
    np.testing.assert_array_equal(opened.held().with_bands([1, 7]).data, cube[[1, 7]].astype("float32"))
    with pytest.raises(DataError, match="was read without the bands 2"):
        opened.with_bands([1, 2])
    if opened.wavelengths is not None:
        np.testing.assert_array_equal(opened.wavelengths, WAVELENGTHS[kept])


@pytest.mark.parametrize("field", ["bbl = {1, 1, 0, 1, 1, 1, 1, 1, 0, 0}", "bbl = {1.0,1,0.0,1,1,1,1,1,0,0}"])
def test_bands_that_the_header_calls_bad(tmp_path: Path, field: str) -> None:
    cube = np.random.default_rng(0).random((10, 8, 9)) + 0.1
    path = _write(tmp_path, "bil", cube)
    path.write_text(path.read_text() + field + "\n")
    with pytest.warns(ReadingNote, match=r"3 of 10 bands left out \(bad by the file \(bbl\): 2, 8-9, counted from 0"):
        read = read_cube(path)
    np.testing.assert_array_equal(read.data, cube[[0, 1, 3, 4, 5, 6, 7]].astype("float32"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_cube(path, bands="all").shape[0] == 10
        assert read_cube(path, bands="1-3").band_numbers.tolist() == [1, 2, 3]
    with pytest.warns(ReadingNote, match="3 of 10"):
        dropped = read_cube(path, bands="drop 400-480nm")
    assert dropped.band_numbers.tolist() == [3, 4, 5, 6, 7]
    assert "dropped as asked for (0-1)" in dropped.description


def test_a_bad_bands_list_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, "bil", np.random.default_rng(0).random((10, 8, 9)) + 0.1)
    path.write_text(path.read_text() + "bbl = {1, 0}\n")
    read = read_cube(path)
    assert read.shape[0] == 10
    assert "2 'bbl' for 10 bands, which are not applied" in read.description
