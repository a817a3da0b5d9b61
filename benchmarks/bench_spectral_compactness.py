"""spectral_compactness: time, memory and share of the bound of every implementation that runs here.

The gradient goes to the assignments only, as in training. `make bench`, or `python -m pytest
benchmarks/bench_spectral_compactness.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from spectrafuse.benchmarks import harness
from spectrafuse.ops import spectral_compactness


class Size(NamedTuple):
    batch: int  # of both views
    bands: int
    side: int
    clusters: int
    layout: torch.memory_format = torch.contiguous_format


def inputs(size: Size) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    spectra = torch.randn(size.batch, size.bands, size.side, size.side, generator=generator)
    probs = torch.randn(size.batch, size.side, size.side, size.clusters, generator=generator).softmax(-1)
    return spectra.contiguous(memory_format=size.layout), probs


OPERATION = harness.Operation(
    name="spectral_compactness",
    sizes={
        "small": Size(2, 100, 32, 4),
        "paper": Size(8, 301, 64, 4),
        "paper-channels-last": Size(8, 301, 64, 4, torch.channels_last),
        "large": Size(8, 301, 64, 32),
    },
    inputs=inputs,
    call=spectral_compactness,
    deciding=Size(2, 40, 32, 4),
    counted=lambda size: (size.batch * size.side**2, size.bands, size.clusters),
    leaves=(1,),
)


@harness.over(OPERATION)
def test_spectral_compactness(benchmark, implementation, size, direction):
    harness.run(benchmark, OPERATION, implementation, size, direction)
