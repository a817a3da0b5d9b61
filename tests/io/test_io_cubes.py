"""`read_cube`: the same scene from every format and layout, and one sentence for every file that is no scene."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import loadmat

from helpers import seeds
from helpers.io_files import scene, write_archive, write_array, write_matlab5, write_matlab73
from spectrafuse.io.arrays import open_arrays
from spectrafuse.io.cubes import open_cube, read_cube
from spectrafuse.io.errors import DataError, ReadingNote
from spectrafuse.io.labels import read_labels
from spectrafuse.io.spectra import read_spectra

MATLAB = [write_matlab5, lambda p, v: write_matlab5(p, v, compressed=False), write_matlab73]
ARCHIVES = [*MATLAB, write_archive]
DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
SIZES = [(7, 5, 3), (3, 5, 7), (5, 5, 4), (2, 1, 6), (11, 2, 2)]


def suffix(write: Callable[..., Path]) -> str:
    return ".npz" if write is write_archive else ".mat"


def as_pixels(cube: np.ndarray) -> np.ndarray:
    """Bands, pixels; column after column."""
    return np.stack([band.flatten(order="F") for band in cube])


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint16", "int8"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("write", MATLAB)
def test_matlab_is_rows_columns_bands(
    tmp_path: Path, write: Callable[..., Path], size: tuple[int, int, int], dtype: str
) -> None:
    expected = scene(*size, dtype="uint8").clip(0, 120).astype(dtype)
    path = write(tmp_path / "x.mat", {"anything": np.moveaxis(expected, 0, -1), "note": np.zeros((2, 2))})
    cube = read_cube(path)
    np.testing.assert_array_equal(cube.data, expected.astype(np.float32))
    assert cube.data.flags.writeable
    assert (cube.source, cube.key, cube.wavelengths) == (str(path), "anything", None)
    assert cube.layout.endswith("read as (rows, columns, bands): the order of MATLAB files")
    assert cube.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_matlab5_agrees_with_scipy(tmp_path: Path) -> None:
    rng = seeds.generator()
    variables: dict[str, Any] = {f"v{kind}": (rng.random((3, 1, 2)) * 99).astype(kind) for kind in DTYPES}
    variables |= {"zeros": np.zeros((300, 200, 3)), "none": np.zeros((0, 3)), "yes": np.array([[True, False]])}
    for compressed in (True, False):
        path = write_matlab5(
            tmp_path / "x.mat", {**variables, "text": "abc", "cell": [[1], "a"]}, compressed=compressed
        )
        opened, expected = open_arrays(path), loadmat(path)
        for name in variables:
            np.testing.assert_array_equal(opened.load(name), expected[name])
            assert opened.entries[name].shape == expected[name].shape
        assert [opened.entries[name].kind for name in ("yes", "text", "cell")] == ["logical", "text", "cell"]


def test_matlab5_of_the_other_byte_order(tmp_path: Path) -> None:
    values = np.arange(1, 25, dtype=">i2").reshape(2, 3, 4)

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    parts = struct.pack(">II", 10, 0), struct.pack(">iii", *values.shape), b"cube", values.tobytes(order="F")
    body = b"".join(element(kind, part) for kind, part in zip((6, 5, 1, 3), parts, strict=True))
    path = tmp_path / "x.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, body))
    np.testing.assert_array_equal(read_cube(path).data, np.moveaxis(values, -1, 0))
    np.testing.assert_array_equal(loadmat(path)["cube"], values)


def test_format_is_told_from_each_file(tmp_path: Path) -> None:
    expected = scene(4, 3, 5)
    turned = np.moveaxis(expected, 0, -1)
    for write in (write_matlab73, write_matlab5, write_matlab73):
        np.testing.assert_array_equal(
            read_cube(write(tmp_path / "X.MAT", {"cube": turned})).data, expected.astype("float32")
        )


STORED = {"hwc": (1, 2, 0), "chw": (0, 1, 2), "cwh": (0, 2, 1), "hcw": (1, 0, 2)}


def write_unmarked(path: Path, layout: str, cube: np.ndarray, **others: np.ndarray) -> Path:
    """As h5py writes a `.mat` file: with no attributes."""
    with h5py.File(path, "w") as file:
        file["cube"] = cube.transpose(STORED[layout])
        for name, value in others.items():
            file[name] = value
    return path


@pytest.mark.parametrize("layout", STORED)
def test_hdf5_without_matlab_attributes_asks(tmp_path: Path, layout: str) -> None:
    expected = scene(4, 3, 5)
    path = write_unmarked(tmp_path / "x.mat", layout, expected)
    a, b, c = expected.transpose(STORED[layout]).shape
    words = (
        f"({a} rows, {b} columns, {c} bands) with layout='hwc' or ({a} bands, {b} rows, {c} columns) "
        f"with layout='chw' or ({a} bands, {b} columns, {c} rows) with layout='cwh'."
    )
    with pytest.raises(DataError, match=f"shape .{a}, {b}, {c}.*does not name its axes.*" + re.escape(words)):
        read_cube(path)
    np.testing.assert_array_equal(read_cube(path, layout=layout).data, expected.astype("float32"))


def test_hdf5_without_matlab_attributes_is_decided_by_what_it_says(tmp_path: Path) -> None:
    expected = scene(4, 3, 5)
    path = write_unmarked(tmp_path / "x.mat", "hwc", expected, wavelength=np.arange(4.0))
    np.testing.assert_array_equal(read_cube(path).data, expected.astype("float32"))
    for layout in ("chw", "cwh"):
        path = write_unmarked(tmp_path / f"{layout}.mat", layout, expected, wavelength=np.arange(4.0))
        with pytest.raises(DataError, match="layout='chw'.* or .*layout='cwh'") as raised:
            read_cube(path)
        assert "hwc" not in str(raised.value)
        np.testing.assert_array_equal(read_cube(path, rows=3).data, expected.astype("float32"))


@pytest.mark.parametrize("write", MATLAB)
def test_matlab_with_bands_that_look_first_asks(tmp_path: Path, write: Callable[..., Path]) -> None:
    rng = seeds.generator()
    spectra = np.cumsum(rng.standard_normal((30, 3)), axis=0)
    expected = np.einsum("bk,khw->bhw", spectra, rng.random((3, 20, 24)))
    with pytest.raises(DataError, match=r"look like bands first: \(30 rows.*\(30 bands, 20 rows, 24 columns\)"):
        read_cube(write(tmp_path / "x.mat", {"cube": expected}))
    np.testing.assert_array_equal(read_cube(tmp_path / "x.mat", layout="chw").data, expected.astype("float32"))
    last = write(tmp_path / "y.mat", {"cube": np.moveaxis(expected, 0, -1)})
    np.testing.assert_array_equal(read_cube(last).data, expected.astype("float32"))


def test_matrices_of_hdf5_without_matlab_attributes_are_as_stored(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w") as file:
        file["map"] = np.arange(15).reshape(3, 5) % 2
    assert read_labels(tmp_path / "x.mat", shape=(3, 5)).tolist() == (np.arange(15).reshape(3, 5) % 2).tolist()


@pytest.mark.parametrize("write", ARCHIVES)
def test_key_is_given_or_found(tmp_path: Path, write: Callable[..., Path]) -> None:
    first, second = scene(4, 3, 3), scene(4, 3, 3)
    path = tmp_path / f"x{suffix(write)}"
    write(path, {"other": np.moveaxis(first, 0, -1), "cube": np.moveaxis(second, 0, -1), "table": np.ones((2, 7))})
    assert read_cube(path).key == "cube"
    np.testing.assert_array_equal(read_cube(path, key="other").data, first.astype("float32"))
    words = r"no variable 'cubes'; it has .*other \(3, 3, 4\).*"
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*" + words):
        read_cube(path, key="cubes")
    with pytest.raises(
        DataError, match=r"variable 'table' is a matrix of shape \(2, 7\).*give rows=... and columns=..."
    ):
        read_cube(path, key="table")
    write(path, {"a": np.moveaxis(first, 0, -1), "b": np.moveaxis(second, 0, -1)})
    with pytest.raises(DataError, match=r"several arrays.*choose one with key=...: a \(3, 3, 4\), b \(3, 3, 4\)"):
        read_cube(path)
    write(path, {"table": np.ones((2, 7))})
    with pytest.raises(
        DataError, match=r"no array that is clearly a cube.*\(2, 7\)\. A matrix .* rows=... and columns=..."
    ):
        read_cube(path)


@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.parametrize("name", ["wavelengths", "Wavelength", "wl", "bands_nm", "lambda"])
def test_wavelengths_are_kept_and_decide(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    expected, axis = scene(7, 3, 4), np.linspace(400.123456789, 1000, 7)
    path = tmp_path / f"x{suffix(write)}"
    for stored, reading in ((expected, "bands, rows, columns"), (np.moveaxis(expected, 0, -1), "rows, columns, bands")):
        for stored_axis in (axis, axis[:, None]):
            cube = read_cube(write(path, {"cube": stored, name: stored_axis}))
            np.testing.assert_array_equal(cube.data, expected.astype("float32"))
            assert cube.wavelengths is not None
            np.testing.assert_array_equal(cube.wavelengths, axis)
            assert reading in cube.layout
            assert "7 wavelengths" in cube.layout


def test_wavelengths_of_another_length_warn(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.npz", {"cube": scene(5, 4, 4), "wl": np.arange(9.0)})
    with pytest.warns(UserWarning, match=r"has 5 bands, which is not the length of wl \(9\)"):
        assert read_cube(path).wavelengths is None


def test_bands_in_the_middle(tmp_path: Path) -> None:
    expected = scene(7, 4, 5)
    path = write_archive(tmp_path / "x.npz", {"cube": expected.transpose(1, 0, 2), "wl": np.arange(7.0)})
    cube = read_cube(path)
    np.testing.assert_array_equal(cube.data, expected.astype("float32"))
    assert cube.layout == "(4, 7, 5) read as (rows, bands, columns): the file has 7 wavelengths"


@pytest.mark.parametrize("rows", [1, 3])
def test_numpy_with_two_equal_axes(tmp_path: Path, rows: int) -> None:
    expected = scene(7, rows, rows)
    cube = read_cube(write_array(tmp_path / "a.npy", expected))
    np.testing.assert_array_equal(cube.data, expected.astype("float32"))
    assert (cube.key, cube.layout) == (
        None,
        f"{expected.shape} read as (bands, rows, columns): the first axis is the one that differs",
    )
    turned = read_cube(write_array(tmp_path / "b.npy", np.moveaxis(expected, 0, -1)))
    np.testing.assert_array_equal(turned.data, expected.astype("float32"))
    assert "(rows, columns, bands)" in turned.layout


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 4, 4), (4, 5, 4)])
def test_numpy_that_is_ambiguous_asks(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    array = scene(*shape)
    path = write_array(tmp_path / "x.npy", array)
    a, b, c = shape
    words = (
        f"({a} rows, {b} columns, {c} bands) with layout='hwc' or ({a} bands, {b} rows, {c} columns) "
        "with layout='chw'. Say which one."
    )
    with pytest.raises(DataError, match=re.escape(words)):
        read_cube(path)
    np.testing.assert_array_equal(read_cube(path, layout="chw").data, array.astype("float32"))
    hwc = read_cube(path, layout="hwc")
    np.testing.assert_array_equal(hwc.data, np.moveaxis(array, -1, 0).astype("float32"))
    assert "as asked for" in hwc.layout


def test_layout_given_beats_matlab_order(tmp_path: Path) -> None:
    expected = scene(4, 3, 5)
    path = write_matlab5(tmp_path / "x.mat", {"cube": expected})
    np.testing.assert_array_equal(read_cube(path, layout="chw").data, expected.astype("float32"))


@pytest.mark.parametrize("names", [("lines", "cols"), ("nRow", "nCol"), ("H", "W")])
@pytest.mark.parametrize("write", ARCHIVES)
@pytest.mark.parametrize("size", [(4, 3, 5), (4, 5, 3), (6, 1, 7), (1, 2, 2)])
def test_matrix_of_pixels(
    tmp_path: Path, write: Callable[..., Path], size: tuple[int, int, int], names: tuple[str, str]
) -> None:
    expected = scene(*size)
    rows, columns = size[1:]
    path = tmp_path / f"x{suffix(write)}"
    facts = {names[0]: np.array([[rows]]), names[1]: np.array(columns), "S_GT": scene(rows, columns, 3)}
    for matrix, reading in ((as_pixels(expected), "(bands, pixels)"), (as_pixels(expected).T, "(pixels, bands)")):
        cube = read_cube(write(path, {"GT": np.ones((3, 4)), "Y": matrix, **facts}))
        assert cube.key == "Y"
        np.testing.assert_array_equal(cube.data, expected.astype("float32"))
        assert cube.layout == f"{matrix.shape} read as {reading}, {rows} rows and {columns} columns, column by column"
        # Another name is found when it is the only matrix that fits, and arguments stand in for the file.
        write(path, {"M": np.ones((3, 2)), "V": matrix})
        again = read_cube(path, rows=rows, columns=columns)
        assert again.key == "V"
        np.testing.assert_array_equal(again.data, cube.data)


def test_matrix_with_as_many_bands_as_pixels(tmp_path: Path) -> None:
    expected = scene(6, 2, 3)
    path = write_array(tmp_path / "x.npy", as_pixels(expected))
    np.testing.assert_array_equal(read_cube(path, rows=2, columns=3).data, expected.astype("float32"))
    write_array(path, as_pixels(expected).T)
    np.testing.assert_array_equal(read_cube(path, rows=2, columns=3, layout="hwc").data, expected.astype("float32"))


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    path = write_matlab5(tmp_path / "x.mat", {"Y": np.ones((4, 15)), "lines": 3, "cols": 6, "S_GT": scene(3, 5, 2)})
    with pytest.raises(DataError, match=r"'Y' is a matrix of shape \(4, 15\), but 3 rows and 6 columns make 18"):
        read_cube(path)
    assert read_cube(path, columns=5).data.shape == (4, 3, 5)
    write_matlab5(path, {"cube": scene(3, 5, 2)})
    with pytest.raises(DataError, match=r"\(3, 5, 2\), read as \(rows, columns, bands\), has 5 columns, not 2"):
        read_cube(path, columns=2)
    write_matlab5(path, {"Y": np.ones((4, 15)), "lines": 3})
    with pytest.raises(DataError, match="how many columns the scene has"):
        read_cube(path, key="Y")


@pytest.mark.parametrize(
    ("options", "error"),
    [({"layout": "bsq"}, ValueError), ({"rows": 0}, ValueError), ({"columns": 2.5}, TypeError)],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"`{next(iter(options))}` must be"):
        read_cube(tmp_path / "x.npy", **options)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"cube": np.full((2, 2, 3), np.nan)}, r"'.*x\.mat', variable 'cube' has 12 values .*first at band 0, row 0"),
        ({"cube": np.ones((2, 2, 3)) * 1j}, r"variable 'cube' is not an array of numbers but complex"),
        ({"cube": "text"}, r"variable 'cube' is not an array of numbers but text"),
        ({"cube": {"a": 1}}, r"variable 'cube' is no array of numbers but holds others; choose one: cube.a"),
        ({"cube": np.zeros((2, 2, 3))}, r"variable 'cube' is zero everywhere"),
        ({"cube": np.zeros((2, 0, 3))}, r"at least one of each"),
    ],
)
def test_contents_that_are_no_scene(tmp_path: Path, variables: dict[str, Any], words: str) -> None:
    path = write_matlab5(tmp_path / "x.mat", variables)
    with pytest.raises(DataError, match=words):
        read_cube(path, key="cube")


def test_zero_bands_are_left_out_and_said_unless_accepted(tmp_path: Path) -> None:
    cube = scene(4, 3, 3)
    cube[2] = 0
    path = write_array(tmp_path / "x.npy", cube)
    with pytest.warns(
        ReadingNote, match=r"'.*x\.npy': 1 of 4 bands left out \(only zeros or no data: 2, .*bands='all' keeps"
    ):
        read = read_cube(path)
    np.testing.assert_array_equal(read.data, cube[[0, 1, 3]].astype("float32"))
    assert "3 bands" in read.description
    assert "1 of 4 bands left out: only zeros or no data (2)" in read.description
    for options in ({"zeros": "accept"}, {"bands": "all"}):
        np.testing.assert_array_equal(open_cube(path, **options).read_rows(0, 3), cube.astype("float32"))  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [read_cube, read_labels, read_spectra])
def test_files_that_are_none(tmp_path: Path, read: Callable[..., Any]) -> None:
    for name, content, words in (
        ("x.mat", None, "does not exist"),
        ("x.npy", b"", r"is empty \(0 bytes\)"),
        ("x.tif", b"1", r"(suffix '\.tif'; this can read|is an image; ).*\.npy"),
        ("x", b"1", r"has no suffix"),
        ("y.mat", b"1" * 200, "not a MATLAB file"),
        ("y.npy", b"PK\x03\x04", r"not in NumPy's \.npy format"),
        ("y.npz", b"\x93NUMPY", "not an .npz file"),
        ("z.npz", b"PK\x03\x04", "may be damaged or cut short"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^'{re.escape(str(path))}' .*{words}"):
            read(path)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(DataError, match="is a folder; give a file"):
        read(tmp_path / "folder.npy")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    array = np.full((2, 2, 2), None)
    with pytest.raises(DataError, match="never loaded"):
        read_cube(write_array(tmp_path / "x.npy", array))
    path = write_archive(tmp_path / "x.npz", {"a": array, "b": np.ones((3, 3, 2))})
    assert read_cube(path).key == "b"
    with pytest.raises(DataError, match="'a' is not an array of numbers but Python objects"):
        read_cube(path, key="a")


def test_a_name_for_an_array_without_one(tmp_path: Path) -> None:
    path = write_array(tmp_path / "x.npy", np.ones((3, 3, 2)))
    with pytest.raises(DataError, match="leave key='cube' out"):
        read_cube(path, key="cube")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.mat", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*`git lfs pull`"),
        ("x.npy", b"<!DOCTYPE html><html>", "a web page, not the data"),
        ("x.png", b"\x89PNG\r\n\x1a\n....", "a PNG picture: a picture has no spectra"),
        ("x.zip", b"PK\x03\x04....", "a zip archive: unpack it"),
        ("x.mat", b"\x1f\x8b\x08....", "packed with gzip: unpack it with `gunzip -k x.mat`"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_cube(tmp_path / name)


def test_hdf5_needs_no_suffix(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "scene", "w") as file:
        file["cube"] = np.ones((2, 3, 4))
    assert open_cube(tmp_path / "scene", layout="chw").shape == (2, 3, 4)
