"""Batches of crop pairs from scenes of any size (spec "Crop pair" and "Training")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse import _checks
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.ops.extract_crop_pairs import extract_crop_pairs
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs
from spectrafuse.random import RandomStream


class CropBatch(NamedTuple):
    """Two views of B places."""

    views: Tensor
    """(2B, C, h, w): the first views of all samples, then the second views."""
    geometry: Tensor
    """(B, 2, 9) float32 on the CPU: where the views lie, as `sample_crop_pairs` gives it."""


def _reflected(size: int, before: int, after: int, repeat_edge: bool, device: torch.device) -> Tensor:
    """Indices 0 .. size - 1 continued back and forth on both sides."""
    place = torch.arange(-before, size + after, device=device)
    if repeat_edge:
        place = place % (2 * size)
        return torch.minimum(place, 2 * size - 1 - place)
    period = max(2 * (size - 1), 1)
    place = place % period
    return torch.minimum(place, (period - place) % period)


def reflect_pad(cube: Tensor, height: int, width: int) -> Tensor:
    """A cube (C, H, W) continued at the bottom and right, by reflection about its last row and column.

    The reflection goes on back and forth where more is missing than the cube has; one row or column is repeated.
    """
    rows = _reflected(cube.shape[1], 0, max(height - cube.shape[1], 0), False, cube.device)
    columns = _reflected(cube.shape[2], 0, max(width - cube.shape[2], 0), False, cube.device)
    return cube if (len(rows), len(columns)) == tuple(cube.shape[1:]) else cube[:, rows][:, :, columns]


def surround(cube: Tensor, rows: int, columns: int) -> Tensor:
    """A cube (C, H, W) continued on all sides by reflection about its borders, so that edge pixels repeat."""
    y = _reflected(cube.shape[1], rows, rows, True, cube.device)
    x = _reflected(cube.shape[2], columns, columns, True, cube.device)
    return cube[:, y][:, :, x]


class CropBatches:
    """Draws the batches of a training run.

    Parameters
    ----------
    scenes : sequence of Tensor (C, H, W)
        Normalised cubes, of any sizes, on the training device.
    recipe : Recipe
        Ranges of the augmentation, and how an epoch is made up.
    crop_size, batch_size : int
        Side of the square crops in pixels, and crop pairs per step. Where a scene is so small that reflection cannot
        fill a crop (crop > 2 side - 1), all crops are shortened to what it can fill.
    stream : RandomStream
        Source of all random numbers.
    """

    def __init__(
        self, scenes: Sequence[Tensor], recipe: Recipe, crop_size: int, batch_size: int, stream: RandomStream
    ) -> None:
        crop_size = _checks.integer("crop_size", crop_size)
        self.batch_size = _checks.integer("batch_size", batch_size)
        self.scenes = list(scenes)
        self.recipe = recipe
        self.stream = stream
        height = min(2 * scene.shape[1] - 1 for scene in self.scenes)
        width = min(2 * scene.shape[2] - 1 for scene in self.scenes)
        height, width = min(crop_size, height), min(crop_size, width)
        self.crop_size = (height, width)
        if recipe.even_coverage:
            self.scenes = [surround(scene, height // 2, width // 2) for scene in self.scenes]

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of one epoch."""
        return self.recipe.reuse_iter * -(-len(self.scenes) // self.batch_size)

    def epoch(self) -> Iterator[CropBatch]:
        """The batches of one epoch."""
        return self._whole_batches() if self.recipe.whole_batches else self._random_scenes()

    def _pairs(self, cubes: Tensor) -> tuple[Tensor, Tensor]:
        """Views (B, 2, C, h, w) of cubes (B, C, H, W) that share a size, and their geometry."""
        recipe = self.recipe
        geometry = sample_crop_pairs(
            cubes.shape[0],
            tuple(cubes.shape[2:]),
            self.crop_size,
            self.stream,
            min_overlap=recipe.min_overlap,
            max_overlap=recipe.max_overlap,
            degrees=recipe.degrees,
            translate=recipe.translate,
            scale_range=(recipe.scale_low, recipe.scale_high),
            max_shift_bands=recipe.max_shift_bands,
        )
        return extract_crop_pairs(cubes, geometry, self.crop_size), geometry

    def _whole_batches(self) -> Iterator[CropBatch]:
        order = self.stream.permutation(len(self.scenes), device="cpu").tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = [self.scenes[i] for i in order[start : start + self.batch_size]]
            height = max(scene.shape[1] for scene in chosen)
            width = max(scene.shape[2] for scene in chosen)
            cubes = torch.stack([reflect_pad(scene, height, width) for scene in chosen])
            for _ in range(self.recipe.reuse_iter):
                views, geometry = self._pairs(cubes)
                yield _batch([views], [geometry])

    def _random_scenes(self) -> Iterator[CropBatch]:
        for _ in range(self.steps_per_epoch):
            drawn = self.stream.integers(0, len(self.scenes) - 1, (self.batch_size,), device="cpu")
            pairs = [
                self._pairs(self.scenes[i].expand(count, -1, -1, -1))
                for i, count in zip(*(x.tolist() for x in drawn.unique(return_counts=True)), strict=True)
            ]
            yield _batch([views for views, _ in pairs], [geometry for _, geometry in pairs])


def _batch(views: Sequence[Tensor], geometry: Sequence[Tensor]) -> CropBatch:
    pairs = torch.cat(list(views)) if len(views) > 1 else views[0]
    return CropBatch(pairs.transpose(0, 1).flatten(0, 1).contiguous(), torch.cat(list(geometry)))
