"""Whether one version is slower than another, from paired samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

TOLERANCE = 0.05
"""A change of the time by less than this share is never called one."""
LOOKS = (16, 32, 64, 128)
"""Numbers of samples at which a comparison may end."""
CONFIDENCE = 1 - 0.01 / len(LOOKS)
"""Of one look's interval: all of them together hold with 99 %."""
FEWEST = math.ceil(1 - math.log2(1 - CONFIDENCE))
"""Samples that have an interval; fewer say nothing with this confidence."""


class Interval(NamedTuple):
    """A median and an interval that covers the true one with probability `CONFIDENCE` or more."""

    low: float
    median: float
    high: float


def median_interval(values: Sequence[float]) -> Interval:
    """Median with the distribution-free interval between two order statistics (the sign test turned round).

    No normality is assumed: interruptions give samples long tails, which the median does not see.
    """
    ordered = sorted(values)
    count = len(ordered)
    tail, rank, mass = 0.0, 0, 0.5**count
    # The largest rank whose tail, on both sides together, has at most the probability that may be missed.
    while rank < count // 2 and 2 * (tail + mass) <= 1 - CONFIDENCE:
        tail += mass
        rank += 1
        mass *= (count - rank + 1) / rank
    low, high = (-math.inf, math.inf) if rank == 0 else (ordered[rank - 1], ordered[count - rank])
    return Interval(low, statistics.median(ordered), high)


def verdict(log_ratios: Sequence[float]) -> str:
    """ "slower", "faster" or "same" for logarithms of head's times over base's; "undecided" asks for more samples."""
    return of_interval(median_interval(log_ratios))


def of_interval(interval: Interval, tolerance: float = TOLERANCE) -> str:
    """What an interval of the logarithm says.

    "Slower" means that the whole interval lies above the tolerance, "same" that it lies within.
    """
    edge = math.log1p(tolerance)
    if interval.low > edge:
        return "slower"
    if interval.high < -edge:
        return "faster"
    if -edge < interval.low and interval.high < edge:
        return "same"
    return "undecided"
