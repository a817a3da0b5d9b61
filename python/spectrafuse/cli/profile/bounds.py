"""What a device can do at best: the speed of a large copy and of float32 arithmetic, measured in two seconds.

Libraries use some processors in part only: on AMD's, MKL's matrix products leave half of AVX-512 idle and oneDNN's
convolutions do not. On a processor both are tried; on a GPU, convolutions compute in lower precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

_SECONDS = 0.6
# However long they take: one try alone may be one that other programs interrupt.
_FEWEST = 5
# Bytes, more than any cache holds.
_COPIED = 1 << 28
_SIDE = {"cpu": 1024, "cuda": 4096}
_CHANNELS = 256


class Bounds(NamedTuple):
    """Bytes and operations a second."""

    bandwidth: float
    arithmetic_rate: float

    def seconds(self, operations: float, moved: float) -> float:
        """The least time for work: of its arithmetic or of its traffic, whichever takes longer."""
        return max(operations / self.arithmetic_rate, moved / self.bandwidth)

    def is_arithmetic(self, operations: float, moved: float) -> bool:
        """Whether arithmetic is what takes longer."""
        return operations / self.arithmetic_rate >= moved / self.bandwidth


def measure(device: torch.device) -> Bounds:
    """Measure a device by float32 tensors; the best of as many tries as fit into the time, at least five of each."""
    numbers, side = _COPIED // 4, _SIDE[device.type]
    source = torch.ones(numbers, device=device)
    target, a = torch.empty_like(source), torch.rand(side, side, device=device)
    product = torch.empty_like(a)
    copied = _best(lambda: target.copy_(source), device)
    rate = 2 * side**3 / _best(lambda: torch.mm(a, a, out=product), device)
    if device.type == "cpu":
        image = torch.rand(1, _CHANNELS, 64, 64).contiguous(memory_format=torch.channels_last)
        weight = torch.rand(_CHANNELS, _CHANNELS, 3, 3).contiguous(memory_format=torch.channels_last)
        convolved = _best(lambda: F.conv2d(image, weight, padding=1), device)
        rate = max(rate, 2 * 64 * 64 * 9 * _CHANNELS**2 / convolved)
    return Bounds(2 * 4 * numbers / copied, rate)


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
