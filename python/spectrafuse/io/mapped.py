"""Numbers at a fixed place of a file, read through a memory map that stays open."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse.io.errors import DataError

# Pages of the file that a read has in memory at once, about; they are given back before it goes on.
PIECE_BYTES = 32 << 20
# What the system may bring in around a page that is touched: it maps the whole block of its cache that holds the page.
_AROUND = 2 << 20


class MappedFile:
    """A file that is mapped when it is first read, and stays so until it is closed.

    A file that changes while it is in use is refused: half of its numbers would belong to another scene, and reading
    beyond the end of a map stops the process. May be read from several threads, after a fork, and when unpickled.
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
            raise DataError(f"'{path}' cannot be read: it has not the {offset + size} bytes that it should have.")
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
        view = self._view()[index]
        values = np.empty(view.shape, dtype)
        if values.size:
            # Along the axis that goes farthest through the file, so that a piece is as few pages as can be.
            axis = int(np.argmax([step * (length > 1) for step, length in zip(view.strides, view.shape, strict=True)]))
            source, target = np.moveaxis(view, axis, 0), np.moveaxis(values, axis, 0)
            span = sum(step * (length - 1) for step, length in zip(source.strides[1:], source.shape[1:], strict=True))
            step = max(1, PIECE_BYTES // min(source.strides[0], span + _AROUND))
            for start in range(0, len(source), step):
                target[start : start + step] = source[start : start + step]
                self.file.release()
        return values

    def close(self) -> None:
        """Drop the map; the next read makes a new one."""
        self.file.close()
