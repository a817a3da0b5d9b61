"""Scores of label maps under their published names (docs/algorithms/dgc.md, "Evaluation").

Maps are integer tensors of any shape, the whole batch counted together. Scores are () float32 tensors on the device of
the first map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse.dgc import metrics

__all__ = [
    "area_rmse",
    "cluster_entropy",
    "dice_score",
    "iou_score",
    "mutual_information",
    "normalized_mutual_information",
    "variation_of_information",
]


def _class_sizes(pred: Tensor, target: Tensor, num_classes: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels per class (K,), float64: in both maps, in `pred`, in `target`. Negative labels are no class."""
    a, b = pred.reshape(-1), target.reshape(-1).to(pred.device)
    if num_classes is None:
        num_classes = int(torch.maximum(a.max(), b.max())) + 1

    def count(labels: Tensor) -> Tensor:
        return torch.bincount(labels[labels >= 0].long(), minlength=num_classes)[:num_classes].double()

    return count(a[a == b]), count(a), count(b)


def _mean_of_occurring(part: Tensor, whole: Tensor) -> Tensor:
    occurring = whole > 0
    if not occurring.any():
        return torch.zeros((), device=part.device)
    return (part[occurring] / whole[occurring]).mean().float()


def iou_score(pred: Tensor, target: Tensor, num_classes: int | None = None) -> Tensor:
    """Mean intersection over union of the classes below `num_classes` that occur; 0 if none does."""
    both, in_pred, in_target = _class_sizes(pred, target, num_classes)
    return _mean_of_occurring(both, in_pred + in_target - both)


def dice_score(pred: Tensor, target: Tensor, num_classes: int | None = None, beta: float = 1.0) -> Tensor:
    """Mean of (1 + beta^2) tp / (tp + beta^2 (fp + fn)); as published twice the IoU at beta = 1, up to 2."""
    both, in_pred, in_target = _class_sizes(pred, target, num_classes)
    wrong = in_pred + in_target - 2 * both
    return _mean_of_occurring((1 + beta**2) * both, both + beta**2 * wrong)


def area_rmse(pred: Tensor, target: Tensor, num_classes: int | None = None) -> Tensor:
    """Root mean square difference of the classes' shares of the pixels."""
    _, in_pred, in_target = _class_sizes(pred, target, num_classes)
    return ((in_pred - in_target) / pred.numel()).square().mean().sqrt().float()


def _score(value: float, like: Tensor) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device=like.device)


def cluster_entropy(labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Entropy of the labels' shares in nats; `num_classes` has no effect on it."""
    return _score(metrics.entropy(labels), labels)


def mutual_information(labels1: Tensor, labels2: Tensor, num_classes: int | None = None) -> Tensor:
    """Mutual information of two maps in nats; `num_classes` has no effect on it."""
    return _score(metrics.mutual_information(labels1, labels2), labels1)


def normalized_mutual_information(
    labels1: Tensor, labels2: Tensor, num_classes: int | None = None, eps: float = 1e-12
) -> Tensor:
    """Mutual information over max(sqrt(H1 H2), eps), in [0, 1]; `num_classes` has no effect on it."""
    mutual = metrics.mutual_information(labels1, labels2)
    scale = (metrics.entropy(labels1) * metrics.entropy(labels2)) ** 0.5
    return _score(min(1.0, max(0.0, mutual / max(scale, eps))), labels1)


def variation_of_information(labels1: Tensor, labels2: Tensor, num_classes: int | None = None) -> Tensor:
    """H1 + H2 - 2 MI in nats; `num_classes` has no effect on it."""
    return _score(metrics.variation_of_information(labels1, labels2), labels1)
