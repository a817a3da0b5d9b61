"""gated_mixture and sparse_gated_mixture: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_gated_mixture.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

import harness
from spectrafuse import RandomStream
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


def operations(size: Size, direction: str) -> int:
    """A product of a sample's weight and a component forward, two of them backward."""
    products = {"forward": 1, "backward": 2, "both": 3}[direction]
    return 2 * products * size.batch * size.components * size.bands


def bytes_moved(size: Size, direction: str) -> int:
    """Components are read once, and once more with their gradient written."""
    return 4 * {"forward": 1, "backward": 2, "both": 3}[direction] * size.components * size.bands


def sparse_operations(size: Size, direction: str) -> int:
    """About 300 a gate in each direction, most of them random words."""
    directions = 2 if direction == "both" else 1
    return 300 * directions * size.batch * size.components * size.bands


def sparse_bytes(size: Size, direction: str) -> int:
    return 3 * bytes_moved(size, direction)


GATED_MIXTURE = harness.Operation(
    name="gated_mixture",
    sizes={"small": Size(16, 64, 512), "paper": Size(16, 1024, 512), "large": Size(64, 4096, 512)},
    inputs=inputs,
    call=gated_mixture,
    operations=operations,
    bytes_moved=bytes_moved,
    leaves=(0, 1, 2),
    without_reference=("large",),
)
SPARSE_GATED_MIXTURE = harness.Operation(
    name="sparse_gated_mixture",
    sizes={"small": Size(16, 32, 128), "paper": Size(16, 256, 512), "large": Size(16, 1024, 512)},
    inputs=sparse_inputs,
    call=lambda *tensors: sparse_gated_mixture(*tensors, rng=torch.tensor([0, 1]), tau=0.7, langevin=Langevin()),
    operations=sparse_operations,
    bytes_moved=sparse_bytes,
    leaves=(0, 1, 2, 3),
    without_reference=("large",),
)


@harness.over(GATED_MIXTURE)
def test_gated_mixture(benchmark, implementation, size, direction):
    harness.run(benchmark, GATED_MIXTURE, implementation, size, direction)


@harness.over(SPARSE_GATED_MIXTURE)
def test_sparse_gated_mixture(benchmark, implementation, size, direction):
    harness.run(benchmark, SPARSE_GATED_MIXTURE, implementation, size, direction)
