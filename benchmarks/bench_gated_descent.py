"""gated_descent: gates of all spectra for given components, as the refinement decides them in every round."""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse.benchmarks import harness
from spectrafuse.ops.gated_descent import gated_descent

SWEEPS = 4


class Size(NamedTuple):
    samples: int
    components: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    """Spectra of up to three components, in units of a hundredth of their size."""
    generator = torch.Generator().manual_seed(0)
    shapes = torch.rand(size.components, 512, dtype=torch.float64, generator=generator)
    shapes /= shapes.norm(dim=1, keepdim=True)
    amounts = torch.zeros(size.samples, size.components, dtype=torch.float64)
    open_gates = torch.randint(size.components, (size.samples, 3), generator=generator)
    amounts.scatter_(1, open_gates, 100 * (1 + torch.rand(size.samples, 3, dtype=torch.float64, generator=generator)))
    spectra = amounts @ shapes + torch.randn(size.samples, 512, dtype=torch.float64, generator=generator)
    return spectra @ shapes.T, shapes @ shapes.T, amounts, torch.full((size.components,), 5.0, dtype=torch.float64)


def call(along: torch.Tensor, overlap: torch.Tensor, amounts: torch.Tensor, smallest: torch.Tensor) -> torch.Tensor:
    return gated_descent(along, overlap, amounts.clone(), smallest, sweeps=SWEEPS)


OPERATION = harness.Operation(
    name="gated_descent",
    sizes={"small": Size(64, 16), "paper": Size(1024, 256), "large": Size(20000, 64)},
    inputs=inputs,
    call=call,
    deciding=Size(256, 64),
    without_reference=("paper", "large"),
)


@harness.over(OPERATION)
def test_gated_descent(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
