"""What speaks against a label map, as figures and as sentences: every sentence follows from a figure."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import torch

from spectrafuse._runtime.threads import single_blas_thread
from spectrafuse.dgc.noise import WINDOW, moments, most_windows, window_corners
from spectrafuse.dgc.normalise import Normalization, as_float_tensor
from spectrafuse.dgc.training.prototypes import SpectraSample
from spectrafuse.dgc.windows import WindowedScene
from spectrafuse.io.cubes import Cube
from spectrafuse.random import RandomStream

# Side of the part of a map, in its middle, that patches are counted in.
_LARGEST_SIDE = 2048
# Pixels that k-means sees.
_MOST_PIXELS = 8192
# A pixel is in doubt below this margin, and its patch is small up to so many pixels.
UNSURE, SMALL_PATCH = 0.1, 2
# Of a scene whose patches count.
_LEAST_PIXELS = 64
# Overlap from which on a cluster counts as found again.
_FOUND = 0.5
# Two clusters are parted by place if their distance is so much less than that to any other, and they share so few rows
# or columns, of those of the smaller one, and have so many together, of the scene's.
_ALIKE, _SHARED, _TOGETHER = 0.3, 0.1, 0.6
# Of the second search.
_SECOND_SEED, _STARTS = 1, 10
# Shares from which on it is said.
_MANY_UNSURE, _MANY_SMALL, _MUCH_MORE, _MOSTLY_NOISE = 0.2, 0.1, 0.2, 0.8


class Doubt(NamedTuple):
    """Figures about a label map, and what they mean."""

    unsure: float
    """Share of the pixels whose confidence, that of the map, is below 0.1."""
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
    found_again: list[float]
    """Overlap of each cluster, intersection over union, with what a second search finds in half of the pixels read (up
    to 64 windows); nan where that says nothing."""
    parted_by_place: list[tuple[int, int, str]]
    """Pairs of clusters whose spectra are most alike and that share hardly any "rows" or "columns" of the scene."""
    cautions: list[str]

    @property
    def record(self) -> dict[str, object]:
        """The figures of the scene as plain values; nan is None."""
        names = ("unsure", "small_patches", "explained", "explained_by_k_means")
        figures: dict[str, object] = {n: None if np.isnan(x := getattr(self, n)) else round(x, 4) for n in names}
        lists = {"noisy_bands": self.noisy_bands, "parted_by_place": self.parted_by_place, "cautions": self.cautions}
        return figures | lists


def doubts(
    cube: Cube,
    labels: np.ndarray,
    confidence: np.ndarray,
    normalization: Normalization,
    n_clusters: int,
    n_searched: int | None = None,
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
    n_searched : int, optional
        Clusters of the second search, if those of the map are made of more than there are.
    """
    known = labels >= 0
    pixels = max(int(known.sum()), 1)
    unsure = float((confidence[known] < UNSURE).sum() / pixels)
    small = _small_patches(labels)
    fitted = normalization.fit(cube)
    windows = _windows(cube)
    explained, by_k_means, noisy, means = _spectra(cube, labels, fitted, windows, n_clusters)
    again = _found_again(cube, labels, fitted, windows, n_clusters, n_searched or n_clusters)
    sure, places = [], []
    for cluster in range(n_clusters):
        rows, columns = np.nonzero(labels == cluster)
        sure.append(float(confidence[rows, columns].mean()) if len(rows) else float("nan"))
        ends = [np.percentile(x, (1, 99), method="nearest").tolist() for x in (rows, columns)] if len(rows) else None
        places.append(None if ends is None else [int(x) for pair in ends for x in pair])
    parted = _parted_by_place(means, places, labels.shape)
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
    lost = [cluster for cluster, overlap in enumerate(again) if overlap < _FOUND]
    if lost:
        names = f"Cluster {lost[0]} is" if len(lost) == 1 else f"Clusters {', '.join(map(str, lost))} are"
        said.append(
            f"{names} not found again by a search in half of the pixels (overlap below {_FOUND}): such borders are not "
            "to be relied on."
        )
    for first, second, axis in parted:
        said.append(
            f"Clusters {first} and {second} have the most alike spectra and share hardly any {axis} of the scene: "
            "light or the atmosphere may part them instead of a material."
        )
    return Doubt(unsure, small, explained, by_k_means, noisy, sure, places, again, parted, said)


Windows = list[tuple[slice, slice]]


def _windows(cube: Cube) -> Windows:
    """Rows and columns of up to 64 windows."""
    bands, height, width = cube.shape
    return [
        (slice(top, min(top + WINDOW, height)), slice(left, min(left + WINDOW, width)))
        for top, left in window_corners(height, width, cube.valid, most_windows(bands))
    ]


def _found_again(
    cube: Cube, labels: np.ndarray, fitted: Normalization, windows: Windows, n_clusters: int, n_searched: int
) -> list[float]:
    """Overlap of each cluster with those of another search; of these, each counts to the cluster it has most of."""
    sample = SpectraSample([WindowedScene(cube, fitted, torch.device("cpu"))], n_searched)
    own = np.concatenate([labels[place][valid[0].numpy()] for place, valid in zip(windows, sample.valid, strict=True)])
    if n_clusters < 2 or len(own) < _LEAST_PIXELS:
        return [float("nan")] * n_clusters
    stream = RandomStream(_SECOND_SEED)
    means = sample.means(n_searched, stream, _STARTS, sample.random_half(stream))
    nearest = torch.cdist(sample.points, means).argmin(dim=1).numpy()[own >= 0]
    own = own[own >= 0]
    table = np.zeros((n_clusters, n_searched))
    np.add.at(table, (own, nearest), 1)
    counted_to = np.eye(n_clusters)[table.argmax(axis=0)]
    both = np.diagonal(table @ counted_to)
    either = table.sum(axis=1) + counted_to.T @ table.sum(axis=0) - both
    with np.errstate(invalid="ignore"):
        found = np.where(table.sum(axis=1) > 0, both / either, np.nan)
    return [float(x) for x in found]


def _parted_by_place(
    means: np.ndarray, places: list[list[int] | None], shape: tuple[int, ...]
) -> list[tuple[int, int, str]]:
    """Pairs that are each other's nearest by their mean spectra (k, bands), of which each has its side of the scene."""
    distances = np.linalg.norm(means[:, None] - means[None], axis=2)
    distances[np.isnan(distances)] = np.inf
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1) if len(means) > 2 else []
    found = []
    for first, second in enumerate(nearest):
        pair = places[first], places[second]
        if first > second or nearest[second] != first or pair[0] is None or pair[1] is None:
            continue
        if distances[first, second] > _ALIKE * np.sort(distances[[first, second]], axis=1)[:, 1].min():
            continue
        for axis, name in enumerate(("rows", "columns")):
            (a, b), (c, d) = (place[2 * axis : 2 * axis + 2] for place in pair if place is not None)
            shared, together = min(b, d) - max(a, c) + 1, max(b, d) - min(a, c) + 1
            if shared <= _SHARED * min(b - a + 1, d - c + 1) and together >= _TOGETHER * shape[axis]:
                found.append((first, int(second), name))
                break
    return found


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
    cube: Cube, labels: np.ndarray, fitted: Normalization, places: Windows, n_clusters: int
) -> tuple[float, float, list[int], np.ndarray]:
    """Explained shares of the variance, by the labels and by k-means; bands that are mostly noise; clusters' means."""
    bands = cube.shape[0]
    windows, points, own = [], [], []
    for place in places:
        here, spectra = torch.from_numpy(labels[place] >= 0), as_float_tensor(cube[:, place[0], place[1]])
        windows.append((spectra, here))
        points.append(fitted.transform(spectra)[:, here].t())
        own.append(torch.from_numpy(labels[place])[here])
    signal, noise = moments(iter(windows), bands)
    variance = signal.about_mean.diagonal()
    noisy = torch.nonzero((noise.diagonal() > _MOSTLY_NOISE * variance) & (variance > 0)).flatten().tolist()
    spectra, found = torch.cat(points).double(), torch.cat(own).long()
    count = torch.bincount(found, minlength=n_clusters).unsqueeze(1)
    means = (torch.zeros(n_clusters, bands).double().index_add_(0, found, spectra) / count).numpy()
    step = -(-len(spectra) // _MOST_PIXELS) or 1
    spectra, found = spectra[::step], found[::step]
    if len(spectra) < n_clusters:
        return float("nan"), float("nan"), noisy, means
    total = float((spectra - spectra.mean(0)).square().sum())
    if not total > 0:
        return float("nan"), float("nan"), noisy, means
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with single_blas_thread, threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        within = KMeans(n_clusters, n_init=1, max_iter=30, random_state=0).fit(spectra.numpy()).inertia_
    left_over = sum(
        float((spectra[found == k] - spectra[found == k].mean(0)).square().sum()) for k in found.unique().tolist()
    )
    return 1 - left_over / total, 1 - float(within) / total, noisy, means
