"""Spectra that stand on a map: how a scene becomes a table of spectra, and how their results become maps again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spectrafuse.io.cubes import Cube

_MOST_EMPTY = 4


@dataclass(frozen=True, eq=False)
class Grid:
    """Places of n spectra on a map.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    pixels : ndarray of int, shape (n,)
        Of each spectrum its pixel, counted along the rows.
    place : dict of str to str
        Where the map lies on Earth, as fields of an ENVI header; empty if that is not known.
    """

    shape: tuple[int, int]
    pixels: np.ndarray
    place: dict[str, str] = field(default_factory=dict)

    def maps(self, values: np.ndarray) -> np.ndarray:
        """Columns of values (n, k) as maps (k, rows, columns), float32; NaN where there is no spectrum."""
        maps = np.full((values.shape[1], self.shape[0] * self.shape[1]), np.nan, dtype=np.float32)
        maps[:, self.pixels] = values.T
        return maps.reshape(-1, *self.shape)

    def kept(self, keep: np.ndarray) -> Grid:
        """The same map with some of its spectra."""
        return Grid(self.shape, self.pixels[keep], self.place)


def grid_of_scene(cube: Cube) -> Grid:
    """The pixels of a scene that have data."""
    shape = cube.shape[1:]
    pixels = np.arange(shape[0] * shape[1]) if cube.valid is None else np.flatnonzero(cube.valid)
    return Grid(shape, pixels, cube.place or {})


def unfolded(cube: Cube) -> np.ndarray:
    """The spectra (pixels, bands) of a scene's pixels that have data, along the rows."""
    values = cube.data.reshape(cube.shape[0], -1)
    return np.ascontiguousarray(values[:, grid_of_scene(cube).pixels].T)


def grid_of_positions(positions: np.ndarray) -> Grid | None:
    """The map of spectra at (x, y) (n, 2), x to the right and y downward; None if they fill no raster.

    A raster has every place at most once, and spectra at a quarter of its places at least.
    """
    (xs, columns), (ys, rows) = (np.unique(positions[:, i], return_inverse=True) for i in (0, 1))
    pixels = rows.reshape(-1) * len(xs) + columns.reshape(-1)
    if len(xs) < 2 or len(ys) < 2 or len(xs) * len(ys) > _MOST_EMPTY * len(pixels):
        return None
    return Grid((len(ys), len(xs)), pixels) if len(np.unique(pixels)) == len(pixels) else None
