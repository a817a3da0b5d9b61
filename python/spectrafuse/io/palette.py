"""Colors for any number of classes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spectrafuse._runtime import arguments

_LEVELS = 20
_LIGHTNESS = (35.0, 82.0)
MOST_COLORS = 2048
# Okabe and Ito's colors, told apart with any color vision, without black and the yellow that is lost on white.
_FIRST = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0))


def colors(k: int) -> np.ndarray:
    """Colors of k classes, as different from each other as can be.

    The first six are told apart with any color vision. Each further one is the farthest, in CIE L*a*b*, from grays and
    from all before it, among a grid of colors that are visible on white and on black; so a class keeps its color when
    there are more classes. Beyond `MOST_COLORS` they repeat.

    Parameters
    ----------
    k : int
        Number of classes, 0 or more.

    Returns
    -------
    ndarray, shape (k, 3), uint8
        Red, green, blue.
    """
    k = arguments.integer("k", k, minimum=0)
    # Rounded up, so that few lists are ever made.
    chosen = _palette(min(MOST_COLORS, max(32, 1 << (k - 1).bit_length())))
    return chosen[np.arange(k) % len(chosen)]


@lru_cache(maxsize=8)
def _palette(k: int) -> np.ndarray:
    steps = np.linspace(0, 255, _LEVELS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _lab(grid)
    visible = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    grid, lab = grid[visible], lab[visible]
    # Grays are left for pixels without a class and for lines that are no class.
    grays = np.stack([np.linspace(0, 100, 6), np.zeros(6), np.zeros(6)], axis=1)
    first = np.array(_FIRST, dtype=np.uint8)
    avoided = np.concatenate((grays, _lab(first)))
    distance = ((lab[:, None] - avoided) ** 2).sum(-1).min(1)
    taken = np.empty(k - len(first), dtype=np.int64)
    for i in range(len(taken)):
        taken[i] = distance.argmax()
        distance = np.minimum(distance, ((lab - lab[taken[i]]) ** 2).sum(-1))
    return np.concatenate((first, grid[taken]))


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colors (n, 3) uint8."""
    scaled = rgb / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
