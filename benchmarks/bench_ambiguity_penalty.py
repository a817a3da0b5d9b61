"""ambiguity_penalty: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_ambiguity_penalty.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

import harness
from harness import counts
from spectrafuse.ops import ambiguity_penalty


class Size(NamedTuple):
    count: int
    dim: int
    kernel: str


def inputs(size: Size) -> tuple[torch.Tensor, str]:
    generator = torch.Generator().manual_seed(0)
    components = torch.randn(size.count, size.dim, generator=generator).abs()
    return components / components.norm(dim=1, keepdim=True), size.kernel


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
    counts=lambda size: counts.ambiguity_penalty(size.count, size.dim, size.kernel == "laplacian"),
    leaves=(0,),
    without_reference=("large",),
)


@harness.over(OPERATION)
def test_ambiguity_penalty(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
