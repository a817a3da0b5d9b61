"""Colours for any number of classes, and PNG files without a drawing library."""

from __future__ import annotations

import os
import struct
import zlib
from functools import lru_cache

import numpy as np

from spectrafuse._runtime import checks
from spectrafuse.io.atomic import atomic_write

_LEVELS = 20
_LIGHTNESS = (35.0, 82.0)
MOST_COLORS = 2048
# Okabe and Ito's colours, told apart with any colour vision, without black and the yellow that is lost on white.
_FIRST = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0))


def colors(k: int) -> np.ndarray:
    """Colours of k classes, as different from each other as can be.

    The first six are told apart with any colour vision. Each further one is the farthest, in CIE L*a*b*, from greys and
    from all before it, among a grid of colours that are visible on white and on black; so a class keeps its colour when
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
    k = checks.integer("k", k, minimum=0)
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
    # Greys are left for pixels without a class and for lines that are no class.
    greys = np.stack([np.linspace(0, 100, 6), np.zeros(6), np.zeros(6)], axis=1)
    first = np.array(_FIRST, dtype=np.uint8)
    avoided = np.concatenate((greys, _lab(first)))
    distance = ((lab[:, None] - avoided) ** 2).sum(-1).min(1)
    taken = np.empty(k - len(first), dtype=np.int64)
    for i in range(len(taken)):
        taken[i] = distance.argmax()
        distance = np.minimum(distance, ((lab - lab[taken[i]]) ** 2).sum(-1))
    return np.concatenate((first, grid[taken]))


def _lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours (n, 3) uint8."""
    scaled = rgb / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def write_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Write an RGBA picture, completely or not at all.

    Parameters
    ----------
    path : path
        The file to write or replace.
    pixels : ndarray, shape (H, W, 4), uint8
        Red, green, blue, opacity (0: transparent).
    """
    if pixels.ndim != 3 or pixels.shape[2] != 4 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise checks.fail("pixels", "a uint8 array (H, W, 4)", f"shape {pixels.shape}, dtype {pixels.dtype}")
    height, width, _ = pixels.shape
    # Each row begins with its filter, 0: none. Chunks as in the PNG specification (ISO/IEC 15948), sec. 5.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in chunks:
            checksum = zlib.crc32(kind + body)
            file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum))
