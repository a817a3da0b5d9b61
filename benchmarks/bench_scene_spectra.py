"""scene_spectra: a piece of a scene in planes of pixels, normalised as prediction does it before the convolutions."""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse.benchmarks import harness
from spectrafuse.ops.scene_spectra import filled_bands, scene_spectra


class Size(NamedTuple):
    bands: int
    pixels: int


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    cube = torch.rand(size.bands, 1, size.pixels, generator=generator) + 0.1
    statistics = (torch.rand(size.bands, 1, 1, generator=generator) + 0.5 for _ in range(2))
    return cube, torch.zeros(1, size.pixels, filled_bands(size.bands)), *statistics


def call(cube: torch.Tensor, out: torch.Tensor, offset: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return scene_spectra(cube, out, "unit", offset, scale)


OPERATION = harness.Operation(
    name="scene_spectra",
    sizes={"small": Size(31, 1024), "paper": Size(301, 4096), "large": Size(301, 65536)},
    inputs=inputs,
    call=call,
    deciding=Size(13, 5120),
    counted=lambda size: (*size, filled_bands(size.bands)),
)


@harness.over(OPERATION)
def test_scene_spectra(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
