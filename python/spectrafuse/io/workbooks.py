"""How much room the sheets of a workbook take, before a reader makes it.

A reader makes room for all cells up to the last one, and ends the process where there is none: a file of a kilobyte can
have a cell in the last row and column, or say that an empty one is repeated a million times.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spectrafuse.io.limits import check_count, check_size

# What a cell takes, in the reader and as an object of Python.
_CELL_BYTES = 64
# Repeated as often as a number says that is none.
_UNKNOWN = 1 << 40
_BLOCK = 1 << 20
_TARGET = re.compile(rb"""\sTarget\s*=\s*["']([^"']*)["']""")
# Of .xlsx, where a row or a cell is: r="7", r="AB7".
_PLACE = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]{0,3})(\d{1,7})["']""")
_LONGEST_PLACE = 32
# Of .xlsb, the numbers of the records that begin a row, and up to which they are cells.
_ROW, _LAST_CELL = 0, 11
# Bytes of a packed record, at least, and so many records that need none.
_SMALLEST_RECORD, _FEWEST_RECORDS = 2, 1_000_000
# Of .ods, where a row or a table begins, and a cell.
_BEGIN = re.compile(rb"(?=<table:table(?: |-row))")
_CELL = re.compile(rb"<table:(?:covered-)?table-cell")
_REPEATED = re.compile(rb"""number-(?:rows|columns)-repeated\s*=\s*["']([^"']*)""")
_FILLED = re.compile(rb"""value\s*=|<text:p|formula\s*=""")
_LONGEST_ROW = 64 << 20


Count = Callable[[Any, int], int]
"""How many cells an open sheet has room for, by what it holds and its bytes in the file."""


def check_workbook(file: Path) -> None:
    """Refuse a workbook that is packed to far more than its size, or with a cell so far out that its sheet is.

    Raises
    ------
    DataError
        With how to raise the limit.
    """
    if not zipfile.is_zipfile(file):
        return
    size = file.stat().st_size
    with zipfile.ZipFile(file) as book:
        parts = book.infolist()
        check_count(f"'{file}'", len(parts))
        check_size(f"'{file}'", sum(part.file_size for part in parts), size)
        cells = 0
        for name, count in _sheets(book):
            with book.open(name) as sheet:
                cells += count(sheet, book.getinfo(name).compress_size)
    check_size(f"'{file}'", _CELL_BYTES * cells, size)


def _sheets(book: zipfile.ZipFile) -> list[tuple[str, Count]]:
    """The parts that can be sheets, whatever they are called, and how their cells are counted."""
    names = book.namelist()
    found: list[tuple[str, Count]] = []
    for relations, count in (("xl/_rels/workbook.xml.rels", _of_xlsx), ("xl/_rels/workbook.bin.rels", _of_xlsb)):
        if relations in names:
            targets = {posixpath.basename(text.decode()) for text in _TARGET.findall(book.read(relations))}
            found += [(name, count) for name in names if posixpath.basename(name) in targets]
    return [*found, *((name, _of_ods) for name in names if name == "content.xml")]


def _of_xlsx(sheet: Any, size: int) -> int:
    """Rows times columns, or the cells where these do not say where they are."""
    rows = columns = count = 0
    rest = b""
    while block := sheet.read(_BLOCK):
        text = rest + block
        places = _PLACE.findall(text)
        rows = max(rows, *map(int, {digits for _, digits in places}), 0)
        for letters in {letters for letters, _ in places}:
            place = 0
            for letter in letters.upper():
                place = 26 * place + letter - 64
            columns = max(columns, place)
        count += block.count(b"<c")
        rest = text[-_LONGEST_PLACE:]
    return max(rows * columns, count)


def _of_xlsb(sheet: Any, size: int) -> int:
    """Rows times columns: each record has its number, its length and, of rows and cells, first the place."""
    content = sheet.read()
    at, end = 0, len(content) - 8
    row = rows = columns = 0
    left = max(_FEWEST_RECORDS, size // _SMALLEST_RECORD)
    while at < end:
        kind = content[at]
        at += 1
        if kind > 127:
            kind = kind & 127 | content[at] << 7
            at += 1
        length = shift = 0
        while True:
            part = content[at]
            at += 1
            length |= (part & 127) << shift
            shift += 7
            if part < 128 or shift > 21:
                break
        if kind <= _LAST_CELL and at <= end:
            place = int.from_bytes(content[at : at + 4], "little")
            if kind == _ROW:
                row = place + 1
            else:
                rows, columns = max(rows, row), max(columns, place + 1)
        at += length
        left -= 1
        if left < 0:
            raise ValueError("a sheet has more records than its size makes believable")
    return rows * columns


def _of_ods(sheet: Any, size: int) -> int:
    """Rows times columns of all tables, without the empty cells and rows that end them."""
    cells = rows = empty = columns = 0
    for piece in _pieces(sheet):
        if not piece.startswith(b"<table:table-row"):
            cells, rows, empty, columns = cells + rows * columns, 0, 0, 0
            continue
        count = _repeats(_CELL.split(piece, 1)[0])
        if _FILLED.search(piece) is None:
            empty += count
        else:
            rows, empty, columns = rows + empty + count, 0, max(columns, _width(piece))
    return cells + rows * columns


def _pieces(sheet: Any) -> Iterator[bytes]:
    """The text of a part, a row or the beginning of a table at a time."""
    rest = b""
    while block := sheet.read(_BLOCK):
        *pieces, rest = _BEGIN.split(rest + block)
        yield from pieces
        if len(rest) > _LONGEST_ROW:
            raise ValueError("a row is too long")
    yield rest


def _repeats(text: bytes) -> int:
    found = _REPEATED.search(text)
    return 1 if found is None else int(found[1]) if found[1].isdigit() else _UNKNOWN


def _width(row: bytes) -> int:
    """Columns of a row up to its last cell that holds something."""
    cells = _CELL.split(row)[1:]
    if b"columns-repeated" not in row:
        return len(cells)
    while cells and _FILLED.search(cells[-1]) is None:
        cells.pop()
    return sum(map(_repeats, cells))
