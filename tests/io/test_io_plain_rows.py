"""Long tables: the middle that is read at once gives what reading cell by cell gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import seeds
from spectrafuse.io import plain_rows, read_spectra, tables
from spectrafuse.io.errors import DataError

SEPARATORS = [",", ";", "\t", "|", " ", "  "]
ODD = [
    "",
    "x",
    "NaN",
    "1e999",
    "1_0",
    "1,5",
    "1-2",
    ".",
    "-",
    "3e",
    "--1",
    "1.5.2",
    "# no",
    "1,2,3,4",
    "1e5",
    "+.5",
    "7.",
]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FEWEST_BYTES", 0), ("HEAD", 30), ("TAIL", 4), ("TITLES", 6), ("_BLOCK", 150)):
        monkeypatch.setattr(plain_rows, name, value)
    for name, value in (("HEAD", 30), ("TITLES", 6)):
        monkeypatch.setattr(tables, name, value)


def plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else repr(value)


def outcome(path: Path, **options: Any) -> Any:
    try:
        found = read_spectra(path, **options)
    except DataError as error:
        return str(error)
    return {name: plain(value) for name, value in vars(found).items()}


def table(draw: np.random.Generator) -> str:
    """A table of numbers, most of them plain, with what files have around and between them."""
    width, count = int(draw.integers(1, 6)), int(draw.integers(20, 90))
    separator = str(draw.choice(SEPARATORS))
    written = [lambda x: f"{x:.2f}", lambda x: f"{x:.3e}", lambda x: str(int(100 * x)), lambda x: repr(float(x))]
    write = written[draw.integers(4)]
    rows = [[write(x) for x in row] for row in draw.normal(size=(count, width))]
    if draw.random() < 0.4:
        for i, row in enumerate(rows):
            row[0] = str(400 + 2 * i)
    lines = [separator.join(row) for row in rows]
    for _ in range(draw.choice([0, 0, 1, 2])):
        lines[draw.integers(count)] = str(draw.choice(ODD))
    titles = [f"title {j}" if separator.strip() else f"title{j}" for j in range(width)]
    if draw.random() < 0.3:
        titles[0] = str(draw.choice(["Wavelength(nm)", "sample", "time"]))
    before = [["# a comment"], ["an instrument", ""], [separator.join(titles)], ["sep=;"], []]
    after = [[""], ["", "the end"], [], []]
    lines = before[draw.integers(5)] + lines + after[draw.integers(4)]
    return str(draw.choice(["\n", "\r\n"])).join(lines) + str(draw.choice(["", "\n"]))


@pytest.mark.usefixtures("short")
@pytest.mark.filterwarnings("ignore")
def test_random_tables_are_read_as_they_are_cell_by_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, fast = seeds.generator(), 0
    path = tmp_path / "table.csv"
    for _ in range(150):
        text = table(draw)
        path.write_bytes(text.encode())
        options: dict[str, Any] = {} if draw.random() < 0.7 else {"columns": "1-2"}
        found = outcome(path, **options)
        fast += isinstance(found, dict) and tables.read_table(path, path.read_bytes()).plain is not None
        with monkeypatch.context() as cell_by_cell:
            cell_by_cell.setattr(plain_rows, "FEWEST_BYTES", 1 << 40)
            assert found == outcome(path, **options), text
    assert fast > 20


def test_rows_and_lines_of_a_long_table(tmp_path: Path) -> None:
    values = np.arange(3000)[:, None] + np.array([0.25, 0.5])
    path = tmp_path / "long.csv"
    lines = [f"{a:.60f},{b:.300f}" for a, b in values]
    path.write_text("\n".join(["first,second", *lines]) + "\n")
    assert path.stat().st_size > plain_rows.FEWEST_BYTES
    found = tables.read_table(path, path.read_bytes())
    assert found.plain is not None
    assert len(found.rows) == 3000
    assert list(found.lines) == list(range(2, 3002))
    assert [row[0] for row in found.rows] == [line.partition(",")[0] for line in lines]
    assert found.rows[-1] == lines[-1].split(",")
    assert found.rows[998:1002] == [line.split(",") for line in lines[998:1002]]
    assert np.array_equal(found.numbers([1, 0]), values[:, ::-1])
    assert np.array_equal(found.keep([1]).numbers([0]), values[:, 1:])
    assert found.keep([1]).rows[2000] == [lines[2000].partition(",")[2]]
