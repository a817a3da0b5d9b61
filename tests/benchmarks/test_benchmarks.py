"""The benchmark kit: decisions from samples, versions found, refused and measured, whole methods of others."""

from __future__ import annotations

import math
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spectrafuse import _cpu
from spectrafuse.benchmarks import bench_peers, builds, command, compare, declared, harness, measure, trust, worker
from spectrafuse.benchmarks.statistic import CONFIDENCE, LOOKS, median_interval, verdict

ROOT = Path(__file__).parents[2]


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
    from spectrafuse import ops

    named = {operation.name for operation in declared.operations().values()}
    assert {"clustering_objective corrected", "clustering_objective published", "gate"} <= set(declared.operations())
    assert named == set(ops.operations())
    chosen = compare.cases(["mean_shift_assign"], ["small"])
    assert [case.direction for case in chosen] == ["forward", "backward", "both"]
    made_in_forward = compare.cases(["ambiguity_penalty"], ("deciding",))
    assert [case.direction for case in made_in_forward] == ["forward", "both"]
    assert [case.direction for case in compare.cases(["mean_shift_assign"], ["small"], ["forward"])] == ["forward"]
    with pytest.raises(ValueError, match=r"`operations` must be among .*mean_shift_assign.*; got nothing"):
        compare.cases(["nothing"])


def test_every_operation_has_the_sizes_a_deciding_one_and_tests():
    for operation in declared.operations().values():
        assert {"small", "paper", "large"} <= operation.sizes.keys()
        held = sum(x.nbytes for x in operation.inputs(operation.deciding) if isinstance(x, torch.Tensor))
        assert held <= 3 * 2**18, f"{operation.label}: {held} bytes do not fit beside others into a core's cache"
        assert list((ROOT / "tests").rglob(operation.tests or f"test_{operation.name}*.py"))


@pytest.mark.slow
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


@pytest.mark.process
def test_a_commit_that_does_not_exist_is_one_clear_error(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    builds.checkout.cache_clear()
    with pytest.raises(ValueError, match="inside a checkout of spectrafuse"):
        builds.build("nothing")
    (tmp_path / "python" / "spectrafuse").mkdir(parents=True)
    with pytest.raises(ValueError, match="git rev-parse --verify nothing"):
        builds.build("nothing")
    builds.checkout.cache_clear()


def test_what_head_cannot_run_is_worse_and_what_base_cannot_run_is_skipped():
    case = compare.Case("gate", "cpu", "deciding", "forward")

    class Answers:
        def __init__(self, name: str, **prepared: object) -> None:
            self.version, self.prepared = builds.Build(name, None, None), prepared

        def ask(self, do: str, **_: object) -> dict[str, object]:
            return {"prepare": self.prepared, "sample": {"seconds": 0.5}, "peak_memory": {"bytes": 1}}.get(do, {})

    runs, lacks = Answers("fine", repeats=1), Answers("old", reason="this version has no gate")
    raises = Answers("new", error="TypeError: another signature")
    assert compare.compare(runs, runs, case).verdict == "same"
    for pair, called, reason in [
        ((lacks, runs), "skipped", "old: this version has no gate"),
        ((runs, lacks), "skipped", "old: this version has no gate"),
        ((raises, runs), "skipped", "new: TypeError: another signature"),
        ((raises, raises), "skipped", "new: TypeError: another signature"),
        ((runs, raises), "fails", "new: TypeError: another signature"),
    ]:
        outcome = compare.compare(*pair, case)
        assert (outcome.verdict, outcome.reason, outcome.regressed) == (called, reason, called == "fails")
        assert reason in command.sentence(outcome)


def test_a_worker_says_what_it_cannot_prepare(monkeypatch):
    ours = worker.Worker()
    assert ours.prepare("nothing", "cpu", "small", "forward") == {"reason": "this version has no nothing"}
    assert "CUDA" in ours.prepare("gate", "cuda", "small", "forward")["reason"]

    def another_signature(*_: object) -> None:
        raise TypeError("gate() takes 3 positional arguments\nbut more were given")

    monkeypatch.setattr(harness.Operation, "prepare", another_signature)
    answer = ours.prepare("gate", "torch", "small", "forward")
    assert answer == {"error": "TypeError: gate() takes 3 positional arguments"}


@pytest.mark.slow
@pytest.mark.process
def test_a_version_that_cannot_be_built_leaves_its_log(tmp_path, monkeypatch):
    (tmp_path / "python" / "spectrafuse").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "absent_backend"\n')
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "One [b]"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path / "python")
    builds.checkout.cache_clear()
    told: list[str] = []
    for version, name in (("HEAD", "One [b]"), (".", ".")):
        with pytest.raises(ValueError, match=r"could not be built. The end of (.|\n)*absent_backend"):
            builds.build(version, told.append)
        assert name in told[-1]
    builds.checkout.cache_clear()
    assert len(list((tmp_path / "build" / "versions").glob("*.log"))) == 2
    assert not list((tmp_path / "build" / "versions").glob("[0-9a-f]" * 12)), "nothing half-built may look finished"


def test_memory_counts_only_where_it_grew_by_more_than_a_tenth_and_a_megabyte():
    case = compare.Case("mean_shift_assign", "cpu", "small", "forward")
    grown = [compare.Outcome(case, "same", memory=pair).memory_grew for pair in ((10**8, 2 * 10**8), (100, 200_000))]
    assert grown == [True, False]
    assert compare.Outcome(case, "same", memory=(10**8, 2 * 10**8)).regressed


@pytest.mark.slow
def test_no_speed_up_counts_where_tests_fail(tmp_path):
    version = builds.Build("head", None, tmp_path)
    outcome = compare.Outcome(compare.Case("gate", "cpu", "small", "forward"), "faster")
    (tmp_path / "tests").mkdir()
    assert command.broken_operations([outcome], version) == {"gate"}, "without tests nothing is known"
    (tmp_path / "tests" / "test_gate.py").write_text("def test_it():\n    pass\n", encoding="utf-8")
    assert command.broken_operations([outcome], version) == set()
    (tmp_path / "tests" / "test_gate_kernel.py").write_text("def test_it():\n    assert False\n", encoding="utf-8")
    assert command.broken_operations([outcome], version) == {"gate"}


@pytest.mark.slow
def test_tests_are_those_of_the_version_even_beside_an_editable_installation(tmp_path):
    (tmp_path / "built" / "spectrafuse").mkdir(parents=True)
    (tmp_path / "built" / "spectrafuse" / "__init__.py").write_text("NUMBER = 7\n", encoding="utf-8")
    (tmp_path / "tests").mkdir()
    test = "import spectrafuse\n\ndef test_it():\n    assert spectrafuse.NUMBER == 7\n"
    (tmp_path / "tests" / "test_gate.py").write_text(test, encoding="utf-8")
    assert compare.tests_pass(builds.Build("head", tmp_path / "built", tmp_path), "gate")


def test_another_method_is_given_effort_until_it_reaches_ours():
    given: list[int] = []

    def method(data: object, effort: int) -> float:
        given.append(effort)
        return {1: 0.5, 10: 0.9, 100: 0.7}[effort]

    task = bench_peers.Task(
        lambda: (None, None), lambda found, _: found, ("o", None), {"m": (method, (1, 10, 100), "x")}
    )
    assert bench_peers.reaching(task, "m", 0.9 + bench_peers.ALIKE)[0][1:] == (0.9, "10 x")
    assert given == [1, 10]
    found, reaches = bench_peers.reaching(task, "m", 0.95)
    assert (found.quality, found.effort, reaches) == (0.9, "10 x", False)
    assert given[2:] == [1, 10, 100]


@pytest.mark.slow
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


@pytest.mark.slow
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
    deadline = time.monotonic() + 10
    while running(copy) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(copy)


def running(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


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


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: fpu a:b\n\n"
            "processor\t: 1\ncpu family\t: 26\nmodel\t\t: 3\nmodel name\t: other\n",
            "AMD EPYC, family 26, model 2",
        ),
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n", "unknown, implementer 0x41, part 0xd4f"),
        ("", "unknown"),
    ],
)
def test_a_processor_is_more_than_its_name(info: str, expected: str):
    assert measure.processor(info) == expected


def test_ratios_come_with_an_interval_where_rounds_suffice():
    few = harness.ratios({"cpu": [1.0, 1.0], "torch": [3.0, 5.0]}, "cpu")
    assert few == {"ratio_to_torch": pytest.approx(math.sqrt(15))}
    many = harness.ratios({"cpu": [1.0] * 20, "torch": [2.0, 4.0] * 10}, "cpu")
    assert many["ratio_to_torch_low"] == pytest.approx(2)
    assert many["ratio_to_torch_high"] == pytest.approx(4)


@pytest.mark.slow
def test_a_call_longer_than_the_budget_is_made_no_more_often_than_it_must_be():
    made = {"short": 0, "long": 0}

    def call(name: str, seconds: float) -> None:
        made[name] += 1
        time.sleep(seconds)

    calls = {"short": lambda: call("short", 0.0), "long": lambda: call("long", 0.3)}
    for long in (1, 3):
        made.update(short=0, long=0)
        seconds = measure.within(calls, budget=0.2, fewest=3, most=7, long=long)
        assert made == {"short": 8, "long": long}
        assert {name: len(taken) for name, taken in seconds.items()} == {"short": 7, "long": long}
        assert min(seconds["long"]) >= 0.3
    assert harness.ratios({"cpu": [1.0, 1.0, 4.0], "torch": [3.0]}, "cpu") == {"ratio_to_torch": 3.0}


def test_at_published_size_there_are_rounds_enough_for_an_interval(monkeypatch: pytest.MonkeyPatch):
    operation = harness.Operation("gate", {"paper": 3}, lambda size: [torch.ones(size)], torch.exp, lambda size: None)
    monkeypatch.setattr(measure, "within", lambda calls, *_, **__: {name: [0.5] * 3 for name in calls})
    seconds, _ = harness._side_by_side(operation, "paper", "forward")
    assert len(seconds["reference"]) == 3
    assert seconds["cpu"][:3] == seconds["torch"][:3] == [0.5] * 3
    assert {"ratio_to_torch_low", "ratio_to_reference"} <= harness.ratios(seconds, "cpu").keys()


def test_one_call_weighs_a_long_implementation(monkeypatch: pytest.MonkeyPatch):
    made = []

    def call(x: torch.Tensor) -> torch.Tensor:
        made.append(x)
        return x + x

    operation = harness.Operation("gate", {"large": 250}, lambda size: [torch.ones(size)], call, lambda size: (1, size))
    monkeypatch.setattr(harness, "ROWS", [])
    monkeypatch.setattr(harness, "_times", lambda *_: {"milliseconds": 1e6})
    benchmark = SimpleNamespace(pedantic=lambda call, rounds: call(), extra_info={})
    harness.run(benchmark, operation, "torch", "large", "forward")
    (row,) = harness.ROWS
    assert row["tensor_bytes"] == 1000
    assert row["peak_memory_mb"] >= 0
    assert len(made) == 1
