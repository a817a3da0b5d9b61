"""The benchmark kit: decisions from samples, versions found and refused, stored figures."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import builds
import compare
import declared
import history
import instructions
from statistic import CONFIDENCE, median_interval, verdict


def samples(seed: int, center: float, count: int = 60) -> list[float]:
    """Logarithms of ratios with the long tail that interruptions give."""
    generator = np.random.default_rng(seed)
    return (center + 0.02 * generator.standard_t(2, size=count)).tolist()


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    generator = np.random.default_rng(7)
    missed = 0
    for _ in range(2000):
        interval = median_interval(generator.standard_cauchy(21).tolist())
        missed += not interval.low <= 0 <= interval.high
        assert interval.low <= interval.median <= interval.high
    assert missed <= 2000 * (1 - CONFIDENCE) + 8
    assert missed > 0


def test_few_samples_decide_nothing():
    assert median_interval([0.1] * 8) == (-math.inf, 0.1, math.inf)
    assert verdict([0.5] * 8) == "undecided"


@pytest.mark.parametrize(
    ("center", "expected"), [(math.log(1.15), "slower"), (0.0, "same"), (-math.log(1.15), "faster")]
)
def test_verdicts(center, expected):
    assert [verdict(samples(seed, center)) for seed in range(20)] == [expected] * 20


def test_every_declared_case_names_an_operation_and_can_be_chosen():
    from spectrafuse import backends

    named = {operation.name for operation in declared.operations().values()}
    assert named <= set(backends.operations())
    assert {"clustering_objective corrected", "clustering_objective published", "gate"} <= set(declared.operations())
    chosen = compare.cases(["mean_shift_assign"], ["small"])
    assert [case.direction for case in chosen] == ["forward", "backward", "both"]
    with pytest.raises(ValueError, match=r"`operations` must be among .*mean_shift_assign.*; got nothing"):
        compare.cases(["nothing"])


def test_identical_versions_are_compared_and_a_dead_process_is_reported():
    case = compare.Case("mean_shift_assign", "torch", "small", "forward")
    installed = builds.build("installed", Path())
    with compare.workers(installed, installed) as (base, head):
        outcome = compare.compare(base, head, case)
        assert outcome.verdict != "skipped"
        assert outcome.ratio is not None
        assert outcome.ratio.low <= outcome.ratio.high
        unknown = compare.compare(base, head, compare.Case("mean_shift_assign", "cuda", "small", "forward"))
        assert unknown.verdict == "skipped"
        assert unknown.reason
        head.process.kill()
        with pytest.raises(RuntimeError, match="The process that measures installed ended"):
            compare.compare(base, head, case)


def test_a_commit_that_does_not_exist_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="git rev-parse --verify nothing"):
        builds.build("nothing", tmp_path)


def test_memory_counts_only_where_it_grew_by_more_than_a_tenth_and_a_megabyte():
    case = compare.Case("mean_shift_assign", "cpu", "small", "forward")
    grown = [compare.Outcome(case, "same", memory=pair).memory_grew for pair in ((10**8, 2 * 10**8), (100, 200_000))]
    assert grown == [True, False]
    assert compare.Outcome(case, "same", memory=(10**8, 2 * 10**8)).regressed


def test_history_keeps_rows_and_says_where_a_line_is_wrong(tmp_path):
    rows = [
        {"operation": "gate", "implementation": "cpu", "size": "paper", "direction": "forward", "milliseconds": value}
        for value in (2.0, 1.0)
    ]
    file = history.append(rows[:1], tmp_path)
    assert history.append(rows[1:], tmp_path) == file
    assert history.read(file) == rows
    assert history.latest(history.read(file)) == {("gate", "cpu", "paper", "forward"): rows[1]}
    file.write_text('{"operation": "gate"}\n[1]\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: expected a JSON object; got list"):
        history.read(file)


def test_instructions_of_every_cpu_kernel_are_counted():
    counted = {case.split()[0] for case in json.loads(instructions.TABLE.read_text())["instructions"]}
    launchers = (builds.ROOT / "csrc" / "cpu").glob("*_launch.cpp")
    assert counted == {file.name.removesuffix("_launch.cpp") for file in launchers}


def test_a_kernel_that_executes_more_or_is_not_in_the_table_is_named():
    stored = {"gate forward": 1000, "gate backward": 1000}
    assert instructions.grown(stored, {"gate forward": 1019, "gate backward": 900}) == []
    assert instructions.grown(stored, {"gate forward": 1150, "mixture forward": 5}) == [
        "gate forward: 1000 -> 1150 (+15.0%)",
        "mixture forward: the table lacks it",
    ]
