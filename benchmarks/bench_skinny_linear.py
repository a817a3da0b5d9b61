"""skinny_linear: time, memory and share of the bound of every implementation that runs here."""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse.benchmarks import harness
from spectrafuse.ops import skinny_linear


class Size(NamedTuple):
    batch: int
    inputs: int
    outputs: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (size.batch, size.inputs), (size.outputs, size.inputs), (size.outputs,)
    return tuple(torch.randn(*shape, generator=generator) * 0.05 for shape in shapes)


OPERATION = harness.Operation(
    name="skinny_linear",
    sizes={"small": Size(16, 256, 256), "paper": Size(16, 4096, 4096), "large": Size(64, 4096, 4096)},
    inputs=inputs,
    call=lambda x, weight, bias: skinny_linear(x, weight, bias, "tanh"),
    deciding=Size(64, 256, 256),
    leaves=(0, 1, 2),
)


@harness.over(OPERATION)
def test_skinny_linear(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
