"""Two files of stored figures against each other: by ratios within each run, and by counted quantities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spectrafuse.benchmarks import history
from spectrafuse.benchmarks.compare import Case, Outcome
from spectrafuse.benchmarks.statistic import Interval, of_interval

TOLERANCE = 0.10
"""Of a change of the time: the two runs were not made in turns, and their baselines are figures of their own."""
_MACHINE = ("processor", "threads", "instruction_set", "torch")


def compare_rows(base: list[dict[str, Any]], head: list[dict[str, Any]]) -> list[Outcome]:
    """Every case that both have figures of an implementation of ours for."""
    earlier = history.latest(base)
    return [
        _outcome(earlier[case], row)
        for case, row in history.latest(head).items()
        if case in earlier and row["implementation"] not in ("torch", "reference")
    ]


def _outcome(base: history.Row, head: history.Row) -> Outcome:
    case = Case(*(head[key] for key in history.CASE))
    different = [key for key in _MACHINE if base.get(key) != head.get(key)]
    if different:
        return Outcome(case, "skipped", reason=f"another {', another '.join(different)}: times are not compared")
    if base.get("input_hash") != head.get("input_hash"):
        return Outcome(case, "skipped", reason="other inputs: times are not compared")
    intervals = (_interval(row, "torch") for row in (base, head)), (_interval(row, "reference") for row in (base, head))
    for before, after in intervals:
        if before is not None and after is not None:
            break
    else:
        return Outcome(case, "skipped", reason="too few rounds for an interval")
    # Both are how many times as long the baseline takes: base's over head's is head's time over base's.
    change = Interval(before.low - after.high, before.median - after.median, before.high - after.low)
    seconds = base["milliseconds"] / 1e3, head["milliseconds"] / 1e3
    peaks = tuple(round(row["peak_memory_mb"] * 2**20) for row in (base, head))
    return Outcome(case, of_interval(change, TOLERANCE), Interval(*map(math.exp, change)), seconds, peaks)


def _interval(row: history.Row, baseline: str) -> Interval | None:
    values = [row.get(f"ratio_to_{baseline}{suffix}") for suffix in ("_low", "", "_high")]
    return None if None in values else Interval(*map(math.log, values))


def resources_grown(base: Path, head: Path) -> list[str]:
    """What a GPU kernel needs more of, by the tables of compiled kernels in two checkouts."""
    return [
        f"{file.stem}, {name}, {target}: {quantity} {before} -> {after}"
        for file in sorted((head / "benchmarks" / "resources").glob("*.json"))
        for name, target, quantity, before, after in _changes(base / file.relative_to(head), file)
        if after > before * (1 + history.TOLERANCE)
    ]


def _changes(base: Path, head: Path) -> Iterator[tuple[str, str, str, int, int]]:
    before, after = (
        json.loads(file.read_text(encoding="utf-8")).get("rows", {}) if file.exists() else {} for file in (base, head)
    )
    for name in before.keys() & after.keys():
        targets = before[name]["targets"].keys() & after[name]["targets"].keys()
        for target in sorted(targets):
            for quantity in ("registers", "spills", "shared", "code"):
                pair = before[name]["targets"][target][quantity], after[name]["targets"][target][quantity]
                yield name, target, quantity, *pair
