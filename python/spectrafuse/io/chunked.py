"""Arrays in chunks of Dask and Zarr, read window by window; decoded chunks are kept up to a bound for all of them.

Neither library is imported here but to read from its own arrays.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spectrafuse.io.errors import DataError

MOST_KEPT = 1 << 29
"""Bytes of decoded chunks that are kept: a walk down a scene whose rows of chunks take less decodes each chunk once."""

Place = tuple[int, ...]


class _Kept:
    """Decoded chunks, the latest used, of all arrays together."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._chunks: OrderedDict[tuple[int, Place], np.ndarray] = OrderedDict()
        self._turn = threading.Lock()

    def get(self, owner: int, place: Place) -> np.ndarray | None:
        with self._turn:
            found = self._chunks.get((owner, place))
            if found is not None:
                self._chunks.move_to_end((owner, place))
            return found

    def put(self, owner: int, place: Place, chunk: np.ndarray) -> None:
        with self._turn:
            if (owner, place) not in self._chunks and chunk.nbytes <= self.most:
                self._chunks[owner, place] = chunk
                self.bytes += chunk.nbytes
            while self.bytes > self.most:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes

    def drop(self, owner: int) -> None:
        with self._turn:
            for key in [key for key in self._chunks if key[0] == owner]:
                self.bytes -= self._chunks.pop(key).nbytes


KEPT = _Kept(MOST_KEPT)
_numbers = itertools.count()


class Chunks:
    """Where the chunks of an array come from.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    edges : tuple of tuple of int
        Of each axis, where chunks begin, and the end of the last one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    edges: tuple[tuple[int, ...], ...]

    def __init__(self, label: str, array: Any) -> None:
        self.label, self.array = label, array
        if any(map(math.isnan, array.shape)):
            raise DataError(f"{label} has chunks of unknown size; call its `compute_chunk_sizes()` first.")
        self.shape, self.dtype = tuple(map(int, array.shape)), np.dtype(array.dtype)
        if self.dtype.kind not in "biuf":
            raise DataError(f"{label} must hold real numbers; got dtype {self.dtype}.")
        self.number = next(_numbers)
        weakref.finalize(self, KEPT.drop, self.number)

    def read(self, places: Sequence[Place]) -> list[np.ndarray]:
        """Chunks by their numbers along the axes."""
        raise NotImplementedError

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"number": next(_numbers)}
        weakref.finalize(self, KEPT.drop, self.number)


class DaskChunks(Chunks):
    """The chunks of a dask array, computed by the scheduler that is in force when they are read."""

    def __init__(self, label: str, array: Any) -> None:
        super().__init__(label, array)
        self.edges = tuple(tuple(itertools.accumulate(sizes, initial=0)) for sizes in array.chunks)

    def read(self, places: Sequence[Place]) -> list[np.ndarray]:
        """Chunks by their numbers along the axes, computed together."""
        import dask

        try:
            return list(dask.compute(*(self.array.blocks[place] for place in places)))
        except Exception as error:  # whatever the caller's own graph raises
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"A chunk of {self.label} cannot be computed: {reason}") from error


class ChunkedArray:
    """An array whose slices decode the chunks that they touch, with its axes in any order.

    Parameters
    ----------
    source : Chunks
    axes : sequence of int, optional
        For each axis as it is shown, the one of the source.
    """

    def __init__(self, source: Chunks, axes: Sequence[int] | None = None) -> None:
        self.source = source
        self.axes = tuple(range(len(source.shape)) if axes is None else axes)
        self.shape = tuple(source.shape[axis] for axis in self.axes)
        self.dtype, self.ndim = source.dtype, len(self.shape)

    @property
    def edges(self) -> tuple[tuple[int, ...], ...]:
        """Of each axis as it is shown, where chunks begin, and the end of the last one."""
        return tuple(self.source.edges[axis] for axis in self.axes)

    @property
    def lazy(self) -> Any:
        """The dask array, its axes as they are shown; None where the chunks come from elsewhere."""
        return self.source.array.transpose(self.axes) if isinstance(self.source, DaskChunks) else None

    def transpose(self, *order: int) -> ChunkedArray:
        """The same array with its axes in another order."""
        return ChunkedArray(self.source, [self.axes[i] for i in order])

    def __getitem__(self, index: Any) -> np.ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        parts += (slice(None),) * (self.ndim - len(parts))
        spans = [part.indices(n)[:2] for part, n in zip(parts, self.shape, strict=True)]
        stored = [spans[self.axes.index(axis)] for axis in range(self.ndim)]
        values = np.empty([max(0, stop - start) for start, stop in stored], self.dtype)
        if values.size:
            for place, chunk in self._chunks(stored):
                inside, outside = [], []
                for number, (start, stop), edges in zip(place, stored, self.source.edges, strict=True):
                    low, high = max(start, edges[number]), min(stop, edges[number + 1])
                    inside.append(slice(low - edges[number], high - edges[number]))
                    outside.append(slice(low - start, high - start))
                values[tuple(outside)] = chunk[tuple(inside)]
        return values.transpose(self.axes)

    def _chunks(self, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[Place, np.ndarray]]:
        """The chunks that a slice of the source touches; those that are not kept are read several at a time."""
        touched = []
        for (start, stop), edges in zip(spans, self.source.edges, strict=True):
            after_first, after_last = np.searchsorted(edges, (start, stop - 1), side="right").tolist()
            touched.append(range(after_first - 1, after_last))
        missing: list[Place] = []
        waiting = 0
        for place in itertools.product(*touched):
            kept = KEPT.get(self.source.number, place)
            if kept is not None:
                yield place, kept
                continue
            missing.append(place)
            sizes = (edges[i + 1] - edges[i] for i, edges in zip(place, self.source.edges, strict=True))
            waiting += math.prod(sizes) * self.dtype.itemsize
            if waiting >= KEPT.most // 2:
                yield from self._read(missing)
                missing, waiting = [], 0
        yield from self._read(missing)

    def _read(self, places: Sequence[Place]) -> Iterator[tuple[Place, np.ndarray]]:
        for place, chunk in zip(places, self.source.read(places) if places else (), strict=True):
            KEPT.put(self.source.number, place, chunk)
            yield place, chunk

    def close(self) -> None:
        """Forget the decoded chunks."""
        KEPT.drop(self.source.number)


def file_state(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Size and time of a file; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    return found.st_size, found.st_mtime_ns
