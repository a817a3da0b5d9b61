"""Segmentation of scenes of any size by strips of rows, equal to a run over the whole scene (spec "Encoder").

A strip carries as many neighbour rows as can reach its labels: the mean-shift window, two 3 x 3 convolutions, and the
convolutions along the flattened pixels, which wrap from row to row. At the true top and bottom there are no rows, and
the zero padding of the model applies, as in a run over the whole scene.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrafuse import _checks
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.windows import fill_nearest, valid_pixels

DEFAULT_MEMORY = 1 << 30
_SPATIAL_RADIUS = 2


class Strip(NamedTuple):
    """Rows `start` to `stop` of a scene; `first` to `last` are the rows that must be read for them."""

    start: int
    stop: int
    first: int
    last: int


def halo_rows(model: SegmentationModel, width: int) -> int:
    """Rows beyond a strip that its labels depend on, in a scene of `width` columns."""
    raster = model.encoder.n_spectral_layers * (model.encoder.spectral_kernel_size // 2)
    return model.window // 2 + _SPATIAL_RADIUS + math.ceil(raster / width)


def reach(model: SegmentationModel) -> int:
    """Pixels, in any direction, beyond which a pixel's embedding and label do not depend on another one."""
    raster = model.encoder.n_spectral_layers * (model.encoder.spectral_kernel_size // 2)
    return model.window // 2 + _SPATIAL_RADIUS + raster


def strip_height(model: SegmentationModel, width: int, memory: int = DEFAULT_MEMORY) -> int:
    """Rows of a strip, at least 1, that keep inference within about `memory` bytes."""
    _checks.integer("memory", memory)
    # Cube rows as read, normalised and reordered by the convolution; embeddings in and out of a layer and shifted.
    values_per_pixel = 4 * model.n_bands + 8 * model.encoder.embed_dim + 2 * model.n_clusters
    rows = memory // (4 * values_per_pixel * width)
    return max(1, rows - 2 * halo_rows(model, width))


def plan_strips(height: int, rows: int, halo: int) -> list[Strip]:
    """Strips of at most `rows` rows that cover `height` rows, with their halo clipped to the scene."""
    _checks.integer("rows", rows)
    return [
        Strip(start, min(start + rows, height), max(start - halo, 0), min(start + rows + halo, height))
        for start in range(0, height, rows)
    ]


def iterate_strips(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
    halo: int | None = None,
) -> Iterator[tuple[Strip, Tensor]]:
    """The strips of a scene with their normalised cube rows (1, C, rows, W) on the model's device.

    Parameters
    ----------
    cube : array-like (C, H, W)
        Anything with a shape that can be sliced by rows: array, tensor, memory map, `CubeSource`. Where it has an
        attribute `valid` that is not None, pixels without data show the nearest pixel with data within the model's
        reach.
    normalization : Normalization
        A method; statistics, where it needs them and has none, are those of this scene.
    rows : int, optional
        Rows of a strip; without it, as many as `memory` bytes allow.
    halo : int, optional
        Neighbour rows; `halo_rows` of the scene's width without it.
    """
    bands, height, width = cube.shape
    if bands != model.n_bands:
        raise ValueError(f"The cube must have {model.n_bands} bands like the model; got {bands}.")
    parameter = model.centers
    if normalization.has_statistics and normalization.offset is None:
        normalization = normalization.fit(cube)
    if model.dense:
        strips = [Strip(0, height, 0, height)]  # every pixel is a neighbour of every other
    else:
        rows = strip_height(model, width, memory) if rows is None else rows
        strips = plan_strips(height, rows, halo_rows(model, width) if halo is None else halo)
    for strip in strips:
        block = _normalised_rows(cube, strip, normalization, height if model.dense else reach(model))
        yield strip, block.to(device=parameter.device, dtype=parameter.dtype).unsqueeze(0)


def _normalised_rows(cube: Any, strip: Strip, normalization: Normalization, distance: int) -> Tensor:
    """Rows `first` to `last` of a scene; pixels without data show the nearest one with data within a distance."""
    valid = valid_pixels(cube)
    if valid is None:
        return normalization.transform(cube[:, strip.first : strip.last])
    # Rows beyond the halo, so that what fills a pixel does not depend on where strips begin.
    first, last = max(strip.first - distance, 0), strip.last + distance
    rows = fill_nearest(normalization.transform(cube[:, first:last]), valid[first:last], distance)
    return rows[:, strip.first - first : strip.last - first]


@torch.no_grad()
def predict_labels(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
    halo: int | None = None,
) -> Tensor:
    """Labels (H, W), int64 on the CPU, of a scene; -1 where it has no data. Parameters as in `iterate_strips`."""
    out = torch.empty(tuple(cube.shape[1:]), dtype=torch.int64)
    for strip, block in iterate_strips(model, cube, normalization, rows=rows, memory=memory, halo=halo):
        labels = model.labels(block)[0]
        out[strip.start : strip.stop] = labels[strip.start - strip.first : strip.stop - strip.first]
    valid = valid_pixels(cube)
    return out if valid is None else out.masked_fill(torch.from_numpy(~valid), -1)


@torch.no_grad()
def predict_probs(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
    halo: int | None = None,
) -> Tensor:
    """Assignments (H, W, K) on the CPU of a scene; 0 where it has no data. Parameters as in `iterate_strips`."""
    out = torch.empty((*cube.shape[1:], model.n_clusters), dtype=model.centers.dtype)
    for strip, block in iterate_strips(model, cube, normalization, rows=rows, memory=memory, halo=halo):
        probs = model(block).probs[0]
        out[strip.start : strip.stop] = probs[strip.start - strip.first : strip.stop - strip.first]
    valid = valid_pixels(cube)
    return out if valid is None else out.masked_fill(torch.from_numpy(~valid).unsqueeze(-1), 0)


@torch.no_grad()
def cluster_mass(
    model: SegmentationModel, cubes: Any, normalization: Normalization, *, memory: int = DEFAULT_MEMORY
) -> Tensor:
    """Mean probability of every cluster over all pixels of the scenes that have data, (K,) float64 on the CPU."""
    total = torch.zeros(model.n_clusters, dtype=torch.float64)
    pixels = 0
    for cube in cubes:
        valid = valid_pixels(cube)
        for strip, block in iterate_strips(model, cube, normalization, memory=memory):
            probs = model(block).probs[0, strip.start - strip.first : strip.stop - strip.first]
            if valid is not None:
                probs = probs * torch.from_numpy(valid[strip.start : strip.stop]).unsqueeze(-1).to(probs.device)
            total += probs.double().sum(dim=(0, 1)).cpu()
        pixels += cube.shape[1] * cube.shape[2] if valid is None else int(valid.sum())
    return total / pixels
