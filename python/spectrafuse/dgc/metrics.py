"""Scores of label maps (docs/algorithms/dgc.md, "Evaluation").

Label maps are integer arrays or tensors of any shape. A pixel whose label is negative (-1: unknown) in either map is
left out everywhere. All functions flatten what they get; `evaluate` scores image by image and averages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError


def _flat(name: str, labels: Any) -> Tensor:
    tensor = labels if isinstance(labels, Tensor) else torch.from_numpy(np.array(labels))
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        raise InvalidTypeError(f"`{name}` must hold integer labels; got {tensor.dtype}.")
    return tensor.reshape(-1).to(device="cpu", dtype=torch.int64)


def _pair(first: Any, second: Any) -> tuple[Tensor, Tensor]:
    a, b = _flat("first", first), _flat("second", second)
    if a.numel() != b.numel():
        raise InvalidValueError(f"Two label maps of the same size are needed; got {a.numel()} and {b.numel()} pixels.")
    known = (a >= 0) & (b >= 0)
    return a[known], b[known]


def confusion(first: Any, second: Any, *, shape: tuple[int, int] | None = None) -> Tensor:
    """Counts of label pairs, (labels of `first`, labels of `second`), float64.

    `shape` is at least (largest label + 1) on each side, its default.
    """
    a, b = _pair(first, second)
    rows = int(a.max()) + 1 if a.numel() else 0
    columns = int(b.max()) + 1 if b.numel() else 0
    if shape is not None:
        if shape[0] < rows or shape[1] < columns:
            raise checks.fail("shape", f"at least ({rows}, {columns}), the labels that occur", shape)
        rows, columns = shape
    counts = torch.bincount(a * columns + b, minlength=rows * columns)
    return counts.reshape(rows, columns).to(torch.float64)


def _square_confusion(pred: Any, target: Any, n_classes: int | None) -> Tensor:
    a, b = _pair(pred, target)
    needed = int(torch.cat((a, b)).max()) + 1 if a.numel() else 0
    n = needed if n_classes is None else n_classes
    return confusion(a, b, shape=(n, n))


def _nan_mean(values: Tensor) -> float:
    known = values[~values.isnan()]
    return known.mean().item() if known.numel() else 0.0


def class_scores(pred: Any, target: Any, n_classes: int | None = None) -> tuple[Tensor, Tensor]:
    """IoU and Dice of every class, float64; NaN for a class that occurs in neither map."""
    counts = _square_confusion(pred, target, n_classes)
    both = counts.diagonal()
    sizes = counts.sum(0) + counts.sum(1)
    return both / (sizes - both), 2 * both / sizes


def mean_iou(pred: Any, target: Any, n_classes: int | None = None) -> float:
    """Mean intersection over union of the classes with a non-empty union, in [0, 1].

    Examples
    --------
    >>> from spectrafuse.dgc.metrics import mean_iou
    >>> mean_iou([0, 0, 1, 1], [0, 0, 0, 1])
    0.5833333333333333
    """
    return _nan_mean(class_scores(pred, target, n_classes)[0])


def mean_dice(pred: Any, target: Any, n_classes: int | None = None, *, published: bool = False) -> float:
    """Mean Dice coefficient 2 tp / (2 tp + fp + fn) of the classes with a non-empty union, in [0, 1].

    `published=True` gives the published code's value 2 tp / (tp + fp + fn), twice the IoU, in [0, 2].
    """
    iou, dice = class_scores(pred, target, n_classes)
    return _nan_mean(2 * iou if published else dice)


def area_rmse(pred: Any, target: Any, n_classes: int | None = None) -> float:
    """Root mean square difference of the classes' shares of the area, in [0, 1]."""
    counts = _square_confusion(pred, target, n_classes)
    if counts.sum() == 0:
        return 0.0
    return ((counts.sum(1) - counts.sum(0)) / counts.sum()).square().mean().sqrt().item()


def accuracy(pred: Any, target: Any) -> float:
    """Share of pixels with the same label, in [0, 1]; 0 without pixels."""
    a, b = _pair(pred, target)
    return (a == b).double().mean().item() if a.numel() else 0.0


def _entropy(counts: Tensor) -> float:
    shares = counts[counts > 0] / counts.sum()
    return max(0.0, -(shares * shares.log()).sum().item())


def entropy(labels: Any) -> float:
    """Entropy of the label shares in nats, in [0, log(number of labels)]."""
    flat = _flat("labels", labels)
    return _entropy(torch.bincount(flat[flat >= 0]).to(torch.float64))


def _information(first: Any, second: Any) -> tuple[float, float, float]:
    """Both entropies and the mutual information, in nats."""
    joint = confusion(first, second)
    total = joint.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    expected = rows[:, None] * columns[None, :]
    seen = joint > 0
    mutual = (joint[seen] / total * (joint[seen] * total / expected[seen]).log()).sum().item()
    return _entropy(rows), _entropy(columns), mutual


def mutual_information(first: Any, second: Any) -> float:
    """Mutual information of two label maps in nats."""
    return _information(first, second)[2]


def normalized_mutual_information(first: Any, second: Any) -> float:
    """MI / max(sqrt(H1 H2), 1e-12), in [0, 1]; 0 where a map has one label only."""
    h1, h2, mutual = _information(first, second)
    return min(1.0, max(0.0, mutual / max(math.sqrt(h1 * h2), 1e-12)))


def variation_of_information(first: Any, second: Any) -> float:
    """H1 + H2 - 2 MI in nats; 0 for the same partition, whatever the names of the labels."""
    h1, h2, mutual = _information(first, second)
    return max(0.0, h1 + h2 - 2 * mutual)


def match_clusters(pred: Any, target: Any) -> dict[int, list[int]]:
    """The one-to-one mapping {label: [cluster]} with the most pixels in common (Hungarian method).

    The numbers of clusters and labels may differ; a label that occurs nowhere takes no cluster. Clusters that are left
    over get names above the largest label, so every cluster up to the largest is named.

    Examples
    --------
    >>> from spectrafuse.dgc.metrics import apply_mapping, match_clusters, mean_iou
    >>> clusters, labels = [2, 2, 0, 0, 1], [0, 0, 1, 1, 1]
    >>> mapping = match_clusters(clusters, labels)
    >>> mapping
    {1: [0], 0: [2], 2: [1]}
    >>> apply_mapping(clusters, mapping).tolist()
    [0, 0, 1, 1, 2]
    """
    from scipy.optimize import linear_sum_assignment

    counts = confusion(pred, target).numpy()
    present = counts.any(axis=0).nonzero()[0]
    clusters, columns = linear_sum_assignment(counts[:, present], maximize=True)
    mapping = {int(present[column]): [int(cluster)] for cluster, column in zip(clusters, columns, strict=True)}
    matched = {int(cluster) for cluster in clusters}
    left_over = [cluster for cluster in range(counts.shape[0]) if cluster not in matched]
    mapping.update({counts.shape[1] + i: [cluster] for i, cluster in enumerate(left_over)})
    return mapping


def label_of_cluster(mapping: Mapping[int, Sequence[int]], clusters: Sequence[int]) -> list[int]:
    """The label of every cluster from 0 to the largest that the mapping or `clusters` names, -1 for unnamed ones.

    Raises
    ------
    ValueError
        If one of `clusters` is not named, a cluster is named twice, or a number is negative.
    """
    table: dict[int, int] = {}
    for label, members in mapping.items():
        checks.integer("mapping label", label, minimum=0, maximum=2**31 - 1)
        for cluster in members:
            checks.integer("mapping cluster", cluster, minimum=0)
            if cluster in table:
                raise InvalidValueError(
                    f"`mapping` names cluster {cluster} twice: for labels {table[cluster]} and {label}."
                )
            table[int(cluster)] = int(label)
    missing = sorted({int(cluster) for cluster in clusters} - table.keys())
    if missing:
        raise InvalidValueError(f"`mapping` must name every cluster; it lacks {', '.join(map(str, missing))}.")
    return [table.get(cluster, -1) for cluster in range(max(table, default=-1) + 1)]


def apply_mapping(pred: Any, mapping: Mapping[int, Sequence[int]]) -> Tensor:
    """Label maps with every cluster replaced by its label; -1 stays.

    `mapping` is {label: [clusters]} and must name every cluster that occurs.
    """
    tensor = pred if isinstance(pred, Tensor) else torch.from_numpy(np.array(pred))
    flat = _flat("pred", tensor)
    occurring = torch.unique(flat[flat >= 0]).tolist()
    table = torch.tensor([*label_of_cluster(mapping, occurring), -1])
    return table[torch.where(flat < 0, torch.full_like(flat, len(table) - 1), flat)].reshape(tensor.shape)


def evaluate(
    preds: Sequence[Any],
    targets: Sequence[Any],
    *,
    mapping: Mapping[int, Sequence[int]] | None = None,
    match: bool = True,
    published_dice: bool = False,
) -> dict[str, Any]:
    """Scores of cluster maps against label maps, image by image and averaged.

    Parameters
    ----------
    preds, targets : sequences of label maps
        Clusters and labels of the same images; negative labels are left out.
    mapping : dict, optional
        {label: [clusters]} that names every cluster which occurs.
    match : bool
        Without `mapping`, match clusters to labels over all images with `match_clusters`; False takes cluster numbers
        as labels.
    published_dice : bool
        Report the published, doubled mean Dice.

    Returns
    -------
    dict
        `mean_iou`, `mean_dice`, `area_rmse`, `accuracy`, `entropy` (of the clusters), `nmi`, `vi`: means over the
        images with a known label. `iou_class_<i>`,
        `dice_class_<i>`: over all images together, NaN for a label that occurs nowhere. `mapping`: as applied.
        Clusters that match no label are wrong wherever they lie, and are no class of their own.
    """
    if len(preds) != len(targets) or not len(preds):
        raise InvalidValueError(f"One label map per prediction is needed; got {len(preds)} and {len(targets)}.")
    pairs = [_pair(pred, target) for pred, target in zip(preds, targets, strict=True)]
    pairs = [pair for pair in pairs if pair[0].numel()]
    if not pairs:
        raise InvalidValueError("No pixel has a known label in both maps, so there is nothing to score.")
    pred_all, target_all = (torch.cat(side) for side in zip(*pairs, strict=True))
    if mapping is None:
        occurring = torch.unique(pred_all).tolist()
        mapping = match_clusters(pred_all, target_all) if match else {int(k): [int(k)] for k in occurring}
    named = apply_mapping(pred_all, mapping)
    n_labels = int(target_all.max()) + 1
    # Names beyond the labels only mean "wrong": one common name keeps them from counting as classes.
    named = torch.where(named < n_labels, named, torch.full_like(named, n_labels))
    images = torch.split(named, [len(target) for _, target in pairs])

    def average(score: Any) -> float:
        return float(np.mean([score(image, target) for image, (_, target) in zip(images, pairs, strict=True)]))

    def class_mean(image: Tensor, target: Tensor, which: int) -> float:
        return _nan_mean(class_scores(image, target, n_labels + 1)[which][:n_labels])

    iou, dice = class_scores(named, target_all, n_labels + 1)
    return {
        "mean_iou": average(lambda a, b: class_mean(a, b, 0)),
        "mean_dice": average(lambda a, b: 2 * class_mean(a, b, 0) if published_dice else class_mean(a, b, 1)),
        "area_rmse": average(area_rmse),
        "accuracy": average(accuracy),
        "entropy": float(np.mean([entropy(a) for a, _ in pairs])),
        "nmi": float(np.mean([normalized_mutual_information(a, b) for a, b in pairs])),
        "vi": float(np.mean([variation_of_information(a, b) for a, b in pairs])),
        **{f"iou_class_{i}": iou[i].item() for i in range(n_labels)},
        **{f"dice_class_{i}": dice[i].item() for i in range(n_labels)},
        "mapping": {int(label): [int(c) for c in members] for label, members in mapping.items()},
    }
