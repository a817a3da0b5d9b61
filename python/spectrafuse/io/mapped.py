"""Numbers at a fixed place of a file, of which slices are read when they are taken."""

from __future__ import annotations

import itertools
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spectrafuse.io.errors import DataError

# Bytes of the file that a read has in memory at once, about.
PIECE_BYTES = 8 << 20
# Bytes that the system is told to read ahead, at most.
_AHEAD_BYTES = 512 << 20
# So many bytes that nobody asked for are read along where asking twice would take as long.
_GAP_BYTES = 8 << 10


class UnchangedFile:
    """A file that is refused once it has changed: half of its numbers would belong to another scene.

    Nothing of it is mapped into memory, where a file that is cut short while it is read, or a disk that fails, stops
    the process without a word (SIGBUS). May be read from several threads, after forks, and when unpickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._state = self._found()

    def _found(self) -> tuple[int, int]:
        try:
            return self._state_of(os.stat(self.path))
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error

    @property
    def size(self) -> int:
        """Bytes."""
        return self._state[0]

    @staticmethod
    def _state_of(found: os.stat_result) -> tuple[int, int]:
        return found.st_size, found.st_mtime_ns

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"'{self.path}' cannot be read: {getattr(error, 'strerror', None) or error}.")

    def open(self) -> BinaryIO:
        """The file, to be closed by the caller.

        Raises
        ------
        DataError
            If the file has gone or changed.
        """
        try:
            file = self.path.open("rb", buffering=0)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            self.check(file)
        except DataError:
            file.close()
            raise
        return file

    def check(self, file: BinaryIO | None = None) -> None:
        """Raise a DataError if the open file, or the one of this name, has gone or changed."""
        if (self._found() if file is None else self._state_of(os.fstat(file.fileno()))) != self._state:
            raise DataError(f"'{self.path}' cannot be read: it has changed since it was opened.")

    def read(self, file: BinaryIO, starts: Sequence[int], places: memoryview) -> None:
        """Fill equal parts of a buffer with what begins at these bytes.

        Raises
        ------
        DataError
            If the file has changed, before or meanwhile, or the disk fails.
        """
        length = len(places) // len(starts)
        try:
            for i, start in enumerate(starts):
                file.seek(start)
                done = file.readinto(places[i * length : (i + 1) * length])  # type: ignore[attr-defined]
                while done < length:
                    more = file.readinto(places[i * length + done : (i + 1) * length])  # type: ignore[attr-defined]
                    if not more:
                        self.check(file)
                        raise OSError("it ends before its numbers do")
                    done += more
        except OSError as error:
            raise self._unreadable(error) from error
        self.check(file)


class MappedArray:
    """An array whose slices are read from a file when they are taken.

    Parameters
    ----------
    file : UnchangedFile
    dtype : numpy.dtype
        Of the stored numbers, with their byte order.
    offset : int
        Bytes before the first number.
    shape, strides : tuple of int
        As of an ndarray; strides in bytes, none negative.
    """

    def __init__(
        self, file: UnchangedFile, dtype: np.dtype, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> None:
        self.file, self.dtype, self.offset = file, np.dtype(dtype), offset
        self.shape, self.strides = tuple(shape), tuple(strides)

    @classmethod
    def contiguous(
        cls, path: str | os.PathLike[str], dtype: Any, offset: int, shape: Sequence[int], order: str = "C"
    ) -> MappedArray:
        """Numbers that follow each other with the last axis fastest ("C") or the first one ("F").

        Raises
        ------
        DataError
            If the file is too short for them.
        """
        kind = np.dtype(dtype)
        steps, size = [], kind.itemsize
        for length in shape if order == "F" else reversed(shape):
            steps.append(size)
            size *= length
        file = UnchangedFile(path)
        if offset + size > file.size:
            raise DataError(f"'{path}' is cut short: it should have {offset + size} bytes.")
        return cls(file, kind, offset, shape, steps if order == "F" else steps[::-1])

    @classmethod
    def of_map(cls, values: np.memmap[Any, Any]) -> MappedArray | None:
        """What a caller has mapped for reading alone, in its file; None where that is no longer what the map shows."""
        if values.mode != "r" or values.filename is None or not values.size or min(values.strides) < 0:
            return None
        begin = np.frombuffer(values._mmap, np.uint8).__array_interface__["data"][0]  # type: ignore[attr-defined]
        at = values.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        offset = at + values.__array_interface__["data"][0] - begin
        try:
            found = cls(UnchangedFile(values.filename), values.dtype, offset, values.shape, values.strides)
            ends = [tuple(slice(n * i, n * i + 1) for n in (np.array(values.shape) - 1).tolist()) for i in (0, 1)]
            same = all(found.read(end, values.dtype).tobytes() == values[end].tobytes() for end in ends)
        except DataError:
            return None
        return found if same else None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all numbers."""
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def T(self) -> MappedArray:
        """The same array with its axes in reverse order."""
        return self.transpose(*reversed(range(self.ndim)))

    def transpose(self, *order: int) -> MappedArray:
        """The same array with its axes in another order."""
        shape, strides = ([values[axis] for axis in order] for values in (self.shape, self.strides))
        return MappedArray(self.file, self.dtype, self.offset, shape, strides)

    def reshape(self, *shape: int) -> MappedArray:
        """The same numbers with the last axis divided into several."""
        lengths = shape[self.ndim - 1 :]
        assert (*shape[: self.ndim - 1], math.prod(lengths)) == self.shape
        steps = [self.strides[-1] * math.prod(lengths[i + 1 :]) for i in range(len(lengths))]
        return MappedArray(self.file, self.dtype, self.offset, shape, (*self.strides[:-1], *steps))

    def part(self, index: Any) -> MappedArray:
        """A slice, left in its file."""
        return self._slice(index)

    def _slice(self, index: Any) -> MappedArray:
        parts = () if index is ... else index if isinstance(index, tuple) else (index,)
        shape, offset = list(self.shape), self.offset
        for axis, part in enumerate(parts):
            start, stop, step = part.indices(self.shape[axis])
            assert step == 1
            shape[axis] = max(0, stop - start)
            offset += start * self.strides[axis]
        return MappedArray(self.file, self.dtype, offset, shape, self.strides)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read(index, self.dtype.newbyteorder("="))

    def read(self, index: Any, dtype: Any) -> np.ndarray:
        """A slice in another type, newly made and C-contiguous; only what it lies in is read of the file."""
        values = np.empty(self._slice(index).shape, dtype)
        for place, part in self.pieces(index, PIECE_BYTES):
            values[place] = part
        return values

    def rows(self, which: np.ndarray) -> np.ndarray:
        """Rows (n, d) of a table whose rows each lie in one piece, as they are stored, in the order asked for."""
        assert self.strides[1:] == (self.dtype.itemsize,)
        values = np.empty((len(which), self.shape[1]), self.dtype)
        if values.size:
            with self.file.open() as file:
                starts = self.offset + np.asarray(which, np.int64) * self.strides[0]
                self.file.read(file, starts.tolist(), values.reshape(-1).view(np.uint8).data)
        return values

    def pieces(self, index: Any, size: int, multiple: int = 1) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Parts of a slice and their places in it; the next one may use the memory of one.

        They take about `size` bytes of memory each. They are cut along the axis that goes farthest through the file;
        if that is the first axis, at multiples of `multiple`, and along the next one too where these would be too many
        bytes.
        """
        whole = self._slice(index)
        if 0 in whole.shape:
            return
        order = sorted(range(whole.ndim), key=lambda axis: -whole.strides[axis] * (whole.shape[axis] > 1))
        steps, first = list(whole.shape), order[0]
        steps[first] = size // whole._bytes_of_one(order[:1])
        multiple = multiple if first == 0 else 1
        if steps[first] < multiple < whole.shape[first]:
            steps[order[1]] = max(1, size // multiple // whole._bytes_of_one(order[:2]))
        steps[first] = max(multiple, steps[first] // multiple * multiple)
        cuts = [
            [slice(start, min(start + step, length)) for start in range(0, length, step)]
            for step, length in zip(steps, whole.shape, strict=True)
        ]
        memory: np.ndarray | None = None
        with self.file.open() as file:
            for place in itertools.product(*cuts):
                part = whole._slice(place)
                if memory is None:
                    memory = np.empty(part._bytes(), np.uint8)
                yield place, part._read_into(memory, file)

    def _together(self) -> tuple[list[int], int]:
        """Axes that are gone through one by one, the slowest first, and the bytes that are read at once for each."""
        length = self.dtype.itemsize
        axes = sorted((axis for axis in range(self.ndim) if self.shape[axis] > 1), key=lambda axis: self.strides[axis])
        while axes and self.strides[axes[0]] - length <= _GAP_BYTES:
            axis = axes.pop(0)
            length += self.strides[axis] * (self.shape[axis] - 1)
        return axes[::-1], length

    def _bytes(self) -> int:
        """Memory that reading it all at once takes."""
        axes, length = self._together()
        return length * math.prod(self.shape[axis] for axis in axes)

    def _bytes_of_one(self, axes: Sequence[int]) -> int:
        """Memory for each index of the last one of some axes, at one index of the others."""
        shape = list(self.shape)
        for axis in axes:
            shape[axis] = 1
        one = MappedArray(self.file, self.dtype, self.offset, shape, self.strides)._bytes()
        step = self.strides[axes[-1]]
        return step if 0 <= step - one <= _GAP_BYTES else one

    def _read_into(self, memory: np.ndarray, file: BinaryIO) -> np.ndarray:
        """All of it at the beginning of some memory."""
        axes, length = self._together()
        starts, strides, count = np.array([self.offset]), list(self.strides), 1
        for axis in axes:
            starts = (starts[:, None] + np.arange(self.shape[axis]) * self.strides[axis]).reshape(-1)
        for axis in reversed(axes):
            strides[axis] = length * count
            count *= self.shape[axis]
        self.file.read(file, starts.tolist(), memory.data[: count * length])
        return np.ndarray(self.shape, self.dtype, memory, 0, strides)

    def read_ahead(self, index: Any) -> None:
        """Have the system bring a slice into its cache, up to half a GiB of the file, while other work goes on."""
        whole = self._slice(index)
        if 0 in whole.shape or not hasattr(os, "posix_fadvise"):
            return
        axis = int(np.argmax([step * (length > 1) for step, length in zip(whole.strides, whole.shape, strict=True)]))
        step, count = whole.strides[axis], whole.shape[axis]
        spans = [step * (length - 1) for step, length in zip(whole.strides, whole.shape, strict=True)]
        span = whole.dtype.itemsize + sum(spans) - spans[axis]
        if step < span + _GAP_BYTES:
            count, span = 1, step * (count - 1) + span
        with self.file.open() as file:
            for start in range(whole.offset, whole.offset + count * step, step):
                os.posix_fadvise(file.fileno(), start, min(span, _AHEAD_BYTES // count), os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Nothing: no file stays open."""
