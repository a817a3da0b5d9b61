"""mean_shift_assign: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_mean_shift_assign.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

import harness
from spectrafuse.ops import mean_shift_assign

WINDOW, ITERATIONS = 5, 5


class Size(NamedTuple):
    batch: int
    dim: int
    side: int
    clusters: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(size.batch, size.dim, size.side, size.side, generator=generator), dim=1)
    return embeddings, F.normalize(torch.randn(size.clusters, size.dim, generator=generator), dim=1), torch.ones(())


def operations(size: Size, direction: str) -> int:
    """5 per neighbour, dimension and iteration forward, 9 for the one iteration that is differentiated."""
    per_neighbour = {"forward": 5 * ITERATIONS, "backward": 9, "both": 5 * ITERATIONS + 9}[direction]
    return size.batch * size.side**2 * WINDOW**2 * size.dim * per_neighbour


def bytes_moved(size: Size, direction: str) -> int:
    forward, backward = 3 * size.dim + size.clusters + 1, 5 * size.dim + 2 * size.clusters
    numbers = {"forward": forward, "backward": backward, "both": forward + backward}[direction]
    return 4 * size.batch * size.side**2 * numbers


OPERATION = harness.Operation(
    name="mean_shift_assign",
    sizes={"small": Size(1, 16, 32, 4), "paper": Size(4, 32, 64, 4), "large": Size(1, 32, 512, 16)},
    inputs=inputs,
    call=lambda *tensors: mean_shift_assign(*tensors, num_iters=ITERATIONS, window=WINDOW),
    operations=operations,
    bytes_moved=bytes_moved,
    leaves=(0, 1, 2),
    without_reference=("large",),
)


@harness.over(OPERATION)
def test_mean_shift_assign(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
