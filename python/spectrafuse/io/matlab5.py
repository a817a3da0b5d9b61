"""MATLAB 5 files: what they hold, and their arrays of numbers.

Written here, after "MAT-File Format" (The MathWorks), chapter 1, because a damaged file must end in a message:
`scipy.io.loadmat` indexes with numbers from the file without checking them and can take the process down.
Sparse matrices are listed and not read; of structures and objects (such as datasets of PLS_Toolbox), the fields of
those with one element are, and in these the elements of cells.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from spectrafuse.io.errors import DataError
from spectrafuse.io.limits import check_count, check_size
from spectrafuse.io.mapped import MappedArray

HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT_TYPES = (1, 2, 16)
_KINDS = {1: "cell", 2: "struct", 3: "object", 4: "text", 5: "sparse", 16: "function", 17: "opaque"}
_WITH_FIELDS = ("struct", "object")
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX, _LOGICAL = 0x800, 0x200
# Enough for the header of any variable: flags, 32 dimensions, a name of 63 characters.
_HEAD_BYTES = 4096
# Structs within structs that are looked into.
_DEEPEST = 8
_MOST_CELLS = 64


class Variable(NamedTuple):
    """A variable's header and place: bytes `start` to `start + size` of the file, after its tag.

    Of a field of a compressed struct, `inner` is the place in the bytes of the struct, after its tag.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    start: int
    size: int
    compressed: bool
    inner: tuple[int, int] | None = None


def list_variables(path: Path) -> list[Variable]:
    """The variables of a file, without their data.

    Raises
    ------
    DataError
        If the file is cut short or its structure is damaged.
    """
    end = path.stat().st_size
    found: list[Variable] = []
    with path.open("rb") as file:
        order = _byte_order(file)
        start = HEADER_BYTES
        while start < end:
            check_count(f"'{path}'", len(found))
            file.seek(start)
            tag = file.read(8)
            if len(tag) < 8:
                raise _damaged(path, "it ends within a variable's tag")
            kind, size = (int(x) for x in np.frombuffer(tag, f"{order}u4"))
            start += 8
            if kind not in (_MATRIX, _COMPRESSED):
                raise _damaged(path, f"there is no variable at byte {start - 8}")
            if start + size > end:
                raise _damaged(path, f"a variable needs {start + size - end} bytes more than there are")
            head = file.read(min(size, _HEAD_BYTES))
            if kind == _COMPRESSED:
                head = _inner(path, head, order, _HEAD_BYTES)[0]
            variable = _Elements(path, head, order).header()
            if variable is not None:
                whole = Variable(*variable[:3], start, size, kind == _COMPRESSED)
                fields = _fields_of(path, file, order, whole) if variable[2] in _WITH_FIELDS else []
                check_count(f"'{path}'", len(found) + len(fields))
                found += fields or [whole]
            start += size
    return found


def _fields_of(path: Path, file: BinaryIO, order: str, struct: Variable) -> list[Variable]:
    """The fields of a struct with one element, and those of structs in it."""
    if math.prod(struct.shape) != 1:
        return []
    if struct.compressed:
        file.seek(struct.start)
        content: Any = _inner(path, file.read(struct.size), order, None)[0]
        found = _fields(path, memoryview(content), order, struct.name)
        return [Variable(*head, struct.start, struct.size, True, place) for head, place in found]
    found = _fields(path, _Part(file, struct.start, struct.size), order, struct.name)
    return [Variable(*head, struct.start + place[0], place[1], False) for head, place in found]


def _fields(
    path: Path, content: memoryview | _Part, order: str, name: str, start: int = 0, depth: int = 0
) -> Iterator[tuple[tuple[str, tuple[int, ...], str], tuple[int, int]]]:
    """Name, shape and kind of the fields of a struct whose bytes are `content`, and their places after `start`."""
    elements = _Elements(path, content, order)
    head = elements.header(named=False)
    if head is not None and head[2] == "object":
        elements.next()  # the name of its class
    kind, length = elements.next()
    if kind != 5 or len(length) != 4:
        raise _damaged(path, f"the struct {name!r} does not say how long its names are")
    size = int(np.frombuffer(length, f"{order}i4")[0])
    kind, text = elements.next()
    if kind not in _TEXT_TYPES or size < 1 or len(text) % size:
        raise _damaged(path, f"the struct {name!r} has no names of fields")
    check_count(f"'{path}'", len(text) // size)
    labels = (
        text[at : at + size].partition(b"\0")[0].decode("utf-8", errors="replace") for at in range(0, len(text), size)
    )
    yield from _parts(path, content, order, elements, (f"{name}.{field}" for field in labels), start, depth)


def _parts(
    path: Path,
    content: memoryview | _Part,
    order: str,
    elements: _Elements,
    labels: Iterable[str],
    start: int,
    depth: int,
) -> Iterator[tuple[tuple[str, tuple[int, ...], str], tuple[int, int]]]:
    """As `_fields`, of the matrices that come next in `elements`; cells are named as MATLAB counts them, `x{1}`."""
    for label in labels:
        kind, first, length = elements.tag()
        if kind != _MATRIX or not length:
            continue
        inner = content.part(first, length) if isinstance(content, _Part) else content[first : first + length]
        own = _Elements(path, inner, order)
        head = own.header(named=False)
        if head is None:
            continue
        count = math.prod(head[1])
        if head[2] in _WITH_FIELDS and count == 1 and depth < _DEEPEST:
            yield from _fields(path, inner, order, label, start + first, depth + 1)
        elif head[2] == "cell" and 0 < count <= _MOST_CELLS and depth < _DEEPEST:
            cells = (f"{label}{{{i}}}" for i in range(1, count + 1))
            yield from _parts(path, inner, order, own, cells, start + first, depth + 1)
        else:
            yield (label, *head[1:]), (start + first, length)


def read_variable(path: Path, variable: Variable) -> np.ndarray:
    """The numbers of a real numeric or logical variable, in the type in which they are stored.

    Raises
    ------
    DataError
        If the data are complex, damaged, or not as many as the shape says.
    """
    with path.open("rb") as file:
        order = _byte_order(file)
        file.seek(variable.start)
        content = file.read(variable.size)
    if variable.compressed:
        content, whole = _inner(path, content, order, None)
        if not whole:
            raise _damaged(path, f"the compressed data of {variable.name!r} are not complete")
    if variable.inner is not None:
        content = content[variable.inner[0] : sum(variable.inner)]
    elements = _Elements(path, content, order)
    elements.header(named=False)
    kind, start, size = elements.tag()
    dtype = _stored_type(path, variable, order, kind, size)
    values = np.frombuffer(content, dtype, size // dtype.itemsize, start)
    return values.reshape(variable.shape, order="F")


def map_variable(path: Path, variable: Variable) -> MappedArray | None:
    """The numbers of a variable where they lie in the file; None if they are compressed. Raises as `read_variable`."""
    if variable.compressed:
        return None
    with path.open("rb") as file:
        order = _byte_order(file)
        file.seek(variable.start)
        elements = _Elements(path, file.read(min(variable.size, _HEAD_BYTES)), order, variable.size)
    elements.header(named=False)
    kind, start, size = elements.tag()
    dtype = _stored_type(path, variable, order, kind, size)
    return MappedArray.contiguous(path, dtype, variable.start + start, variable.shape, "F")


def _stored_type(path: Path, variable: Variable, order: str, kind: int, size: int) -> np.dtype:
    """The type of `size` bytes of numbers, which must be as many as the shape says."""
    if kind not in _STORED:
        raise _damaged(path, f"the data of {variable.name!r} have an unknown type")
    dtype = np.dtype(f"{order}{_STORED[kind]}")
    if size != math.prod(variable.shape) * dtype.itemsize:
        raise _damaged(path, f"{variable.name!r} has {size} bytes of data for shape {variable.shape}")
    return dtype


def _byte_order(file: BinaryIO) -> str:
    return ">" if file.read(HEADER_BYTES)[126:] == b"MI" else "<"


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"'{path}' is damaged or cut short: {reason}.")


def _inner(path: Path, content: bytes, order: str, most: int | None) -> tuple[bytes, bool]:
    """The bytes after the tag of the matrix inside compressed bytes, and whether the stream ended well."""
    stream = zlib.decompressobj()
    try:
        tag = stream.decompress(content, 8)
        if len(tag) < 8 or int(np.frombuffer(tag, f"{order}u4")[0]) != _MATRIX:
            raise _damaged(path, "compressed bytes hold no variable")
        size = int(np.frombuffer(tag, f"{order}u4")[1])
        if most is None:
            check_size(f"'{path}', a variable,", size, path.stat().st_size)
        # A few bytes more than promised, so that the stream's check sum is read as well.
        body = stream.decompress(stream.unconsumed_tail, most or size + 64)
    except zlib.error as error:
        raise _damaged(path, f"a variable cannot be decompressed ({error})") from error
    return body, stream.eof and len(body) == size


class _Part:
    """Bytes of an open file, of which those are read that are asked for."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self.file, self.start, self.size = file, start, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: slice) -> bytes:
        start, stop, _ = place.indices(self.size)
        self.file.seek(self.start + start)
        return self.file.read(max(0, stop - start))

    def part(self, start: int, size: int) -> _Part:
        """Some of them."""
        return _Part(self.file, self.start + start, min(size, self.size - start))


class _Elements:
    """The data elements inside a matrix, one after the other; of `size` bytes, the first of which are `content`."""

    def __init__(self, path: Path, content: bytes | memoryview | _Part, order: str, size: int | None = None) -> None:
        self.path, self.content, self.order, self.position = path, content, order, 0
        self.size = len(content) if size is None else size

    def tag(self) -> tuple[int, int, int]:
        """Type, first byte and length of the next element; one of at most 4 bytes can be packed into its tag."""
        at = self.position
        tag = self.content[at : at + 8]
        if len(tag) < 8:
            raise _damaged(self.path, "a variable ends before its data")
        kind, size = (int(x) for x in np.frombuffer(tag, f"{self.order}u4"))
        if kind >> 16:
            kind, size, at = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise _damaged(self.path, "a packed element has more than 4 bytes")
            self.position += 8
        else:
            at += 8
            self.position = at + -(-size // 8) * 8
        if at + size > self.size:
            raise _damaged(self.path, "a variable ends within its data")
        return kind, at, size

    def next(self) -> tuple[int, bytes]:
        """Type and bytes of the next element."""
        kind, start, size = self.tag()
        return kind, bytes(self.content[start : start + size])

    def header(self, named: bool = True) -> tuple[str, tuple[int, ...], str] | None:
        """Name, shape and kind; None for objects, and for what has no name (hidden variables) but should have one."""
        kind, flags = self.next()
        if kind != 6 or len(flags) != 8:
            raise _damaged(self.path, "a variable has no flags")
        word = int(np.frombuffer(flags, f"{self.order}u4")[0])
        matlab_class = word & 0xFF
        if matlab_class == 17:
            return None
        kind, sizes = self.next()
        if kind not in (5, 6) or len(sizes) % 4 or len(sizes) < 8:
            raise _damaged(self.path, "a variable has no dimensions")
        shape = tuple(int(n) for n in np.frombuffer(sizes, f"{self.order}i4"))
        kind, name = self.next()
        if kind not in _TEXT_TYPES or min(shape) < 0 or len(shape) > 32:
            raise _damaged(self.path, "a variable has no proper name or dimensions")
        if not name and named:
            return None
        what = "numeric" if matlab_class in _NUMERIC_CLASSES else _KINDS.get(matlab_class, "unknown")
        if what == "numeric" and word & _COMPLEX:
            what = "complex"
        elif what == "numeric" and word & _LOGICAL:
            what = "logical"
        return name.decode("utf-8", errors="replace"), shape, what
