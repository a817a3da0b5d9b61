"""Arithmetic and traffic by count: what benchmarks and profiles measure time against.

Every operation declares its own (`spectrafuse.backends.declare`). Operations are additions and multiplications; bytes
are those that must be read and written however an operation is carried out, of numbers of four bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

BYTES = 4
"""Of a number, float32."""


class Work(NamedTuple):
    """What one call does."""

    operations: int
    bytes: int

    def __add__(self, other: Work) -> Work:  # type: ignore[override]
        return Work(self.operations + other.operations, self.bytes + other.bytes)


class Counts(NamedTuple):
    """What an operation does in each direction."""

    forward: Work
    backward: Work
    both: Work

    def of(self, direction: str) -> Work:
        """Of "forward", "backward" or "both"."""
        return {"forward": self.forward, "backward": self.backward, "both": self.both}[direction]


def counts(operations: tuple[int, int], numbers: tuple[int, int], numbers_of_both: int | None = None) -> Counts:
    """From operations, and numbers that are read or written, forward and backward."""
    both = sum(numbers) if numbers_of_both is None else numbers_of_both
    return Counts(
        Work(operations[0], BYTES * numbers[0]),
        Work(operations[1], BYTES * numbers[1]),
        Work(sum(operations), BYTES * both),
    )


KernelCall = Callable[..., tuple[str, Work]]
"""From the arguments of a kernel's call: its label in a profile, and what it does."""


def labeled(label: str, work: Callable[..., Work]) -> KernelCall:
    """A kernel whose calls all have one label."""
    return lambda *arguments: (label, work(*arguments))
