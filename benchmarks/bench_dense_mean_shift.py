"""dense_mean_shift: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_dense_mean_shift.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

import harness
from harness import counts
from spectrafuse.ops import dense_mean_shift

ITERATIONS = 5


class Size(NamedTuple):
    batch: int
    dim: int
    side: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(size.batch, size.dim, size.side, size.side, generator=generator)
    return F.normalize(embeddings, dim=1), torch.ones(())


OPERATION = harness.Operation(
    name="dense_mean_shift",
    sizes={"small": Size(2, 16, 24), "paper": Size(1, 32, 64), "large": Size(1, 32, 128)},
    inputs=inputs,
    call=lambda *tensors: dense_mean_shift(*tensors, num_iters=ITERATIONS),
    counts=lambda size: counts.dense_mean_shift(size.batch, size.dim, size.side**2, ITERATIONS),
    leaves=(0, 1),
    without_reference=("large",),
)


@harness.over(OPERATION)
def test_dense_mean_shift(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
