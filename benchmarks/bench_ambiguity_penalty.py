"""ambiguity_penalty: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_ambiguity_penalty.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

import harness
from spectrafuse.ops import ambiguity_penalty


class Size(NamedTuple):
    count: int
    dim: int
    kernel: str


def inputs(size: Size) -> tuple[torch.Tensor, str]:
    generator = torch.Generator().manual_seed(0)
    components = torch.randn(size.count, size.dim, generator=generator).abs()
    return components / components.norm(dim=1, keepdim=True), size.kernel


def operations(size: Size, direction: str) -> int:
    """For a pair, d multiply-adds or differences for its similarity, and two sums of d for the gradients."""
    per_number = {"laplacian": {"forward": 3, "backward": 6, "both": 9}}.get(
        size.kernel, {"forward": 2, "backward": 4, "both": 6}
    )[direction]
    return size.count * (size.count - 1) // 2 * size.dim * per_number


def bytes_moved(size: Size, direction: str) -> int:
    return 4 * size.count * size.dim * {"forward": 1, "backward": 2, "both": 2}[direction]


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
    operations=operations,
    bytes_moved=bytes_moved,
    leaves=(0,),
    without_reference=("large",),
)


@harness.over(OPERATION)
def test_ambiguity_penalty(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
