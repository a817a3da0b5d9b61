"""Rows of a scene, brought into memory one strip after the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from spectrafuse.dgc.windows import fill_rows, one_ahead
from spectrafuse.io.bands import ChosenBands
from spectrafuse.io.cubes import Cube
from spectrafuse.io.mapped import MappedArray
from spectrafuse.ops.scene_spectra import BAND_MULTIPLE, filled_bands, scene_spectra


def read_strips(cube: Cube, strips: Sequence[tuple[int, int]], distance: int, pages: int) -> Iterator[Tensor]:
    """Strips of a scene as they are, each (bands, 1, pixels) of float type; the next may use the memory of one.

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
    if cube.mapped is not None:
        return _from_map(cube.mapped, cube.scale, strips, pages)
    blocks = (_read(cube, first, last, distance) for first, last in strips)
    return one_ahead(blocks) if cube.file_backed else blocks


def _read(cube: Cube, first: int, last: int, distance: int) -> Tensor:
    rows = fill_rows(cube, first, last, distance)
    return rows.reshape(rows.shape[0], 1, -1)


def _from_map(
    mapped: MappedArray | ChosenBands, scale: float, strips: Sequence[tuple[int, int]], pages: int
) -> Iterator[Tensor]:
    bands, _, width = mapped.shape
    pixels = max(last - first for first, last in strips) * width
    memory = torch.empty(pixels, filled_bands(bands))
    everything = slice(None)
    mapped.read_ahead((everything, slice(*strips[0])))
    for (first, last), following in itertools.zip_longest(strips, strips[1:]):
        block = memory[: (last - first) * width]
        image = block.view(last - first, width, -1)
        for place, part in mapped.pieces((everything, slice(first, last)), pages, BAND_MULTIPLE):
            # Filled up with zeros, which the bands that follow replace.
            first_band, count = place[0].start, place[0].stop - place[0].start
            spectra = image[place[1], place[2], first_band : first_band + filled_bands(count)]
            scene_spectra(part, spectra)
        if following is not None:
            mapped.read_ahead((everything, slice(*following)))
        if scale != 1:
            block /= scale
        yield block[:, :bands].T.unsqueeze(1)
