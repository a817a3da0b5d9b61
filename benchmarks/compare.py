"""Two versions measured against each other, in turns, on one thread's processor time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrafuse.benchmarks.builds import Build, checkout
from spectrafuse.benchmarks.statistic import LOOKS, Interval, median_interval, verdict

_MEMORY_SHARE, _MEMORY_BYTES = 0.10, 2**20
"""Peak memory has grown where it did by more than both of these."""
_WORKER = Path(__file__).with_name("worker.py")
_TEST = """
import runpy, sys
runpy.run_path(sys.argv.pop(1))["import_only_from"](sys.argv.pop(1))
import pytest
raise SystemExit(pytest.main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Case:
    """What is measured."""

    operation: str
    implementation: str
    size: str
    direction: str

    def __str__(self) -> str:
        return f"{self.operation} {self.implementation} {self.size} {self.direction}"


@dataclass(frozen=True)
class Outcome:
    """What comparing a case gave."""

    case: Case
    verdict: str
    """"slower", "faster", "same", "undecided", "skipped", or "fails" where base runs and head does not."""
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
        return self.verdict in ("slower", "fails") or self.memory_grew


class Remote:
    """A worker process that holds one version."""

    def __init__(self, version: Build) -> None:
        self.version = version
        command = [sys.executable, str(_WORKER)]
        if version.path is not None:
            command.append(str(version.path))
        self.process = subprocess.Popen(
            command, env=version.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # Two cores of one machine are not equally fast: other guests of the host, other clocks.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.process.pid, {max(os.sched_getaffinity(0))})

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
        assert self.process.stdin is not None
        self.process.stdin.close()  # Copies of the process see that nobody asks any more.
        self.process.kill()
        self.process.wait()


@contextmanager
def workers(*versions: Build) -> Iterator[list[Remote]]:
    """A worker process for each version."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Remote(version))) for version in versions]


def cases(
    operations: Sequence[str] | None = None,
    sizes: Iterable[str] = ("deciding", "paper"),
    directions: Iterable[str] | None = None,
) -> list[Case]:
    """All cases of the CPU kernels of the declared operations."""
    from spectrafuse.benchmarks.declared import operations as declared

    unknown = sorted(set(operations or ()) - set(declared()))
    if unknown:
        raise ValueError(f"`operations` must be among {', '.join(declared())}; got {', '.join(unknown)}.")
    return [
        Case(operation.label, "cpu", size, direction)
        for operation in (declared()[name] for name in operations or declared())
        for size in sizes
        if size == "deciding" or size in operation.sizes
        for direction in directions or operation.directions
        if direction in operation.directions
    ]


def compare(base: Remote, head: Remote, case: Case, *, memory: bool = True, slower_percent: float = 0.0) -> Outcome:
    """Measure a case in both versions until the answer is clear or the last look is reached.

    A block is base, head, head, base or head, base, base, head, so that a drift of the machine hits both alike; it
    gives one logarithm of a ratio. Fresh processes take over after every few blocks. Every look at the blocks so far
    costs a part of the probability of an error. To try the comparison itself, `slower_percent` has head's kernels
    repeat work until calls take that much longer.
    """
    pair = (base, head)
    prepared = [worker.ask("prepare", **vars(case)) for worker in pair]
    for which, (worker, answer) in enumerate(zip(pair, prepared, strict=True)):
        reason = answer.get("reason") or answer.get("error")
        if reason:
            called = "fails" if which == 1 and "error" in answer else "skipped"
            return Outcome(case, called, reason=f"{worker.version.name}: {reason}")
    repeats = min(answer["repeats"] for answer in prepared)
    repeated = head.ask("slow_down", percent=slower_percent)["repeated"] if slower_percent else 0
    log_ratios: list[float] = []
    best = [math.inf, math.inf]
    decision = "undecided"
    for look in LOOKS:
        while len(log_ratios) < look:
            begin = time.perf_counter()
            for worker in pair:
                worker.ask("renew")
                worker.ask("prepare", **vars(case), repeats=repeats)
            if repeated:
                head.ask("repeat_work", percent=repeated)
            until = 2 * time.perf_counter() - begin
            # As much time goes into measuring as into getting ready.
            while len(log_ratios) < look and (len(log_ratios) % 2 or time.perf_counter() < until):
                log_ratios.append(_block(pair, len(log_ratios) % 2, best))
        decision = verdict(log_ratios)
        if decision != "undecided":
            break
    low, median, high = (math.exp(min(x, 50.0)) for x in median_interval(log_ratios))
    peaks = tuple(worker.ask("peak_memory")["bytes"] for worker in pair) if memory else None
    return Outcome(case, decision, Interval(low, median, high), (best[0], best[1]), peaks)


def _block(pair: tuple[Remote, Remote], first: int, best: list[float]) -> float:
    sums = [0.0, 0.0]
    for which in (first, 1 - first, 1 - first, first):
        seconds = pair[which].ask("sample")["seconds"]
        sums[which] += math.log(seconds)
        best[which] = min(best[which], seconds)
    return (sums[1] - sums[0]) / 2


def tests_pass(version: Build, operation: str) -> bool:
    """Whether the operation's own tests pass in a version; without its checkout, those of the one around."""
    from spectrafuse.benchmarks.declared import operations

    declared = operations()[operation]
    sources = version.sources or checkout()
    tests = sorted(map(str, (sources / "tests").glob(declared.tests or f"ops/test_{declared.name}*.py")))
    start = ["-m", "pytest"] if version.path is None else ["-c", _TEST, str(_WORKER), str(version.path)]
    command = [sys.executable, *start, "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=sources, env=version.environment(), capture_output=True, check=False)
    return bool(tests) and done.returncode == 0
