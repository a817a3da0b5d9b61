"""`read_spectra`: tables as instruments, spreadsheets and people write them; what cannot be told is asked."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from helpers.io_files import write_archive
from spectrafuse.io.errors import DataError, asked_by_command
from spectrafuse.io.spectra import Spectra, read_spectra

NM = np.arange(400.0, 700.0, 10.0)
CM = np.linspace(1800, 800, 30).round(2)
NAMES = [f"S{i + 1:02d}" for i in range(9)]
TIMES = [f"{5 * i}" for i in range(9)]


def mixtures() -> np.ndarray:
    rng = np.random.default_rng(3)
    pure = np.array([np.exp(-0.5 * ((NM - c) / w) ** 2) for c, w in ((450, 25), (520, 30), (610, 35))])
    return np.round(rng.uniform(0.05, 1, (9, 3)) @ pure + 0.002 * rng.standard_normal((9, 30)), 5)


X = mixtures()
COUNTS = 1000 + np.abs(X) * 20000


def numbers(values: Any, comma: bool = False) -> list[str]:
    return [f"{v:.10g}".replace(".", "," if comma else ".") for v in values]


def text(
    values: np.ndarray, head: list[str] | None = None, first: Any = None, sep: str = ",", *, comma: bool = False
) -> str:
    lines = [] if head is None else [sep.join(head)]
    for i, row in enumerate(values):
        own = [] if first is None else [first[i] if isinstance(first[i], str) else f"{first[i]:.10g}"]
        cells = [*own, *(f"{v:.5f}" for v in row)]
        lines.append(sep.join(c.replace(".", ",") if comma else c for c in cells))
    return "\n".join(lines) + "\n"


def columns(title: str, heads: list[str] = NAMES, axis: np.ndarray = NM, **options: Any) -> str:
    return text(X.T, [title, *heads], axis.tolist(), **options)


def rows(title: str = "sample", axis: Any = None, first: Any = None, **options: Any) -> str:
    return text(X, [title, *(numbers(NM) if axis is None else axis)], NAMES if first is None else first, **options)


def read(path: Path, content: str | bytes, **options: Any) -> Spectra:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_spectra(path, **options)


def lines_with(content: str, change: Callable[[int, str], str]) -> str:
    return "\n".join(change(i, line) for i, line in enumerate(content.splitlines())) + "\n"


def pairs() -> str:
    body = [",".join(f"{NM[j]:g},{v:.5f}" for v in X[:, j]) + "," for j in range(30)]
    heads = ["".join(f"{n},," for n in NAMES), "Wavelength (nm),Abs," * 9]
    return "\r\n".join([*heads, *body, "", "S01", "Collection Time: 1/2/2024", "Scan Rate (nm/min),600.0"])


def overlapping() -> np.ndarray:
    return np.r_[NM[:20], NM[:10] + 150]


def again(line: str) -> str:
    wavelength = float(line.partition(",")[0])
    return f"{line},{1e7 / wavelength:.2f},{wavelength:g}"


def wavenumbers() -> str:
    return ",".join(["cm-1", *(f"{1e7 / w:.1f}" for w in NM)])


def one_a_line(head: str = "", by_time: bool = False) -> str:
    """Each value of a map or of a series in a line of its own, as Raman programs write it."""
    places = [f"{5 * i}" if by_time else f"{i % 3}\t{i // 3}" for i in range(9)]
    sep = "\t\t" if by_time else "\t"
    lines = (
        f"{place}{sep}{w:g}{sep}{v:.5f}\n"
        for place, row in zip(places, X, strict=True)
        for w, v in zip(CM, row, strict=True)
    )
    return head + "".join(lines)


READ: dict[str, tuple[str | bytes, str, np.ndarray | None]] = {
    **{
        f"column titled {title}": (columns(title, axis=axis), ".csv", axis)
        for title, axis in (
            *((t, CM) for t in ("cm-1", "Raman Shift (cm⁻¹)", "X [1/cm]", "Wellenzahl", "Frequency (cm-1)")),
            *(
                (t, NM)
                for t in ("Wavelength (nm)", "m/z", "Energy (eV)", "", "X", "波长", "Longueur d'onde (nm)", "nm")
            ),
        )
    },
    "column, no header, blanks": (text(X.T, None, NM.tolist(), " "), ".txt", NM),
    "column, aligned with blanks": (
        "".join(f"  {w:9.3f}   {a:9.5f}\n" for w, a in zip(NM, X[0], strict=True)),
        ".asc",
        NM,
    ),
    "column, counts larger than the axis": (text(COUNTS.T, None, NM.tolist()), ".csv", NM),
    "column, Y above all": (columns("X", ["Y"] * 9), ".csv", NM),
    "column beside sample numbers": (columns("Wavelength", [str(i + 1) for i in range(9)]), ".csv", NM),
    "column beside times": (columns("", TIMES), ".csv", NM),
    "column beside pH": (columns("nm", [f"{3 + 0.5 * i}" for i in range(9)]), ".csv", NM),
    "column beside temperatures": (columns("Wavelength (nm)", [f"{300 + 10 * i}" for i in range(9)]), ".csv", NM),
    "column behind an index": (
        lines_with(columns("wavelength"), lambda i, line: ("" if i == 0 else str(i - 1)) + "," + line),
        ".csv",
        NM,
    ),
    "column of texts with units": (text(X.T, ["channel", *NAMES], [f"{w:g} nm" for w in NM]), ".csv", NM),
    "column, unsorted but titled": (text(X.T, ["nm", *NAMES], overlapping().tolist()), ".csv", overlapping()),
    "column, two detectors": (text(X.T, None, overlapping().tolist()), ".csv", overlapping()),
    "column, lines of units": (
        "Wavelength," + ",".join(NAMES) + "\nnm," + ",".join(["A.U."] * 9) + "\n" + text(X.T, None, NM.tolist()),
        ".csv",
        NM,
    ),
    "column, lines of times and units": (
        "\n".join([f"Sample,{','.join(NAMES)}", f"Time (min),{','.join(TIMES)}", "Wavelength (nm)" + ",Abs" * 9, ""])
        + text(X.T, None, NM.tolist()),
        ".csv",
        NM,
    ),
    "header in the last comment": (
        "% by me\n% wl " + " ".join(NAMES) + "\n" + text(X.T, None, NM.tolist(), " "),
        ".txt",
        NM,
    ),
    "axis in the last comment": ("# " + " ".join(numbers(NM)) + "\n" + text(X, None, None, " "), ".txt", NM),
    "rows, kinetics": (rows("t/min", first=[0.5 * i for i in range(9)]), ".csv", NM),
    "rows, sample numbers": (rows("Sample Number:", first=[str(i + 1) for i in range(9)]), ".csv", NM),
    "rows, pandas index": (rows("", first=[str(i) for i in range(9)]), ".csv", NM),
    "rows, corner 0": (rows("0", first=[0.5 * i for i in range(9)]), ".csv", NM),
    "rows, letters and unit": (rows(axis=[f"Abs@{w:g}nm" for w in NM]), ".csv", NM),
    "rows, decimal commas in the axis": (rows(axis=numbers(CM, True), sep=";", comma=True), ".csv", CM),
    "rows, decimal points in the axis": (
        ";".join(["sample", *numbers(CM)]) + "\n" + text(X, None, NAMES, ";", comma=True),
        ".csv",
        CM,
    ),
    "rows, decimal commas in quotes": (
        "".join(",".join(f'"{v:.5f}"'.replace(".", ",") for v in row) + "\n" for row in X),
        ".csv",
        None,
    ),
    "rows, sep=;": ("sep=;\n" + rows(sep=";", comma=True), ".csv", NM),
    "rows, trailing separators": (lines_with(rows(), lambda i, line: line + "," * (i > 0)), ".csv", NM),
    "rows, units below the header": (
        lines_with(rows(), lambda i, line: line + "\nunit" + ",AU" * 30 if i == 0 else line),
        ".csv",
        NM,
    ),
    "rows, text around": ("Experiment 5\nOperator: Smith, J.\n\n" + rows() + "\nMean of 9 spectra\n", ".csv", NM),
    "rows, exponents": (rows(axis=[f"{w:.6E}" for w in NM]), ".CSV", NM),
    "rows, Unicode minus": (text(X, None, NAMES).replace("-", "−"), ".csv", None),
    "rows, UTF-16 without a mark": (rows(sep="\t").encode("utf-16-le"), ".csv", NM),
    "rows, two detectors": (rows(axis=numbers(overlapping())), ".csv", overlapping()),
    "rows, concentrations before": (
        text(X, ["fat", "moisture", *numbers(NM)], [f"{20 + i},{60 - i}" for i in range(9)]),
        ".csv",
        NM,
    ),
    "rows, class behind": (
        lines_with(text(X, numbers(NM)), lambda i, line: line + (",class,c1" if i == 0 else f",k,{i}")),
        ".csv",
        NM,
    ),
    "rows, id and class before": (
        text(X, ["id", "class", *numbers(NM)], [f"a{i},k{i % 3}" for i in range(9)]),
        ".csv",
        NM,
    ),
    "column, axis again in other units": (
        lines_with(columns("nm"), lambda i, line: f"{line},cm-1,nm" if i == 0 else again(line)),
        ".csv",
        NM,
    ),
    "column, header is concentrations": (columns("conc", [f"{0.1 * i:g}" for i in range(9)]), ".csv", NM),
    "column, LabSpec": (
        "#Laser (nm)=\t532\n#AxisUnit[1]=1/cm\n" + text(X.T, None, NM.tolist(), "\t"),
        ".txt",
        NM,
    ),
    "rows, a line of one cell below the header": (
        lines_with(rows("type"), lambda i, line: line + "\nd" + ",c" * 30 + "\nclass" if i == 0 else line),
        ".csv",
        NM,
    ),
    "rows, header again in joined files": (
        rows() + "\n".join(rows().splitlines()[:1]) + "\n",
        ".csv",
        NM,
    ),
    "rows, wavelengths and wavenumbers above": (
        lines_with(rows("nm"), lambda i, line: line + "\n" + wavenumbers() if i == 0 else line),
        ".csv",
        NM,
    ),
    "rows, mean and deviation below": (
        rows() + "\n".join(",".join([name, *numbers(X[0])]) for name in ("Mean", "Std. Dev.")) + "\n",
        ".csv",
        NM,
    ),
    "rows, unit behind an underscore": (rows(axis=[f"{w:g}_nm" for w in NM]), ".csv", NM),
    "rows, numbers of dates": (rows("date", first=[f"202405{i + 1:02d}" for i in range(9)]), ".csv", NM),
    "rows, lists of Python": (lines_with(text(X), lambda i, line: f"[{line}],"), ".txt", None),
    "column, comments behind": (
        lines_with(text(X.T, None, NM.tolist(), "\t"), lambda i, line: f"{line}   # checked"),
        ".txt",
        NM,
    ),
    "rows, exponents of Fortran": (text(X, None).replace("\n", "D0\n").replace(",", "D+00,"), ".txt", None),
    "map, no header": (text(X, None, [f"{i % 3},{i // 3}" for i in range(9)]), ".txt", None),
    "map, one value a line without a header": (one_a_line(), ".txt", CM),
    "series, one value a line": (one_a_line("#Time\t\t#Wave\t\t#Intensity\n", by_time=True), ".txt", CM),
    "map in rows": (text(X, ["x", "y", *numbers(NM)], [f"{i % 3},{i // 3}" for i in range(9)]), ".csv", NM),
    "map, empty corner": (
        text(X, ["", "", *numbers(NM)], [f"{i % 3}\t{i // 3}" for i in range(9)], "\t"),
        ".txt",
        NM,
    ),
    "map, one value a line": (
        "#X\t\t#Y\t\t#Wave\t\t#Intensity\n"
        + "".join(f"{i % 3}\t{i // 3}\t{w}\t{v:.5f}\n" for i, r in enumerate(X) for w, v in zip(CM, r, strict=True)),
        ".txt",
        CM,
    ),
    "rows, names of hyperSpec": (rows(axis=[f"spc.{v:g}" for v in NM]), ".csv", NM),
    "rows, thousands in the axis": (rows(axis=[f'"{v:,.2f}"' for v in CM]), ".csv", CM),
    "rows, blanks in the axis": (
        rows(axis=[f"{v:,.2f}".replace(",", " ") for v in CM], sep=";"),
        ".csv",
        CM,
    ),
    "rows, an even property before": (
        text(X, ["id", "yield", *(f"R{v:g}" for v in NM)], [f"{n},{1.3 * i}" for i, n in enumerate(NAMES)]),
        ".csv",
        NM,
    ),
    "pairs": (pairs(), ".csv", NM),
    "bars": (rows(sep="|"), ".csv", NM),
    "carriage returns": (rows().replace("\n", "\r"), ".csv", NM),
}


@pytest.mark.parametrize("case", READ)
def test_tables_that_are_read(tmp_path: Path, case: str) -> None:
    content, suffix, axis = READ[case]
    want = COUNTS if "counts larger" in case else X[:1] if "aligned" in case else X
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = read(tmp_path / f"x{suffix}", content)
    np.testing.assert_allclose(got.data, want, rtol=1e-6, atol=1e-6)
    assert (got.axis is None) == (axis is None)
    if axis is not None:
        np.testing.assert_allclose(got.axis, axis, rtol=1e-9)
    assert (got.grid is not None) == case.startswith("map")
    if got.grid is not None:
        assert got.grid.shape == (3, 3)
        np.testing.assert_array_equal(got.grid.maps(got.data)[:, 1, 2], got.data[5])


def test_two_columns_are_one_spectrum_where_two_detectors_meet(tmp_path: Path) -> None:
    axis = np.r_[NM[::-1], NM[0], NM[0] - 10 * np.arange(1.0, 9)]
    values = np.r_[X[0], X[0, 0], X[1, :8]]
    content = "".join(f"{a:g}\t{v:.5f}\n" for a, v in zip(axis, values, strict=True))
    got = read(tmp_path / "x.txt", content)
    np.testing.assert_array_equal(got.axis, axis)
    assert got.data.shape == (1, len(axis))
    assert "axis repeats 400" in got.reading
    # Points that are counted, as in an interferogram.
    counted = "".join(f"{i}.0000\t{v:.5f}\n" for i, v in enumerate(values))
    assert read(tmp_path / "x.dpt", counted).data.shape == (1, len(axis))
    # Concentrations of two components, one of which only falls.
    falling = "".join(f"{0.8**i:.5f}\t{1 - 0.8**i:.5f}\n" for i in range(9))
    assert read(tmp_path / "x.csv", falling).data.shape == (9, 2)


def test_a_gap_in_the_axis_is_no_reason_to_take_it_for_data(tmp_path: Path) -> None:
    gap = lines_with(columns(""), lambda i, line: line.replace("450,", ",", 1) if i == 6 else line)
    with pytest.raises(DataError, match=r"has 400 \.\.\. 690 in column 1: .* or the axis of 9 spectra in columns"):
        read(tmp_path / "x.csv", gap)
    with pytest.raises(DataError, match=r"line 7, column 1: the axis has no number here"):
        read_spectra(tmp_path / "x.csv", spectra_in="columns")


def test_an_axis_without_spectra(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has an axis in column 1, but no column of numbers behind it"):
        read(tmp_path / "x.csv", "nm,cm-1\n" + "".join(f"{w:g},{1e7 / w:.1f}\n" for w in NM))


def test_lines_of_one_value_that_do_not_fit_together(tmp_path: Path) -> None:
    content = one_a_line("#X\t#Y\t#Wave\t#Intensity\n")
    for changed, words in (
        (content.rstrip().rpartition("\n")[0], "different numbers of values"),
        (content.replace("\t1800\t", "\t1801\t", 1), "different axes"),
    ):
        with pytest.raises(DataError, match=f"a place or time, an axis and a value in each line, but .*{words}"):
            read(tmp_path / "x.txt", changed)


def test_markers_of_missing_values(tmp_path: Path) -> None:
    cell = f"{X[2, 4]:.5f}"
    content = rows().replace(cell, "-9999", 1)
    with pytest.warns(UserWarning, match=r"holds -9999 in 1 place, far outside .*nodata='-9999'"):
        read(tmp_path / "x.csv", content)
    with pytest.raises(DataError, match=r"1 value that is missing"):
        read_spectra(tmp_path / "x.csv", nodata="-9999")
    assert read_spectra(tmp_path / "x.csv", nodata=-9999, drop_missing="spectra").data.shape == (8, 30)
    np.save(tmp_path / "x.npy", np.where(np.isclose(X, X[2, 4], rtol=1e-12), -9999, X))
    assert read_spectra(tmp_path / "x.npy", nodata=-9999, drop_missing="bands").data.shape == (9, 29)


def test_files_are_known_by_their_contents_under_unknown_suffixes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for name in ("x.Master.Scope", "x"):
        np.testing.assert_allclose(read(tmp_path / name, rows()).data, X, atol=1e-5)
    with h5py.File(tmp_path / "x.nxs", "w") as file:
        file["spectra"] = X
    assert read_spectra(tmp_path / "x.nxs").data.shape == X.shape
    with pytest.raises(DataError, match="packed with gzip"):
        read(tmp_path / "x.csv", b"\x1f\x8b\x08\0" * 40)
    with pytest.raises(DataError, match="a web page, not the data"):
        read(tmp_path / "x.page", b"<html>\n<body>\n")


def test_what_stands_with_the_spectra(tmp_path: Path) -> None:
    got = read(tmp_path / "x.csv", *READ["column, lines of times and units"][:1])
    assert got.names == NAMES
    assert got.process is not None
    assert got.process[0] == "Time (min)"
    assert got.process[1].tolist() == [float(t) for t in TIMES]
    assert (got.axis_title, got.axis_unit) == ("Wavelength (nm)", "nm")
    kinetics = read(tmp_path / "y.csv", *READ["rows, kinetics"][:1])
    assert kinetics.process is not None
    assert kinetics.process[0] == "t/min"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            columns("Wavelength (nm)"),
            "9 spectra of 30 bands; spectra in columns .*rises.*400 ... 690 nm in column 1",
        ),
        (READ["rows, concentrations before"][0], "left out: columns fat, moisture"),
        (
            READ["rows, text around"][0],
            r"left out: 2 lines of text above the table \('Experiment 5'\), 1 line .* below",
        ),
        (READ["rows, two detectors"][0], "axis repeats 550, .*axis is not in order: from 590 to 550 at band 21"),
        (rows(axis=[*numbers(NM[:10]), "490.1", *numbers(NM[11:])]), "from 490 to 490.1 far smaller than the others"),
        (rows(axis=["490", *numbers(NM[1:])]), "axis is not in order"),
        (text(X[:1].T, None, CM.tolist()), "1 spectrum of 30 bands; .*two columns are one spectrum"),
        (READ["rows, sep=;"][0], "semicolon-separated, decimal commas"),
    ],
)
def test_what_was_read_is_said(tmp_path: Path, content: str, words: str) -> None:
    reading = read(tmp_path / "x.csv", content).reading
    assert "\n" not in reading
    assert re.search(words, reading), reading


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (columns("", [f"{300 + 10 * i}" for i in range(9)]), "30 spectra in rows .*300 ... 380 .*9 spectra in columns"),
        (text(X, None, [0.5 * i for i in range(9)]), "numbers or times of 9 spectra in rows .* 30 spectra in columns"),
        (text(X, None, [str(i + 1) for i in range(9)]), "1 ... 9 in column 1: .*Say which one"),
        (
            "".join(";".join(f"{v:,.2f}" for v in r) + "\n" for r in COUNTS),
            "thousands separators; write numbers without",
        ),
        (
            "".join("\t".join(f"{v:,.0f}" for v in r) + "\n" for r in COUNTS),
            r"1[.]\d+ \(decimal comma\) or 1\d+ \(thous",
        ),
        ("".join(";".join(f"{v:,.1f}".replace(",", "'") for v in r) + "\n" for r in COUNTS), "thousands separators"),
        (pairs().replace("410,", "411,", 1), "axes of the pairs differ; bring the spectra to one axis"),
        ("wavelength;a\n900;0,1;0nan,2\n910;0,3;1e-3\n929;0,5;x,6\n", "an axis in column 2, but no column of numbers"),
    ],
)
def test_what_cannot_be_told_is_asked(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path / "x.csv", content)


@pytest.mark.parametrize(("line", "change"), [(3, ",1"), (3, ",,"), (1, ",1"), (9, ",1"), (5, None)])
def test_a_line_that_is_too_long_or_short_is_an_error(tmp_path: Path, line: int, change: str | None) -> None:
    lines = rows().splitlines()
    lines[line] = lines[line].rpartition(",")[0] if change is None else lines[line].replace(",", f"{change},", 1)
    with pytest.raises(
        DataError, match=rf"line {line + 1}.*: \d+ cells where line \d+ has 31; give all lines the same"
    ):
        read(tmp_path / "x.csv", "\n".join(lines))


def test_spectra_without_values_stay_in_the_table(tmp_path: Path) -> None:
    lines = rows().splitlines()
    lines[4] = "S04" + "," * 30
    got = read(tmp_path / "x.csv", "\n".join(lines), drop_missing="values")
    np.testing.assert_allclose(got.data, np.delete(X, 3, axis=0), rtol=1e-6)
    assert got.names == [*NAMES[:3], *NAMES[4:]]
    assert "1 of 9 spectra without any value (number 4)" in got.layout


def test_questions_name_the_options_of_the_caller(tmp_path: Path) -> None:
    content = columns("", [f"{300 + 10 * i}" for i in range(9)])
    with pytest.raises(DataError, match=r"read_spectra\(\.\.\., spectra_in='rows'\)") as asked:
        read(tmp_path / "x.csv", content)
    assert "--" not in str(asked.value)
    with asked_by_command(), pytest.raises(DataError, match=r"\(--spectra-in rows\)"):
        read(tmp_path / "x.csv", content)
    for place, shape in (("rows", (30, 9)), ("columns", (9, 30))):
        assert read_spectra(tmp_path / "x.csv", spectra_in=place).data.shape == shape


def test_missing_values_are_asked_about_or_left_out(tmp_path: Path) -> None:
    holes = X.copy()
    holes[2, 5] = holes[3, 5] = np.nan
    path = tmp_path / "x.csv"
    for mark in ("", "NA", "#N/A", "--", "nan", "-1.#QNAN"):
        content = text(holes, ["sample", *numbers(NM)], NAMES).replace("nan", mark)
        with pytest.raises(DataError, match=r"2 values .*line 4, column 7.*leaves out 1 of 30 bands.* 2 of 9 spectra"):
            read(path, content)
    spectra = read_spectra(path, drop_missing="spectra")
    np.testing.assert_allclose(spectra.data, np.delete(X, [2, 3], 0), atol=1e-6)
    assert spectra.names == [*NAMES[:2], *NAMES[4:]]
    bands = read_spectra(path, drop_missing="bands")
    np.testing.assert_array_equal(read_spectra(path, drop_missing="channels").data, bands.data)
    np.testing.assert_allclose(bands.data, np.delete(X, 5, 1), atol=1e-6)
    np.testing.assert_array_equal(bands.axis, np.delete(NM, 5))
    assert "left out: 1 of 30 bands with missing values (number 6)" in bands.layout


def test_values_alone_are_left_out(tmp_path: Path) -> None:
    holes = np.array([[1, 2, 3, 4], [np.nan] * 4, [5, np.nan, 7, np.nan], [2, 1, 3, np.nan]])
    path = tmp_path / "holes.npy"
    np.save(path, np.delete(holes, 3, 1))
    spectra = read_spectra(path, drop_missing="values")
    np.testing.assert_array_equal(spectra.data, [[1, 2, 3], [5, np.nan, 7], [2, 1, 3]])
    assert spectra.reading.endswith(
        "left out: 1 of 4 spectra without any value (number 2); 1 of 9 values is missing and takes no part"
    )
    np.save(path, np.c_[holes[2:, 3], holes[2:, :3]])
    spectra = read_spectra(path, drop_missing="values")
    np.testing.assert_array_equal(spectra.data, [[5, np.nan, 7], [2, 1, 3]])
    assert "1 of 4 bands without any value (number 1)" in spectra.layout
    np.save(path, np.full((3, 3), np.nan))
    with pytest.raises(DataError, match="missing values in all 3 spectra"):
        read_spectra(path, drop_missing="values")


def test_chosen_columns(tmp_path: Path) -> None:
    content = text(X, ["name", "a", "b", *(f"v{i}" for i in range(28))], NAMES)
    got = read(tmp_path / "x.csv", content, columns="name,4-")
    np.testing.assert_allclose(got.data, X[:, 2:], atol=1e-6)
    assert got.names == NAMES
    assert "2 columns not asked for" in got.layout
    for wrong in ("z", "40"):
        with pytest.raises(DataError, match="column"):
            read_spectra(tmp_path / "x.csv", columns=wrong)


def test_spectra_in_columns_without_an_axis_are_suspected(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="neighbouring rows are far more alike .*spectra_in='columns'"):
        got = read(tmp_path / "x.csv", text(X.T))
    assert got.data.shape == (30, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(read_spectra(tmp_path / "x.csv", spectra_in="columns").data, X, atol=1e-6)
        read(tmp_path / "y.csv", text(X))


@pytest.mark.parametrize(
    ("variables", "axis"),
    [
        ({"X": X.T, "wavelength": NM}, NM),
        ({"data": X, "wl": NM}, NM),
        ({"x": NM, "y": X.T}, NM),
        ({"data": X.T, "ramanshift": CM}, CM),
        ({"D": X.T, "freq": CM, "time": np.arange(9.0)}, CM),
        ({"D": X, "anything": CM}, CM),
    ],
)
def test_an_axis_of_the_other_length_turns_a_matrix(
    tmp_path: Path, variables: dict[str, Any], axis: np.ndarray
) -> None:
    archive = write_archive(tmp_path / "x.npz", variables)
    for version in ("4", "5"):
        savemat(tmp_path / f"v{version}.mat", variables, format=version)
    for path in (archive, tmp_path / "v4.mat", tmp_path / "v5.mat"):
        got = read_spectra(path)
        np.testing.assert_allclose(got.data, X, rtol=1e-6)
        np.testing.assert_array_equal(got.axis, axis)


def test_an_unknown_line_of_the_other_length_is_asked_about(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.npz", {"D": X.T, "anything": CM})
    with pytest.raises(DataError, match="30 spectra of 9 bands .*'anything' .* 9 spectra of 30 bands"):
        read_spectra(path)
    assert read_spectra(path, spectra_in="columns").axis is not None


def test_scenes_are_unfolded_and_folded_back(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((5, 3, 4)).astype(np.float32) + 1
    cube[:, 1, 2] = -9
    (tmp_path / "x.img").write_bytes(cube.tobytes())
    (tmp_path / "x.hdr").write_text(
        "ENVI\nsamples = 4\nlines = 3\nbands = 5\ndata type = 4\ninterleave = bsq\nbyte order = 0\n"
        "data ignore value = -9\nwavelength units = nm\nwavelength = {400, 410, 420, 430, 440}\n"
    )
    got = read_spectra(tmp_path / "x.hdr")
    assert got.data.shape == (11, 5)
    assert got.grid is not None
    maps = got.grid.maps(got.data)
    assert np.isnan(maps[:, 1, 2]).all()
    maps[:, 1, 2] = -9
    np.testing.assert_array_equal(maps, cube)
    assert "1 pixels without data (-9)" in got.reading


def test_spreadsheets(tmp_path: Path) -> None:
    pytest.importorskip("python_calamine", reason="the part excel is not installed")
    openpyxl = pytest.importorskip("openpyxl", reason="the part excel is not installed")
    book = openpyxl.Workbook()
    book.active.append(["Measured on Monday"])
    book.active.append(["Wavelength (nm)", *NAMES])
    for position, row in zip(NM, X.T, strict=True):
        book.active.append([float(position), *map(float, row)])
    book.create_sheet("notes").append(["nothing"])
    path = tmp_path / "x.xlsx"
    book.save(path)
    got = read_spectra(path)
    np.testing.assert_allclose(got.data, X, rtol=1e-6)
    assert (got.axis_unit, got.names, got.key) == ("nm", NAMES, "Sheet")
    book["notes"].append([1, 2, 3, 4])
    book.save(path)
    with pytest.raises(DataError, match=r"2 sheets with numbers \(Sheet, notes\); choose one with .*key"):
        read_spectra(path)
    np.testing.assert_allclose(read_spectra(path, key="Sheet").data, X, rtol=1e-6)
    with pytest.raises(DataError, match="no sheet 'x'; it has Sheet, notes"):
        read_spectra(path, key="x")
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DataError, match="cannot be read as a spreadsheet"):
        read_spectra(path)


def test_names_that_do_not_say_what_a_table_is(tmp_path: Path) -> None:
    np.testing.assert_allclose(read(tmp_path / "x.xls", rows(sep="\t")).data, X, atol=1e-5)
    with pytest.raises(DataError, match="a web page"):
        read(tmp_path / "y.xls", "<html>\n<table>")
    with pytest.raises(DataError, match="a Git LFS pointer, not the data: fetch the data with `git lfs pull`"):
        read(tmp_path / "y.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    with pytest.raises(DataError, match=r"a workbook, or a zip archive: give it a name that ends in \.xlsx"):
        read(tmp_path / "x.csv", b"PK\x03\x04\0\0" * 40)


def test_jcamp(tmp_path: Path) -> None:
    pytest.importorskip("jcamp", reason="the part jcamp is not installed")
    path = tmp_path / "x.jdx"
    path.write_text(
        "##TITLE=one\n##JCAMP-DX=4.24\n##DATA TYPE=INFRARED SPECTRUM\n##XUNITS=1/CM\n##YUNITS=ABSORBANCE\n"
        "##XFACTOR=1.0\n##YFACTOR=0.001\n##FIRSTX=400\n##LASTX=409\n##NPOINTS=10\n##XYDATA=(X++(Y..Y))\n"
        "400 1 2 3 4 5\n405 6 7 8 9 10\n##END=\n"
    )
    got = read_spectra(path)
    np.testing.assert_allclose(got.data, [np.arange(1, 11) / 1000], rtol=1e-6)
    np.testing.assert_allclose(got.axis, np.arange(400, 410))
    assert (got.axis_unit, got.names) == ("cm⁻¹", ["one"])
    whole = path.read_text()
    # Comments behind values, and the mark that DOS ends texts with.
    path.write_text(whole.replace("4 5\n", "4 5 $$ checked\n") + "\x1a")
    np.testing.assert_allclose(read_spectra(path).data, [np.arange(1, 11) / 1000], rtol=1e-6)
    # Differences, where the first value of a line repeats the last one of the line before, and where it does not.
    packed = whole.partition("400 1")[0]
    path.write_text(packed + "400A1JJJJ\n404A5JJJJJ\n409B0\n##END=\n")
    np.testing.assert_allclose(read_spectra(path).data, [np.arange(11, 21) / 1000], rtol=1e-6)
    path.write_text(packed + "400A1JJJJ\n404B9JJJJJ\n409B0\n##END=\n")
    with pytest.raises(DataError, match=r"the check of its values fails in \d lines?, so that it is damaged"):
        read_spectra(path)
    path.write_text(whole.replace("6 7 8 9 10", "6 7 8"))
    with pytest.raises(DataError, match=r"JCAMP-DX|no spectrum that can be read"):
        read_spectra(path)


def write_opus(path: Path, values: list[float], first: float, last: float) -> Path:
    """An OPUS file with one absorbance spectrum: a directory, its data and what they are."""

    def kind(*parts: int) -> int:
        return sum(part << shift for part, shift in zip(parts, (0, 2, 4, 10, 17, 19), strict=True))

    def number(name: str, code: int, packed: bytes) -> bytes:
        return name.encode() + b"\0" + struct.pack("<2h", code, len(packed) // 2) + packed

    status = b"".join(
        number(name, 1, struct.pack("<d", x)) for name, x in (("CSF", 1.0), ("FXV", first), ("LXV", last))
    )
    status += number("NPT", 0, struct.pack("<i", len(values))) + number("DPF", 0, struct.pack("<i", 1))
    status += number("DXU", 3, b"WN\0\0") + b"END\0\0\0\0\0"
    data = np.array(values, "<f4").tobytes()
    start = 24 + 3 * 12
    entries = [(kind(3, 3, 0, 4, 0, 0), data, start), (kind(3, 3, 1, 4, 0, 0), status, start + len(data))]
    directory = b"".join(struct.pack("<3i", code, len(block) // 4, place) for code, block, place in entries)
    header = b"\n\n\xfe\xfe" + struct.pack("<d3i", 920622.0, 24, 3, 2)
    path.write_bytes(header + directory + bytes(12) + data + status)
    return path


def test_opus(tmp_path: Path) -> None:
    pytest.importorskip("brukeropus", reason="the part instruments is not installed")
    got = read_spectra(write_opus(tmp_path / "x.0", [0.25, 0.5, 1.0], 4000, 3000))
    np.testing.assert_allclose(got.data, [[0.25, 0.5, 1.0]])
    np.testing.assert_allclose(got.axis, [4000, 3500, 3000])
    assert got.axis_unit == "cm⁻¹"
    assert "Bruker OPUS, Absorbance" in got.reading
    (tmp_path / "x.1").write_bytes(b"something else" * 9)
    with pytest.raises(DataError, match=r"no OPUS file; save it as a data point table \(.dpt\)"):
        read_spectra(tmp_path / "x.1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.wxd", "save it as text"),
        ("x.srs", "spectrochempy"),
        ("x.parquet", "to_csv"),
        ("x.unknown", "has the suffix '.unknown'; this can read .csv"),
    ],
)
def test_other_formats_name_what_converts_them(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(tmp_path / name, b"\0\1\2")


@pytest.mark.parametrize(("name", "part"), [("x.xlsx", "excel"), ("x.jdx", "jcamp"), ("x.0", "instruments")])
def test_missing_parts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, part: str) -> None:
    def absent(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr("spectrafuse.io.instruments.import_module", absent)
    with pytest.raises(DataError, match=rf"pip install 'spectrafuse\[{part}\]'; or "):
        read(tmp_path / name, b"x")
