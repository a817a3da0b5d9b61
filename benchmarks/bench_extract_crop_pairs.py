"""extract_crop_pairs: both views of every cube from memory; the kernel writes into memory it has written before."""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse import RandomStream, backends
from spectrafuse.benchmarks import harness
from spectrafuse.ops import extract_crop_pairs, sample_crop_pairs


class Size(NamedTuple):
    batch: int
    bands: int
    side: int
    crop: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    stream = RandomStream(0)
    cubes = stream.normal((size.batch, size.bands, size.side, size.side))
    geometry = sample_crop_pairs(size.batch, (size.side, size.side), (size.crop, size.crop), stream)
    return cubes, geometry, _memory(size)


def _memory(size: Size) -> torch.Tensor:
    """Views as training lays them out: bands side by side, filled up to a multiple of 16."""
    memory = torch.zeros(2, size.batch, size.crop, size.crop, -(-size.bands // 16) * 16)
    return memory[..., : size.bands].permute(1, 0, 4, 2, 3)


def call(cubes: torch.Tensor, geometry: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    own = backends.choose("extract_crop_pairs", "cpu") not in harness.BASELINES
    crop = (memory.shape[3], memory.shape[4])
    return extract_crop_pairs(cubes, geometry, crop, out=memory if own else None)


OPERATION = harness.Operation(
    name="extract_crop_pairs",
    sizes={"small": Size(1, 31, 64, 32), "paper": Size(4, 301, 256, 64), "large": Size(2, 301, 512, 256)},
    inputs=inputs,
    call=call,
    deciding=Size(1, 31, 40, 32),
    counted=lambda size: (size.batch, size.bands, size.crop**2),
)


@harness.over(OPERATION)
def test_extract_crop_pairs(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
