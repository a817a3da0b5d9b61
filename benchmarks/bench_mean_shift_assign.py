"""mean_shift_assign: time, memory and share of the bound of every implementation that runs here.

`make bench`, or `python -m pytest benchmarks/bench_mean_shift_assign.py`.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import harness
from spectrafuse import use_backend
from spectrafuse.ops import mean_shift_assign

# batch, dim, height and width, clusters; window 5, 5 iterations
SIZES = {"small": (1, 16, 32, 4), "paper": (4, 32, 64, 4), "large": (1, 32, 512, 16)}
WINDOW, ITERATIONS = 5, 5


def _call(backend: str, size: str, backward: bool):
    batch, dim, side, clusters = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(batch, dim, side, side, generator=generator), dim=1)
    centers = F.normalize(torch.randn(clusters, dim, generator=generator), dim=1)
    bandwidth = torch.ones(())

    def forward():
        with use_backend(backend), torch.no_grad():
            return mean_shift_assign(embeddings, centers, bandwidth, num_iters=ITERATIONS, window=WINDOW)

    def both():
        leaves = [x.detach().requires_grad_() for x in (embeddings, centers, bandwidth)]
        with use_backend(backend):
            shifted, probs = mean_shift_assign(*leaves, num_iters=ITERATIONS, window=WINDOW)
        torch.autograd.backward((shifted, probs), (torch.ones_like(shifted), torch.ones_like(probs)))

    return both if backward else forward


def _operations(size: str, backward: bool) -> int:
    """Additions and multiplications: 5 per neighbour, dimension and iteration forward, 9 for the one backward."""
    batch, dim, side, _ = SIZES[size]
    return batch * side * side * WINDOW * WINDOW * dim * (5 * ITERATIONS + (9 if backward else 0))


def _bytes(size: str, backward: bool) -> int:
    batch, dim, side, clusters = SIZES[size]
    return 4 * batch * side * side * ((3 * dim + clusters + 1) + ((5 * dim + 2 * clusters) if backward else 0))


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
def test_mean_shift_assign(benchmark, backend, size, direction):
    backward = direction == "both"

    def make_call(name):
        # The reference needs 10 GB at the large size.
        return None if name == "reference" and size == "large" else _call(name, size, backward)

    harness.run(
        benchmark,
        "mean_shift_assign",
        backend,
        f"{size} {direction}",
        make_call,
        operations=_operations(size, backward),
        bytes_moved=_bytes(size, backward),
    )
