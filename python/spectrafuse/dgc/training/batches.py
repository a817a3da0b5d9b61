"""Batches of crop pairs from scenes of any size (docs/algorithms/dgc.md, "Crop pairs" and "Training")."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import checks, ranks
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.dgc.windows import NormalizedScene, as_normalized, one_ahead
from spectrafuse.ops.extract_crop_pairs import extract_crop_pairs
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs
from spectrafuse.ops.scene_spectra import filled_bands
from spectrafuse.random import RandomStream

# A crop pair is drawn again, at most so often, where a smaller share of its window has data.
_LEAST_DATA = 0.25
_MOST_DRAWS = 20
# Where the random numbers of batches begin; the rest of a fit makes fewer draws.
_FIRST_STEP = 1 << 62


class CropBatch(NamedTuple):
    """Two views of B places. The next batch overwrites the memory of `padded`."""

    padded: Tensor
    """(2B, at least bands, h, w), the first views of all samples, then the second views.
    The bands of a pixel lie side by side in memory, filled up with zeros to a multiple of 16."""
    geometry: Tensor
    """(B, 2, 9) float32 on the CPU: where the views lie, as `sample_crop_pairs` gives it."""
    valid: Tensor | None
    """(2B, h, w) bool: pixels whose spectrum comes from pixels with data alone. None where no scene has gaps."""
    n_bands: int
    """Bands of the scenes."""
    share: tuple[int, int, int] | None = None
    """Of a batch that is shared among processes: the first pair of this one, the one after its last, and all pairs."""

    @property
    def views(self) -> Tensor:
        """(2B, bands, h, w): the views without the filled-up bands."""
        return self.padded[:, : self.n_bands]


class _Source(NamedTuple):
    """What some pairs of a batch are cut from."""

    cubes: Tensor
    """(n, bands, rows, columns)."""
    geometry: Tensor
    """(n, 2, 9), relative to the cubes."""
    missing: Tensor | None
    """(n, 1, rows, columns): 1 where a pixel has no data, else 0. None: all have."""


class _Plan(NamedTuple):
    """A batch that is not cut yet: of those pairs that this process cuts."""

    sources: list[_Source]
    geometry: Tensor
    share: tuple[int, int, int] | None = None


def reflect_pad(cube: Tensor, height: int, width: int) -> Tensor:
    """A cube (bands, rows, columns) of at least this size: `NormalizedScene.padded`."""
    padded = NormalizedScene(cube).padded(height, width).whole
    assert padded is not None
    return padded


class CropBatches:
    """Draws the batches of a training run.

    Parameters
    ----------
    scenes : sequence of NormalizedScene, or of Tensor (bands, rows, columns)
        Normalised, of any sizes, on the training device.
    recipe : Recipe
        Ranges of the augmentation, and how an epoch is made up.
    crop_size, batch_size : int
        Side of the square crops in pixels, and crop pairs per step. Where a scene is so small that reflection cannot
        fill a crop (crop > 2 side - 1), all crops are shortened to what it can fill.
        In a group of processes the pairs of a step are those of all together; each cuts its share of them.
    seed : int
        Of the geometry and the choice of scenes. Every epoch has its own part of the stream of random numbers, far
        from where a `RandomStream` of this seed begins: batches depend on the seed and the epoch's number alone.
    """

    def __init__(
        self,
        scenes: Sequence[Tensor | NormalizedScene],
        recipe: Recipe,
        crop_size: int,
        batch_size: int,
        seed: int,
    ) -> None:
        crop_size = checks.integer("crop_size", crop_size)
        self.batch_size = checks.integer("batch_size", batch_size, maximum=100_000)
        self.scenes = as_normalized(scenes)
        self.recipe = recipe
        self.seed = seed
        height = min(2 * scene.shape[1] - 1 for scene in self.scenes)
        width = min(2 * scene.shape[2] - 1 for scene in self.scenes)
        height, width = min(crop_size, height), min(crop_size, width)
        self.crop_size = (height, width)
        if recipe.even_coverage:
            self.scenes = [scene.surrounded(height // 2, width // 2) for scene in self.scenes]
        self._windowed = any(scene.whole is None for scene in self.scenes)
        self._gaps = any(scene.has_gaps for scene in self.scenes)
        self._memory: Tensor | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of one epoch."""
        return self.recipe.reuse_iter * -(-len(self.scenes) // self.batch_size)

    def epoch(self, number: int, *, whole: bool = False) -> Generator[CropBatch, None, None]:
        """The batches of an epoch; close the iterator if it is left early, and before the next.

        In a group of processes of each batch this one's share, which may be no pair, unless it is to be `whole`.
        Windows of files are read by a thread, those of the next batch while this one is in use.
        """
        self._stream = RandomStream(self.seed, _FIRST_STEP + (number << 32))
        self._shared = ranks.together() and not whole
        plans = self._whole_batches() if self.recipe.whole_batches else self._random_scenes()
        with closing(one_ahead(plans) if self._windowed else plans) as ready:
            for plan in ready:
                yield self._cut(plan)

    def _geometry(self, scene: NormalizedScene, count: int) -> Tensor:
        """Geometry of `count` crop pairs of scenes with the size of this one."""
        recipe = self.recipe
        return sample_crop_pairs(
            count,
            scene.shape[1:],
            self.crop_size,
            self._stream,
            min_overlap=recipe.min_overlap,
            max_overlap=recipe.max_overlap,
            degrees=recipe.degrees,
            translate=recipe.translate,
            scale_range=(recipe.scale_low, recipe.scale_high),
            max_shift_bands=recipe.max_shift_bands,
        )

    def _own(self, total: int) -> range:
        """Which of so many pairs this process cuts."""
        return ranks.share(total) if self._shared else range(total)

    def _plan(self, scenes: Sequence[NormalizedScene], before: int = 0, total: int | None = None) -> _Plan:
        """One crop pair from each of some scenes of the same size, in their order.

        Of a batch of `total` pairs they come after `before` others; only those of this process are read.
        """
        geometry = self._geometry(scenes[0], len(scenes))
        own = self._own(len(scenes) if total is None else total)
        sources: list[_Source] = []
        start = 0
        for _, run in itertools.groupby(scenes, key=id):
            same = list(run)
            scene, stop = same[0], start + len(same)
            first, last = max(start, own.start - before), min(stop, own.stop - before)
            if scene.whole is None:
                for i in range(start, stop):
                    # Of all pairs, since it may draw.
                    geometry[i] = self._with_data(scene, geometry[i])
                sources += [self._read(scene, pair) for pair in geometry[first : max(first, last)]]
            elif first < last:
                sources.append(_Source(scene.whole.expand(last - first, -1, -1, -1), geometry[first:last], None))
            start = stop
        return _Plan(sources, geometry[max(0, own.start - before) : max(0, own.stop - before)])

    def _read(self, scene: NormalizedScene, pair: Tensor) -> _Source:
        """The window that holds both crops of a pair (2, 9)."""
        top, left, height, width = self._box(pair)
        local = pair.clone()
        local[:, :2] -= torch.tensor([top, left])
        window = scene.window(top, left, height, width)
        valid = scene.valid(top, left, height, width)
        missing = None if valid is None else torch.from_numpy(~valid).to(window)[None, None]
        return _Source(window[None], local[None], missing)

    def _cut(self, plan: _Plan) -> CropBatch:
        count = len(plan.geometry)
        # A share may hold no pair.
        cubes = plan.sources[0].cubes if plan.sources else self.scenes[0].window(0, 0, 1, 1)[None]
        bands, (height, width) = cubes.shape[1], self.crop_size
        if self._memory is None:
            # Bands lie side by side and fill whole vector registers: convolutions are fastest on that (a third faster
            # than on planes of pixels forward, a quarter backward).
            most = -(-self.batch_size // ranks.count()) if self._shared else self.batch_size
            self._memory = cubes.new_zeros(2 * most, height, width, filled_bands(bands))
        padded = self._memory[: 2 * count].permute(0, 3, 1, 2)
        views = padded[:, :bands].unflatten(0, (2, count)).transpose(0, 1)
        missing = cubes.new_zeros(count, 2, 1, height, width) if self._gaps else None
        start = 0
        for source in plan.sources:
            own = slice(start, start + len(source.cubes))
            extract_crop_pairs(source.cubes, source.geometry, self.crop_size, out=views[own])
            if missing is not None and source.missing is not None:
                extract_crop_pairs(source.missing, source.geometry, self.crop_size, out=missing[own])
            start = own.stop
        valid = None if missing is None else (missing == 0).transpose(0, 1).reshape(2 * count, height, width)
        return CropBatch(padded, plan.geometry, valid, bands, plan.share)

    def _box(self, pair: Tensor) -> tuple[int, int, int, int]:
        """Top, left, height and width of the window around both crops of a pair (2, 9)."""
        (top, left), (bottom, right) = pair[:, :2].long().amin(0).tolist(), pair[:, :2].long().amax(0).tolist()
        return top, left, bottom - top + self.crop_size[0], right - left + self.crop_size[1]

    def _with_data(self, scene: NormalizedScene, pair: Tensor) -> Tensor:
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

    def _whole_batches(self) -> Generator[_Plan, None, None]:
        order = self._stream.permutation(len(self.scenes), device="cpu").tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = [self.scenes[i] for i in order[start : start + self.batch_size]]
            height = max(scene.shape[1] for scene in chosen)
            width = max(scene.shape[2] for scene in chosen)
            padded = [scene.padded(height, width) for scene in chosen]
            for _ in range(self.recipe.reuse_iter):
                yield self._plan(padded)._replace(share=self._share_of(len(padded)))

    def _random_scenes(self) -> Generator[_Plan, None, None]:
        for _ in range(self.steps_per_epoch):
            drawn = self._stream.integers(0, len(self.scenes) - 1, (self.batch_size,), device="cpu")
            # Scenes differ in size: those of one scene share a draw of the geometry.
            plans, before = [], 0
            for i, count in zip(*(x.tolist() for x in drawn.unique(return_counts=True)), strict=True):
                plans.append(self._plan([self.scenes[i]] * count, before, self.batch_size))
                before += count
            yield _Plan(
                [source for plan in plans for source in plan.sources],
                torch.cat([plan.geometry for plan in plans]),
                self._share_of(self.batch_size),
            )

    def _share_of(self, total: int) -> tuple[int, int, int] | None:
        return (self._own(total).start, self._own(total).stop, total) if self._shared else None
