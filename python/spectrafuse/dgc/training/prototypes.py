"""Spectral prototypes: what the spectra alone say about the clusters.

Losses that look at embeddings alone are as content with clusters of shadows, of texture or of places in the crop as
with materials. So the scenes' spectra are clustered once. Labels are smoothed (`spectrafuse.dgc.prototype_model`), or
before a training the term of the loss that the published code spends on random labels ("uniform assignment") gets them
instead. The network cannot follow them pixel by pixel where they are noise, since it sees a pixel among its neighbours:
it keeps what is spatially coherent.

Spectra are compared after a linear map that takes noise away and evens out the directions that are left. Noise is what
differs between neighbours: with the covariance S of the spectra and N of half their differences from neighbours, each
direction of the pencil (S, N) is damped by (1 - N/S)^2, a Wiener filter applied twice (Green et al. 1988,
doi:10.1109/36.3001). Of what is left, the 2K strongest principal components are kept, each divided by its variance to
the power (K - 1) / 2K: part of the way to whitening, which would let weak components count as much as strong ones. Few
clusters differ in few directions, many in more and in weaker ones. Labels of single pixels, which a network is trained
on, are noise in weak directions: there the power is 1/3, and pixels are averaged once.

Prototypes are means of pixels that are averaged with alike neighbours (`spectrafuse.dgc.neighbours`), four times, each
time with as much noise in mind as the time before has left, and that lie among their like: mixed pixels at borders are
neither of one cluster nor of the other, and k-means, which spends centres on what lies far out, would make clusters of
them. Labels are of single pixels.
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
from spectrafuse.dgc.noise import WINDOW, evenly, moments, most_windows, pencil, window_corners
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.dgc.windows import NormalizedScene, as_normalized
from spectrafuse.random import RandomStream

# That k-means sees, and its starts: so many that seeds find nearly the same prototypes.
_MOST_PIXELS = 1 << 15
_STARTS = 30
# Principal components below this share of the largest variance are left out, and all but so many for each cluster.
_LEAST_VARIANCE = 1e-6
DIRECTIONS = 2
# Side of the window that pixels are averaged in, and of that in which what comes out is averaged again.
_NEIGHBOURS, _NEIGHBOURS_LATER = 5, 7
# Bandwidth of the later passes, against the median distance of neighbours, whose noise is alike once it is averaged.
_NOISE_LEFT = 4.0
# Share of the pixels that are among their like. Of every cluster that k-means finds in all pixels, at least so many
# are: a scene may consist of a smooth background and of rough objects.
_SMOOTH_SHARE, _SMOOTH_SHARE_OF_CLUSTER = 0.7, 0.1
# Side of the blocks that make half of a sample, and more of them than are side by side in a window.
_BLOCK, _MOST_BLOCKS = 16, 64
# Of the averaging, against the pixels' root mean square: neighbours may be equal.
_LEAST_BANDWIDTH = 1e-3
# Of the noise, against the variance of single pixels about their prototypes.
_LEAST_VARIANCE_ABOUT = 0.01


class Space(NamedTuple):
    """How spectra are compared."""

    exponent: float
    """Of the variance that every direction is divided by; 0: (K - 1) / 2K."""
    passes: int
    """How often pixels are averaged with alike neighbours."""


# Weak directions tell more materials apart, and are noise in single pixels: they count where labels are smoothed.
FOR_REGIONS = Space(0.0, 4)
FOR_PIXELS = Space(1 / 3, 1)


class Prototypes(NamedTuple):
    """Mean spectra of clusters, behind a linear map."""

    projection: Tensor
    """(bands, R) float32."""
    means: Tensor
    """(K, R) float32: cluster means of the projected spectra."""
    shares: Tensor = torch.zeros(0)
    """(K,) float32: shares of the averaged pixels that are nearest to each; empty where they are not known."""
    bandwidth: Tensor = torch.ones(())
    """() float32: median distance of neighbours, positive."""
    variance: Tensor = torch.ones(())
    """() float32: of the noise in each of the R directions, positive."""
    scale: Tensor = torch.ones(())
    """(R,) float32: what directions are multiplied by where prototypes are compared with each other."""

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


class SpectraSample:
    """Windows that are spread over scenes, their spectra behind a linear map, and averaged with alike neighbours.

    Parameters
    ----------
    scenes : sequence of NormalizedScene, or of Tensor (bands, rows, columns)
        Normalised; at most 64 windows of 32 x 32 pixels are read of all of them, fewer where there are more than
        256 bands.
    n_clusters : int, optional
        Clusters that directions are kept for, two for each; without it, as for three.
    space : Space
        How spectra are compared.

    Attributes
    ----------
    projection : Tensor (bands, R)
    averaged : list of Tensor (1, R, h, w)
        Windows behind the map, every pixel averaged with alike ones around it.
    single : Tensor (n, R)
        Pixels with data behind the map, not averaged.
    scale : Tensor (R,)
        What takes directions from this space to that of few clusters, in which strong directions count more.
    valid : list of Tensor (1, h, w) bool
        Pixels with data.
    bandwidth : Tensor ()
        Median distance of neighbours behind the map, positive.
    """

    def __init__(
        self,
        scenes: Sequence[Tensor | NormalizedScene],
        n_clusters: int = 3,
        space: Space = FOR_REGIONS,
    ) -> None:
        bands = scenes[0].shape[0]
        most = most_windows(bands)
        chosen = as_normalized([scenes[i] for i in evenly(len(scenes), most)])
        read = [
            _read(scene, *corner)
            for scene in chosen
            for corner in window_corners(*scene.shape[1:], _valid(scene), most // len(chosen))
        ]
        self.device = read[0][0].device
        windows = [(spectra.cpu(), valid) for spectra, valid in read]
        signal, noise = moments(iter(windows), bands)
        exponent = space.exponent or (n_clusters - 1) / (2 * n_clusters)
        projection, self.scale = _projection(signal.about_mean, noise, DIRECTIONS * n_clusters, exponent)
        self.projection = projection.float()
        projected = [(spectra.permute(1, 2, 0) @ self.projection).permute(2, 0, 1)[None] for spectra, _ in windows]
        self.valid = [valid[None] for _, valid in windows]
        self.bandwidth = _bandwidth(projected, self.valid)
        self.single = self._with_data(projected)
        self.averaged, bandwidth, window = projected, self.bandwidth, _NEIGHBOURS
        for _ in range(space.passes):
            pairs = zip(self.averaged, self.valid, strict=True)
            self.averaged = [smoothed(image, bandwidth, window, valid) for image, valid in pairs]
            # What noise is left is less, so that classes closer than the noise was are kept apart.
            bandwidth = torch.minimum(_NOISE_LEFT * _bandwidth(self.averaged, self.valid), self.bandwidth)
            window = _NEIGHBOURS_LATER

    def _with_data(self, images: Sequence[Tensor]) -> Tensor:
        pairs = zip(images, self.valid, strict=True)
        return torch.cat([image.permute(0, 2, 3, 1)[valid] for image, valid in pairs])

    @property
    def points(self) -> Tensor:
        """The averaged pixels with data (n, R)."""
        return self._with_data(self.averaged)

    def variance(self, means: Tensor) -> Tensor:
        """Of the noise () in each direction: half the square of the bandwidth, spread over the directions.

        Spectra that are nearly all on the prototypes (K, R), such as an empty background, leave neighbours without a
        difference; the variance is at least 0.01 of that about the prototypes.
        """
        directions = max(means.shape[1], 1)
        about = torch.cdist(self.single, means).amin(dim=1).square().mean() if len(self.single) else self.bandwidth
        noise = torch.maximum(self.bandwidth.square() / 2, _LEAST_VARIANCE_ABOUT * about) / directions
        return noise.clamp_min(torch.finfo(torch.float32).tiny ** 0.5)

    def random_half(self, stream: RandomStream) -> Tensor:
        """Which of the pixels with data (n,) lie in a random half of the blocks of 16 x 16 pixels that windows have."""
        blocks = []
        for number, valid in enumerate(self.valid):
            rows, columns = valid[0].nonzero(as_tuple=True)
            blocks.append((number * _MOST_BLOCKS + rows // _BLOCK) * _MOST_BLOCKS + columns // _BLOCK)
        names, own = torch.cat(blocks).unique(return_inverse=True)
        return (stream.permutation(len(names), device="cpu") % 2 == 0)[own]

    def means(self, n_clusters: int, stream: RandomStream, starts: int, chosen: Tensor | None = None) -> Tensor:
        """Cluster means (K, R) of the averaged pixels, or of those `chosen`, the best of so many starts of k-means."""
        rough = torch.cat([roughness(x, valid)[valid] for x, valid in zip(self.averaged, self.valid, strict=True)])
        points = self.points
        if chosen is not None and chosen.any():
            points, rough = points[chosen], rough[chosen]
        return _means(points, rough, n_clusters, stream, starts).float()


@torch.no_grad()
def find_prototypes(
    scenes: Sequence[Tensor | NormalizedScene], n_clusters: int, stream: RandomStream, space: Space = FOR_REGIONS
) -> Prototypes:
    """Cluster the spectra of windows that are spread over the scenes.

    Parameters
    ----------
    scenes : as in `SpectraSample`
    n_clusters : int
        Prototypes K.
    stream : RandomStream
        Source of the choice of pixels, where there are many, and of the starts.
    space : Space
        How spectra are compared.

    Returns
    -------
    Prototypes
        On the device of the scenes. Of thirty starts of k-means the one with the least squared distance.
    """
    sample = SpectraSample(scenes, n_clusters, space)
    means = sample.means(n_clusters, stream, _STARTS)
    counts = torch.bincount(torch.cdist(sample.points, means).argmin(dim=1), minlength=n_clusters)
    shares = counts / counts.sum().clamp_min(1)
    found = (sample.projection, means, shares, sample.bandwidth, sample.variance(means), sample.scale)
    return Prototypes(*(x.to(sample.device) for x in found))


def _bandwidth(images: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
    """The median distance () of neighbours in images (1, R, h, w), positive."""
    distances = torch.cat([neighbour_distances(*pair) for pair in zip(images, valid, strict=True)])
    squares = torch.cat([x.square().sum(dim=1)[own] for x, own in zip(images, valid, strict=True)])
    least = (_LEAST_BANDWIDTH * squares.mean().sqrt()).clamp_min(torch.finfo(torch.float32).tiny ** 0.25)
    return torch.maximum(distances.median(), least) if len(distances) else least


def _valid(scene: NormalizedScene) -> np.ndarray | None:
    return scene.valid(0, 0, *scene.shape[1:])


def _read(scene: NormalizedScene, top: int, left: int) -> tuple[Tensor, Tensor]:
    """Spectra (bands, h, w) of a window, and where it has data, (h, w) bool on the CPU."""
    window, valid = scene.window(top, left, WINDOW, WINDOW), scene.valid(top, left, WINDOW, WINDOW)
    return window, torch.ones(window.shape[1:], dtype=torch.bool) if valid is None else torch.from_numpy(valid)


def _projection(signal: Tensor, noise: Tensor, most: int, exponent: float) -> tuple[Tensor, Tensor]:
    """The linear map (bands, R) of the module's text, and `SpectraSample.scale`.

    From the covariances (bands, bands) of spectra and noise.
    """
    clean = identity = torch.eye(len(signal), dtype=signal.dtype)
    if (found := pencil(signal, noise)) is not None:
        ratio, into, back = found
        clean = into * (1 - 1 / ratio.clamp_min(1.0)).square() @ back
    variance, components = torch.linalg.eigh(clean.t() @ signal @ clean)
    kept = variance > _LEAST_VARIANCE * variance[-1]
    kept[:-most] = False
    if not kept.any():
        # A scene of one spectrum, or of noise alone, has no direction that is better than another.
        return identity[:, :1], torch.ones(1)
    variance = variance[kept]
    return clean @ components[:, kept] / variance**exponent, (variance ** (exponent - FOR_PIXELS.exponent)).float()


def _means(points: Tensor, rough: Tensor, n_clusters: int, stream: RandomStream, starts: int) -> Tensor:
    """Cluster means (K, R) of those points (n, R) that are among their like, which `rough` (n,) tells."""
    chosen = stream.permutation(len(points), device="cpu")[:_MOST_PIXELS]
    values, roughnesses = points[chosen].double().numpy(), rough[chosen].numpy()
    kept = roughnesses <= np.quantile(roughnesses, _SMOOTH_SHARE)
    labels, _ = _k_means(values, n_clusters, 1, stream)
    for cluster in np.unique(labels):
        own = labels == cluster
        kept |= own & (roughnesses <= np.quantile(roughnesses[own], _SMOOTH_SHARE_OF_CLUSTER))
    return torch.from_numpy(_k_means(values[kept], n_clusters, starts, stream)[1])


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
