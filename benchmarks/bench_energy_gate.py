"""gate and energy_gate: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_energy_gate.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse import RandomStream
from spectrafuse.benchmarks import harness
from spectrafuse.ops import energy_gate, gate
from spectrafuse.ops.gate import GateNoise, Langevin


class Size(NamedTuple):
    batch: int
    components: int
    width: int


# The last hidden layer of the published evaluator is four times as wide as the pool.
SIZES = {"small": Size(16, 64, 256), "paper": Size(16, 1024, 4096), "large": Size(64, 2048, 8192)}


def noise(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    stream = RandomStream(1)
    return stream.normal((size.batch, size.components, 2), 0.57), stream.logistic((size.batch, size.components))


def gate_inputs(size: Size) -> tuple[torch.Tensor, ...]:
    return RandomStream(0).normal((size.batch, size.components, 2)), *noise(size)


def layer_inputs(size: Size) -> tuple[torch.Tensor, ...]:
    stream = RandomStream(0)
    hidden = stream.uniform((size.batch, size.width), -1.0, 1.0)
    weight = stream.normal((2 * size.components, size.width), 0.05)
    return hidden, weight, stream.normal((2 * size.components,), 0.05), *noise(size)


GATE = harness.Operation(
    name="gate",
    sizes=SIZES,
    inputs=gate_inputs,
    call=lambda energy, *numbers: gate(energy, GateNoise(*numbers), tau=0.7, langevin=Langevin()),
    counted=lambda size: (size.batch, size.components),
    deciding=Size(6, 5120, 0),
    leaves=(0,),
)
ENERGY_GATE = harness.Operation(
    name="energy_gate",
    sizes=SIZES,
    inputs=layer_inputs,
    call=lambda h, w, b, *numbers: energy_gate(h, w, b, GateNoise(*numbers), tau=0.7, langevin=Langevin()),
    deciding=Size(64, 64, 768),
    tests="ops/test_gate*.py",
    leaves=(0, 1, 2),
)


@harness.over(GATE)
def test_gate(benchmark, implementation, size, direction):
    harness.run(benchmark, GATE, implementation, size, direction)


@harness.over(ENERGY_GATE)
def test_energy_gate(benchmark, implementation, size, direction):
    harness.run(benchmark, ENERGY_GATE, implementation, size, direction)
