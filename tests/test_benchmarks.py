"""The benchmark kit: decisions from samples, versions found and refused, stored figures."""

from __future__ import annotations

import math
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spectrafuse import _cpu
from spectrafuse.benchmarks import builds, command, compare, declared, harness, history, measure, trust, worker
from spectrafuse.benchmarks.statistic import CONFIDENCE, LOOKS, median_interval, verdict

ROOT = Path(__file__).parents[1]


def samples(seed: int, center: float, count: int = LOOKS[-1]) -> list[float]:
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


def test_looking_again_and_again_rarely_calls_identical_versions_different():
    def decision(seed: int) -> str:
        drawn = samples(seed, 0.0)
        verdicts = (verdict(drawn[:look]) for look in LOOKS)
        return next((word for word in verdicts if word != "undecided"), "undecided")

    assert {decision(seed) for seed in range(300)} == {"same"}


def test_every_declared_case_names_an_operation_and_can_be_chosen():
    from spectrafuse import backends

    named = {operation.name for operation in declared.operations().values()}
    assert {"clustering_objective corrected", "clustering_objective published", "gate"} <= set(declared.operations())
    assert named == set(backends.operations())
    chosen = compare.cases(["mean_shift_assign"], ["small"])
    assert [case.direction for case in chosen] == ["forward", "backward", "both"]
    assert [case.direction for case in compare.cases(["mean_shift_assign"], ["small"], ["forward"])] == ["forward"]
    with pytest.raises(ValueError, match=r"`operations` must be among .*mean_shift_assign.*; got nothing"):
        compare.cases(["nothing"])


def test_every_operation_has_the_sizes_a_deciding_one_and_tests():
    for operation in declared.operations().values():
        assert {"small", "paper", "large"} <= operation.sizes.keys()
        held = sum(x.nbytes for x in operation.inputs(operation.deciding) if isinstance(x, torch.Tensor))
        assert held <= 3 * 2**18, f"{operation.label}: {held} bytes do not fit beside others into a core's cache"
        assert list((ROOT / "tests").glob(operation.tests or f"test_{operation.name}*.py"))


def test_identical_versions_are_compared_and_a_dead_process_is_reported():
    case = compare.Case("mean_shift_assign", "torch", "deciding", "forward")
    installed = builds.build("installed")
    with compare.workers(installed, installed) as (base, head):
        outcome = compare.compare(base, head, case)
        assert outcome.verdict != "skipped"
        assert outcome.ratio is not None
        assert outcome.ratio.low <= outcome.ratio.high
        assert outcome.memory is not None
        unknown = compare.compare(base, head, compare.Case("mean_shift_assign", "cuda", "small", "forward"))
        assert unknown.verdict == "skipped"
        assert unknown.reason
        head.process.kill()
        with pytest.raises(RuntimeError, match="The process that measures installed ended"):
            compare.compare(base, head, case)


def test_a_commit_that_does_not_exist_is_one_clear_error(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    builds.checkout.cache_clear()
    with pytest.raises(ValueError, match="Commits are compared inside a checkout of spectrafuse"):
        builds.build("nothing")
    (tmp_path / "python" / "spectrafuse").mkdir(parents=True)
    with pytest.raises(ValueError, match="git rev-parse --verify nothing"):
        builds.build("nothing")
    builds.checkout.cache_clear()


def test_memory_counts_only_where_it_grew_by_more_than_a_tenth_and_a_megabyte():
    case = compare.Case("mean_shift_assign", "cpu", "small", "forward")
    grown = [compare.Outcome(case, "same", memory=pair).memory_grew for pair in ((10**8, 2 * 10**8), (100, 200_000))]
    assert grown == [True, False]
    assert compare.Outcome(case, "same", memory=(10**8, 2 * 10**8)).regressed


def row(**changes: object) -> dict[str, object]:
    named = {"operation": "gate", "implementation": "cpu", "size": "paper", "direction": "forward"}
    ratio = {"ratio_to_torch_low": 2.9, "ratio_to_torch": 3.0, "ratio_to_torch_high": 3.1}
    return {**named, **ratio, "milliseconds": 2.0, "peak_memory_mb": 8.0, "share_of_bound": 0.5, **changes}


def stored(folder: Path, name: str, *rows: dict[str, object]) -> str:
    file = folder / name
    file.unlink(missing_ok=True)
    history.append(rows, file)
    return str(file)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command.app, [*arguments])
    return done.exit_code, " ".join(done.output.split())


def test_history_keeps_rows_and_says_where_a_line_is_wrong(tmp_path):
    rows = [row(milliseconds=value) for value in (2.0, 1.0)]
    file = history.of_this_machine(tmp_path / "new")
    history.append(rows[:1], file)
    history.append(rows[1:], file)
    assert history.read(file) == rows
    assert history.latest(history.read(file)) == {("gate", "cpu", "paper", "forward"): rows[1]}
    file.write_text('{"operation": "gate"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: expected a JSON object with operation, implementation"):
        history.read(file, *history.CASE)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        history.read(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "Nothing got worse"),
        ({"ratio_to_torch_low": 2.4, "ratio_to_torch": 2.5, "ratio_to_torch_high": 2.55}, 1, "Got worse"),
        ({"ratio_to_torch_low": 2.6, "ratio_to_torch": 2.8, "ratio_to_torch_high": 2.9}, 0, "Nothing got worse"),
        ({"ratio_to_torch_low": 4.4, "ratio_to_torch": 4.5, "ratio_to_torch_high": 4.6}, 0, "no speed-up counts: gate"),
        ({"peak_memory_mb": 16.0}, 1, "Got worse"),
        ({"ratio_to_torch_low": 1.0, "ratio_to_torch_high": 1.0, "processor": "other"}, 0, "another processor"),
        ({"ratio_to_torch_low": 1.0, "ratio_to_torch_high": 1.0, "input_hash": "other"}, 0, "other inputs"),
        ({"tensor_bytes": 1030}, 1, "tensor_bytes 1000 -> 1030 (+3.0%)"),
        ({"tensor_bytes": 1010}, 0, "Nothing got worse"),
        ({"tensor_bytes": 2000, "torch": "another"}, 0, "another torch"),
    ],
)
def test_stored_figures_are_compared(tmp_path, changes, code, said):
    base = stored(tmp_path, "base.jsonl", row(tensor_bytes=1000))
    head = stored(tmp_path, "head.jsonl", row(**{"tensor_bytes": 1000, **changes}))
    found, output = run("compare", base, head)
    assert (found, said in output) == (code, True), output


def test_counted_quantities_alone_decide_where_asked(tmp_path):
    slow = row(ratio_to_torch_low=1.0, ratio_to_torch=1.0, ratio_to_torch_high=1.0, tensor_bytes=1000)
    base = stored(tmp_path, "base.jsonl", row(tensor_bytes=1000), row(size="driver", instructions=100, compiler="c"))
    head = stored(tmp_path, "head.jsonl", slow, row(size="driver", instructions=200, compiler="another"))
    assert run("compare", "--counted", base, head) == (0, f"Nothing got worse from {base} to {head}.")
    head = stored(tmp_path, "head.jsonl", slow, row(size="driver", instructions=115, compiler="c"), row(size="new"))
    code, output = run("compare", "--counted", base, head)
    assert code == 1
    assert "gate cpu driver forward: instructions 100 -> 115 (+15.0%)" in output
    assert "gate cpu new forward: the baseline lacks it" in output


def test_files_and_versions_do_not_mix(tmp_path):
    with pytest.raises(ValueError, match="Two files or two versions"):
        CliRunner().invoke(command.app, ["compare", "x.jsonl", "installed"], catch_exceptions=False)


def test_no_speed_up_counts_where_tests_fail(tmp_path):
    version = builds.Build("head", None, tmp_path)
    outcome = compare.Outcome(compare.Case("gate", "cpu", "small", "forward"), "faster")
    (tmp_path / "tests").mkdir()
    assert command.broken_operations([outcome], version) == {"gate"}, "without tests nothing is known"
    (tmp_path / "tests" / "test_gate.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    assert command.broken_operations([outcome], version) == set()
    (tmp_path / "tests" / "test_gate_kernels.py").write_text("def test_it():\n    assert False\n", encoding="utf-8")
    assert command.broken_operations([outcome], version) == {"gate"}


def test_a_baseline_is_made_of_counted_quantities(tmp_path):
    rows = stored(tmp_path, "rows.jsonl", row(tensor_bytes=7, torch="2", input_hash="x"), row(size="small"))
    assert run("baseline", rows, "--history", str(tmp_path))[0] == 0
    (found,) = history.read(tmp_path / history.BASELINE)
    case = {"operation": "gate", "implementation": "cpu", "size": "paper", "direction": "forward"}
    assert found == {**case, "tensor_bytes": 7, "torch": "2", "input_hash": "x"}


def test_every_cpu_kernel_has_counts_in_the_committed_baseline():
    rows = history.read(ROOT / history.FOLDER / history.BASELINE)
    launchers = {file.name.removesuffix("_launch.cpp") for file in (ROOT / "csrc" / "cpu").glob("*_launch.cpp")}
    assert {row["operation"].split()[0] for row in rows if "instructions" in row} == launchers
    assert {row["operation"] for row in rows if "tensor_bytes" in row} == declared.operations().keys()


def test_the_trend_page_shows_every_case(tmp_path):
    rows = stored(tmp_path, "rows.jsonl", row(commit="one"), row(commit="two<", operation="mixture"))
    assert run("trend", rows, "--output", str(tmp_path))[0] == 0
    page = (tmp_path / "trend.html").read_text(encoding="utf-8")
    assert "gate cpu paper forward" in page
    assert "two&lt;" in page
    assert (tmp_path / "trend.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="No timed figures"):
        command.trend.write([row(implementation="torch")], tmp_path, "x")


def test_the_headline_is_written_and_what_is_slow_must_be_explained(tmp_path, monkeypatch):
    explanations = tmp_path / "explanations.json"
    explanations.write_text('{"gate": "it waits for memory"}', encoding="utf-8")
    monkeypatch.setattr(command.headline, "EXPLANATIONS", explanations)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{command.headline.BEGIN}old\n{command.headline.END}after\n", encoding="utf-8")
    facts = {"processor": "P", "instruction_set": "avx2", "threads": "2", "torch": "2", "commit": "c", "bound": "bytes"}
    slow, fast = row(**facts, ratio_to_torch=1.2), row(**facts, operation="mixture", direction="both")
    hidden = row(**facts, operation="mixture", ratio_to_torch=7.0)
    rows = stored(tmp_path, "rows.jsonl", slow, fast, hidden)
    assert run("headline", rows, "--readme", str(readme))[0] == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| gate | 2 |  | 1.2 | 8 | 50% of bytes |" in text
    assert "- gate (forward 1.2 x, 50%): it waits for memory" in text
    assert "| mixture | 2 |  | 3 | 8 | 50% of bytes |" in text
    assert "7" not in text
    rows = stored(tmp_path, "rows.jsonl", slow, row(**{**facts, "operation": "mixture", "share_of_bound": 0.2}))
    code, output = run("headline", rows, "--readme", str(readme))
    assert code == 1
    assert output == "mixture: below 1.5 times PyTorch or 30% of its bound, and not explained"


def test_trials_are_counted_and_not_repeated(tmp_path):
    def trial(number: int, same: str, slower: str) -> dict[str, object]:
        return {"trial": number, "same": {"gate forward": [same]}, "slower": {"gate forward": [slower]}}

    rows = [trial(0, "same", "slower"), trial(1, "slower", "slower"), trial(2, "undecided", "same")]
    assert trust.counts(rows) == {"gate forward": {"silent": 2, "noticed": 2, "trials": 3}}
    assert trust.whole_trials(rows) == (2, 2)
    file = tmp_path / "trials.jsonl"
    version = builds.build("installed")
    told: list[str] = []
    case = compare.Case("gate", "cpu", "deciding", "forward")
    trust.run(version, 0, [case], 1, file, {"percent": 0}, told.append)
    (made,) = trust.read(file)
    assert set(made["same"]) == set(made["slower"]) == {"gate forward"}
    trust.run(version, 0, [case], 1, file, {}, told.append)
    assert trust.read(file) == [made]
    assert len(told) == 1


def test_kernels_repeat_as_much_work_as_makes_a_call_longer(monkeypatch):
    repeated = [0]
    monkeypatch.setattr(_cpu, "repeat_work", lambda percent: repeated.append(percent), raising=False)
    measured = worker.Worker()
    monkeypatch.setattr(measured, "_seconds", lambda: 2.0 + 1.2 * repeated[-1] / 100)
    assert measured.slow_down(15) == {"repeated": 25}
    assert measured.slow_down(90) == {"repeated": 100}


def test_a_worker_goes_on_in_a_fresh_process_and_ends_with_the_one_who_asks():
    case = {"operation": "gate", "implementation": "cpu", "size": "deciding", "direction": "both"}
    with compare.workers(builds.build("installed")) as (asked,):
        for repeats in (0, 3, 5):
            prepared = asked.ask("prepare", **case, repeats=repeats)
            assert prepared["reason"] is None
            assert prepared["repeats"] == (repeats or prepared["repeats"])
            assert asked.ask("sample")["seconds"] > 0
            (copy,) = children(asked.process.pid)
            asked.ask("renew")
            asked.ask("prepare", **case)
            assert children(asked.process.pid) != [copy]
        (copy,) = children(asked.process.pid)
    while Path(f"/proc/{copy}/status").exists() and "zombie" not in Path(f"/proc/{copy}/status").read_text():
        time.sleep(0.01)


def children(process: int) -> list[int]:
    """Numbers of the processes that a process has started."""
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_processes_that_stream_through_memory_end_with_the_measurement():
    with trust.streaming(1) as (process,):
        assert process.poll() is None
    assert process.poll() is not None


def test_tensors_that_live_at_once_are_counted():
    x = torch.rand(1000)
    assert measure.tensor_bytes(lambda: x + x + x) == 8000
    assert measure.tensor_bytes(lambda: [x + x, x + x, x + x]) == 12000


def test_ratios_come_with_an_interval_where_rounds_suffice():
    few = harness.ratios({"cpu": [1.0, 1.0], "torch": [3.0, 5.0]}, "cpu")
    assert few == {"ratio_to_torch": pytest.approx(math.sqrt(15))}
    many = harness.ratios({"cpu": [1.0] * 20, "torch": [2.0, 4.0] * 10}, "cpu")
    assert many["ratio_to_torch_low"] == pytest.approx(2)
    assert many["ratio_to_torch_high"] == pytest.approx(4)
