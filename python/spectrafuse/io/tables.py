"""Tables of numbers in text files: what separates the cells, which lines are the table and which stand around it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np

from spectrafuse.io.axes import is_name, is_process, is_spectral, looks_like_axis, number_of
from spectrafuse.io.errors import DataError, option
from spectrafuse.io.plain_rows import HEAD, TITLES, Cells, Ends, Joined, ends_of, numbers_of
from spectrafuse.io.signatures import signature, what_it_is
from spectrafuse.io.units import unit_in_title

_DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar", " ": "blank"}
_SAMPLED = 20
# Rows that decide whether a column holds numbers or text.
_DECIDING = 400
_MOST_HEADS = 4
# Fortran writes exponents with D.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eEdD][-+]?\d+)?", re.ASCII)
_WITH_COMMA = re.compile(r"[-+]?(\d+,\d*|,\d+)([eEdD][-+]?\d+)?", re.ASCII)
_WITH_POINT = re.compile(r"[-+]?\d*\.\d*([eE][-+]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(
    r"[-+]?[1-9]\d{0,2}((\.\d{3})+,\d+|(,\d{3})+\.\d+|(['’ \u00a0\u202f]\d{3})+([.,]\d+)?|(\.\d{3}){2,}|(,\d{3}){2,})"
)
_GROUP = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}", re.ASCII)
_MISSING = re.compile(
    r"|[-+]?nan|n/?a|#n/?a|<na>|null|none|nil|missing|-{1,3}|\*+|\?|\.|[-+]?inf(inity)?|#div/0!|#value!|#num!|#ref!"
    r"|-?1\.#(qnan|ind|inf|snan)0*|over(flow)?|ovrflw|saturated",
    re.IGNORECASE,
)
# A line of a Python list, and one with a comment behind its last number.
_LISTED = re.compile(r"\s*\[{1,2}([^\[\]]*)\]{1,2},?\s*")
_COMMENTED = re.compile(r"(.*\d)\s+#[^,;\t|]*")
# Texts that are no tables, by their signatures.
_TEXTS = ("html", "xml", "lfs", "pdf")
_COMMENTS = ("#", "%", "//", "!", "$$", "##")


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it stands in a file, with its lines told apart but nothing said about what they mean.

    Attributes
    ----------
    path : Path
    heads : list of list of str
        The header's lines, from top to bottom, each as wide as the rows; empty without a header.
    rows : sequence of list of str
        Cells of the rows.
    lines : sequence of int
        Number of each row's line in the file, from 1.
    columns : list of int
        Number of each column in the file, from 1.
    decimal_comma : bool
    dialect : str
        How cells are separated, in words.
    notes : list of str
        What was passed over, in words.
    comments : list of str
        Lines of text above the table.
    plain : (int, ndarray) or None
        Of a long table the number of a row from which on so many rows (rows, columns) are plain numbers, and these.
    """

    path: Path
    heads: list[list[str]]
    rows: Sequence[list[str]]
    lines: Sequence[int]
    columns: list[int]
    decimal_comma: bool
    dialect: str
    notes: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    plain: tuple[int, np.ndarray] | None = None

    @property
    def width(self) -> int:
        return len(self.rows[0])

    @cached_property
    def kinds(self) -> list[str]:
        """Of each column: "number", "text" or "empty", as most of its cells are."""
        rows = self.rows[: _DECIDING if self.plain is None else self.plain[0]]
        return [_kind([row[j] for row in rows]) for j in range(self.width)]

    def column(self, j: int) -> list[str]:
        return [row[j] for row in self.rows]

    def title(self, j: int) -> str:
        """The lowest header cell of a column that is not empty, and no unit alone."""
        cells = [head[j] for head in reversed(self.heads) if head[j]]
        return next((c for c in cells if not _is_unit(c)), cells[0] if cells else "")

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """The numbers of columns, float64 (rows, columns); NaN where a cell says that there is none.

        Raises
        ------
        DataError
            For the first cell that is neither a number nor says that there is none.
        """
        values = np.empty((len(self.rows), len(columns)))
        every = list(columns) == list(range(self.width))
        first, known = self.plain or (len(self.rows), np.empty((0, self.width)))
        values[first : first + len(known)] = known[:, list(columns)]
        for i in (*range(first), *range(first + len(known), len(self.rows))):
            row = self.rows[i]
            quick = _quick(row if every else [row[j] for j in columns], self.decimal_comma)
            if quick is not None:
                values[i] = quick
                continue
            for k, j in enumerate(columns):
                number = value_of(row[j], self.decimal_comma)
                if number is None:
                    raise DataError(f"{self.place(i, j)}: {self._fault(row[j])}")
                values[i, k] = number
        return values

    def place(self, i: int, j: int) -> str:
        return f"'{self.path}', line {self.lines[i]}, column {self.columns[j]}"

    def _fault(self, cell: str) -> str:
        if _THOUSANDS.fullmatch(cell):
            return (
                f"{cell!r} has thousands separators; write numbers without them (in a spreadsheet: format the cells "
                "as plain numbers and export again)."
            )
        if self.decimal_comma and _WITH_POINT.fullmatch(cell):
            return f"{cell!r} has a decimal point where other cells have commas; use one of them throughout."
        return f"{cell!r} is not a number. An empty cell is a missing value; {option('columns')} leaves columns out."

    def keep(self, columns: Sequence[int]) -> Table:
        """The same table with some of its columns."""
        rows: Sequence[list[str]]
        if isinstance(self.rows, Joined):
            head, middle, tail = self.rows.parts
            rows = Joined(_columns_of(head, columns), middle.keep(columns), _columns_of(tail, columns))
        else:
            rows = _columns_of(self.rows, columns)
        return replace(
            self,
            heads=_columns_of(self.heads, columns),
            rows=rows,
            columns=[self.columns[j] for j in columns],
            plain=None if self.plain is None else (self.plain[0], self.plain[1][:, list(columns)]),
        )


def _columns_of(rows: Iterable[list[str]], columns: Sequence[int]) -> list[list[str]]:
    return [[row[j] for j in columns] for row in rows]


def value_of(cell: str, decimal_comma: bool) -> float | None:
    """The number in a cell, NaN where it says that there is none, None where it is other text."""
    if decimal_comma and "," in cell:
        cell = cell.replace(",", ".") if "." not in cell else "x"
    elif decimal_comma and "." in cell and _NUMBER.fullmatch(cell):
        return None
    if _NUMBER.fullmatch(cell):
        number = float(cell.upper().replace("D", "E"))
        return number if np.isfinite(number) else np.nan
    return np.nan if _MISSING.fullmatch(cell) else None


def _quick(cells: list[str], decimal_comma: bool) -> list[float] | None:
    """The numbers of cells that are plain finite numbers, all of them; else None."""
    text = ";".join(cells)
    if "_" in text or (decimal_comma and "." in text) or (not decimal_comma and "," in text):
        return None
    try:
        values = [float(cell) for cell in (text.replace(",", ".").split(";") if decimal_comma else cells)]
    except ValueError:
        return None
    return values if all(map(isfinite, values)) else None


def looks_numeric(cell: str) -> bool:
    """Whether a cell is a number in any dialect."""
    return any(pattern.fullmatch(cell) for pattern in (_NUMBER, _WITH_COMMA, _THOUSANDS))


def _is_unit(cell: str) -> bool:
    return unit_in_title(cell) is not None and len(cell) < 8


def _kind(cells: list[str]) -> str:
    if cells and _quick(cells, False) is not None:
        return "number"
    numbers = texts = 0
    for cell in cells:
        if looks_numeric(cell):
            numbers += 1
        elif not _MISSING.fullmatch(cell):
            texts += 1
    if not numbers and not texts:
        return "empty"
    return "number" if numbers >= texts and numbers else "text"


def decode(path: Path, content: bytes) -> str:
    """A file's bytes as text: UTF-8, UTF-16 with or without a mark, or an older encoding."""
    kind = signature(path)
    if kind in _TEXTS:
        raise DataError(f"'{path}' is {what_it_is(path, kind)}.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        start = content[:4096]
        odd, even = start[1::2].count(0), start[0::2].count(0)
        half = len(start) // 2
        wide = "utf-16-le" if odd > 0.7 * half else "utf-16-be" if even > 0.7 * half else ""
        encoding = wide if wide and half else "utf-8-sig"
    try:
        whole = content.decode(encoding)
    except UnicodeDecodeError:
        # Names in an older encoding; numbers are the same in all of them.
        whole = content.decode("cp1252", errors="replace")
    if "\0" in whole:
        what = f"is {what_it_is(path, kind)}" if kind else "is not a text file: it holds zero bytes"
        what = "is a workbook, or a zip archive: give it a name that ends in .xlsx" if kind == "zip" else what
        raise DataError(f"'{path}' {what}.")
    return whole.replace("−", "-").replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class _Run:
    """Consecutive lines with the same number of cells, half of them numbers, or none of them anything."""

    start: int
    stop: int
    numbers: int
    total: int


class _Split:
    """A file's lines as cells under one separator."""

    def __init__(self, lines: list[tuple[int, str]], delimiter: str) -> None:
        self.delimiter = delimiter
        self.cells = [_cells(text, delimiter) for _, text in lines]
        plain = [bool(cells) and _quick(cells, False) is not None for cells in self.cells]
        self.numeric = [
            len(cells) if easy else sum(map(looks_numeric, cells))
            for easy, cells in zip(plain, self.cells, strict=True)
        ]
        missing = [
            0 if easy else sum(bool(_MISSING.fullmatch(c)) for c in cells)
            for easy, cells in zip(plain, self.cells, strict=True)
        ]
        counted = list(zip(self.numeric, missing, self.cells, strict=True))
        self.is_row = [2 * (n + m) >= len(cells) and n > 0 for n, m, cells in counted]
        self.is_gap = [n == 0 and m >= len(cells) - 1 > 1 for n, m, cells in counted]

    def best_run(self) -> _Run | None:
        best: _Run | None = None
        start = 0
        for i in range(len(self.cells) + 1):
            row = i < len(self.cells) and (self.is_row[i] or (i > start and self.is_gap[i]))
            if row and (i == start or len(self.cells[i]) == len(self.cells[start])):
                continue
            if i > start:
                run = _Run(start, i, sum(self.numeric[start:i]), sum(len(c) for c in self.cells[start:i]))
                best = run if best is None or run.numbers > best.numbers else best
            start = i if i < len(self.cells) and self.is_row[i] else i + 1
        return best

    def odd(self, run: _Run) -> bool:
        """Whether cells of a run hold what only another separator would split."""
        pattern = re.compile(r"\d\s+[-+.]?\d|\d[;\t]|[;\t]\d")
        thousands = _THOUSANDS
        lines = self.cells[run.start : min(run.stop, run.start + _SAMPLED)]
        found = sum(bool(pattern.search(c)) and not thousands.fullmatch(c) for line in lines for c in line)
        return found > 0.2 * sum(map(len, lines))


def _cells(text: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return [cell.strip('"') for cell in re.findall(r'"[^"]*"|\S+', text)]
    if '"' not in text:
        return [cell.strip() for cell in text.split(delimiter)]
    try:
        row = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        row = text.split(delimiter)
    return [cell.strip() for cell in row]


def _trimmed(text: str) -> str:
    return text.lstrip("\ufeff").strip("\n")


def read_table(
    path: Path, content: bytes, *, header: bool | str = "auto", index: bool | str = "auto", decimal: str = "auto"
) -> Table:
    """Read the cells of a text table; see `spectrafuse.io.spectra.read_spectra` for the rules.

    Raises
    ------
    DataError
        No rows, rows of different lengths, a separator that cannot be told: with line, column and text.
    """
    ends = ends_of(content)
    if ends is not None and (table := _long_table(path, ends, header, index, decimal)) is not None:
        return table
    lines, comments, hint = _lines(path, decode(path, content))
    split = _choose(path, lines, hint)
    run = split.best_run()
    if run is None:
        number, text = lines[0]
        cell = next((c for c in split.cells[1 if len(lines) > 1 else 0] if c), text)
        if len(lines) == 1:
            raise DataError(f"'{path}' has a header (line {number}) but no rows of numbers.")
        raise DataError(f"'{path}', line {lines[1][0]}, column 1: {cell!r} is not a number.")
    return _Reading(path, lines, comments, split, run, decimal, header, index).table()


def _long_table(path: Path, ends: Ends, header: bool | str, index: bool | str, decimal: str) -> Table | None:
    """The table of a file whose middle holds numbers alone, as its ends say what they mean; None where they do not."""
    try:
        table = read_table(path, ends.content, header=header, index=index, decimal=decimal)
    except DataError:
        return None  # its line numbers would be those of the ends
    lines = list(table.lines)
    if not {*range(TITLES + 1, HEAD + 2)} <= set(lines) or table.columns != list(range(1, table.width + 1)):
        return None
    named = _DELIMITERS.get(ends.separator.decode(), "")
    if table.decimal_comma or not table.dialect.startswith(named) or bool(ends.separator) != (table.width > 1):
        return None
    if numbers_of(ends.head, ends.separator, table.width) is None:
        return None
    values = numbers_of(ends.middle, ends.separator, table.width)
    if values is None:
        return None
    first, count = lines.index(HEAD) + 1, len(values)
    cells = Cells(ends.middle, ends.separator, count, range(table.width))
    return replace(
        table,
        rows=Joined(table.rows[:first], cells, table.rows[first:]),
        lines=Joined(lines[:first], range(HEAD + 1, HEAD + 1 + count), [line + count for line in lines[first:]]),
        plain=(first, values),
    )


def _holds_numbers(line: str) -> bool:
    """Whether most cells are numbers, whatever separates them: a spectrum may be called "#1" or "%T"."""
    cells = [cell for cell in re.split(r"[,;|\t ]+", line) if cell]
    return 2 * sum(bool(re.fullmatch(r'"?[-+.]?\d[-+.\deE]*"?', cell)) for cell in cells) > len(cells)


def _lines(path: Path, whole: str) -> tuple[list[tuple[int, str]], list[str], str | None]:
    """Lines with cells and their numbers, the comments, and the separator that a line `sep=;` names."""
    lines: list[tuple[int, str]] = []
    comments: list[str] = []
    hint = None
    for i, line in enumerate(whole.split("\n"), start=1):
        if (listed := _LISTED.fullmatch(line)) is not None:
            line = listed[1]
        elif "#" in line and (found := _COMMENTED.fullmatch(line)) is not None:
            line = found[1]
        stripped = line.strip()
        if not stripped.strip(",;|"):
            lines.append((i, ""))
        elif (found := re.fullmatch(r'"?sep=(.)"?', stripped, re.IGNORECASE)) and not any(t for _, t in lines):
            hint = found[1]
        elif re.fullmatch(r"sep=", stripped, re.IGNORECASE):
            hint = "\t"
        elif stripped.startswith(_COMMENTS) and not (any(t for _, t in lines) and _holds_numbers(stripped)):
            if not any(text for _, text in lines):
                comments.append(stripped.lstrip("#%/!$").lstrip(" "))
        else:
            lines.append((i, line))
    while lines and not lines[-1][1]:
        lines.pop()
    if not any(text for _, text in lines):
        raise DataError(f"'{path}' has no rows: nothing but blank lines and comments.")
    return lines, comments, hint


def _choose(path: Path, lines: list[tuple[int, str]], hint: str | None) -> _Split:
    """The separator: the first of tab, semicolon, comma and bar that makes rows of numbers; else runs of blanks."""
    filled = [text for _, text in lines if text]
    fallback: _Split | None = None
    for delimiter in [hint] if hint in _DELIMITERS else [d for d in _DELIMITERS if any(d in text for text in filled)]:
        split = _Split(lines, delimiter)
        run = split.best_run()
        if run is None:
            continue
        if run.total > run.stop - run.start and not split.odd(run):
            return split
        fallback = fallback or split
    return (
        fallback
        if fallback is not None and not fallback.odd(fallback.best_run() or _Run(0, 0, 0, 0))
        else _Split(
            lines, hint if hint in _DELIMITERS else next((d for d in "\t;," if any(d in text for text in filled)), ",")
        )
    )


@dataclass
class _Reading:
    """The steps from lines of cells to a table."""

    path: Path
    lines: list[tuple[int, str]]
    comments: list[str]
    split: _Split
    run: _Run
    decimal: str
    header: bool | str
    index: bool | str

    def table(self) -> Table:
        self._check_whole()
        stop = self._end()
        body = [i for i in range(self.run.start, stop) if self.lines[i][1]]
        width = len(self.split.cells[self.run.start])
        rows = [self.split.cells[i][:width] for i in body]
        heads, first, above = self._heads(rows)
        rows, body = rows[first:], body[first:]
        if not rows:
            raise DataError(
                f"'{self.path}' has a header (line {self.lines[self.run.start][0]}) but no rows of numbers."
            )
        comma = self._decimal_comma(rows, body)
        notes = self._passed_over(above, [self.lines[i][1].strip() for i in range(stop, len(self.lines))])
        name = _DELIMITERS[self.split.delimiter]
        dialect = f"{name}-separated" + (", decimal commas" if comma else "")
        numbers = [self.lines[i][0] for i in body]
        table = Table(
            self.path, heads, rows, numbers, list(range(1, width + 1)), comma, dialect, notes, [*self.comments, *above]
        )
        return _without_empty_columns(table)

    def _end(self) -> int:
        """Where the table ends: text after a blank line, or of another number of cells, is below it."""
        split, run = self.split, self.run
        width = len(split.cells[run.start])
        stop = run.stop
        for i in range(run.stop, len(self.lines)):
            if split.is_row[i] and _width(split.cells[i], width) and not self._apart(i):
                stop = i + 1
        for i in range(run.stop, stop):
            if self.lines[i][1] and not _width(split.cells[i], width):
                self._ragged(i, width)
        after = next((i for i in range(stop, len(self.lines)) if self.lines[i][1]), None)
        if after is None or self._below(after, width):
            return stop
        if not _width(split.cells[after], width):
            self._ragged(after, width)
        return after + 1

    def _check_whole(self) -> None:
        """Refuse a line with cells too many or too few between rows."""
        cells, before = self.split.cells, self.run.start - 1
        width = len(cells[self.run.start])
        odd = before > 0 and self.split.is_row[before] and len(cells[before]) != width
        earlier = (self.split.is_row[i] and len(cells[i]) == width for i in range(before))
        if odd and self.split.numeric[before] >= 3 and any(earlier):
            self._ragged(before, width)

    def _apart(self, i: int) -> bool:
        """Whether a line with text in its first cell follows a blank line, and rows have numbers there."""
        cell = self.split.cells[i][0]
        own = looks_numeric(self.split.cells[self.run.stop - 1][0])
        before = any(not self.lines[j][1] for j in range(self.run.stop, i))
        return own and before and not looks_numeric(cell) and not _MISSING.fullmatch(cell)

    def _below(self, i: int, width: int) -> bool:
        blank = i > 0 and not self.lines[i - 1][1]
        return self._apart(i) or (self.split.numeric[i] == 0 and (blank or not _width(self.split.cells[i], width)))

    def _ragged(self, i: int, width: int) -> None:
        cells, line = self.split.cells[i], self.lines[i][0]
        first = self.lines[self.run.start][0]
        extra = f", column {width + 1}: {cells[width]!r} is one too many" if len(cells) > width else ""
        raise DataError(
            f"'{self.path}', line {line}{extra}: {len(cells)} cells where line {first} has {width}; give all lines the "
            "same number."
        )

    def _heads(self, rows: list[list[str]]) -> tuple[list[list[str]], int, list[str]]:
        """The header's lines, how many of them are in the run itself, and the lines of text above."""
        kinds = [_kind([row[j] for row in rows[1 : 1 + _DECIDING] or rows]) for j in range(len(rows[0]))]
        above = [i for i in range(self.run.start) if self.lines[i][1]]
        inside, heads = 0, []
        if self.header == "auto":
            while inside < min(len(rows), _MOST_HEADS) and self._titled(rows, inside, kinds):
                inside += 1
            if inside == 0 and _first_row_is_axis(rows, kinds):
                inside = 1
            heads = rows[:inside]
        most = {"auto": _MOST_HEADS, True: 1, False: 0}[self.header]
        between: list[int] = []
        while above and len(heads) < most:
            cells = self._as_head(self.split.cells[above[-1]], kinds)
            if cells is not None:
                heads = [cells, *heads]
            elif self.header == "auto" and self._short_line(above, kinds):
                between.insert(0, above[-1])
            else:
                self._check_above(above[-1], len(kinds), bool(heads))
                break
            above.pop()
        above += between
        if not heads and most and self.comments:
            cells = self._as_head([c.lstrip("#% ") for c in _cells(self.comments[-1], self.split.delimiter)], kinds)
            if cells is not None and any(cells):
                heads, self.comments = [cells], self.comments[:-1]
        if not heads and self.header is True:
            heads, inside = rows[:1], 1
        return heads, inside, [self.lines[i][1].strip() for i in above]

    def _short_line(self, above: list[int], kinds: list[str]) -> bool:
        """Whether the last of some lines has a cell or two, and a header with numbers stands within reach above it."""
        reach = above[-_MOST_HEADS:-1]
        fits = (self._as_head(self.split.cells[i], kinds) is not None for i in reach)
        axis = any(fit and 2 * self.split.numeric[i] >= len(kinds) > 3 for fit, i in zip(fits, reach, strict=True))
        return axis and len([cell for cell in self.split.cells[above[-1]] if cell]) <= 2

    def _check_above(self, i: int, width: int, has_head: bool) -> None:
        """Refuse a line above that does not fit the table but holds numbers, or is the header that was asked for."""
        cells = self.split.cells[i]
        if (self.split.numeric[i] >= 3 and 2 * len(cells) > width) or (self.header is True and not has_head):
            raise DataError(
                f"'{self.path}' has a header of {len(cells)} cells (line {self.lines[i][0]}), but {width} cells in "
                f"line {self.lines[self.run.start][0]}; give both the same number of cells."
            )

    def _as_head(self, cells: list[str], kinds: list[str]) -> list[str] | None:
        """Cells of a line above as a header of the rows' width; None if they do not fit."""
        width = len(kinds)
        while len(cells) > width and not cells[-1]:
            cells = cells[:-1]
        filled = [c for c in cells if c]
        if len(cells) != width and len(filled) == width:
            cells = filled
        if len(cells) == width - 1 > 1:
            cells = [*cells, ""] if kinds[-1] == "empty" else ["", *cells]
        return cells if len(cells) == width and (width > 1 or not looks_numeric(cells[0])) else None

    def _titled(self, rows: list[list[str]], i: int, kinds: list[str]) -> bool:
        """Whether a row of the run is a header: text where the rows below have numbers."""
        row = rows[i]
        if len(rows) == i + 1 and len(rows) > 1:
            return False
        numeric = [j for j, kind in enumerate(kinds) if kind == "number"]
        texts = [j for j in numeric if not looks_numeric(row[j]) and not (_MISSING.fullmatch(row[j]) and row[j])]
        words = [j for j in texts if row[j]]
        if not numeric:
            return False
        if len(words) == len(numeric) or 2 * len(words) >= len(numeric) > 2:
            return True
        known = number_of(row[0]) is None and (is_name(row[0]) or is_spectral(row[0]) or is_process(row[0]))
        if kinds[0] != "number":
            return not looks_numeric(row[0]) and known and not _below_is_named_so(rows, i) and i == 0
        others = len(numeric) - len(texts)
        leading = texts == numeric[: len(texts)] or texts == numeric[len(numeric) - len(texts) :]
        if not texts:
            return False
        if texts == [numeric[0]] and (known or others >= 2):
            return bool(row[0]) or i == 0
        return leading and others >= 3 and _rising([row[j] for j in numeric if j not in texts])

    def _decimal_comma(self, rows: list[list[str]], body: list[int]) -> bool:
        if self.decimal != "auto":
            return self.decimal == "comma"
        commas = [(i, j, c) for i, row in enumerate(rows) for j, c in enumerate(row) if "," in c]
        found = [(i, j, c) for i, j, c in commas if _WITH_COMMA.fullmatch(c)]
        if not found:
            return False
        grouped = [c for _, _, c in found if _GROUP.fullmatch(c)]
        whole = [c for row in rows for c in row if c.lstrip("-+").isdigit()]
        if len(grouped) == len(found) and not any(_WITH_POINT.fullmatch(c) for row in rows for c in row if "." in c):
            i, j, c = found[0]
            where = f"'{self.path}', line {self.lines[body[i]][0]}, column {j + 1}"
            if len(found) >= 2 and (whole or len(found) >= 4):
                raise DataError(
                    f"{where}: {c!r} can be {c.replace(',', '.')} (decimal comma) or {c.replace(',', '')} (thousands "
                    f"separator). Say {option('decimal', 'comma')} for the first; for the second write the numbers "
                    "without separators."
                )
        return True

    def _passed_over(self, above: list[str], below: list[str]) -> list[str]:
        notes = []
        for where, texts in (("above", above), ("below", [text for text in below if text])):
            if texts:
                lines = f"{len(texts)} line{'s' * (len(texts) > 1)}"
                notes.append(f"{lines} of text {where} the table ({_short(texts[0])})")
        return notes


def _short(text: str) -> str:
    text = " ".join(text.strip(",;\t ").split())
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _width(cells: list[str], width: int) -> bool:
    return len(cells) == width or (len(cells) == width + 1 and not cells[-1])


def _rising(cells: list[str]) -> bool:
    values = [value_of(c, "," in c) for c in cells]
    if any(v is None or np.isnan(v) for v in values):
        return False
    steps = np.diff(np.array(values, dtype=float))
    return bool((steps > 0).all() or (steps < 0).all())


def _below_is_named_so(rows: list[list[str]], i: int) -> bool:
    """Whether most rows begin with an empty cell or a word like "sample": then the first one is no header."""
    known = sum(is_name(row[0]) for row in rows[i + 1 :])
    return 2 * known > len(rows) - i - 1


def _first_row_is_axis(rows: list[list[str]], kinds: list[str]) -> bool:
    """The rule for a first row of numbers alone."""
    numeric = [j for j, kind in enumerate(kinds) if kind == "number"]
    table = [[value_of(row[j], "," in row[j]) for j in numeric] for row in rows[: 1 + _SAMPLED]]
    if len(rows) < 2 or not numeric or any(v is None for v in table[0]):
        return False
    values = np.array([[np.nan if v is None else v for v in row] for row in table])
    return looks_like_axis(values[0], list(values[1:])) or (
        values.shape[1] > 3 and not values[0, 0] > 0 and looks_like_axis(values[0, 1:], list(values[1:, 1:]))
    )


def _without_empty_columns(table: Table) -> Table:
    """Without columns that hold nothing: separators at the ends of lines, or titles without values, which are said."""
    empty = [j for j, kind in enumerate(table.kinds) if kind == "empty" and not any(c for c in table.column(j))]
    if not empty:
        return table
    titled = [table.title(j) for j in empty if table.title(j)]
    if titled:
        table.notes.append(f"{len(titled)} column{'s' * (len(titled) > 1)} without a value ({', '.join(titled[:3])})")
    kept = [j for j in range(table.width) if j not in set(empty)]
    if not kept:
        raise DataError(f"'{table.path}' has no numbers: all cells are empty.")
    return table.keep(kept)
