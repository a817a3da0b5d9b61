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

Prototypes are means of pixels that are averaged with alike neighbours (`spectrafuse.dgc.neighbours`) and lie among
their like: mixed pixels at borders are neither of one cluster nor of the other, and k-means, which spends centres on
what lies far out, would make clusters of them. Labels are of single pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.dgc.neighbours import neighbour_distances, roughness, smoothed
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.dgc.windows import NormalizedScene, as_normalized
from spectrafuse.random import RandomStream

_WINDOW = 32
_MOST_WINDOWS = 64
# Of all windows, which are held at once: 64 MiB.
_MOST_NUMBERS = 1 << 24
# That k-means sees, and its starts: so many that seeds find nearly the same prototypes.
_MOST_PIXELS = 1 << 15
_STARTS = 100
# Of the noise's mean variance; keeps directions without noise finite.
_NOISE_FLOOR = 1e-4
# Principal components below this share of the largest variance are left out.
_LEAST_VARIANCE = 3e-4
# Side of the window that pixels are averaged in.
_NEIGHBOURS = 5
# Share of the pixels that are among their like. Of every cluster that k-means finds in all pixels, at least so many
# are: a scene may consist of a smooth background and of rough objects.
_SMOOTH_SHARE, _SMOOTH_SHARE_OF_CLUSTER = 0.7, 0.1
# Of the averaging, against the pixels' root mean square: neighbours may be equal.
_LEAST_BANDWIDTH = 1e-3


class Prototypes(NamedTuple):
    """Mean spectra of clusters, behind a linear map."""

    projection: Tensor
    """(bands, R) float32."""
    means: Tensor
    """(K, R) float32: cluster means of the projected spectra."""

    def maps(self, spectra: Tensor) -> Tensor:
        """The nearest prototype of every pixel, (B, h, w) int64 on its device.

        Parameters
        ----------
        spectra : Tensor (B, bands, h, w)
            Normalised as those that the prototypes were found in.
        """
        # Squared distances without the pixel's own norm: a product of the spectra and a matrix (K, bands).
        weights = (-2 * self.means @ self.projection.t()).to(spectra)
        squares = self.means.square().sum(dim=1).to(spectra)
        return (spectra.permute(0, 2, 3, 1) @ weights.t() + squares).argmin(dim=-1)

    def labels(self, batch: CropBatch) -> Tensor:
        """The nearest prototype of every pixel of a batch, (2, B h w)."""
        return self.maps(batch.views).reshape(2, -1)


@torch.no_grad()
def find_prototypes(scenes: Sequence[Tensor | NormalizedScene], n_clusters: int, stream: RandomStream) -> Prototypes:
    """Cluster the spectra of windows that are spread over the scenes.

    Parameters
    ----------
    scenes : sequence of NormalizedScene, or of Tensor (bands, rows, columns)
        Normalised; at most 64 windows of 32 x 32 pixels are read of all of them, fewer where there are more than
        256 bands.
    n_clusters : int
        Prototypes K.
    stream : RandomStream
        Source of the choice of pixels, where there are many, and of the starts.

    Returns
    -------
    Prototypes
        On the device of the scenes. Of a hundred starts of k-means the one with the least squared distance.
    """
    bands = scenes[0].shape[0]
    most = max(1, min(_MOST_WINDOWS, _MOST_NUMBERS // (bands * _WINDOW**2)))
    chosen = as_normalized([scenes[i] for i in _evenly(len(scenes), most)])
    places = [(scene, *corner) for scene in chosen for corner in _corners(scene, most // len(chosen))]
    read = [_read(*place) for place in places]
    device = read[0][0].device
    windows = [(spectra.cpu().unsqueeze(0), valid.unsqueeze(0)) for spectra, valid in read]
    signal, noise = _Covariance(bands), _Covariance(bands)
    for spectra, valid in windows:
        rows = spectra.permute(0, 2, 3, 1)
        signal.add(rows[valid])
        for axis in (1, 2):
            length = valid.shape[axis] - 1
            first, second = (valid.narrow(axis, start, length) for start in (0, 1))
            noise.add(rows.diff(dim=axis)[first & second])
    projection = _projection(signal.value, noise.second_moment / 2).float()
    projected = [(spectra.permute(0, 2, 3, 1) @ projection).permute(0, 3, 1, 2) for spectra, _ in windows]
    bandwidth = _bandwidth(projected, [valid for _, valid in windows])
    points, rough = [], []
    for image, (_, valid) in zip(projected, windows, strict=True):
        averaged = smoothed(image, bandwidth, _NEIGHBOURS, valid)
        points.append(averaged.permute(0, 2, 3, 1)[valid])
        rough.append(roughness(averaged, valid)[valid])
    means = _means(torch.cat(points), torch.cat(rough), n_clusters, stream)
    return Prototypes(projection.to(device), means.float().to(device))


def _bandwidth(images: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
    """The median distance () of neighbours in images (1, R, h, w), positive."""
    distances = torch.cat([neighbour_distances(*pair) for pair in zip(images, valid, strict=True)])
    squares = torch.cat([x.square().sum(dim=1)[own] for x, own in zip(images, valid, strict=True)])
    least = (_LEAST_BANDWIDTH * squares.mean().sqrt()).clamp_min(torch.finfo(torch.float32).tiny ** 0.25)
    return torch.maximum(distances.median(), least) if len(distances) else least


class _Covariance:
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


def _corners(scene: NormalizedScene, most: int) -> list[tuple[int, int]]:
    """Top and left of at most `most` windows: on a grid, or around pixels with data where others have none."""
    _, height, width = scene.shape
    lowest, rightmost = max(height - _WINDOW, 0), max(width - _WINDOW, 0)
    valid = scene.valid(0, 0, height, width)
    if valid is not None:
        places = np.argwhere(valid)
        middles = places[_evenly(len(places), most)] - _WINDOW // 2
        return sorted({(min(max(y, 0), lowest), min(max(x, 0), rightmost)) for y, x in middles.tolist()})
    side = int(most**0.5)
    tops = _evenly(lowest + 1, min(side, -(-height // _WINDOW)))
    lefts = _evenly(rightmost + 1, min(side, -(-width // _WINDOW)))
    return [(top, left) for top in tops for left in lefts]


def _read(scene: NormalizedScene, top: int, left: int) -> tuple[Tensor, Tensor]:
    """Spectra (bands, h, w) of a window, and where it has data, (h, w) bool on the CPU."""
    window, valid = scene.window(top, left, _WINDOW, _WINDOW), scene.valid(top, left, _WINDOW, _WINDOW)
    return window, torch.ones(window.shape[1:], dtype=torch.bool) if valid is None else torch.from_numpy(valid)


def _projection(signal: Tensor, noise: Tensor) -> Tensor:
    """The linear map (bands, R) of the module's text, from the covariances (bands, bands) of spectra and noise."""
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
    return clean @ components[:, kept] / variance[kept] ** (1 / 3) if kept.any() else identity[:, :1]


def _means(points: Tensor, rough: Tensor, n_clusters: int, stream: RandomStream) -> Tensor:
    """Cluster means (K, R) of those points (n, R) that are among their like, which `rough` (n,) tells."""
    chosen = stream.permutation(len(points), device="cpu")[:_MOST_PIXELS]
    values, roughnesses = points[chosen].double().numpy(), rough[chosen].numpy()
    kept = roughnesses <= np.quantile(roughnesses, _SMOOTH_SHARE)
    labels, _ = _k_means(values, n_clusters, 1, stream)
    for cluster in np.unique(labels):
        own = labels == cluster
        kept |= own & (roughnesses <= np.quantile(roughnesses[own], _SMOOTH_SHARE_OF_CLUSTER))
    return torch.from_numpy(_k_means(values[kept], n_clusters, _STARTS, stream)[1])


def _k_means(points: np.ndarray, n_clusters: int, starts: int, stream: RandomStream) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the points (n, R), and cluster means (K, R), of the best of so many starts."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(stream.integers(0, 2**31 - 1, (), device="cpu"))
    found = KMeans(n_clusters, n_init=starts, random_state=seed)
    few = len(points) < n_clusters
    # Sums over several threads differ in their last bits from run to run.
    with single_blas_thread, threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        # Fewer different points than clusters: some prototypes are the same then.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(np.resize(points, (n_clusters, points.shape[1])) if few else points)
    return found.labels_[: len(points)], found.cluster_centers_
