"""How much the label maps still change: the stop rule that needs no labels (docs/algorithms/dgc.md,
"Training")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse.dgc import metrics
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.windows import NormalizedScene, as_normalized

_LARGEST_SIDE = 256
_MOST_SCENES = 8


def _place(scene: NormalizedScene) -> tuple[int, int, int, int]:
    """Top, left, height and width of at most 256 x 256 pixels: the middle, or where a scene with gaps has most data."""
    _, height, width = scene.shape
    rows, columns = min(height, _LARGEST_SIDE), min(width, _LARGEST_SIDE)
    middle = (height - rows) // 2, (width - columns) // 2
    valid = scene.valid(0, 0, height, width)
    if valid is None:
        return *middle, rows, columns
    tops = {*range(0, height - rows, max(1, rows // 2)), height - rows, middle[0]}
    lefts = {*range(0, width - columns, max(1, columns // 2)), width - columns, middle[1]}
    sums = {(y, x): int(valid[y : y + rows, x : x + columns].sum()) for y in sorted(tops) for x in sorted(lefts)}
    best = max(sums, key=lambda place: (sums[place], place == middle))
    return *best, rows, columns


class _Window:
    """A part of a scene, read when it is looked at if the scene is in a file."""

    def __init__(self, scene: NormalizedScene) -> None:
        self.scene, self.place = scene, _place(scene)

    def labels(self, model: SegmentationModel) -> Tensor:
        """Clusters (h, w), int32 on the CPU; -1 where there are no data."""
        labels = model.labels(self.scene.window(*self.place).unsqueeze(0))[0].to("cpu", torch.int32)
        valid = self.scene.valid(*self.place)
        return labels if valid is None else labels.masked_fill(torch.from_numpy(~valid), -1)


class StabilityWatch:
    """Compares the label maps of consecutive epochs on parts of the training scenes.

    Parameters
    ----------
    scenes : sequence of NormalizedScene, or of Tensor (bands, rows, columns)
        Normalised; the middle of the first few is watched (of a scene with gaps, where it has most data).
    patience : int
        Epochs in a row that must agree before `settled`; 0 never settles.
    tolerance : float
        Variation of information in nats up to which two epochs agree. Unlike NMI it is defined for a single cluster.
    """

    def __init__(self, scenes: Sequence[Tensor | NormalizedScene], *, patience: int, tolerance: float) -> None:
        self.windows = [_Window(scene) for scene in as_normalized(scenes[:_MOST_SCENES])]
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
        maps = ranks.each(self.windows, lambda window: window.labels(model))
        occurring = torch.cat([labels.flatten() for labels in maps]).unique()
        values = {
            "entropy": sum(map(metrics.entropy, maps)) / len(maps),
            "clusters": float((occurring >= 0).sum()),
        }
        if self.previous is not None:
            pairs = list(zip(self.previous, maps, strict=True))
            values["nmi"] = sum(metrics.normalized_mutual_information(a, b) for a, b in pairs) / len(pairs)
            values["vi"] = sum(metrics.variation_of_information(a, b) for a, b in pairs) / len(pairs)
            self.quiet_epochs = self.quiet_epochs + 1 if values["vi"] <= self.tolerance else 0
        self.previous = maps
        return values
