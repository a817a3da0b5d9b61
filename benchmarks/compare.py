"""Two versions measured against each other, in turns, on one thread's processor time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builds import ROOT, Build
from statistic import Interval, median_interval, verdict

FEWEST_BLOCKS, MOST_BLOCKS = 12, 80
_MEMORY_SHARE, _MEMORY_BYTES = 0.10, 2**20
"""Peak memory has grown where it did by more than both of these."""


@dataclass(frozen=True)
class Case:
    """What is measured."""

    operation: str
    implementation: str
    size: str
    direction: str


@dataclass(frozen=True)
class Outcome:
    """What comparing a case gave."""

    case: Case
    verdict: str
    """"slower", "faster", "same", "undecided", or "skipped"."""
    ratio: Interval | None = None
    """Head's time over base's."""
    seconds: tuple[float, float] | None = None
    """Best times a call of base and head, one thread."""
    memory: tuple[int, int] | None = None
    """Peaks of base and head above their start, in bytes."""
    reason: str | None = None

    @property
    def memory_grew(self) -> bool:
        if self.memory is None:
            return False
        base, head = self.memory
        return head - base > max(_MEMORY_BYTES, _MEMORY_SHARE * base)

    @property
    def regressed(self) -> bool:
        return self.verdict == "slower" or self.memory_grew


class Remote:
    """A worker process that holds one version."""

    def __init__(self, version: Build) -> None:
        self.version = version
        command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
        if version.path is not None:
            command.append(str(version.path))
        self.process = subprocess.Popen(
            command, env=version.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"The process that measures {self.version.name} ended with {self.process.wait()}.")
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def workers(*versions: Build) -> Iterator[list[Remote]]:
    """A worker process for each version."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Remote(version))) for version in versions]


def cases(
    operations: Sequence[str] | None = None, sizes: Iterable[str] = ("small", "paper"), implementation: str = "cpu"
) -> list[Case]:
    """All cases of the declared operations."""
    from declared import operations as declared

    unknown = sorted(set(operations or ()) - set(declared()))
    if unknown:
        raise ValueError(f"`operations` must be among {', '.join(declared())}; got {', '.join(unknown)}.")
    chosen = [declared()[name] for name in operations or declared()]
    return [
        Case(operation.label, implementation, size, direction)
        for operation in chosen
        for size in sizes
        if size in operation.sizes
        for direction in operation.directions
    ]


def compare(base: Remote, head: Remote, case: Case) -> Outcome:
    """Measure a case in both versions until the answer is clear or `MOST_BLOCKS` blocks are used up.

    A block is base, head, head, base or head, base, base, head, so that a drift of the machine hits both alike; it
    gives one logarithm of a ratio.
    """
    prepared = [worker.ask("prepare", **vars(case)) for worker in (base, head)]
    reason = next((answer["reason"] for answer in prepared if answer["reason"]), None)
    if reason is not None:
        return Outcome(case, "skipped", reason=reason)
    repeats = min(answer["repeats"] for answer in prepared)
    for worker in (base, head):
        worker.ask("repeat", repeats=repeats)
    log_ratios: list[float] = []
    best = [math.inf, math.inf]
    decision = "undecided"
    while len(log_ratios) < MOST_BLOCKS and (len(log_ratios) < FEWEST_BLOCKS or decision == "undecided"):
        log_ratios.append(_block((base, head), len(log_ratios) % 2, best))
        decision = verdict(log_ratios)
    ratio = Interval(*(math.exp(min(x, 50.0)) for x in median_interval(log_ratios)))
    memory = (prepared[0]["peak_memory"], prepared[1]["peak_memory"])
    return Outcome(case, decision, ratio, (best[0], best[1]), memory)


def _block(pair: tuple[Remote, Remote], first: int, best: list[float]) -> float:
    sums = [0.0, 0.0]
    for which in (first, 1 - first, 1 - first, first):
        seconds = pair[which].ask("sample")["seconds"]
        sums[which] += math.log(seconds)
        best[which] = min(best[which], seconds)
    return (sums[1] - sums[0]) / 2


def tests_pass(version: Build, operation: str) -> bool:
    """Whether the operation's own tests pass in a version; without its checkout, those of this one."""
    sources = version.sources or ROOT
    # A variant of an operation has the operation's tests.
    test = sources / "tests" / f"test_{operation.split()[0]}.py"
    if not test.exists():
        return False
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(test)]
    done = subprocess.run(command, cwd=sources, env=version.environment(), capture_output=True, check=False)
    return done.returncode == 0
