"""Which normalization fits the scenes: does brightness tell their materials apart, or only the shape of spectra?

Where light varies, brightness must be taken out, or clusters are of light and shadow. Where materials are brighter or
darker versions of each other, it must stay. So the spectra are clustered both ways. Clusters of materials are compact,
against the distance to the next cluster, and end at sharp borders. Clusters that cut through smoothly varying light
lie side by side without a gap, and neighbours on both sides of their border are alike; so are clusters of noise, once
it is averaged. What counts are the borders that one way draws and the other does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.recipes import AUTO
from spectrafuse.dgc.training.prototypes import FOR_PIXELS, SpectraSample
from spectrafuse.dgc.windows import WindowedScene
from spectrafuse.io.cubes import Cube
from spectrafuse.random import RandomStream

SHAPE, BRIGHTNESS = "signal+meanstd", "meanstd"
# Brightness is kept only where its clusters are so much better: most scenes have light that varies.
_CLEARLY_BETTER = 1.1
_STARTS = 5
# Where its random numbers begin, far from those of a fit and of its batches.
_FIRST_STEP = 1 << 61
# Of pairs of neighbours with a border between them; fewer say nothing.
_LEAST_BORDERS = 20


class Choice(NamedTuple):
    """A normalization and why it was chosen."""

    normalization: str
    reason: str
    shape: float
    """Score of the clusters without brightness: compactness times sharpness of their own borders, each 0 to 1."""
    brightness: float
    """Score of those with it."""


class _View:
    """Clusters of the averaged spectra under one normalization."""

    def __init__(self, scenes: Sequence[Cube], method: str, n_clusters: int, stream: RandomStream) -> None:
        fitted = [Normalization(method).fit(scene) for scene in scenes]
        cpu = torch.device("cpu")
        windowed = [WindowedScene(*pair, cpu) for pair in zip(scenes, fitted, strict=True)]
        self.sample = SpectraSample(windowed, n_clusters, FOR_PIXELS)
        self.means = self.sample.means(n_clusters, stream, _STARTS)
        self.labels = [
            torch.cdist(image[0].flatten(1).t(), self.means).argmin(1).view(image.shape[2:])
            for image in self.sample.averaged
        ]

    def compactness(self) -> float:
        """Mean over the pixels of one less the distance to their own mean over that to the next one."""
        nearest = torch.cdist(self.sample.points, self.means).topk(2, dim=1, largest=False).values
        return float((1 - nearest[:, 0] / nearest[:, 1].clamp_min(torch.finfo(torch.float32).tiny)).mean())

    def sharpness(self, other: _View) -> float:
        """How far spectra go from one cluster's mean towards the next one's between neighbours, where a border is.

        The mean over borders that this view draws and the other does not, each cut to 0 .. 1; nan for too few.
        """
        steps = []
        views = zip(self.sample.averaged, self.sample.valid, self.labels, other.labels, strict=True)
        for image, valid, own, others in views:
            for axis in (0, 1):
                length = own.shape[axis] - 1
                a, b = own.narrow(axis, 0, length), own.narrow(axis, 1, length)
                same = others.narrow(axis, 0, length) == others.narrow(axis, 1, length)
                border = valid[0].narrow(axis, 0, length) & valid[0].narrow(axis, 1, length) & (a != b) & same
                way = self.means[b[border]] - self.means[a[border]]
                step = image[0].diff(dim=axis + 1)[:, border].t()
                squares = way.square().sum(1).clamp_min(torch.finfo(torch.float32).tiny)
                steps.append((step * way).sum(1) / squares)
        found = torch.cat(steps).clamp(0, 1)
        return float(found.mean()) if len(found) >= _LEAST_BORDERS else float("nan")


@torch.no_grad()
def choose_normalization(scenes: Sequence[Cube], n_clusters: int, stream: RandomStream) -> Choice:
    """`meanstd` where brightness tells materials apart better than the shape of spectra does, else `signal+meanstd`.

    Parameters
    ----------
    scenes : sequence of Cube
        Up to 64 windows of 32 x 32 pixels are read, and every scene once for each normalization's statistics.
    n_clusters : int
        Clusters to look for.
    stream : RandomStream
        Of the starts of k-means.
    """
    if n_clusters < 2:
        return Choice(SHAPE, "Brightness is taken out of the spectra: there is one cluster only.", 1.0, 0.0)
    shape, brightness = (_View(scenes, method, n_clusters, stream) for method in (SHAPE, BRIGHTNESS))
    scores = shape.compactness() * shape.sharpness(brightness), brightness.compactness() * brightness.sharpness(shape)
    if not min(scores) >= 0:
        return Choice(SHAPE, "Brightness is taken out of the spectra: with it, clusters are nearly the same.", *scores)
    figures = f"compactness times sharpness of borders: {scores[1]:.2f} with brightness, {scores[0]:.2f} without"
    if scores[1] > _CLEARLY_BETTER * scores[0]:
        return Choice(BRIGHTNESS, f"Brightness is kept in the spectra: it tells clusters apart ({figures}).", *scores)
    return Choice(
        SHAPE, f"Brightness is taken out of the spectra: their shape tells clusters apart ({figures}).", *scores
    )


def resolve_normalization(method: str, scenes: Sequence[Cube], n_clusters: int, seed: int) -> tuple[str, str]:
    """The method of a recipe, and in one sentence why if it is "auto" and so chosen from the scenes (else "")."""
    if method != AUTO:
        return method, ""
    return choose_normalization(scenes, n_clusters, RandomStream(seed, _FIRST_STEP))[:2]
