"""How often the comparison is right: trials with identical code, and with work repeated inside every kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectrafuse.benchmarks import measure
from spectrafuse.benchmarks.builds import Build
from spectrafuse.benchmarks.compare import Case, Outcome, compare, workers

KINDS = ("same", "slower")
_STREAM = """
import os
import numpy
source, parent = numpy.ones(2**25, dtype=numpy.float32), os.getppid()
target = source.copy()
while os.getppid() == parent:
    numpy.copyto(target, source)
"""


@contextmanager
def streaming(processes: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes beside the measurement, each of which copies 128 MiB over and over."""
    running = [subprocess.Popen([sys.executable, "-c", _STREAM]) for _ in range(processes)]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def read(file: Path) -> list[dict[str, Any]]:
    """Trials of a file that may not be there yet."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def run(
    version: Build,
    percent: float,
    cases: Sequence[Case],
    trials: int,
    file: Path,
    facts: dict[str, Any],
    tell: Callable[[str], None],
) -> None:
    """Make the trials that `file` lacks, and add each to it as it is made.

    A trial compares every case twice in processes of its own: a version with itself, and with itself where kernels
    repeat work until calls take `percent` longer.
    """
    done = {row["trial"] for row in read(file)}
    file.parent.mkdir(parents=True, exist_ok=True)
    for trial in sorted(set(range(trials)) - done):
        found: dict[str, dict[str, list[Any]]] = {kind: {} for kind in KINDS}
        with workers(version, version, version) as (base, *heads):
            for case in cases:
                for kind, head, slower in zip(KINDS, heads, (0.0, percent), strict=True):
                    outcome = compare(base, head, case, memory=False, slower_percent=slower)
                    found[kind][f"{case.operation} {case.direction}"] = _as_list(outcome)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"trial": trial, **found, **facts, **measure.machine()}) + "\n")
        tell(f"trial {trial}: {_sentence(found)}")


def _as_list(outcome: Outcome) -> list[Any]:
    return [outcome.verdict, *(round(x, 4) for x in outcome.ratio or ())]


def _sentence(found: dict[str, dict[str, list[Any]]]) -> str:
    called = [f"{case} {values}" for case, values in found["same"].items() if values[0] == "slower"]
    missed = [f"{case} {values}" for case, values in found["slower"].items() if values[0] != "slower"]
    wrong = f"identical but called slower: {', '.join(called) or 'none'}"
    return f"{wrong}; slower but not noticed: {', '.join(missed) or 'none'}"


def counts(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """For every case in how many trials it was silent on identical code and noticed the slower one, and all trials."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        for case in row["same"]:
            entry = found.setdefault(case, {"silent": 0, "noticed": 0, "trials": 0})
            entry["trials"] += 1
            entry["silent"] += row["same"][case][0] != "slower"
            entry["noticed"] += row["slower"][case][0] == "slower"
    return found


def whole_trials(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """In how many trials all cases were silent on identical code, and in how many every slower one was noticed."""
    silent = sum(all(values[0] != "slower" for values in row["same"].values()) for row in rows)
    noticed = sum(all(values[0] == "slower" for values in row["slower"].values()) for row in rows)
    return silent, noticed
