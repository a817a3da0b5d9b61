"""clustering_objective, the training objective of both views, as the recipes `corrected` and `published` call it.

`make bench`, or `python -m pytest benchmarks/bench_clustering_objective.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from spectrafuse import RandomStream
from spectrafuse.benchmarks import harness
from spectrafuse.ops import clustering_objective, sample_crop_pairs

WINDOW, ITERATIONS = 5, 5


class Size(NamedTuple):
    pairs: int
    dim: int
    side: int
    clusters: int


SIZES = {"small": Size(1, 16, 32, 4), "paper": Size(4, 32, 64, 4), "large": Size(1, 32, 256, 16)}


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    stream = RandomStream(0)
    embeddings = F.normalize(stream.normal((2 * size.pairs, size.dim, size.side, size.side)), dim=1)
    centers = F.normalize(stream.normal((size.clusters, size.dim)), dim=1)
    crop = (size.side, size.side)
    geometry = sample_crop_pairs(size.pairs, (4 * size.side, 4 * size.side), crop, stream)
    labels = stream.integers(0, size.clusters - 1, (2, size.pairs * size.side**2))
    return embeddings, centers, torch.ones(()), geometry, labels


def corrected(embeddings: Any, centers: Any, bandwidth: Any, geometry: Any, labels: Any) -> Any:
    return clustering_objective(embeddings, centers, bandwidth, geometry, num_iters=ITERATIONS, window=WINDOW)


def published(embeddings: Any, centers: Any, bandwidth: Any, geometry: Any, labels: Any) -> Any:
    return clustering_objective(
        embeddings,
        centers,
        bandwidth,
        None,
        num_iters=ITERATIONS,
        window=WINDOW,
        aligned=False,
        pseudo_labels=labels,
        memory_order_sums=True,
    )


def _operation(call: Any, variant: str) -> harness.Operation:
    return harness.Operation(
        name="clustering_objective",
        sizes=SIZES,
        inputs=inputs,
        call=call,
        counted=lambda size: (2 * size.pairs * size.side**2, size.dim, size.clusters, ITERATIONS, WINDOW),
        deciding=SIZES["small"],
        leaves=(0, 1, 2),
        without_reference=("large",),
        variant=variant,
    )


CORRECTED, PUBLISHED = _operation(corrected, "corrected"), _operation(published, "published")


@harness.over(CORRECTED)
def test_corrected(benchmark, implementation, size, direction):
    harness.run(benchmark, CORRECTED, implementation, size, direction)


@harness.over(PUBLISHED)
def test_published(benchmark, implementation, size, direction):
    harness.run(benchmark, PUBLISHED, implementation, size, direction)
