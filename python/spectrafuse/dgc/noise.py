"""Noise and signal of a scene, from windows that are spread over it.

Noise is what differs between neighbours, since most are of the same material: its second moment N is half that of the
differences between adjacent pixels. Of all directions in the space of spectra, those that hold much more than noise are
the signal (Green et al. 1988, doi:10.1109/36.3001, order components by the same ratio).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

WINDOW = 32
_MOST_WINDOWS = 64
# Of all windows, which may be held at once: 64 MiB.
_MOST_NUMBERS = 1 << 24
# Of the noise's mean variance; keeps directions without noise finite.
_NOISE_FLOOR = 1e-4
# Second moment of spectra over that of noise, from which on a direction is signal; that of noise alone is about 1.
_LEAST_RATIO = 1.3


class SecondMoments:
    """Second moments (bands, bands) of rows that come in parts, in float64."""

    def __init__(self, bands: int) -> None:
        self.count, self.sum = 0, torch.zeros(bands, dtype=torch.float64)
        self.products = torch.zeros(bands, bands, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """More rows (n, bands)."""
        rows = rows.double()
        self.count, self.sum = self.count + len(rows), self.sum + rows.sum(dim=0)
        self.products.addmm_(rows.t(), rows)

    @property
    def about_zero(self) -> Tensor:
        """Their mean product."""
        return self.products / max(self.count, 1)

    @property
    def about_mean(self) -> Tensor:
        """Their covariance."""
        mean = self.sum / max(self.count, 1)
        return self.about_zero - mean.outer(mean)


def most_windows(bands: int) -> int:
    """How many windows are read of scenes with so many bands."""
    return max(1, min(_MOST_WINDOWS, _MOST_NUMBERS // (bands * WINDOW**2)))


def evenly(size: int, most: int) -> list[int]:
    """At most so many of the numbers 0 .. size - 1, evenly spread, ends included."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(size, most))})


def window_corners(height: int, width: int, valid: np.ndarray | None, most: int) -> list[tuple[int, int]]:
    """Top and left of at most `most` windows: on a grid, or around pixels with data where others have none."""
    lowest, rightmost = max(height - WINDOW, 0), max(width - WINDOW, 0)
    if valid is not None:
        places = np.argwhere(valid)
        middles = places[evenly(len(places), most)] - WINDOW // 2
        return sorted({(min(max(y, 0), lowest), min(max(x, 0), rightmost)) for y, x in middles.tolist()})
    side = int(most**0.5)
    tops = evenly(lowest + 1, min(side, -(-height // WINDOW)))
    lefts = evenly(rightmost + 1, min(side, -(-width // WINDOW)))
    return [(top, left) for top in tops for left in lefts]


def moments(windows: Iterator[tuple[Tensor, Tensor]], bands: int) -> tuple[SecondMoments, Tensor]:
    """Second moments of the spectra, and the noise's second moment (bands, bands), of windows.

    Parameters
    ----------
    windows : iterator of (Tensor (bands, h, w), Tensor (h, w) bool)
        Spectra on the CPU, and where there are data.
    """
    signal, noise = SecondMoments(bands), SecondMoments(bands)
    for spectra, valid in windows:
        rows = spectra.permute(1, 2, 0)
        signal.add(rows[valid])
        for axis in (0, 1):
            length = valid.shape[axis] - 1
            first, second = (valid.narrow(axis, start, length) for start in (0, 1))
            noise.add(rows.diff(dim=axis)[first & second])
    return signal, noise.about_zero / 2


def pencil(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Ratios of signal to noise, ascending, and the maps (bands, bands) into and back from their directions.

    None where there is no noise. From the right: a spectrum x is `x @ into @ back`.
    """
    floor = _NOISE_FLOOR * noise.diagonal().mean()
    if not floor > 0:
        return None
    root = torch.linalg.cholesky(noise + floor * torch.eye(len(noise), dtype=noise.dtype))
    half = torch.linalg.solve_triangular(root, signal, upper=False)
    ratio, directions = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.t(), upper=False))
    return ratio, torch.linalg.solve_triangular(root.t(), directions, upper=True), directions.t() @ root.t()


def signal_directions(cube: Any, valid: np.ndarray | None, read: Any) -> Tensor | None:
    """A map G (bands, r), float64: the length of `x @ G` is that of the part of a spectrum x that is signal.

    None where a scene has no noise, or nothing but noise: then all of a spectrum counts.

    Parameters
    ----------
    cube : array-like (..., bands, rows, columns)
        Of several cubes, all count.
    valid : ndarray (rows, columns) bool, optional
        Pixels with data.
    read : callable
        Makes a float tensor of a part of the cube.
    """
    bands, height, width = cube.shape[-3:]

    def windows() -> Iterator[tuple[Tensor, Tensor]]:
        for top, left in window_corners(height, width, valid, most_windows(bands)):
            rows, columns = slice(top, min(top + WINDOW, height)), slice(left, min(left + WINDOW, width))
            here = torch.ones(rows.stop - top, columns.stop - left, dtype=torch.bool)
            if valid is not None:
                here = torch.from_numpy(valid[rows, columns])
            for spectra in read(cube[..., rows, columns]).cpu().reshape(-1, bands, *here.shape):
                yield spectra, here

    signal, noise = moments(windows(), bands)
    found = pencil(signal.about_zero, noise)
    if found is None:
        return None
    ratio, into, back = found
    kept = ratio > _LEAST_RATIO
    if not kept.any():
        return None
    lengths = back[kept] @ back[kept].t()
    return into[:, kept] @ torch.linalg.cholesky(lengths)
