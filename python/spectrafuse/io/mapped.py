"""Numbers at a fixed place of a file, read through a memory map that stays open."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse.io.errors import DataError

# Bytes of the file that a read has in memory at once, about; they are given back before it goes on.
PIECE_BYTES = 16 << 20
# Bytes that the system is told to read ahead, at most.
_AHEAD_BYTES = 512 << 20
# What the system may bring in around a page that is touched: it maps the whole block of its cache that holds the page.
_AROUND = 2 << 20


class MappedFile:
    """A file that is mapped when it is first read, and stays so until it is closed.

    A file that changes while it is in use is refused: half of its numbers would belong to another scene, and reading
    beyond the end of a map stops the process (SIGBUS). It is looked at before every piece of some megabytes; where it
    is cut short within one, the process still stops. May be read from several threads, after forks, and when unpickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._state = self._stat()
        self._map: mmap.mmap | None = None

    def _stat(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise DataError(f"'{self.path}' cannot be read: {getattr(error, 'strerror', None) or error}.") from error
        return found.st_size, found.st_mtime_ns

    def buffer(self) -> mmap.mmap:
        """The bytes of the whole file; nothing is read yet.

        Raises
        ------
        DataError
            If the file has gone or changed.
        """
        if self._stat() != self._state:
            raise DataError(f"'{self.path}' cannot be read: it has changed since it was opened.")
        mapped = self._map
        if mapped is None:
            try:
                with self.path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(f"'{self.path}' cannot be read: {error}.") from error
            self._map = mapped
        return mapped

    def release(self) -> None:
        """Give the pages that were read back to the system, which may keep them in its cache."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def read_ahead(self, start: int, size: int) -> None:
        """Have the system bring bytes into its cache while other work goes on."""
        if self._map is not None and hasattr(mmap, "MADV_WILLNEED"):
            begin = start // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, begin, min(start + size, len(self._map)) - begin)

    def close(self) -> None:
        """Drop the map; the next read makes a new one."""
        self._map = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


class MappedArray:
    """An array whose slices are read from a file when they are taken.

    Parameters
    ----------
    file : MappedFile
    dtype : numpy.dtype
        Of the stored numbers, with their byte order.
    offset : int
        Bytes before the first number.
    shape, strides : tuple of int
        As of an ndarray; strides in bytes, none negative.
    """

    def __init__(
        self, file: MappedFile, dtype: np.dtype, offset: int, shape: Sequence[int], strides: Sequence[int]
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
        file = MappedFile(path)
        if offset + size > file._state[0]:
            raise DataError(f"'{path}' is cut short: it should have {offset + size} bytes.")
        return cls(file, kind, offset, shape, steps if order == "F" else steps[::-1])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def _view(self) -> np.ndarray:
        return np.ndarray(self.shape, self.dtype, self.file.buffer(), self.offset, self.strides)

    def _like(self, view: np.ndarray) -> MappedArray:
        return MappedArray(self.file, self.dtype, self.offset, view.shape, view.strides)

    @property
    def T(self) -> MappedArray:
        """The same array with its axes in reverse order."""
        return self._like(self._view().T)

    def transpose(self, *order: int) -> MappedArray:
        """The same array with its axes in another order."""
        return self._like(self._view().transpose(*order))

    def reshape(self, *shape: int) -> MappedArray:
        """The same numbers with an axis divided into several."""
        view = self._view()
        divided = view.reshape(*shape)
        assert np.may_share_memory(view, divided)
        return self._like(divided)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read(index, self.dtype.newbyteorder("="))

    def read(self, index: Any, dtype: Any) -> np.ndarray:
        """A slice in another type, newly made and C-contiguous; only pages of the file that it lies in are read."""
        values = np.empty(self._view()[index].shape, dtype)
        for place, part in self.pieces(index, PIECE_BYTES):
            values[place] = part
        return values

    def pieces(self, index: Any, size: int, multiple: int = 1) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Parts of a slice and their places in it; the pages of one are given back before the next one comes.

        They touch about `size` bytes of the file each. They are cut along the axis that goes farthest through it, so
        that one is as few pages as can be; if that is the first axis, at multiples of `multiple`, and along the next
        one too where these would be too many pages.
        """
        view = self._view()[index]
        if not view.size:
            return
        order = sorted(range(view.ndim), key=lambda axis: -view.strides[axis] * (view.shape[axis] > 1))
        spans = [step * (length - 1) for step, length in zip(view.strides, view.shape, strict=True)]
        steps = list(view.shape)
        first = order[0]
        steps[first] = size // min(view.strides[first], sum(spans) - spans[first] + _AROUND)
        multiple = multiple if first == 0 else 1
        if steps[first] < multiple < view.shape[first]:
            second = order[1]
            steps[second] = max(1, max(size // multiple - _AROUND, size // (4 * multiple)) // view.strides[second])
        steps[first] = max(multiple, steps[first] // multiple * multiple)
        places = [
            [slice(start, min(start + step, length)) for start in range(0, length, step)]
            for step, length in zip(steps, view.shape, strict=True)
        ]
        for place in itertools.product(*places):
            self.file.buffer()  # checked anew: a file may be cut short while it is read
            yield place, view[place]
            self.file.release()

    def read_ahead(self, index: Any) -> None:
        """Have the system bring a slice into its cache, up to half a GiB of the file, while other work goes on."""
        view = self._view()[index]
        if not view.size:
            return
        axis = int(np.argmax([step * (length > 1) for step, length in zip(view.strides, view.shape, strict=True)]))
        step, length = view.strides[axis], view.shape[axis]
        span = sum(s * (n - 1) for s, n in zip(view.strides, view.shape, strict=True)) - step * (length - 1)
        span += view.itemsize
        start = view.__array_interface__["data"][0] - self._view().__array_interface__["data"][0] + self.offset
        if step < span + _AROUND:
            length, span = 1, step * (length - 1) + span
        for begin in range(start, start + length * step, step):
            self.file.read_ahead(begin, min(span, _AHEAD_BYTES // length))

    def close(self) -> None:
        """Drop the map; the next read makes a new one."""
        self.file.close()
