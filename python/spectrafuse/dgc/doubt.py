"""What speaks against a label map, as figures and as sentences: every sentence follows from a figure."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.dgc.noise import WINDOW, moments, most_windows, window_corners
from spectrafuse.dgc.normalise import Normalization, as_float_tensor
from spectrafuse.io.cubes import Cube

# Side of the part of a map, in its middle, that patches are counted in.
_LARGEST_SIDE = 2048
# Pixels that k-means sees.
_MOST_PIXELS = 8192
# A pixel is in doubt below this margin, and its patch is small up to so many pixels.
UNSURE, SMALL_PATCH = 0.1, 2
# Of a scene whose patches count.
_LEAST_PIXELS = 64
# Shares from which on it is said.
_MANY_UNSURE, _MANY_SMALL, _MUCH_MORE, _MOSTLY_NOISE = 0.2, 0.1, 0.2, 0.8


class Doubt(NamedTuple):
    """Figures about a label map, and what they mean."""

    unsure: float
    """Share of the pixels whose cluster and next best one differ by less than 0.1 in probability."""
    small_patches: float
    """Share of the pixels in patches of one or two pixels; diagonal neighbors are together."""
    explained: float
    """Share of the variance of the normalized spectra that the labels explain, in up to 64 windows; nan for none."""
    explained_by_k_means: float
    """The same for k-means on those spectra, with as many clusters."""
    noisy_bands: list[int]
    """Bands whose variance is noise for the most part, from 0."""
    confidence: list[float]
    """Mean margin of the pixels of each cluster; nan where it is empty."""
    place: list[list[int] | None]
    """First row, last row, first and last column that hold 98 % of each cluster's pixels, in either direction."""
    cautions: list[str]

    @property
    def record(self) -> dict[str, object]:
        """The figures of the scene as plain values; nan is None."""
        names = ("unsure", "small_patches", "explained", "explained_by_k_means")
        figures: dict[str, object] = {n: None if np.isnan(x := getattr(self, n)) else round(x, 4) for n in names}
        return figures | {"noisy_bands": self.noisy_bands, "cautions": self.cautions}


def doubts(
    cube: Cube, labels: np.ndarray, confidence: np.ndarray, normalization: Normalization, n_clusters: int
) -> Doubt:
    """What speaks against a label map.

    Parameters
    ----------
    cube : Cube
        The scene; windows of it are read.
    labels : ndarray of int (rows, columns)
        0 to `n_clusters` - 1, or negative for no data.
    confidence : ndarray (rows, columns)
        Margins, as `predict_with_confidence` gives them.
    normalization : Normalization
        Of the spectra that the labels were found in.
    n_clusters : int
        Clusters.
    """
    known = labels >= 0
    pixels = max(int(known.sum()), 1)
    unsure = float((confidence[known] < UNSURE).sum() / pixels)
    small = _small_patches(labels)
    explained, by_k_means, noisy = _spectra(cube, labels, normalization, n_clusters)
    sure, places = [], []
    for cluster in range(n_clusters):
        rows, columns = np.nonzero(labels == cluster)
        sure.append(float(confidence[rows, columns].mean()) if len(rows) else float("nan"))
        ends = [np.percentile(x, (1, 99), method="nearest").tolist() for x in (rows, columns)] if len(rows) else None
        places.append(None if ends is None else [int(x) for pair in ends for x in pair])
    said = []
    if unsure > _MANY_UNSURE:
        said.append(f"{unsure:.0%} of the pixels fit two clusters nearly alike (confidence below {UNSURE}).")
    if small > _MANY_SMALL and pixels >= _LEAST_PIXELS:
        said.append(
            f"{small:.0%} of the pixels lie in patches of one or two pixels: objects of that size, or noise, are not "
            "told from their surroundings reliably."
        )
    if by_k_means - explained > _MUCH_MORE:
        said.append(
            f"The clusters explain {explained:.0%} of the variance of the normalized spectra, k-means "
            f"{by_k_means:.0%}: what differs most between the spectra is not what the clusters differ in."
        )
    if noisy:
        names = ", ".join(str(band) for band in noisy[:12]) + (" and more" if len(noisy) > 12 else "")
        said.append(f"Bands that hold mostly noise: {names} (from 0). Results may gain from leaving them out.")
    return Doubt(unsure, small, explained, by_k_means, noisy, sure, places, said)


def _small_patches(labels: np.ndarray) -> float:
    """Share of the pixels with data in patches of at most two pixels."""
    from scipy.ndimage import label

    top, left = (max(size - _LARGEST_SIDE, 0) // 2 for size in labels.shape)
    part = labels[top : top + _LARGEST_SIDE, left : left + _LARGEST_SIDE]
    small = 0
    for cluster in np.unique(part[part >= 0]):
        sizes = np.bincount(label(part == cluster, np.ones((3, 3)))[0].ravel())[1:]
        small += int(sizes[sizes <= SMALL_PATCH].sum())
    return small / max(int((part >= 0).sum()), 1)


def _spectra(
    cube: Cube, labels: np.ndarray, normalization: Normalization, n_clusters: int
) -> tuple[float, float, list[int]]:
    """Explained shares of the variance, by the labels and by k-means, and bands that are mostly noise."""
    bands, height, width = cube.shape
    fitted = normalization.fit(cube)
    windows, points, own = [], [], []
    for top, left in window_corners(height, width, cube.valid, most_windows(bands)):
        place = slice(top, min(top + WINDOW, height)), slice(left, min(left + WINDOW, width))
        here, spectra = torch.from_numpy(labels[place] >= 0), as_float_tensor(cube[:, place[0], place[1]])
        windows.append((spectra, here))
        points.append(fitted.transform(spectra)[:, here].t())
        own.append(torch.from_numpy(labels[place])[here])
    signal, noise = moments(iter(windows), bands)
    variance = signal.about_mean.diagonal()
    noisy = torch.nonzero((noise.diagonal() > _MOSTLY_NOISE * variance) & (variance > 0)).flatten().tolist()
    spectra, found = torch.cat(points).double(), torch.cat(own).long()
    step = -(-len(spectra) // _MOST_PIXELS) or 1
    spectra, found = spectra[::step], found[::step]
    if len(spectra) < n_clusters:
        return float("nan"), float("nan"), noisy
    total = float((spectra - spectra.mean(0)).square().sum())
    if not total > 0:
        return float("nan"), float("nan"), noisy
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with single_blas_thread, threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        within = KMeans(n_clusters, n_init=1, max_iter=30, random_state=0).fit(spectra.numpy()).inertia_
    left_over = sum(
        float((spectra[found == k] - spectra[found == k].mean(0)).square().sum()) for k in found.unique().tolist()
    )
    return 1 - left_over / total, 1 - float(within) / total, noisy
