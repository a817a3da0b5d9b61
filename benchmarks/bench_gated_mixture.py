"""gated_mixture and sparse_gated_mixture: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_gated_mixture.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse import RandomStream
from spectrafuse.benchmarks import harness
from spectrafuse.ops import gated_mixture, sparse_gated_mixture
from spectrafuse.ops.gate import Langevin


class Size(NamedTuple):
    batch: int
    components: int
    bands: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    stream = RandomStream(0)
    shape = (size.batch, size.components)
    return stream.uniform(shape, 0.0, 10.0), stream.uniform(shape), stream.normal((size.components, size.bands), 0.1)


def sparse_inputs(size: Size) -> tuple[torch.Tensor, ...]:
    return *inputs(size), RandomStream(1).normal((size.components, size.bands, 2), 0.05)


GATED_MIXTURE = harness.Operation(
    name="gated_mixture",
    sizes={"small": Size(16, 64, 512), "paper": Size(16, 1024, 512), "large": Size(64, 4096, 512)},
    inputs=inputs,
    call=gated_mixture,
    deciding=Size(64, 448, 128),
    leaves=(0, 1, 2),
    without_reference=("large",),
)
SPARSE_GATED_MIXTURE = harness.Operation(
    name="sparse_gated_mixture",
    sizes={"small": Size(16, 32, 128), "paper": Size(16, 256, 512), "large": Size(16, 1024, 512)},
    inputs=sparse_inputs,
    call=lambda *tensors: sparse_gated_mixture(
        *tensors, rng=torch.tensor([0, 1], device=tensors[0].device), tau=0.7, langevin=Langevin()
    ),
    deciding=Size(2, 448, 16),
    leaves=(0, 1, 2, 3),
    without_reference=("large",),
)


@harness.over(GATED_MIXTURE)
def test_gated_mixture(benchmark, implementation, size, direction):
    harness.run(benchmark, GATED_MIXTURE, implementation, size, direction)


@harness.over(SPARSE_GATED_MIXTURE)
def test_sparse_gated_mixture(benchmark, implementation, size, direction):
    harness.run(benchmark, SPARSE_GATED_MIXTURE, implementation, size, direction)
