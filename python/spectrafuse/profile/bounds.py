"""What a device can do at best: the speed of a large copy and of a matrix product, measured in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

_SECONDS = 0.6
# However long they take: one try alone may be one that other programs interrupt.
_FEWEST = 5
# Bytes, more than any cache holds.
_COPIED = 1 << 28
_SIDE = {"cpu": 1024, "cuda": 4096}


class Bounds(NamedTuple):
    """Bytes and operations a second."""

    bandwidth: float
    product_rate: float

    def seconds(self, operations: float, moved: float) -> float:
        """The least time for work: of its arithmetic or of its traffic, whichever takes longer."""
        return max(operations / self.product_rate, moved / self.bandwidth)

    def is_arithmetic(self, operations: float, moved: float) -> bool:
        """Whether arithmetic is what takes longer."""
        return operations / self.product_rate >= moved / self.bandwidth


def measure(device: torch.device) -> Bounds:
    """Measure a device by float32 tensors; the best of as many tries as fit into a second, at least five."""
    numbers, side = _COPIED // 4, _SIDE[device.type]
    source = torch.ones(numbers, device=device)
    target, a = torch.empty_like(source), torch.rand(side, side, device=device)
    product = torch.empty_like(a)
    copied = _best(lambda: target.copy_(source), device)
    multiplied = _best(lambda: torch.mm(a, a, out=product), device)
    return Bounds(2 * 4 * numbers / copied, 2 * side**3 / multiplied)


def _best(call: Callable[[], object], device: torch.device) -> float:
    """Least seconds of a call."""
    call()
    _wait(device)
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < _FEWEST or time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        call()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
