"""The tree in which clusters merge: fewer clusters without another training.

Ward's method on the clusters' mean spectra, weighted: those two merge next that add least to the squared distances of
the means to the mean of their group. No level of the tree is the true one; how well two halves of the scenes agree on
a level says how far it can be relied on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spectrafuse._runtime import checks
from spectrafuse.dgc.training.prototypes import SpectraSample
from spectrafuse.random import RandomStream

_STARTS, _SPLITS = 5, 3


def merges(means: np.ndarray, shares: np.ndarray | None = None) -> np.ndarray:
    """Which clusters merge, (K - 1, 4), as `scipy.cluster.hierarchy.linkage` describes it.

    Parameters
    ----------
    means : ndarray (K, R)
        Of the clusters.
    shares : ndarray (K,), optional
        Of the pixels. A cluster weighs as the square root of its share, so that small ones, of mixed pixels often,
        merge early, and yet not all before large ones. All weigh the same without it.

    Returns
    -------
    ndarray
        In each row two groups, the height at which they merge (the square root of what Ward's method adds), and how
        many clusters that makes. Groups 0 to K - 1 are the clusters; row i makes group K + i. Heights never fall.
    """
    count = len(means)
    weights = np.ones(count) if shares is None else np.sqrt(np.maximum(shares, 1e-6))
    centers, sizes, numbers = np.array(means, dtype=np.float64), np.ones(count), np.arange(count)
    tree = np.zeros((max(count - 1, 0), 4))

    def costs(group: int) -> np.ndarray:
        added: np.ndarray = np.square(centers - centers[group]).sum(axis=1) * weights * weights[group]
        added /= weights + weights[group]
        added[[group, *gone]] = np.inf
        return added

    gone: list[int] = []
    cost = np.stack([costs(group) for group in range(count)])
    for row in range(count - 1):
        first, second = sorted(int(i) for i in np.unravel_index(cost.argmin(), cost.shape))
        height = max(np.sqrt(cost[first, second]), tree[row - 1, 2] if row else 0.0)
        pair, weight = [first, second], weights[first] + weights[second]
        tree[row] = *sorted(numbers[pair]), height, sizes[pair].sum()
        centers[first] = weights[pair] @ centers[pair] / weight
        sizes[first], weights[first], numbers[first] = sizes[pair].sum(), weight, count + row
        gone.append(second)
        cost[second] = cost[:, second] = np.inf
        cost[first] = cost[:, first] = costs(first)
    return tree


def groups_at(tree: np.ndarray, n_groups: int) -> list[list[int]]:
    """The clusters of each group where the tree is cut so that so many are left, ordered by their first clusters."""
    n_clusters = len(tree) + 1
    checks.integer("n_clusters", n_groups, maximum=n_clusters)
    members: dict[int, list[int]] = {cluster: [cluster] for cluster in range(n_clusters)}
    for row, (first, second) in enumerate(tree[: n_clusters - n_groups, :2].astype(int).tolist()):
        members[n_clusters + row] = members.pop(first) + members.pop(second)
    return sorted(sorted(group) for group in members.values())


@torch.no_grad()
def agreement(sample: SpectraSample, n_clusters: int, levels: Sequence[int], stream: RandomStream) -> dict[int, float]:
    """How alike the clusters are that two halves of the windows give at some levels of their trees.

    Parameters
    ----------
    sample : SpectraSample
        Cut into random halves, three times.
    n_clusters : int
        At the bottom of the trees.
    levels : sequence of int
        From 2 to `n_clusters`.
    stream : RandomStream
        Of the halves, and of the starts of k-means.

    Returns
    -------
    dict
        The mean adjusted Rand index of each level, over all pixels of the sample: 1, the same clusters; 0, chance.
    """
    from sklearn.metrics import adjusted_rand_score

    points = sample.points
    found = dict.fromkeys(levels, 0.0)
    for _ in range(_SPLITS):
        half = sample.random_half(stream)
        nearest, trees = [], []
        for part in (half, ~half):
            means = sample.means(n_clusters, stream, _STARTS, part)
            nearest.append(torch.cdist(points, means).argmin(dim=1).numpy())
            trees.append(
                merges(
                    (means * sample.scale).double().numpy(),
                    np.bincount(nearest[-1], minlength=n_clusters) / len(points),
                )
            )
        for level in levels:
            first, second = (_labels(*pair, level) for pair in zip(nearest, trees, strict=True))
            found[level] += float(adjusted_rand_score(first, second)) / _SPLITS
    return found


def _labels(nearest: np.ndarray, tree: np.ndarray, level: int) -> np.ndarray:
    """Groups of pixels (n,) at a level, from their clusters."""
    table = np.empty(len(tree) + 1, dtype=np.int64)
    for label, members in enumerate(groups_at(tree, level)):
        table[members] = label
    found: np.ndarray = table[nearest]
    return found
