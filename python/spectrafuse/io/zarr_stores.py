"""Zarr stores: their arrays, read chunk by chunk, and what their attributes say.

zarr, of the optional part `xarray`, is imported when a store is opened. Versions 2 and 3 of the format are read, in
folders; what lies elsewhere can be opened with xarray and given as a DataArray.
"""

from __future__ import annotations

import base64
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse.io.attributes import Facts, facts_from, place_from
from spectrafuse.io.chunked import ChunkedArray, Chunks, Place, file_state
from spectrafuse.io.errors import DataError
from spectrafuse.io.limits import check_count, check_size

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with Zarr's metadata."""
    return any(Path(path, name).is_file() for name in _METADATA)


def open_store(path: Path) -> dict[str, Any]:
    """The arrays of a store by name, those of its groups as "group/name"; one without a name is called "".

    Raises
    ------
    DataError
        If zarr is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise DataError(
            f"'{path}' is a Zarr store, which needs an optional part: pip install 'spectrafuse[xarray]'."
        ) from error
    opened = zarr.open(path, mode="r")
    found = {"": opened} if isinstance(opened, zarr.Array) else dict(_arrays(opened))
    check_count(f"'{path}'", len(found))
    return found


def _arrays(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    yield from ((f"{prefix}{name}", array) for name, array in sorted(group.arrays()))
    for name, inner in sorted(group.groups()):
        yield from _arrays(inner, f"{prefix}{name}/")


def dims_of(array: Any) -> tuple[str, ...]:
    """Names of the axes of an array, where it says them for all."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return tuple(map(str, named)) if None not in named and len(named) == array.ndim else ()


def facts_of_array(array: Any) -> Facts:
    """The facts about an array from its attributes, by the conventions of xarray."""
    own = _attributes(array)
    if "_FillValue" not in own and array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in own:
        own["_FillValue"] = array.fill_value
    found = facts_from({name: value for name, value in own.items() if value is not None}, dims=dims_of(array))
    lacking = array.nchunks - array.nchunks_initialized if array.ndim > 1 else 0
    if 0 < array.nchunks == lacking:
        raise DataError(f"'{array.store_path}' has none of its chunks, so there is nothing to read.")
    note = f"{lacking} of {array.nchunks} chunks are not in the store and read as {array.fill_value}"
    return found._replace(notes=(*found.notes, note)) if lacking else found


def place_of_arrays(arrays: Mapping[str, Any]) -> dict[str, str] | None:
    """Where a scene lies on Earth, by the grid mapping of CF."""
    return place_from(_attributes(array) for array in arrays.values() if array.ndim == 0)


def _attributes(array: Any) -> dict[str, Any]:
    own = dict(array.attrs)
    fill = own.get("_FillValue")
    if isinstance(fill, str):
        # As xarray writes a float in version 3, whose attributes are JSON.
        own["_FillValue"] = struct.unpack("<d", base64.standard_b64decode(fill))[0]
    return own


class ZarrChunks(Chunks):
    """The chunks of a Zarr array; of one in a folder, a chunk that changes after it was first read is refused.

    Parameters
    ----------
    label : str
        What messages call it.
    array : zarr.Array
    root : path, optional
        Its folder.
    """

    def __init__(self, label: str, array: Any, root: Path | None) -> None:
        super().__init__(label, array)
        self.root = root
        self.edges = tuple(
            (*range(0, length, size), length) for length, size in zip(self.shape, array.chunks, strict=True)
        )
        # What lies in one file.
        self._together = array.shards or array.chunks
        self._seen = {name: file_state(root / name) for name in _METADATA} if root is not None else {}

    def read(self, places: Sequence[Place]) -> list[np.ndarray]:
        """Chunks by their numbers along the axes."""
        return [self._read(place) for place in places]

    def _read(self, place: Place) -> np.ndarray:
        span = tuple(slice(edges[i], edges[i + 1]) for i, edges in zip(place, self.edges, strict=True))
        files = []
        if self.root is not None:
            number = tuple(part.start // size for part, size in zip(span, self._together, strict=True))
            files = [self.array.metadata.encode_chunk_key(number), *_METADATA]
            self._check(files, place)
            size = math.prod(self.array.chunks) * self.dtype.itemsize
            check_size(f"A chunk of {self.label}", size, (self._seen[files[0]] or (0, 0))[0])
        try:
            chunk = np.asarray(self.array[span])
        except Exception as error:  # zarr documents no set of exceptions for damaged chunks
            self._check(files, place)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.label} cannot be read, its chunk {place} may be damaged: {reason}") from error
        self._check(files, place)
        return chunk

    def _check(self, files: Sequence[str], place: Place) -> None:
        for name in files:
            assert self.root is not None
            now = file_state(self.root / name)
            before = self._seen.setdefault(name, now)
            if now == before:
                continue
            what = "was written anew" if name in _METADATA else f"lost its chunk {place}" if now is None else ""
            what = what or f"has another chunk {place}"
            raise DataError(f"{self.label} {what} since it was opened; run this again when nothing writes to it.")


def chunked(label: str, array: Any, root: Path | None = None) -> ChunkedArray:
    """An array of numbers whose slices decode the chunks that they touch; `root` is its folder, where it has one."""
    store = getattr(array.store, "root", None)
    root = Path(store, array.path) if root is None and isinstance(store, Path) else root
    return ChunkedArray(ZarrChunks(label, array, root))
