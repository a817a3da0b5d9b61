"""Alignment of clusters with labels, and the scores that `HSIClusteringTrainer.inference` returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.compat.hsi_global_clustering.eval import area_rmse, dice_score, iou_score
from spectrafuse.dgc import metrics


def _flat(maps: Sequence[Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1) for x in maps])


def align_automatically(preds: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
    """Cluster maps with every cluster renamed to the label it matches (Hungarian method over all maps)."""
    mapping = metrics.match_clusters(_flat(preds), _flat(labels))
    return [metrics.apply_mapping(pred, mapping) for pred in preds]


def align_by_hand(preds: Sequence[Tensor], mapping: Mapping[int, Iterable[int]]) -> list[Tensor]:
    """Cluster maps renamed by {label: clusters}; of two labels for a cluster the later one counts, as published.

    Raises
    ------
    ValueError
        If a cluster that occurs is not named.
    """
    label_of = {int(cluster): int(label) for label, clusters in mapping.items() for cluster in clusters}
    missing = sorted(set(_flat(preds).unique().tolist()) - label_of.keys())
    if missing:
        raise InvalidValueError(f"`manual_mapping` must name every cluster; it lacks {', '.join(map(str, missing))}.")
    clusters_of: dict[int, list[int]] = {}
    for cluster, label in label_of.items():
        clusters_of.setdefault(label, []).append(cluster)
    return [metrics.apply_mapping(pred, clusters_of) for pred in preds]


def published_scores(preds: Sequence[Tensor], labels: Sequence[Tensor]) -> dict[str, float]:
    """Means over the maps (`mean_Dice` doubled, as published), and IoU and Dice of every class over all pixels."""

    def average(score: object) -> float:
        values = [score(a, b).item() for a, b in zip(preds, labels, strict=True)]  # type: ignore[operator]
        return sum(values) / len(values)

    iou, dice = metrics.class_scores(_flat(preds), _flat(labels))
    return {
        "mean_IoU": average(iou_score),
        "mean_Dice": average(dice_score),
        "mean_RMSE": average(area_rmse),
        **{f"IoU_class_{i}": value for i, value in enumerate(iou.tolist())},
        **{f"Dice_class_{i}": value for i, value in enumerate(dice.tolist())},
    }
