"""An array in an HDF5 file that is read piece by piece."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spectrafuse.io.errors import DataError
from spectrafuse.io.kept_open import KeptOpen
from spectrafuse.io.limits import check_count
from spectrafuse.io.mapped import MappedArray, UnchangedFile

# Bytes of chunks that are kept decoded, within these bounds: those that rows of the scene lie in.
_LEAST_CACHE, _MOST_CACHE = 1 << 20, 1 << 27
_DEEPEST = 12
# Signature, version and reserved bytes of a heap; and the bytes of a file in which it is looked for.
_HEAP = b"GCOL\1\0\0\0"
_LOOKED_THROUGH, _PIECE = 1 << 26, 1 << 22


class _DataSet:
    """A data set of an open file."""

    def __init__(self, path: Path, key: str, cache: int) -> None:
        import h5py

        self.file = h5py.File(path, "r", rdcc_nbytes=cache, rdcc_nslots=100_003)
        self.values = self.file[key]

    def close(self) -> None:
        self.file.close()


class Hdf5File(KeptOpen):
    """A data set of a file that is kept open, with chunks kept decoded."""

    def __init__(self, path: Path, key: str) -> None:
        super().__init__()
        self.path, self.key, self.cache = path, key, _LEAST_CACHE
        self._unchanged = UnchangedFile(path)

    def _open(self) -> _DataSet:
        return _DataSet(self.path, self.key, self.cache)

    def read(self, place: tuple[slice, ...], cache: int) -> np.ndarray:
        """A slice of the data set, its axes as they are stored; `cache` bytes of chunks are kept from the first on."""
        self._unchanged.check()
        self.cache = cache
        try:
            with self.opened() as opened:
                values = np.asarray(opened.values[place])
        except Exception as error:  # h5py documents no set of exceptions for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"'{self.path}' cannot be read, it may be damaged or cut short: {reason}") from error
        self._unchanged.check()
        return values


class Hdf5Array:
    """A data set in chunks with its axes in any order; a slice reads the chunks that it touches.

    Parameters
    ----------
    file : Hdf5File
    shape : tuple of int
        Its lengths in the order in which they are shown.
    axes : tuple of int
        For each shown axis, the axis of the data set.
    chunks : tuple of int
        Lengths of a chunk, in the order of the data set.
    itemsize : int
        Bytes of a number.
    """

    keeps = True

    def __init__(
        self, file: Hdf5File, shape: tuple[int, ...], axes: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
    ) -> None:
        self.file, self.shape, self.axes, self.stored_chunks, self.itemsize = file, shape, axes, chunks, itemsize

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of a chunk, in the order in which they are shown."""
        return tuple(self.stored_chunks[axis] for axis in self.axes)

    def transpose(self, *order: int) -> Hdf5Array:
        """The same array with its axes in another order."""
        shape, axes = tuple(self.shape[i] for i in order), tuple(self.axes[i] for i in order)
        return Hdf5Array(self.file, shape, axes, self.stored_chunks, self.itemsize)

    def __getitem__(self, index: slice | tuple[slice, ...]) -> np.ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        parts += (slice(None),) * (self.ndim - len(parts))
        stored = tuple(parts[self.axes.index(axis)] for axis in range(self.ndim))
        return self.file.read(stored, self._cache()).transpose(self.axes)

    def in_tiles(self) -> Hdf5Array:
        """The same numbers in a file opened for itself, for one walk that takes each chunk once and keeps none."""
        twin = Hdf5Array(
            Hdf5File(self.file.path, self.file.key), self.shape, self.axes, self.stored_chunks, self.itemsize
        )
        twin.keeps = False
        return twin

    def _cache(self) -> int:
        """Bytes of the chunks that a row of the scene lies in, so that a walk down the rows decodes each chunk once."""
        if not self.keeps:
            return _LEAST_CACHE
        counts = [-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True)]
        rows = math.prod(n * c for n, c in zip(counts, self.chunks, strict=True)) // counts[-2]
        return min(max(_LEAST_CACHE, rows * self.itemsize), _MOST_CACHE)

    def close(self) -> None:
        """Close the file; the next read opens it anew."""
        self.file.close()


def check_heaps(path: Path) -> None:
    """Refuse a file with a damaged heap of texts, in which HDF5's library would walk in circles for ever.

    "HDF5 File Format Specification" 3.0, III.E "Disk Format: Level 1E - Global Heap". Texts in attributes lie there.

    Raises
    ------
    DataError
        If the free space of a heap says that it takes no room.
    """
    with path.open("rb") as file:
        stop = min(os.fstat(file.fileno()).st_size, _LOOKED_THROUGH)
        for first in range(0, stop, _PIECE):
            file.seek(first)
            piece, at = file.read(min(_PIECE + len(_HEAP) - 1, stop - first)), -1
            while (at := piece.find(_HEAP, at + 1)) >= 0:
                _check_heap(path, file, first + at, stop)


def _check_heap(path: Path, file: BinaryIO, start: int, stop: int) -> None:
    file.seek(start + 8)
    place, end = start + 16, min(start + int.from_bytes(file.read(8), "little"), stop)
    while place + 16 <= end:
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[8:], "little")
        step = 16 + -(-size // 8) * 8 if head[:2] != b"\0\0" else size
        if step == 0:
            raise DataError(f"'{path}' is damaged: its texts cannot be read.")
        place += step


class Limited:
    """Stored numbers of which those outside limits are shown as the no-data value; slices are float32."""

    def __init__(self, stored: Any, limits: tuple[float, float], nodata: float) -> None:
        self.stored, self.limits, self.nodata, self.shape = stored, limits, np.float32(nodata), stored.shape

    @property
    def file(self) -> Any:
        """The open file."""
        return self.stored.file

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        values = np.asarray(self.stored[index])
        outside = (values < self.limits[0]) | (values > self.limits[1])
        return np.where(outside, self.nodata, values.astype(np.float32))

    def close(self) -> None:
        """Close the file; the next read opens it anew."""
        self.stored.close()


def walk(path: Path, file: Any) -> Iterator[tuple[str, Any, str | None]]:
    """Groups and data sets of a file, the outer ones first: place, item, and how it lies elsewhere (then no item).

    Groups of MATLAB's sparse matrices and objects are not entered, nor is a group twice.
    """
    import h5py

    waiting, seen, count = deque([("", file)]), set(), 0
    while waiting:
        prefix, group = waiting.popleft()
        check_count(f"'{path}'", count := count + len(group))
        for name in group:
            if name.startswith("#"):
                continue
            elsewhere = foreign_storage(group, name)
            item = group[name] if elsewhere is None else None
            yield f"{prefix}{name}", item, elsewhere
            if isinstance(item, h5py.Group) and prefix.count("/") < _DEEPEST and "MATLAB_sparse" not in item.attrs:
                place = h5py.h5o.get_info(item.id).addr
                if place not in seen:
                    seen.add(place)
                    waiting.append((f"{prefix}{name}/", item))


def foreign_storage(file: Any, name: str) -> str | None:
    """How a variable's numbers lie elsewhere than in their place of this file; None for those that do not.

    Such places are never gone to: another file can be one that no one wants read, or a pipe; a data set that is made up
    of itself ends the process.
    """
    import h5py

    try:
        link = file.get(name, getlink=True)
    except TypeError:
        link = None
    if not isinstance(link, h5py.HardLink):
        return "a link to another place, which is never followed"
    item = file[name]
    if isinstance(item, h5py.Dataset) and item.is_virtual:
        return "a virtual data set, which is put together from other files and never read"
    if isinstance(item, h5py.Dataset) and item.external:
        return "numbers in another file, which is never read"
    return None


def data_set(path: Path, key: str) -> Hdf5Array | MappedArray:
    """A data set with its axes as they are stored: left in its place where its numbers lie in one piece."""
    import h5py

    with h5py.File(path, "r") as file:
        item = file[key]
        shape, chunks, offset = item.shape, item.chunks, item.id.get_offset()
        plain = item.dtype.kind in "iuf" and not item.external and not item.is_virtual
        if chunks is None and offset is not None and plain:
            return MappedArray.contiguous(path, item.dtype, offset, shape)
        itemsize = item.dtype.itemsize
    return Hdf5Array(Hdf5File(path, key), shape, tuple(range(len(shape))), tuple(chunks or shape), itemsize)
