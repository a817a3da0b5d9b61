"""Batches of crop pairs from scenes of any size (spec "Crop pair" and "Training")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from spectrafuse import _checks
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.dgc.windows import WindowedScene
from spectrafuse.ops.extract_crop_pairs import extract_crop_pairs
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs
from spectrafuse.random import RandomStream

S = TypeVar("S", Tensor, WindowedScene)
# A crop pair is drawn again, at most so often, where a smaller share of its window has data.
_LEAST_DATA = 0.25
_MOST_DRAWS = 20


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


def _take(cube: Tensor | WindowedScene, rows: Tensor, columns: Tensor) -> Any:
    return cube.take(rows, columns) if isinstance(cube, WindowedScene) else cube[:, rows][:, :, columns]


def reflect_pad(cube: S, height: int, width: int) -> S:
    """A cube (C, H, W) continued at the bottom and right, by reflection about its last row and column.

    The reflection goes on back and forth where more is missing than the cube has; one row or column is repeated.
    """
    rows = _reflected(cube.shape[1], 0, max(height - cube.shape[1], 0), False, cube.device)
    columns = _reflected(cube.shape[2], 0, max(width - cube.shape[2], 0), False, cube.device)
    if (len(rows), len(columns)) == tuple(cube.shape[1:]):
        return cube
    padded: S = _take(cube, rows, columns)
    return padded


def surround(cube: S, rows: int, columns: int) -> S:
    """A cube (C, H, W) continued on all sides by reflection about its borders, so that edge pixels repeat."""
    y = _reflected(cube.shape[1], rows, rows, True, cube.device)
    x = _reflected(cube.shape[2], columns, columns, True, cube.device)
    continued: S = _take(cube, y, x)
    return continued


class CropBatches:
    """Draws the batches of a training run.

    Parameters
    ----------
    scenes : sequence of Tensor (C, H, W), or sequence of WindowedScene
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
        self,
        scenes: Sequence[Tensor] | Sequence[WindowedScene],
        recipe: Recipe,
        crop_size: int,
        batch_size: int,
        stream: RandomStream,
    ) -> None:
        crop_size = _checks.integer("crop_size", crop_size)
        self.batch_size = _checks.integer("batch_size", batch_size)
        self.scenes: list[Any] = list(scenes)
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

    def _geometry(self, scene: Tensor | WindowedScene, count: int) -> Tensor:
        """Geometry of `count` crop pairs of scenes with the size of this one."""
        recipe = self.recipe
        return sample_crop_pairs(
            count,
            tuple(scene.shape[1:]),
            self.crop_size,
            self.stream,
            min_overlap=recipe.min_overlap,
            max_overlap=recipe.max_overlap,
            degrees=recipe.degrees,
            translate=recipe.translate,
            scale_range=(recipe.scale_low, recipe.scale_high),
            max_shift_bands=recipe.max_shift_bands,
        )

    def _pairs(self, cubes: Tensor | Sequence[WindowedScene]) -> tuple[Tensor, Tensor]:
        """Views (B, 2, C, h, w) of cubes (B, C, H, W) that share a size, and their geometry."""
        geometry = self._geometry(cubes[0], len(cubes))
        if isinstance(cubes, Tensor):
            return extract_crop_pairs(cubes, geometry, self.crop_size), geometry
        views = []
        for index, scene in enumerate(cubes):
            geometry[index] = self._with_data(scene, geometry[index])
            views.append(self._views(scene, geometry[index]))
        return torch.cat(views), geometry

    def _box(self, pair: Tensor) -> tuple[int, int, int, int]:
        """Top, left, height and width of the window around both crops of a pair (2, 9)."""
        (top, left), (bottom, right) = pair[:, :2].long().amin(0).tolist(), pair[:, :2].long().amax(0).tolist()
        return top, left, bottom - top + self.crop_size[0], right - left + self.crop_size[1]

    def _with_data(self, scene: WindowedScene, pair: Tensor) -> Tensor:
        """The crop pair, or one drawn instead where fewer than a quarter of its window's pixels have data."""

        def share(candidate: Tensor) -> float:
            valid = scene.valid(*self._box(candidate))
            return 1.0 if valid is None else float(valid.mean())

        best, best_share = pair, share(pair)
        for _ in range(_MOST_DRAWS):
            if best_share >= _LEAST_DATA:
                break
            drawn = self._geometry(scene, 1)[0]
            drawn_share = share(drawn)
            if drawn_share > best_share:
                best, best_share = drawn, drawn_share
        return best

    def _views(self, scene: WindowedScene, pair: Tensor) -> Tensor:
        """Views (1, 2, C, h, w) of a scene, from the window that holds both crops."""
        top, left, height, width = self._box(pair)
        local = pair.clone()
        local[:, :2] -= torch.tensor([top, left])
        window = scene.window(top, left, height, width)
        return extract_crop_pairs(window.unsqueeze(0), local.unsqueeze(0), self.crop_size)

    def _whole_batches(self) -> Iterator[CropBatch]:
        order = self.stream.permutation(len(self.scenes), device="cpu").tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = [self.scenes[i] for i in order[start : start + self.batch_size]]
            height = max(scene.shape[1] for scene in chosen)
            width = max(scene.shape[2] for scene in chosen)
            padded = [reflect_pad(scene, height, width) for scene in chosen]
            cubes = torch.stack(padded) if isinstance(padded[0], Tensor) else padded
            for _ in range(self.recipe.reuse_iter):
                views, geometry = self._pairs(cubes)
                yield _batch([views], [geometry])

    def _random_scenes(self) -> Iterator[CropBatch]:
        for _ in range(self.steps_per_epoch):
            drawn = self.stream.integers(0, len(self.scenes) - 1, (self.batch_size,), device="cpu")
            pairs = [
                self._pairs(_repeated(self.scenes[i], count))
                for i, count in zip(*(x.tolist() for x in drawn.unique(return_counts=True)), strict=True)
            ]
            yield _batch([views for views, _ in pairs], [geometry for _, geometry in pairs])


def _repeated(scene: Tensor | WindowedScene, count: int) -> Tensor | list[WindowedScene]:
    return [scene] * count if isinstance(scene, WindowedScene) else scene.expand(count, -1, -1, -1)


def _batch(views: Sequence[Tensor], geometry: Sequence[Tensor]) -> CropBatch:
    pairs = torch.cat(list(views)) if len(views) > 1 else views[0]
    return CropBatch(pairs.transpose(0, 1).flatten(0, 1).contiguous(), torch.cat(list(geometry)))
