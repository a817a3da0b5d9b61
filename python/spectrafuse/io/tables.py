"""Tables of numbers in text files: what separates the cells, what is a header, what is a column of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectrafuse.io.errors import DataError
from spectrafuse.io.layouts import is_axis_name

_DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma"}
_SAMPLED = 20
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_WITH_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?", re.ASCII)
_WITH_POINT = re.compile(r"[-+]?\d*\.\d*([eE][-+]?\d+)?", re.ASCII)
_INDEX_NAME = re.compile(r"(index|id|row|no|nr|names?|samples?(id|name)?|spectr(um|a)|components?|unnamed0)?")
_AXIS_CELL = re.compile(
    r"(?P<prefix>[A-Za-z_]*[ ._]?)(?P<number>[-+]?\d+(\.\d*)?([eE][-+]?\d+)?)\s*(nm|um|µm|cm-1|cm\^-1|1/cm)?",
    re.ASCII,
)


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was read.

    Attributes
    ----------
    values : ndarray, shape (rows, columns), float64
        The numbers, without the column of names; all finite.
    header : list of str or None
        Cells of the header row above `values`.
    names : list of str or None
        Cells of the first column, where that is not data.
    corner : str
        Header cell above the names, else above the first column.
    words : str
        What was found, for a person.
    """

    values: np.ndarray
    header: list[str] | None
    names: list[str] | None
    corner: str
    words: str


class _Lines(NamedTuple):
    """Lines that hold cells, with the numbers that they have in the file (from 1)."""

    path: Path
    text: list[str]
    number: list[int]
    delimiter: str
    decimal_comma: bool

    def cells(self, line: int) -> list[str]:
        try:
            row = next(csv.reader([self.text[line]], delimiter=self.delimiter, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(f"'{self.path}', line {self.number[line]}: {error}.") from error
        return [cell.strip() for cell in row]

    def value(self, cell: str) -> float | None:
        if self.decimal_comma:
            cell = cell.replace(",", ".")
        return float(cell) if _NUMBER.fullmatch(cell) else None


def read_table(path: Path, content: bytes, *, header: bool | str, index: bool | str) -> Table:
    """Read a table; see `spectrafuse.io.spectra.read_spectra` for the rules.

    Raises
    ------
    DataError
        No rows, rows of different lengths, cells that are no finite numbers: with line, column and text.
    """
    lines = _split(path, content)
    sample = [lines.cells(i) for i in range(min(len(lines.text), _SAMPLED + 1))]
    has_header = _has_header(lines, sample) if header == "auto" else bool(header)
    titles = sample[0] if has_header else None
    start = 1 if has_header else 0
    if len(lines.text) == start:
        raise DataError(f"'{path}' has a header (line {lines.number[0]}) but no rows of numbers.")
    width = len(sample[start])
    has_names = _has_names(lines, titles, sample[start:]) if index == "auto" else bool(index)
    if has_names and width < 2:
        raise DataError(f"'{path}' has a single column, which cannot be names alone: there are no numbers.")
    if titles is not None and len(titles) not in (width, width - has_names):
        raise DataError(
            f"'{path}' has a header of {len(titles)} cells (line {lines.number[0]}), but {width} cells in "
            f"line {lines.number[start]}."
        )
    values = _numbers(lines, start, width, has_names)
    names = [_first_cell(lines, i) for i in range(start, len(lines.text))] if has_names else None
    corner = titles[0] if titles and len(titles) == width else ""
    words = f"{_DELIMITERS[lines.delimiter]}-separated, {'a' if has_header else 'no'} header row, " + (
        "names in the first column" if has_names else "no column of names"
    )
    if lines.decimal_comma:
        words += ", decimal commas"
    above = titles[-values.shape[1] :] if titles is not None else None
    return Table(values, above, names, corner, words)


def axis_of(header: list[str] | None) -> np.ndarray | None:
    """The numbers in a header's cells, if it is an axis.

    Every cell is a number, with the same letters before it or none ("X1115.0") and perhaps a unit after it;
    the numbers strictly rise or fall. A mere count (0, 1, 2, ...; with letters also 1, 2, 3, ...) is none.
    """
    matches = [_AXIS_CELL.fullmatch(cell) for cell in header or []]
    found = [m for m in matches if m is not None]
    if not found or len(found) < len(matches) or len({m["prefix"] for m in found}) > 1:
        return None
    values = np.array([float(m["number"]) for m in found])
    counts = (0.0, 1.0) if found[0]["prefix"] else (0.0,)
    if any(np.array_equal(values, np.arange(len(values)) + first) for first in counts):
        return None
    return values if np.isfinite(values).all() and monotonic(values) else None


def monotonic(values: np.ndarray) -> bool:
    """Whether numbers strictly rise or strictly fall."""
    steps = np.diff(values)
    return bool((steps > 0).all() or (steps < 0).all())


def _split(path: Path, content: bytes) -> _Lines:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        whole = content.decode(encoding)
    except UnicodeDecodeError:
        # Names in an older encoding; numbers are the same in all of them.
        whole = content.decode("latin-1")
    if "\0" in whole:
        raise DataError(f"'{path}' is not a text file: it holds zero bytes.")
    text, number = [], []
    for i, line in enumerate(whole.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        stripped = line.lstrip()
        if stripped and not stripped.startswith("#"):
            text.append(line)
            number.append(i)
    if not text:
        raise DataError(f"'{path}' has no rows: nothing but blank lines and comments.")
    seen = [re.sub(r'"[^"]*"', "", line) for line in text[: _SAMPLED + 1]]
    delimiter = next((d for d in _DELIMITERS if all(d in line for line in seen)), None)
    delimiter = delimiter or next((d for d in _DELIMITERS if any(d in line for line in seen)), ",")
    lines = _Lines(path, text, number, delimiter, False)
    return lines if delimiter == "," else lines._replace(decimal_comma=_decimal_comma(lines))


def _decimal_comma(lines: _Lines) -> bool:
    """Whether numbers have decimal commas; then none but the first line, perhaps a header, may have points."""
    with_comma = [i for i, line in enumerate(lines.text) if "," in line]
    if not any(_WITH_COMMA.fullmatch(cell) for i in with_comma[:_SAMPLED] for cell in lines.cells(i)):
        return False
    for i in range(1, len(lines.text)):
        if "." in lines.text[i]:
            for column, cell in enumerate(lines.cells(i), start=1):
                if _WITH_POINT.fullmatch(cell):
                    where = f"'{lines.path}', line {lines.number[i]}, column {column}"
                    raise DataError(f"{where}: {cell!r} has a decimal point where other cells have commas.")
    return True


def _is_index_name(cell: str) -> bool:
    return _INDEX_NAME.fullmatch("".join(c for c in cell.lower() if c.isalnum())) is not None


def _mostly_text(lines: _Lines, rows: list[list[str]]) -> bool:
    """Whether the first cells of rows are names rather than numbers."""
    return 2 * sum(lines.value(row[0]) is None for row in rows if row) > len(rows)


def _has_header(lines: _Lines, sample: list[list[str]]) -> bool:
    first, rest = sample[0], sample[1:]
    text_names = bool(rest) and len(rest[0]) > 1 and _mostly_text(lines, rest)
    titled = len(first) > 1 and lines.value(first[0]) is None
    short = text_names and len(first) == len(rest[0]) - 1
    cells = first[1:] if titled and not short else first
    numbers = [x for x in map(lines.value, cells) if x is not None]
    if len(numbers) < len(cells):
        return 2 * len(numbers) <= len(cells)
    if not rest:
        return False
    if titled and (_is_index_name(first[0]) or is_axis_name(first[0])):
        return True
    others = []
    for row in rest:
        values = [lines.value(cell) for cell in row[len(row) - len(cells) :]]
        others.append(np.array([x for x in values if x is not None]))
    return _looks_like_axis(np.array(numbers), others)


def _looks_like_axis(values: np.ndarray, others: list[np.ndarray]) -> bool:
    """The rule for a first row of numbers alone, stated in `read_spectra`."""
    if len(values) < 3 or not np.isfinite(values).all() or not monotonic(values):
        return False
    steps = np.abs(np.diff(values))
    if steps.max() > 10 * steps.min():
        return False
    largest = max((np.abs(row).max() for row in others if row.size), default=np.inf)
    if np.abs(values).min() > 10 * largest:
        return True
    return len(values) >= 8 and not any(row.size == values.size and monotonic(row) for row in others)


def _has_names(lines: _Lines, titles: list[str] | None, rows: list[list[str]]) -> bool:
    width = len(rows[0])
    if width < 2:
        return False
    if _mostly_text(lines, rows):
        return True
    if titles is None:
        return False
    if len(titles) == width - 1 or _is_index_name(titles[0]):
        return True
    return _AXIS_CELL.fullmatch(titles[0]) is None and axis_of(titles[1:]) is not None


def _first_cell(lines: _Lines, i: int) -> str:
    line = lines.text[i].lstrip()
    return lines.cells(i)[0] if line.startswith('"') else line.partition(lines.delimiter)[0].strip()


def _numbers(lines: _Lines, start: int, width: int, has_names: bool) -> np.ndarray:
    body = lines.text[start:]
    if lines.decimal_comma:
        body = [line.replace(",", ".") for line in body]
    converters: dict[int | str, Callable[[str], float]] | None = {0: lambda cell: 0.0} if has_names else None
    try:
        values = np.loadtxt(
            body,
            dtype=np.float64,
            delimiter=lines.delimiter,
            comments=None,
            quotechar='"',
            converters=converters,
            encoding=None,
            ndmin=2,
        )
    except (ValueError, OverflowError) as error:
        _find_fault(lines, start, width, has_names)
        raise DataError(f"'{lines.path}' cannot be read: {' '.join(str(error).split())}") from error
    if values.shape != (len(body), width):
        _find_fault(lines, start, width, has_names)
        raise DataError(f"'{lines.path}' has {len(body)} lines of cells, but {values.shape[0]} were understood.")
    values = values[:, int(has_names) :]
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = int(bad[0, 0]) + start, int(bad[0, 1]) + has_names
        where = f"the first in line {lines.number[row]}, column {column + 1}"
        count = f"{len(bad)} values that are" if len(bad) > 1 else "1 value that is"
        text = lines.cells(row)[column]
        raise DataError(f"'{lines.path}' has {count} not finite (NaN or infinity), {where}: {text!r}.")
    return values


def _find_fault(lines: _Lines, start: int, width: int, has_names: bool) -> None:
    """Raise for the first row of another length or the first cell that is not a number."""
    for i in range(start, len(lines.text)):
        cells = lines.cells(i)
        where = f"'{lines.path}', line {lines.number[i]}"
        for column, cell in enumerate(cells[:width]):
            if lines.value(cell) is None and not (has_names and column == 0):
                what = f"{cell!r} is not a number" if cell else "the cell is empty"
                raise DataError(f"{where}, column {column + 1}: {what}.")
        if len(cells) != width:
            first = lines.number[start]
            extra = f", column {width + 1}: {cells[width]!r} is one too many" if len(cells) > width else ""
            raise DataError(f"{where}{extra}: {len(cells)} cells where line {first} has {width}.")
