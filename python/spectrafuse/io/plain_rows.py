"""The middle of a long text table, where lines hold numbers alone: read at once, without a string for every cell."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, overload

import numpy as np

from spectrafuse._runtime.progress import tell

FEWEST_BYTES = 1 << 20
"""Shorter files are read cell by cell."""
HEAD, TAIL, TITLES = 60, 20, 20
"""Lines at both ends that are read cell by cell; those of the head from `TITLES` on hold numbers alone, too."""
_NUMBERS = b"0123456789+-.eE\n"
_BLOCK = 1 << 22
_NEWLINE = 10


class Ends(NamedTuple):
    """A file without its middle.

    Attributes
    ----------
    content : bytes
        The lines of the head and of the tail.
    head : bytes
        Lines of the head behind the titles.
    middle : bytes
        Whole lines.
    separator : bytes
        Between cells; empty where lines have one cell each.
    """

    content: bytes
    head: bytes
    middle: bytes
    separator: bytes


def ends_of(content: bytes) -> Ends | None:
    """The ends of a file whose middle holds numbers alone; None for any other."""
    if len(content) < FEWEST_BYTES or b"\0" in content:
        return None
    content = content.replace(b"\r\n", b"\n")
    titles, head, tail = 0, 0, len(content.rstrip(b"\n"))
    for i in range(HEAD):
        head = content.find(b"\n", head) + 1
        if not head:
            return None
        titles = head if i + 1 == TITLES else titles
    for _ in range(TAIL):
        tail = content.rfind(b"\n", head, tail)
        if tail < 0:
            return None
    tail += 1
    other = content[titles:tail].translate(None, _NUMBERS)
    separator = other[:1]
    if separator not in (b"", b",", b";", b"\t", b"|", b" ") or other.strip(separator or None):
        return None
    return Ends(content[:head] + content[tail:], content[titles:head], content[head:tail], separator)


def numbers_of(lines: bytes, separator: bytes, width: int) -> np.ndarray | None:
    """The numbers of lines of so many cells, float64 (lines, width); None where a line is anything else."""
    found, start = [], 0
    while start < len(lines):
        stop = lines.rfind(b"\n", start, start + _BLOCK) + 1 or lines.find(b"\n", start) + 1
        values = _numbers_of_block(lines[start:stop], separator, width)
        if values is None:
            return None
        found.append(values)
        start = stop
        tell(start, len(lines))
    return np.concatenate(found)


def _numbers_of_block(lines: bytes, separator: bytes, width: int) -> np.ndarray | None:
    characters = np.frombuffer(lines, np.uint8)
    ends = characters == _NEWLINE
    between = ends if not separator else ends | (characters == separator[0])
    # A cell ends where what separates cells follows on what does not; between two lines are `width` such places.
    last = between.copy()
    last[1:] &= ~between[:-1]
    last[0] = False
    counts = np.cumsum(last, dtype=np.int32)[ends]
    if (np.diff(counts, prepend=0) != width).any():
        return None
    if separator not in (b"", b" ") and not np.array_equal(last, between):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            values = np.fromstring(lines.replace(separator, b"\n") if separator else lines, sep="\n")
        except (DeprecationWarning, ValueError):
            return None
    if len(values) != counts[-1] or not np.isfinite(values).all():
        return None
    return values.reshape(-1, width)


class Cells(Sequence[list[str]]):
    """Cells of lines, cut out when they are asked for."""

    def __init__(self, lines: bytes, separator: bytes, count: int, columns: Sequence[int]) -> None:
        self._lines, self._separator, self._count, self._columns = lines, separator, count, columns

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.flatnonzero(np.frombuffer(self._lines, np.uint8) == _NEWLINE)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self._count))]
        line = self._lines[self._ends[i - 1] + 1 if i else 0 : self._ends[i]].decode()
        cells = line.split() if self._separator == b" " else line.split(self._separator.decode() or None)
        return [cells[j] for j in self._columns]

    def keep(self, columns: Sequence[int]) -> Cells:
        """Some of the columns."""
        return Cells(self._lines, self._separator, self._count, [self._columns[j] for j in columns])


class Joined(Sequence[Any]):
    """Three sequences one after the other: what stands before cells of a middle, these, and what stands behind."""

    def __init__(self, head: Sequence[Any], middle: Any, tail: Sequence[Any]) -> None:
        self.parts = head, middle, tail
        self._stops = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._stops[-1]

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> list[Any]: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        part = bisect_right(self._stops, i)
        return self.parts[part][i - (self._stops[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part
