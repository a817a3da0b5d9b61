"""dense_mean_shift: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_dense_mean_shift.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from spectrafuse.benchmarks import harness
from spectrafuse.ops import dense_mean_shift
from spectrafuse.ops.mean_shift_assign.reference import WEIGHT_EPS

ITERATIONS = 5


class Size(NamedTuple):
    batch: int
    dim: int
    side: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(size.batch, size.dim, size.side, size.side, generator=generator)
    return F.normalize(embeddings, dim=1), torch.ones(())


def keops(embeddings: torch.Tensor, bandwidth: torch.Tensor) -> torch.Tensor:
    """The same with KeOps, which makes no N x N tensor either."""
    from pykeops.torch import LazyTensor

    point = embeddings.flatten(2).transpose(1, 2).contiguous()
    for _ in range(ITERATIONS):
        one, other = LazyTensor(point[:, :, None]), LazyTensor(point[:, None])
        weights = (-((one - other) ** 2).sum(-1) / (2 * bandwidth**2)).exp()
        point = (weights @ point) / (weights.sum(2) + WEIGHT_EPS)
    return point.transpose(1, 2).reshape(embeddings.shape)


OPERATION = harness.Operation(
    name="dense_mean_shift",
    sizes={"small": Size(2, 16, 24), "paper": Size(1, 32, 64), "large": Size(1, 32, 96)},
    inputs=inputs,
    call=lambda *tensors: dense_mean_shift(*tensors, num_iters=ITERATIONS),
    deciding=Size(1, 16, 20),
    counted=lambda size: (size.batch, size.dim, size.side**2, ITERATIONS),
    leaves=(0, 1),
    without_reference=("large",),
    peers={"keops": keops},
)


@harness.over(OPERATION)
def test_dense_mean_shift(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
