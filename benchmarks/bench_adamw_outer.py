"""adamw_outer: time, memory and share of the bound of every implementation that runs here."""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse.benchmarks import harness
from spectrafuse.ops import adamw_outer


class Size(NamedTuple):
    batch: int
    inputs: int
    outputs: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    weight = (size.outputs, size.inputs)
    shapes = (size.batch, size.inputs), (size.batch, size.outputs), weight, weight
    return (*(torch.randn(*shape, generator=generator) * 0.05 for shape in shapes), torch.full(weight, 1e-4))


def step(*tensors: torch.Tensor) -> None:
    adamw_outer(*tensors, lr=5e-4, beta1=0.9, beta2=0.995, eps=1e-8, weight_decay=1e-3, step=10)


OPERATION = harness.Operation(
    name="adamw_outer",
    sizes={"small": Size(16, 256, 256), "paper": Size(16, 4096, 4096), "large": Size(64, 4096, 4096)},
    inputs=inputs,
    call=step,
    deciding=Size(128, 128, 256),
)


@harness.over(OPERATION)
def test_adamw_outer(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
