"""How much the label maps still change: the stop rule that needs no labels (spec "Evaluation")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse.dgc import metrics
from spectrafuse.dgc.model import SegmentationModel

_LARGEST_SIDE = 256
_MOST_SCENES = 8


def _central_window(scene: Tensor) -> Tensor:
    """At most 256 x 256 pixels from the middle of a cube (C, H, W)."""
    _, height, width = scene.shape
    rows, columns = min(height, _LARGEST_SIDE), min(width, _LARGEST_SIDE)
    top, left = (height - rows) // 2, (width - columns) // 2
    return scene[:, top : top + rows, left : left + columns]


class StabilityWatch:
    """Compares the label maps of consecutive epochs on parts of the training scenes.

    Parameters
    ----------
    scenes : sequence of Tensor (C, H, W)
        Normalised cubes; the middle of the first few is watched.
    patience : int
        Epochs in a row that must agree before `settled`; 0 never settles.
    tolerance : float
        Variation of information in nats up to which two epochs agree. Unlike NMI it is defined for a single cluster.
    """

    def __init__(self, scenes: Sequence[Tensor], *, patience: int, tolerance: float) -> None:
        self.windows = [_central_window(scene) for scene in scenes[:_MOST_SCENES]]
        self.patience = patience
        self.tolerance = tolerance
        self.previous: list[Tensor] | None = None
        self.quiet_epochs = 0

    @property
    def settled(self) -> bool:
        """Whether enough epochs in a row agreed."""
        return self.patience > 0 and self.quiet_epochs >= self.patience

    @property
    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"previous": self.previous, "quiet_epochs": self.quiet_epochs}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved `state`."""
        self.previous = state["previous"]
        self.quiet_epochs = state["quiet_epochs"]

    def update(self, model: SegmentationModel) -> dict[str, float]:
        """Scores of the model's maps now.

        Returns
        -------
        dict
            `entropy` of the clusters in nats, `clusters` that occur; and against the epoch before, from the second
            call on, `nmi` and `vi`; all but `clusters` are means over the scenes.
        """
        maps = [model.labels(window.unsqueeze(0))[0].to("cpu", torch.int32) for window in self.windows]
        values = {
            "entropy": sum(map(metrics.entropy, maps)) / len(maps),
            "clusters": float(torch.cat([labels.flatten() for labels in maps]).unique().numel()),
        }
        if self.previous is not None:
            pairs = list(zip(self.previous, maps, strict=True))
            values["nmi"] = sum(metrics.normalized_mutual_information(a, b) for a, b in pairs) / len(pairs)
            values["vi"] = sum(metrics.variation_of_information(a, b) for a, b in pairs) / len(pairs)
            self.quiet_epochs = self.quiet_epochs + 1 if values["vi"] <= self.tolerance else 0
        self.previous = maps
        return values
