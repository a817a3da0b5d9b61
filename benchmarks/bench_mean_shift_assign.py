"""mean_shift_assign: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_mean_shift_assign.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from spectrafuse.benchmarks import harness
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


OPERATION = harness.Operation(
    name="mean_shift_assign",
    sizes={"small": Size(1, 16, 32, 4), "paper": Size(4, 32, 64, 4), "large": Size(1, 32, 512, 16)},
    inputs=inputs,
    call=lambda *tensors: mean_shift_assign(*tensors, num_iters=ITERATIONS, window=WINDOW),
    deciding=Size(1, 16, 32, 4),
    counted=lambda size: (size.batch * size.side**2, size.dim, size.clusters, ITERATIONS, WINDOW),
    leaves=(0, 1, 2),
    without_reference=("large",),
)


@harness.over(OPERATION)
def test_mean_shift_assign(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
