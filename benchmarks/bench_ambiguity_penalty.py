"""ambiguity_penalty: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_ambiguity_penalty.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse.benchmarks import harness
from spectrafuse.ops import ambiguity_penalty


class Size(NamedTuple):
    count: int
    dim: int
    kernel: str


def inputs(size: Size) -> tuple[torch.Tensor, str]:
    generator = torch.Generator().manual_seed(0)
    components = torch.randn(size.count, size.dim, generator=generator).abs()
    return components / components.norm(dim=1, keepdim=True), size.kernel


def keops(components: torch.Tensor, kernel: str) -> torch.Tensor:
    """The same with KeOps, which makes no (n, n, d) tensor either."""
    from pykeops.torch import LazyTensor

    one, other = LazyTensor(components[:, None]), LazyTensor(components[None])
    distance = (one - other).abs().sum(-1) if kernel == "laplacian" else ((one - other) ** 2).sum(-1) / 2
    count = len(components)
    return ((-distance).exp().sum(1).sum() - count) / (count * (count - 1))


OPERATION = harness.Operation(
    name="ambiguity_penalty",
    sizes={
        "small": Size(64, 512, "rbf"),
        "paper": Size(1024, 512, "rbf"),
        "paper-laplacian": Size(1024, 512, "laplacian"),
        "large": Size(4096, 512, "rbf"),
    },
    inputs=inputs,
    call=ambiguity_penalty,
    deciding=Size(256, 128, "rbf"),
    counted=lambda size: (size.count, size.dim, size.kernel == "laplacian"),
    leaves=(0,),
    gradient_in_forward=True,
    without_reference=("large",),
    peers={"keops": keops},
)


@harness.over(OPERATION)
def test_ambiguity_penalty(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
