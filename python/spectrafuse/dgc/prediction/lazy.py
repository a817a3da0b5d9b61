"""Labels of scenes in chunks of Dask, found when they are asked for, by whatever scheduler computes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spectrafuse._runtime.modes import in_usual_modes
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction.inference import halo_rows, label_map, reach
from spectrafuse.io.bands import ChosenBands, chosen
from spectrafuse.io.chunked import ChunkedArray
from spectrafuse.io.cubes import Cube

# Of the memory that a task may use, the share that its rows take as they come.
_SHARE = 4


def in_chunks_of_dask(cube: Cube) -> ChunkedArray | None:
    """The numbers of a scene, with all bands, if they are a dask array."""
    stored = cube.stored.stored if isinstance(cube.stored, ChosenBands) else cube.stored
    return stored if isinstance(stored, ChunkedArray) and stored.lazy is not None else None


def lazy_label_map(
    model: SegmentationModel,
    cube: Cube,
    normalization: Normalization,
    *,
    memory: int,
    mapping: Mapping[int, Sequence[int]] | None = None,
) -> Any:
    """`label_map` as a dask array (rows, columns) int64, in the chunks of the scene; the same bits.

    A task labels rows of one row of chunks, over all columns, since the model looks along the flattened pixels; it
    gets as many more rows above and below as labels depend on. The statistics of the scene are found at once, and so
    is where it has no data.

    Parameters
    ----------
    memory : int
        Bytes that a task may use for its rows and beside them, about.

    Other parameters as in `label_map`.
    """
    import dask
    import dask.array

    stored = in_chunks_of_dask(cube)
    assert stored is not None
    array, (_, rows, columns) = stored.lazy, stored.edges
    fitted = normalization.fit(cube)
    bands, height, width = cube.shape
    halo = height if model.dense else halo_rows(model, width) + (0 if cube.valid is None else reach(model))
    most = max(1, memory // (_SHARE * stored.shape[0] * width * stored.dtype.itemsize) - 2 * halo)
    # Once in the graph, however many tasks there are.
    facts = replace(cube, stored=None, valid=None, file_backed=False)
    numbers = cube.stored.bands if isinstance(cube.stored, ChosenBands) else np.arange(bands)
    shared = dask.delayed((model, facts, numbers, fitted, memory, mapping), traverse=False)
    task = dask.delayed(_labels_of_rows)
    parts = []
    for start, stop in [(0, height)] if model.dense else _spans(rows, most):
        first, last = max(start - halo, 0), min(stop + halo, height)
        valid = None if cube.valid is None else cube.valid[first:last]
        part = task(shared, array[:, first:last].rechunk(-1), valid, start - first, stop - first)
        parts.append(dask.array.from_delayed(part, (stop - start, width), np.int64))
    return dask.array.concatenate(parts).rechunk((tuple(np.diff(rows).tolist()), tuple(np.diff(columns).tolist())))


def _spans(edges: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """First row and last row + 1 of tasks of at most so many rows, which do not cross the edges of chunks."""
    for first, last in itertools.pairwise(edges):
        count = -(-(last - first) // most)
        cuts = [first + (last - first) * i // count for i in range(count + 1)]
        yield from itertools.pairwise(cuts)


@in_usual_modes
def _labels_of_rows(shared: Any, block: np.ndarray, valid: np.ndarray | None, start: int, stop: int) -> np.ndarray:
    """Labels of rows `start` to `stop` of a block (bands, rows, columns) that holds all that they depend on."""
    model, facts, numbers, fitted, memory, mapping = shared
    cube = replace(facts, stored=chosen(block, numbers), valid=valid)
    return label_map(model, cube, fitted, memory=memory, mapping=mapping)[start:stop]
