"""Rows of a scene, brought into memory one strip after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse.dgc.normalise import as_float_tensor
from spectrafuse.dgc.training.batches import one_ahead
from spectrafuse.dgc.windows import fill_rows, valid_pixels
from spectrafuse.io.mapped import MappedArray
from spectrafuse.ops.scene_spectra import BAND_MULTIPLE, filled_bands, scene_spectra


def is_mapped(cube: Any) -> bool:
    """Whether the numbers of a scene lie in a file as they are."""
    return getattr(cube, "mapped", None) is not None


def read_strips(cube: Any, strips: Sequence[tuple[int, int]], distance: int, pages: int) -> Iterator[Tensor]:
    """Strips of a scene (C, H, W) as they are, each (C, 1, pixels) of float type; the next may use the memory of one.

    Numbers that lie in a file as they are go from the file to their place with all threads, while the system reads the
    next strip into its cache. Other files are read by a thread of their own, a strip ahead.

    Parameters
    ----------
    strips : sequence of (int, int)
        First row, and last row + 1.
    distance : int
        Pixels without data show the nearest one with data if it is not farther than that.
    pages : int
        Bytes of a file that are in memory at a time, about, where its numbers go to their place directly.
    """
    if is_mapped(cube):
        return _from_map(cube.mapped, cube.scale, strips, pages)
    blocks = (_read(cube, first, last, distance) for first, last in strips)
    return one_ahead(blocks) if getattr(cube, "file_backed", False) else blocks


def _read(cube: Any, first: int, last: int, distance: int) -> Tensor:
    valid = valid_pixels(cube)
    rows = as_float_tensor(cube[:, first:last]) if valid is None else fill_rows(cube, valid, first, last, distance)
    return rows.reshape(rows.shape[0], 1, -1)


def _from_map(mapped: MappedArray, scale: float, strips: Sequence[tuple[int, int]], pages: int) -> Iterator[Tensor]:
    bands, _, width = mapped.shape
    pixels = max(last - first for first, last in strips) * width
    memory = torch.empty(pixels, filled_bands(bands))
    everything = slice(None)
    mapped.read_ahead((everything, slice(*strips[0])))
    for (first, last), following in itertools.zip_longest(strips, strips[1:]):
        block = memory[: (last - first) * width]
        image = block.view(last - first, width, -1)
        for place, part in mapped.pieces((everything, slice(first, last)), pages, BAND_MULTIPLE):
            spectra = image[place[1], place[2], place[0].start : filled_bands(place[0].stop)]
            scene_spectra(part, spectra)
        if following is not None:
            mapped.read_ahead((everything, slice(*following)))
        if scale != 1:
            block /= scale
        yield block[:, :bands].T.unsqueeze(1)
