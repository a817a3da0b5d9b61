"""Small scenes and trainers of segmentation, and when two trainings are the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.recipes import Recipe, corrected
from spectrafuse.dgc.training.trainer import Trainer
from spectrafuse.dgc.windows import WindowedScene
from spectrafuse.io.cubes import array_cube
from spectrafuse.random import RandomStream

QUICK = dataclasses.replace(corrected, max_epoch=6, reuse_iter=2, patience=0)
BANDS, HEIGHT, WIDTH = 5, 30, 27


def make_trainer(recipe: Recipe = QUICK, *, seed: int = 0, data_seed: int = 50, **options: object) -> Trainer:
    """Of two scenes that are held in memory."""
    stream = RandomStream(seed)
    drawn = RandomStream(data_seed)
    scenes = [drawn.normal((12, 20, 24)), drawn.normal((12, 15, 13))]
    model = SegmentationModel(12, 8, 3, stream=stream)
    return Trainer(model, scenes, recipe, stream, crop_size=12, batch_size=2, **options)  # type: ignore[arg-type]


def windowed(seed: int, absent: np.ndarray | None) -> WindowedScene:
    """A random scene that training reads in windows."""
    cube = np.random.default_rng(seed).random((BANDS, HEIGHT, WIDTH)).astype(np.float32) + 0.2
    source = array_cube("X", cube, mask=absent, zeros="check")
    normalization = Normalization("unit+meanstd").fit(source)
    return WindowedScene(source, normalization, torch.device("cpu"))


def gaps() -> np.ndarray:
    """Where pixels are absent: single ones, and a block."""
    absent = np.random.default_rng(7).random((HEIGHT, WIDTH)) < 0.05
    absent[10:16, 12:20] = True
    return absent


def trainer_with_gaps(recipe: Recipe = corrected, **changes: Any) -> Trainer:
    """Of one scene with gaps and one without, read window by window."""
    recipe = dataclasses.replace(recipe, max_epoch=3, reuse_iter=3, **changes)
    stream = RandomStream(5)
    model = SegmentationModel(BANDS, 8, 3, stream=stream)
    return Trainer(model, [windowed(1, gaps()), windowed(2, None)], recipe, stream, crop_size=12, batch_size=2)


def striped(
    seed: int, height: int, width: int, n_bands: int = 9, noise: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Three materials in unequal stripes of columns, with noise; and which is where."""
    stream = RandomStream(seed)
    truth = (torch.arange(width) * 10 // width).clamp(0, 9).clamp(max=5).div(2, rounding_mode="floor")
    labels = truth.expand(height, width)
    spectra = 3 * torch.nn.functional.normalize(RandomStream(99).normal((3, n_bands)), dim=1)
    return spectra[labels].permute(2, 0, 1) + 0.1 * stream.normal((n_bands, height, width)), labels


def assert_same_bits(first: Trainer, second: Trainer) -> None:
    """Weights, history, reason of the end and place in the stream are the same."""
    for (name, a), (_, b) in zip(first.model.state_dict().items(), second.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert first.history == second.history
    assert first.stop_reason == second.stop_reason
    assert first.stream.state == second.stream.state
