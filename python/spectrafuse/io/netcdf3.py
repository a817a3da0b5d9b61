"""NetCDF files of the classic kind (CDF-1, CDF-2 and CDF-5): their variables, whose numbers stay in the file.

After "The NetCDF Classic Format Specification" (Unidata).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from spectrafuse.io.attributes import text_of
from spectrafuse.io.errors import DataError
from spectrafuse.io.limits import check_count
from spectrafuse.io.mapped import MappedArray, UnchangedFile

_TYPES = {1: "i1", 2: "S1", 3: ">i2", 4: ">i4", 5: ">f4", 6: ">f8", 7: "u1", 8: ">u2", 9: ">u4", 10: ">i8", 11: ">u8"}
_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_MOST_DIMENSIONS = 32


class Variable(NamedTuple):
    """A variable: its type, where its numbers begin, and how far apart they lie along its axes, in bytes."""

    dims: tuple[str, ...]
    attributes: dict[str, Any]
    dtype: np.dtype
    begin: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def numbers(self, path: Path) -> MappedArray:
        """Its numbers in the file.

        Raises
        ------
        DataError
            If the file is too short for them.
        """
        file = UnchangedFile(path)
        spans = (step * (length - 1) for step, length in zip(self.strides, self.shape, strict=True))
        end = self.begin + sum(spans) + self.dtype.itemsize
        if 0 not in self.shape and end > file.size:
            raise DataError(f"'{path}' is cut short: it should have {end} bytes.")
        return MappedArray(file, self.dtype, self.begin, self.shape, self.strides)


class _Header:
    """What is read of a header, in its order."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file, self.size = path, file, path.stat().st_size
        self.version = self.take(4)[3]

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if not 0 <= count <= self.size - self.file.tell():
            raise DataError(f"'{self.path}' is cut short, or its header is damaged.")
        return self.file.read(count)

    def whole(self, wide: bool) -> int:
        """A whole number of 4 or 8 bytes."""
        return int.from_bytes(self.take(8 if wide else 4), "big")

    def count(self) -> int:
        """A number of things."""
        return self.whole(self.version == 5)

    def padded(self, count: int) -> bytes:
        """So many bytes, and those that fill the last four up."""
        return self.take(count + -count % 4)[:count]

    def name(self) -> str:
        """A name."""
        return self.padded(self.count()).decode("utf-8", errors="replace")

    def listed(self, tag: int) -> range:
        """As many as follow of one kind of things."""
        found, count = self.whole(False), self.count()
        if found not in (0, tag) or (found == 0 and count):
            raise DataError(f"'{self.path}' is damaged: its header cannot be read.")
        check_count(f"'{self.path}'", count)
        return range(count)

    def kind(self) -> np.dtype:
        """A type of numbers or text."""
        code = self.whole(False)
        if code not in _TYPES:
            raise DataError(f"'{self.path}' is damaged: {code} is no type of NetCDF.")
        return np.dtype(_TYPES[code])

    def attributes(self) -> dict[str, Any]:
        """Attributes by name: texts, and arrays of numbers."""
        found: dict[str, Any] = {}
        for _ in self.listed(_ATTRIBUTES):
            name, kind, count = self.name(), self.kind(), self.count()
            content = self.padded(count * kind.itemsize)
            found[name] = content if kind.kind == "S" else np.frombuffer(content, kind).astype(kind.newbyteorder("="))
        return found


def list_variables(path: Path) -> dict[str, Variable]:
    """The variables of a file by name.

    Raises
    ------
    DataError
        For a damaged header.
    """
    with path.open("rb") as file:
        header = _Header(path, file)
        records = header.count()
        dims = [(header.name(), header.count()) for _ in header.listed(_DIMENSIONS)]
        header.attributes()  # of the whole
        raw = [_variable(header, dims) for _ in header.listed(_VARIABLES)]
    # One record holds a part of each variable whose first axis has no fixed length.
    parts = [_bytes(kind, sizes[1:]) for _, _, _, kind, _, sizes in raw if sizes[:1] == (0,)]
    record = parts[0] if len(parts) == 1 else sum(size + -size % 4 for size in parts)
    if records in (2**32 - 1, 2**64 - 1):
        begins = [begin for *_, begin, sizes in raw if sizes[:1] == (0,)]
        records = (path.stat().st_size - min(begins)) // record if record else 0
    found = {}
    for name, own, attributes, kind, begin, sizes in raw:
        steps = [_bytes(kind, sizes[i + 1 :]) for i in range(len(sizes))]
        if sizes[:1] == (0,):
            sizes, steps = (records, *sizes[1:]), [record, *steps[1:]]
        if (text_of(attributes.get("_Unsigned")) or "").lower() == "true" and kind.kind == "i":
            kind = np.dtype(kind.str.replace("i", "u"))
            del attributes["_Unsigned"]
        found[name] = Variable(own, attributes, kind, begin, sizes, tuple(steps))
    return found


def _bytes(kind: np.dtype, sizes: tuple[int, ...]) -> int:
    return kind.itemsize * math.prod(sizes)


def _variable(
    header: _Header, dims: list[tuple[str, int]]
) -> tuple[str, tuple[str, ...], dict[str, Any], np.dtype, int, tuple[int, ...]]:
    name, rank = header.name(), header.count()
    places = [header.count() for _ in range(min(rank, _MOST_DIMENSIONS + 1))]
    if rank > _MOST_DIMENSIONS or any(place >= len(dims) for place in places):
        raise DataError(f"'{header.path}' is damaged: variable {name!r} has no such dimensions.")
    attributes, kind = header.attributes(), header.kind()
    header.count()  # its bytes, which the shape says better
    begin = header.whole(header.version != 1)
    own = [dims[place] for place in places]
    return name, tuple(n for n, _ in own), attributes, kind, begin, tuple(length for _, length in own)
