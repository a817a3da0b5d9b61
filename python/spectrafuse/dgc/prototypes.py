"""Spectral prototypes: what the spectra alone say about the clusters, as labels that training starts and stays with.

Losses that look at embeddings alone are as content with clusters of shadows, of texture or of places in the crop as
with materials. So the scenes' spectra are clustered once, before training, and the term of the loss that the published
code spends on random labels ("uniform assignment") gets these labels instead. The network cannot follow them pixel by
pixel where they are noise, since it sees a pixel among its neighbours: it keeps what is spatially coherent.

Spectra are compared after a linear map that takes noise away and evens out the directions that are left. Noise is what
differs between neighbours: with the covariance S of the spectra and N of half their differences from neighbours, each
direction of the pencil (S, N) is damped by (1 - N/S)^2, a Wiener filter applied twice (Green et al. 1988,
doi:10.1109/36.3001). Of what is left, each principal component is divided by the cube root of its variance: part of the
way to whitening, which would let weak components count as much as strong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectrafuse.dgc.batches import CropBatch
from spectrafuse.dgc.windows import WindowedScene
from spectrafuse.random import RandomStream

_WINDOW = 32
_MOST_WINDOWS = 64
_MOST_PIXELS = 1 << 14
_MOST_NUMBERS = 1 << 22
_STARTS = 10
_ITERATIONS = 50
# Of the noise's mean variance; keeps directions without noise finite.
_NOISE_FLOOR = 1e-4
# Principal components below this share of the largest variance are left out.
_LEAST_VARIANCE = 3e-3


class Prototypes(NamedTuple):
    """Mean spectra of clusters, behind a linear map."""

    projection: Tensor
    """(C, R) float32."""
    means: Tensor
    """(K, R) float32: cluster means of the projected spectra."""

    def labels(self, batch: CropBatch) -> Tensor:
        """The nearest prototype of every pixel of a batch, (2, B h w) int64 on its device."""
        # Squared distances without the pixel's own norm: a product of the spectra and a matrix (K, C).
        weights = (-2 * self.means @ self.projection.t()).to(batch.padded)
        squares = self.means.square().sum(dim=1).to(batch.padded)
        spectra = batch.views.permute(0, 2, 3, 1)
        return (spectra @ weights.t() + squares).argmin(dim=-1).reshape(2, -1)


@torch.no_grad()
def find_prototypes(
    scenes: Sequence[Tensor] | Sequence[WindowedScene], n_clusters: int, stream: RandomStream
) -> Prototypes:
    """Cluster the spectra of windows that are spread over the scenes.

    Parameters
    ----------
    scenes : sequence of Tensor (C, H, W) or WindowedScene
        Normalised cubes; at most 64 windows of 32 x 32 pixels are read of all of them.
    n_clusters : int
        Prototypes K.
    stream : RandomStream
        Source of the choice of pixels, where there are many, and of the starts.

    Returns
    -------
    Prototypes
        On the device of the scenes. Of ten starts by k-means++ the one with the least squared distance.
    """
    chosen = [scenes[i] for i in _evenly(len(scenes), _MOST_WINDOWS)]
    places = [(scene, *corner) for scene in chosen for corner in _corners(scene, _MOST_WINDOWS // len(chosen))]
    bands = scenes[0].shape[0]
    quota = max(1, min(_MOST_PIXELS, _MOST_NUMBERS // bands) // len(places))
    device, drawn = torch.device("cpu"), []
    signal, noise = _Covariance(bands), _Covariance(bands)
    for scene, top, left in places:
        window, valid = _read(scene, top, left)
        device = window.device
        window = window.cpu().permute(1, 2, 0)
        for axis, length in enumerate(valid.shape):
            ends = [(x.narrow(axis, 1, length - 1), x.narrow(axis, 0, length - 1)) for x in (window, valid)]
            noise.add((ends[0][0] - ends[0][1])[ends[1][0] & ends[1][1]])
        pixels = window[valid]
        if len(pixels) > quota:
            pixels = pixels[stream.permutation(len(pixels), device="cpu")[:quota]]
        signal.add(pixels)
        drawn.append(pixels)
    projection = _projection(signal.value, noise.second_moment / 2)
    means = _k_means(torch.cat([pixels.double() @ projection for pixels in drawn]), n_clusters, stream)
    return Prototypes(projection.float().to(device), means.float().to(device))


class _Covariance:
    """Second moments (C, C) of rows that come in parts, in float64."""

    def __init__(self, bands: int) -> None:
        self.count, self.sum = 0, torch.zeros(bands, dtype=torch.float64)
        self.products = torch.zeros(bands, bands, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """More rows (n, C)."""
        rows = rows.double()
        self.count, self.sum = self.count + len(rows), self.sum + rows.sum(dim=0)
        self.products.addmm_(rows.t(), rows)

    @property
    def second_moment(self) -> Tensor:
        """About zero."""
        return self.products / max(self.count, 1)

    @property
    def value(self) -> Tensor:
        """About the mean."""
        mean = self.sum / max(self.count, 1)
        return self.second_moment - mean.outer(mean)


def _evenly(size: int, most: int) -> list[int]:
    """At most so many of the numbers 0 .. size - 1, evenly spread, ends included."""
    return sorted({round(i) for i in np.linspace(0, size - 1, min(size, most))})


def _corners(scene: Tensor | WindowedScene, most: int) -> list[tuple[int, int]]:
    """Top and left of at most `most` windows: on a grid, or around pixels with data where others have none."""
    _, height, width = scene.shape
    lowest, rightmost = max(height - _WINDOW, 0), max(width - _WINDOW, 0)
    valid = scene.valid(0, 0, height, width) if isinstance(scene, WindowedScene) else None
    if valid is not None:
        places = np.argwhere(valid)
        middles = places[_evenly(len(places), most)] - _WINDOW // 2
        return sorted({(min(max(y, 0), lowest), min(max(x, 0), rightmost)) for y, x in middles.tolist()})
    side = int(most**0.5)
    tops = _evenly(lowest + 1, min(side, -(-height // _WINDOW)))
    lefts = _evenly(rightmost + 1, min(side, -(-width // _WINDOW)))
    return [(top, left) for top in tops for left in lefts]


def _read(scene: Tensor | WindowedScene, top: int, left: int) -> tuple[Tensor, Tensor]:
    """Spectra (C, h, w) of a window, and where it has data, (h, w) bool on the CPU."""
    if not isinstance(scene, WindowedScene):
        window = scene[:, top : top + _WINDOW, left : left + _WINDOW]
        return window, torch.ones(window.shape[1:], dtype=torch.bool)
    window, valid = scene.window(top, left, _WINDOW, _WINDOW), scene.valid(top, left, _WINDOW, _WINDOW)
    return window, torch.ones(window.shape[1:], dtype=torch.bool) if valid is None else torch.from_numpy(valid)


def _projection(signal: Tensor, noise: Tensor) -> Tensor:
    """The linear map (C, R) of the module's text, from the covariances (C, C) of spectra and noise."""
    clean = identity = torch.eye(len(signal), dtype=signal.dtype)
    floor = _NOISE_FLOOR * noise.diagonal().mean()
    if floor > 0:
        root = torch.linalg.cholesky(noise + floor * identity)
        half = torch.linalg.solve_triangular(root, signal, upper=False)
        ratio, directions = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.t(), upper=False))
        damping = (1 - 1 / ratio.clamp_min(1.0)).square()
        # From the right: x -> x root^-T directions damping directions^T root^T.
        into = torch.linalg.solve_triangular(root.t(), directions, upper=True)
        clean = (into * damping) @ (directions.t() @ root.t())
    variance, components = torch.linalg.eigh(clean.t() @ signal @ clean)
    kept = variance > _LEAST_VARIANCE * variance[-1]
    # A scene of one spectrum, or of noise alone, has no direction that is better than another.
    return clean @ components[:, kept] / variance[kept] ** (1 / 3) if kept.any() else identity


def _k_means(points: Tensor, n_clusters: int, stream: RandomStream) -> Tensor:
    """Cluster means (K, R) of the best of a few starts."""
    best, least = points[:1].expand(n_clusters, -1), float("inf")
    for _ in range(_STARTS):
        means = _spread_out(points, n_clusters, stream)
        labels = torch.empty(0, dtype=torch.int64)
        for _ in range(_ITERATIONS):
            distance = torch.cdist(points, means).square_()
            nearest, new = distance.min(dim=1)
            if torch.equal(new, labels):
                break
            labels = new
            count = torch.bincount(labels, minlength=n_clusters).to(points)
            sums = torch.zeros_like(means).index_add_(0, labels, points)
            means = torch.where(count[:, None] > 0, sums / count.clamp_min(1)[:, None], means)
        if (total := float(nearest.sum())) < least:
            best, least = means, total
    return best


def _spread_out(points: Tensor, n_clusters: int, stream: RandomStream) -> Tensor:
    """Points (K, R) drawn as k-means++ does: each with probability proportional to its squared distance to the rest."""
    first = int(stream.integers(0, len(points) - 1, (), device="cpu"))
    chosen, distance = [first], (points - points[first]).square().sum(dim=1)
    for level in stream.uniform((n_clusters - 1,), dtype=torch.float64, device="cpu").tolist():
        index = int((distance.cumsum(0) < level * distance.sum()).sum().clamp_max(len(points) - 1))
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(dim=1))
    return points[chosen]
