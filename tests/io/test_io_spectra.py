"""`read_spectra`: tables with and without header and names, in every dialect; faults with line and column."""

from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import seeds
from helpers.io_files import write_archive, write_array, write_matlab5
from spectrafuse.io.errors import DataError
from spectrafuse.io.spectra import read_spectra

AXIS = 400.5 + 2.5 * np.arange(12)


def table(n: int = 5, d: int = 12) -> np.ndarray:
    """Float32 numbers in -1..1 whose rows neither rise nor fall throughout."""
    values = seeds.generator().uniform(-1, 1, (n, d)).astype(np.float32)
    values[:, :3] = [[0.25, 0.5, 0.125]]
    return values


def write(
    path: Path,
    values: np.ndarray,
    header: list[str] | None = None,
    names: list[str] | None = None,
    *,
    delimiter: str = ",",
    comma: bool = False,
    end: str = "\n",
) -> Path:
    lines = [] if header is None else [delimiter.join(header)]
    for i, row in enumerate(values):
        cells = [f"{x:.9g}".replace(".", "," if comma else ".") for x in row.tolist()]
        lines.append(delimiter.join(([names[i]] if names else []) + cells))
    path.write_bytes((end.join(lines) + end).encode())
    return path


HEADERS: dict[str, tuple[list[str] | None, bool]] = {
    "none": (None, False),
    "numbers": ([f"{x}" for x in AXIS], True),
    "falling": ([f"{x}" for x in AXIS[::-1]], True),
    "R": ([f"X{x}" for x in AXIS], True),
    "units": ([f"{x} nm" for x in AXIS], True),
    "quoted": ([f'"{x}"' for x in AXIS], True),
    "words": ([f"channel {'abcdefghijkl'[i]}" for i in range(12)], False),
    "counted": ([f"V{i + 1}" for i in range(12)], False),
}
DIALECTS: dict[str, dict[str, Any]] = {
    "comma": {"delimiter": ","},
    "semicolon": {"delimiter": ";"},
    "tab": {"delimiter": "\t", "end": "\r\n"},
    "decimal comma": {"delimiter": ";", "comma": True},
    "decimal comma, tab": {"delimiter": "\t", "comma": True},
}


@pytest.mark.parametrize("corner", [None, "", "sample", "short"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("header", HEADERS)
def test_header_names_and_dialect(tmp_path: Path, header: str, dialect: str, corner: str | None) -> None:
    expected = table()
    cells, has_axis = HEADERS[header]
    names = None if corner is None else [f"s 1.{i}" for i in range(len(expected))]
    if cells is not None and corner in ("", "sample"):
        cells = [corner, *cells]
    path = write(tmp_path / "x.csv", expected, cells, names, **DIALECTS[dialect])
    for options in ({}, {"header": cells is not None, "index": names is not None}):
        got = read_spectra(path, **options)
        assert got.data.dtype == np.float32
        np.testing.assert_array_equal(got.data, expected)
        assert got.names == names
        assert (got.axis is not None) == has_axis
        if got.axis is not None:
            np.testing.assert_array_equal(got.axis, AXIS[::-1] if header == "falling" else AXIS)
        assert (got.band_names is None) == (cells is None)
        assert ("a header row" in got.layout) == (cells is not None)
    assert got.source == str(path)
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2), (3, 3)])
def test_small_tables_without_a_header(tmp_path: Path, shape: tuple[int, int]) -> None:
    expected = np.arange(1, 1 + shape[0] * shape[1], dtype=np.float32).reshape(shape)
    got = read_spectra(write(tmp_path / "x.txt", expected))
    np.testing.assert_array_equal(got.data, expected)
    assert (got.axis, got.names, got.band_names) == (None, None, None)


def test_first_row_that_rises_among_rows_that_do_is_data(tmp_path: Path) -> None:
    expected = np.cumsum(seeds.generator().uniform(0.5, 1, (6, 12)), axis=1).astype(np.float32)
    path = write(tmp_path / "x.csv", expected)
    np.testing.assert_array_equal(read_spectra(path).data, expected)
    forced = read_spectra(path, header=True)
    np.testing.assert_array_equal(forced.data, expected[1:])
    assert forced.axis is not None
    np.testing.assert_allclose(forced.axis, expected[0], rtol=1e-7)
    # An axis far above what it stands over is one, even if all below rises.
    above = read_spectra(write(tmp_path / "y.csv", expected, [str(x) for x in AXIS]))
    np.testing.assert_array_equal(above.data, expected)


def test_first_row_that_rises_unevenly_is_data(tmp_path: Path) -> None:
    expected = table()
    expected[0] = np.arange(12) ** 3 + 0.5 * np.arange(12)
    path = write(tmp_path / "x.csv", expected)
    np.testing.assert_array_equal(read_spectra(path).data, expected)
    np.testing.assert_array_equal(read_spectra(path, header=True).data, expected[1:])


def test_column_of_numbers_as_names(tmp_path: Path) -> None:
    expected = table()
    path = write(tmp_path / "x.csv", expected, ["id", *map(str, AXIS)], ["7", "3", "11", "2", "5"])
    assert read_spectra(path).names == ["7", "3", "11", "2", "5"]
    assert read_spectra(path, index=False).data.shape == (5, 13)


def test_spectra_in_columns(tmp_path: Path) -> None:
    expected = table(3)
    turned = np.column_stack([AXIS.astype(np.float32), expected.T])
    got = read_spectra(write(tmp_path / "x.csv", turned, ["Wavelength (nm)", "a", "b", "c"]))
    np.testing.assert_array_equal(got.data, expected)
    np.testing.assert_array_equal(got.axis, AXIS)
    assert got.names == ["a", "b", "c"]
    assert "spectra in columns" in got.layout
    assert read_spectra(tmp_path / "x.csv", index=False).data.shape == (12, 4)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_blank_lines_comments_quotes_and_encodings(tmp_path: Path, encoding: str) -> None:
    text = '# by hand\n\n  # more\r\n"größe, x";1,5;"2,5"\r\n\r\n"b;c";-3;+4e-1\n \n'
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode(encoding))
    got = read_spectra(path)
    np.testing.assert_array_equal(got.data, np.array([[1.5, 2.5], [-3, 0.4]], np.float32))
    assert got.names == ["größe, x", "b;c"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3\n\n4,5\n", r"line 3: 2 cells where line 1 has 3"),
        ("1,2\n3,4,five\n", r"line 2, column 3: 'five' is one too many"),
        ("a,b,c\n1,2,3\n# no\n4,x5,6\n", r"line 4, column 2: 'x5' is not a number"),
        ("1,2,3\n4,1_0,6\n", r"line 2, column 2: '1_0' is not a number"),
        ("1,2,3\n4,,6\n", r"line 2, column 2: the cell is empty"),
        ("1,oops,3,4\n4,5,6,7\n", r"line 1, column 2: 'oops' is not a number"),
        ("abc,2\n4,5\n4,6\n", r"line 1, column 1: 'abc' is not a number"),
        ("a,b\n1,2\n3,nan\n-inf,2\n", r"2 values that are missing or not finite, the first in line 3, column 2: 'nan'"),
        ("a,b\n1,2\n3,1e400\n", r"1 value that is missing or not finite, it is in line 3, column 2: '1e400'"),
        ("a,b\n1,2\n3,1e39\n", r"float32 cannot hold, it is at spectrum 1, band 1"),
        ("a,b,c\n", r"has a header \(line 1\) but no rows of numbers"),
        ("400,405,410\n1,2,3,4,5\n", r"header of 3 cells \(line 1\), but 5 cells in line 2"),
        ("\n# only\n  \n", r"nothing but blank lines and comments"),
        ("1;2\n1,5;2.5\n", r"line 2, column 2: '2\.5' has a decimal point where other cells have commas"),
        ("1;2\n1.234,5;2\n", r"line 2, column 1: '1\.234,5' has thousands separators"),
        ("a;b\n1,5;2\n3;x\n", r"line 3, column 2: 'x' is not a number"),
        ("name,a\ns1,1\ns2,b\n", r"line 3, column 2: 'b' is not a number"),
        ("0,0\n0,0\n", r"zero everywhere"),
        ("1,2\n\x00,2\n", r"not a text file"),
        ("name\na\nb\n", r"'a' is not a number"),
    ],
)
def test_faults_have_a_place(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"^'{re.escape(str(path))}'.*({words}).*\.$"):
        read_spectra(path)


def test_arrays_with_an_axis(tmp_path: Path) -> None:
    expected = table()
    got = read_spectra(write_array(tmp_path / "x.npy", expected))
    np.testing.assert_array_equal(got.data, expected)
    assert got.data.flags.writeable
    assert got.axis is None
    for path in (
        write_archive(tmp_path / "x.npz", {"anything": expected, "wavenumbers": AXIS}),
        write_archive(tmp_path / "y.npz", {"X": expected, "C": np.ones((5, 2)), "axis": AXIS, "wl": np.ones(3)}),
        write_matlab5(tmp_path / "x.mat", {"D": expected, "C": np.ones((5, 2)), "RamanShift": AXIS}),
    ):
        got = read_spectra(path)
        np.testing.assert_array_equal(got.data, expected)
        np.testing.assert_array_equal(got.axis, AXIS)
    assert got.key == "D"
    assert read_spectra(path, key="C").axis is None


@pytest.mark.parametrize(
    ("variables", "options", "words"),
    [
        ({"a": np.ones((2, 3)), "b": np.ones((2, 3))}, {}, r"several matrices .*: a \(2, 3\), b \(2, 3\)"),
        ({"a": np.ones(3)}, {}, r"no matrix of numbers; .*: a \(3,\)"),
        ({"a": np.ones(3)}, {"key": "a"}, r"variable 'a' must be a table .*reshape\(1, -1\)"),
        ({"a": np.ones(3)}, {"key": "b"}, r"no variable 'b'; it has a \(3,\)"),
        ({"a": np.array([["1"]])}, {"key": "a"}, r"'a' is not an array of numbers but text"),
    ],
)
def test_arrays_that_are_none(tmp_path: Path, variables: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_spectra(write_archive(tmp_path / "x.npz", variables), **options)


def test_wrong_options(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", table())
    with pytest.raises(ValueError, match="`header` must be one of"):
        read_spectra(path, header="yes")
    with pytest.raises(DataError, match="leave key='X' out"):
        read_spectra(path, key="X")


@settings(max_examples=150, deadline=None, database=None)
@given(part=st.floats(0, 1, exclude_max=True), dialect=st.sampled_from(sorted(DIALECTS)), named=st.booleans())
def test_tables_cut_short_are_right_or_refused(part: float, dialect: str, named: bool) -> None:
    expected = table(6)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        names = [f"s{i}" for i in range(6)] if named else None
        header = [*(["sample"] if named else []), *map(str, AXIS)]
        path = write(Path(folder, "x.csv"), expected, header, names, **DIALECTS[dialect])
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        try:
            got = read_spectra(path).data
        except DataError:
            return
        complete = path.read_bytes().count(b"\n")
        if complete >= 2:
            # The last number may have lost digits without a trace; everything before it is whole.
            assert got.shape[1] == 12
            assert len(got) in (complete - 1, complete)
            np.testing.assert_array_equal(got.ravel()[:-1], expected[: len(got)].ravel()[:-1])


@settings(max_examples=300, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='0123456789.,;\t\n\r-+e"#aX ', max_size=60).map(str.encode)))
def test_any_bytes_are_right_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        path = Path(folder, "x.csv")
        path.write_bytes(content)
        for options in ({}, {"header": True}, {"header": False, "index": True}, {"header": False, "index": False}):
            try:
                got = read_spectra(path, **options)
            except DataError:
                continue
            assert got.data.ndim == 2
            assert got.data.size
            assert np.isfinite(got.data).all()
            assert got.axis is None or got.axis.shape == got.data.shape[1:]
            assert got.names is None or len(got.names) == len(got.data)
