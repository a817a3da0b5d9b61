"""Segmentation of scenes of any size by strips of rows, equal to a run over the whole scene (docs/algorithms/dgc.md,
"Prediction").

The convolutions along the flattened pixels, which wrap from row to row, are nearly all of the work and read all bands:
they run over pieces of the flattened pixels, each with as many more pixels on both sides as can reach it. What they
give has few channels, and its rows are kept until the 3 x 3 convolutions and the mean-shift window have all the rows
that they look at. So no row of the scene is encoded twice, and the next strip is read from its file while this one is
computed. At the true ends of the scene the zero padding of the model applies, as in a run over the whole scene.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from spectrafuse._runtime import checks, ranks
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.progress import tell
from spectrafuse.dgc import metrics
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction.strips import read_strips
from spectrafuse.dgc.windows import fitted_to
from spectrafuse.io.cubes import Cube, as_cube
from spectrafuse.io.results import write_label_rows, write_label_share
from spectrafuse.ops.scene_spectra import filled_bands

DEFAULT_MEMORY = 5 << 26
_SPATIAL_RADIUS = 2
# Pixels of a piece: few enough that what a layer writes is in the processor's cache when the next one reads it.
_PIECE_PIXELS = 4096
_LEAST_PIECE = 256
# Pixels whose rows go through the second stage together, for the same reason.
_GROUP_PIXELS = 65536
# Bytes of a file that are in memory at a time: few enough for the cache, from which they go to their place.
_PAGES = 1 << 23
# Numbers of a strip as read; a larger one would only take longer to begin with.
_STRIP_NUMBERS = 1 << 24


class Strip(NamedTuple):
    """Rows `start` to `stop` of a scene; `first` to `last` are the rows that are needed for them."""

    start: int
    stop: int
    first: int
    last: int


def raster_reach(model: SegmentationModel) -> int:
    """Places along the flattened pixels beyond which the first convolutions do not look."""
    return model.encoder.n_spectral_layers * (model.encoder.spectral_kernel_size // 2)


def spatial_reach(model: SegmentationModel) -> int:
    """Rows and columns beyond which the 3 x 3 convolutions and the mean-shift window do not look."""
    return model.window // 2 + _SPATIAL_RADIUS


def halo_rows(model: SegmentationModel, width: int) -> int:
    """Rows beyond a strip that its labels depend on, in a scene of `width` columns."""
    return spatial_reach(model) + math.ceil(raster_reach(model) / width)


def reach(model: SegmentationModel) -> int:
    """Pixels, in any direction, beyond which a pixel's embedding and label do not depend on another one."""
    return spatial_reach(model) + raster_reach(model)


def strip_height(model: SegmentationModel, width: int, memory: int = DEFAULT_MEMORY) -> int:
    """Rows of a cube in memory, at least 1, whose labels one call of the model finds within about `memory` bytes."""
    checks.integer("memory", memory)
    # Cube rows as read, normalised and reordered by the convolution; embeddings in and out of a layer and shifted.
    values_per_pixel = 4 * model.n_bands + 8 * model.encoder.embed_dim + 2 * model.n_clusters
    rows = memory // (4 * values_per_pixel * width)
    return max(1, rows - 2 * halo_rows(model, width))


def plan_strips(height: int, rows: int, halo: int) -> list[Strip]:
    """Strips of at most `rows` rows that cover `height` rows, with their halo clipped to the scene."""
    checks.integer("rows", rows)
    return [
        Strip(start, min(start + rows, height), max(start - halo, 0), min(start + rows + halo, height))
        for start in range(0, height, rows)
    ]


class Budget(NamedTuple):
    """What is in memory at a time: rows of a strip, rows of a group of them, pixels of a piece, bytes of the file."""

    rows: int
    group: int
    pixels: int
    pages: int


def budget(
    model: SegmentationModel, shape: Sequence[int], memory: int, *, mapped: bool = False, probs: bool = False
) -> Budget:
    """The sizes that keep inference within `memory` bytes beyond what it starts with.

    A scene that is `mapped` (`Cube.mapped`) has one strip in memory at a time, and a piece of its file; others have
    two. `probs`: the clusters' probabilities are in memory as well.

    Raises
    ------
    ValueError
        If the smallest strip needs more; for a model whose mean shift takes all pixels, if the scene does.
    """
    checks.integer("max_memory", memory)
    bands, height, width = shape
    item, channels = model.centers.element_size(), model.encoder.embed_dim
    # Normalised, by plain PyTorch with its temporaries, and reordered by the convolution; in and out of the layers.
    per_pixel = item * (5 * bands + 8 * channels)
    # Strips as read; the rows between the stages, their layers, the shifted ones, labels.
    read = 4 * filled_bands(bands) * width if mapped else 2 * 4 * bands * width
    kept = (item * (10 * channels + (3 * model.n_clusters if probs else 0)) + 8) * width
    group = max(1, min(_GROUP_PIXELS // width, memory // (8 * kept)))
    pages = min(_PAGES, memory // 4) if mapped else 0
    halo = pages + 2 * math.ceil(raster_reach(model) / width) * read + (group + 2 * spatial_reach(model)) * kept
    pixels = max(_LEAST_PIECE, min(_PIECE_PIXELS, memory // (4 * per_pixel)))
    if model.dense:
        halo += height * (kept + 8 * item * model.n_clusters * width)
    rows = (memory - pixels * per_pixel - halo) // read
    if rows >= 1:
        # Where the numbers of a file follow each other along the columns, every strip goes through all its pages.
        most = height if mapped else max(1, _STRIP_NUMBERS // (bands * width))
        return Budget(min(rows, most, height), group, pixels, pages)
    least = math.ceil((pixels * per_pixel + halo + read) / 2**20)
    why = ", all at once because its mean shift takes all pixels" if model.dense else ""
    raise InvalidValueError(
        f"`max_memory` must be at least {least} MiB for a scene of {bands} bands, {height} rows and {width} columns"
        f"{why}; got {memory / 2**20:.4g} MiB."
    )


@torch.no_grad()
def iterate_embeddings(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
    probs: bool = False,
) -> Iterator[tuple[Strip, Tensor]]:
    """Strips of a scene with the embeddings (1, D, last - first, columns) of all their rows, on the model's device.

    Parameters
    ----------
    cube : Cube, array or tensor (bands, rows, columns)
        Pixels without data show the nearest pixel with data within the model's reach.
    normalization : Normalization
        A method; statistics, where it needs them and has none, are those of this scene.
    rows : int, optional
        Rows that are read at a time; without it, as many as `memory` allows.
    memory : int
        Bytes beyond what the process holds when it starts, on the host, and on the model's device if that is another.
        A model whose mean shift takes all pixels keeps the channels of the whole scene, and its strip is the scene.
    probs : bool
        Whether the caller asks for the probabilities of the clusters.

    Raises
    ------
    ValueError
        If the cube has not the model's bands, or `memory` is not enough.
    """
    cube = as_cube(cube)
    bands, height, width = cube.shape
    if bands != model.n_bands:
        raise InvalidValueError(f"The cube must have {model.n_bands} bands like the model; got {bands}.")
    if normalization.has_statistics and normalization.offset is None:
        normalization = normalization.fit(cube)
    device = model.centers.device
    if device.type == "cuda":
        memory = min(memory, torch.cuda.mem_get_info(device)[0])
    allowed = budget(model, cube.shape, memory, mapped=cube.mapped is not None, probs=probs)
    plan = plan_strips(height, allowed.rows if rows is None else rows, math.ceil(raster_reach(model) / width))
    distance = sum(cube.shape[1:]) if model.dense else reach(model)
    blocks = read_strips(cube, [strip[2:] for strip in plan], distance, allowed.pages)
    spectra = model.centers.new_empty(1, allowed.pixels + 2 * raster_reach(model), filled_bands(bands))
    halo = height if model.dense else spatial_reach(model)
    kept: list[Tensor] = []
    first = done = 0
    for strip in plan:
        block = next(blocks)
        for group in plan_strips(strip.stop - strip.start, allowed.group, 0):
            begin, end = strip.start + group.start, strip.start + group.stop
            inner = (begin - strip.first) * width, (end - strip.first) * width
            channels = _spectral(model, block, normalization, inner, spectra)
            kept.append(channels.view(1, end - begin, width, -1).permute(0, 3, 1, 2))
            stop = height if end == height else max(done, end - halo)
            if stop > done:
                channels = torch.cat(kept, dim=2)
                yield Strip(done, stop, first, end), model.encoder.spatial(channels)
                tell(stop, height)
                new_first = max(stop - halo, 0)
                kept, first, done = [channels[:, :, new_first - first :].clone()], new_first, stop


def _spectral(
    model: SegmentationModel, block: Tensor, normalization: Normalization, inner: tuple[int, int], spectra: Tensor
) -> Tensor:
    """What the convolutions along the pixels give for those from `inner[0]` to `inner[1]` of a block, (pixels, D).

    `spectra` (1, pixels of a piece, at least bands) is where the pieces are written, one after the other.
    """
    margin = raster_reach(model)
    out = spectra.new_empty((inner[1] - inner[0], model.encoder.embed_dim))
    pixels = spectra.shape[1] - 2 * margin
    for start in range(*inner, pixels):
        stop = min(start + pixels, inner[1])
        first, last = max(start - margin, 0), min(stop + margin, block.shape[2])
        # A batch of one, with the strides of a whole tensor: torch's convolutions take it for one with bands aside.
        piece = spectra.flatten()[: (last - first) * spectra.shape[2]].view(1, last - first, spectra.shape[2])
        normalization.spectra(block[:, :, first:last], piece)
        channels = model.encoder.spectral_net(piece.transpose(1, 2))[0]
        out[start - inner[0] : stop - inner[0]] = channels[:, start - first : stop - first].T
    return out


@torch.no_grad()
def iterate_labels(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Iterator[Tensor]:
    """The labels of a scene from its first row to its last, (rows, columns) int64 on the CPU; -1 where it has no data.

    Parameters as in `iterate_embeddings`.
    """
    cube = as_cube(cube)
    valid = cube.valid
    for strip, embeddings in iterate_embeddings(model, cube, normalization, rows=rows, memory=memory):
        labels = model.labels_of(embeddings)[0, strip.start - strip.first : strip.stop - strip.first].cpu()
        yield labels if valid is None else labels.masked_fill(torch.from_numpy(~valid[strip.start : strip.stop]), -1)


@torch.no_grad()
def _sure_labels(
    model: SegmentationModel,
    cube: Cube,
    normalization: Normalization,
    rows: int | None,
    memory: int,
    mapping: Mapping[int, Sequence[int]] | None,
    confidence: np.ndarray,
) -> Iterator[Tensor]:
    """`iterate_labels`, which writes the margins of `label_map` into `confidence`."""
    clusters = torch.arange(model.n_clusters)
    labels_of = (clusters if mapping is None else metrics.apply_mapping(clusters, mapping)).to(model.centers.device)
    for strip, embeddings in iterate_embeddings(model, cube, normalization, rows=rows, memory=memory, probs=True):
        probs = model.assign(embeddings).probs[0, strip.start - strip.first : strip.stop - strip.first]
        best, labels = probs.max(-1)
        others = probs.masked_fill(labels_of == labels_of[labels].unsqueeze(-1), 0.0).amax(-1)
        margin, labels = (best - others).float().cpu().numpy(), labels.cpu()
        if cube.valid is not None:
            absent = ~cube.valid[strip.start : strip.stop]
            margin[absent] = np.nan
            labels.masked_fill_(torch.from_numpy(absent), -1)
        confidence[strip.start : strip.stop] = margin
        yield labels


def label_map(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
    mapping: Mapping[int, Sequence[int]] | None = None,
    file: str | os.PathLike[str] | None = None,
    confidence: np.ndarray | None = None,
) -> np.ndarray:
    """Labels (rows, columns), int64, of a scene; -1 where it has no data.

    Parameters as in `iterate_embeddings`, and

    mapping : {label: [clusters]}, optional
        Labels that clusters are merged to.
    file : path, optional
        A `.npy` file that the labels are written to as they come; the result is mapped from it.
    confidence : ndarray (rows, columns), float32, optional
        Is filled with the probability of each pixel's cluster less that of the best cluster with another label, from 0
        to 1; NaN where the scene has no data.

    In a group of processes each labels its share of the rows; a `file` must be the same for all of them.
    """
    cube = as_cube(cube)
    if ranks.together():
        (fitted,) = fitted_to([cube], normalization) if normalization.offset is None else (normalization,)
        return _shared_label_map(model, cube, fitted, rows, memory, mapping, file, confidence)
    height, width = cube.shape[1:]
    strips = _label_strips(model, cube, normalization, rows, memory, mapping, confidence)
    if file is not None:
        return write_label_rows(file, (height, width), strips)
    out, done = np.empty((height, width), dtype=np.int64), 0
    for labels in strips:
        out[done : done + len(labels)] = labels
        done += len(labels)
    return out


def _label_strips(
    model: SegmentationModel,
    cube: Cube,
    normalization: Normalization,
    rows: int | None,
    memory: int,
    mapping: Mapping[int, Sequence[int]] | None,
    confidence: np.ndarray | None,
) -> Iterator[np.ndarray]:
    """The rows of `label_map`, from the first to the last."""
    if confidence is None:
        strips = iterate_labels(model, cube, normalization, rows=rows, memory=memory)
    else:
        strips = _sure_labels(model, cube, normalization, rows, memory, mapping, confidence)
    for clusters in strips:
        yield (clusters if mapping is None else metrics.apply_mapping(clusters, mapping)).numpy()


def _shared_label_map(
    model: SegmentationModel,
    cube: Cube,
    normalization: Normalization,
    rows: int | None,
    memory: int,
    mapping: Mapping[int, Sequence[int]] | None,
    file: str | os.PathLike[str] | None,
    confidence: np.ndarray | None,
) -> np.ndarray:
    """`label_map` by all processes of a group: each labels some rows, with as many more as these depend on."""
    _, height, width = cube.shape
    own = ranks.share(height)
    halo = height if model.dense else halo_rows(model, width) + (0 if cube.valid is None else reach(model))
    first, last = max(own.start - halo, 0), min(own.stop + halo, height)
    if not len(own):
        first = last = 0
    sure = None if confidence is None else np.empty((last - first, width), np.float32)

    def strips() -> Iterator[np.ndarray]:
        done = first
        part = cube.of_rows(first, last)
        for labels in _label_strips(model, part, normalization, rows, memory, mapping, sure) if len(own) else ():
            yield labels[max(own.start - done, 0) : max(own.stop - done, 0)]
            done += len(labels)

    if file is None:
        out = np.zeros((height, width), dtype=np.int64)
        out[own.start : own.stop] = np.concatenate([*strips(), np.empty((0, width), np.int64)])
        ranks.add([torch.from_numpy(out)])
    else:
        out = _shared_file(Path(file), (height, width), own.start, strips())
    if confidence is not None:
        assert sure is not None
        confidence[:] = 0
        confidence[own.start : own.stop] = sure[own.start - first : own.stop - first]
        ranks.add([torch.from_numpy(confidence)])
    return out


def _shared_file(path: Path, shape: tuple[int, int], first: int, strips: Iterator[np.ndarray]) -> np.ndarray:
    """A `.npy` file that every process writes its rows into, mapped; it is complete or as it was before."""
    temporary = Path(ranks.from_first(lambda: f"{path.with_suffix('')}.{secrets.token_hex(6)}.tmp.npy"))
    try:
        write_label_share(temporary, shape, first, strips)
        ranks.gathered(None)
        ranks.from_first(lambda: os.replace(temporary, path))
    finally:
        temporary.unlink(missing_ok=True)
    mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def predict_labels(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Tensor:
    """`label_map` as a tensor."""
    return torch.from_numpy(label_map(model, cube, normalization, rows=rows, memory=memory))


@torch.no_grad()
def predict_probs(
    model: SegmentationModel,
    cube: Any,
    normalization: Normalization,
    *,
    rows: int | None = None,
    memory: int = DEFAULT_MEMORY,
) -> Tensor:
    """Assignments (rows, columns, K) on the CPU; 0 where a scene has no data. Parameters as in `iterate_embeddings`."""
    cube = as_cube(cube)
    out = torch.empty((*cube.shape[1:], model.n_clusters), dtype=model.centers.dtype)
    for strip, embeddings in iterate_embeddings(model, cube, normalization, rows=rows, memory=memory):
        out[strip.start : strip.stop] = _probs(model, strip, embeddings, cube.valid)
    return out


@torch.no_grad()
def cluster_mass(
    model: SegmentationModel, cubes: Any, normalization: Normalization, *, memory: int = DEFAULT_MEMORY
) -> Tensor:
    """Mean probability of every cluster over all pixels of the scenes that have data, (K,) float64 on the CPU."""
    total = torch.zeros(model.n_clusters, dtype=torch.float64)
    pixels = 0
    for cube in map(as_cube, cubes):
        valid = cube.valid
        for strip, embeddings in iterate_embeddings(model, cube, normalization, memory=memory):
            total += _probs(model, strip, embeddings, valid).double().sum(dim=(0, 1)).cpu()
        pixels += cube.shape[1] * cube.shape[2] if valid is None else int(valid.sum())
    return total / pixels


def _probs(model: SegmentationModel, strip: Strip, embeddings: Tensor, valid: np.ndarray | None) -> Tensor:
    """Assignments (rows, columns, K) of a strip's own rows; 0 where there are no data."""
    probs = model.assign(embeddings).probs[0, strip.start - strip.first : strip.stop - strip.first]
    if valid is None:
        return probs
    return probs * torch.from_numpy(valid[strip.start : strip.stop]).unsqueeze(-1).to(probs)
