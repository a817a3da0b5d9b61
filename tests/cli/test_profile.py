"""`spectrafuse profile`: tables that add up, kernels by name, a sentence about the largest, nothing half-written."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.command_line import SEGMENT, UNMIX, fails_with, run
from spectrafuse import ops
from spectrafuse._runtime import extensions
from spectrafuse._runtime.counts import Work
from spectrafuse.cli.profile import command, diagnosis, kernels, recorder, report
from spectrafuse.cli.profile.bounds import Bounds, measure
from spectrafuse.cli.profile.table import MARK, OTHER, REST, Measured, Row

PROFILE = ["profile", "segment", *SEGMENT, "--max-epoch", 20], ["profile", "unmix", "--pool-size", 8, "--device", "cpu"]


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """Recordings of a twentieth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "WARM_SECONDS", 0.01)
        patch.setattr(recorder, "RECORDED_SECONDS", 0.05)
        patch.setattr("spectrafuse.cli.profile.bounds._SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def profiles(scene: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that both commands leave."""
    folder = tmp_path_factory.mktemp("profiles")
    for words_of, data in zip(PROFILE, (scene, table), strict=True):
        name = words_of[1]
        result = run(*words_of[:2], data, "-o", folder / name, *words_of[2:])
        assert result.exit_code == 0, result.output
        assert "% of the time of training" in result.stdout
    return {name: folder / name for name in ("segment", "unmix")}


def rows_of(folder: Path, phase: str = "training") -> dict[str, dict[str, Any]]:
    record = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    return {row["operation"]: row for row in record["rows"] if row["phase"] == phase}


@pytest.mark.slow
def test_a_profile_leaves_table_traces_picture_and_summary(profiles: dict[str, Path]) -> None:
    common = {"table.csv", "shares.png", "summary.txt", "profile.json", "trace-training.json"}
    assert {path.name for path in profiles["unmix"].iterdir()} == common
    assert {path.name for path in profiles["segment"].iterdir()} == {*common, "trace-prediction.json"}
    for folder in profiles.values():
        record = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
        assert set(record["files"]) == {path.name for path in folder.iterdir()}
        assert record["bounds"]["bandwidth"] > 0
        assert record["peak_memory"] > 2**20
        for phase in record["phases"]:
            assert phase["sentence"] in (folder / "summary.txt").read_text(encoding="utf-8")
            assert phase["steps"] >= 1
        with open(folder / "table.csv", newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert tuple(table[0]) == report.COLUMNS
        assert [row["operation"] for row in table] == [row["operation"] for row in record["rows"]]


@pytest.mark.slow
def test_shares_add_up_to_one(profiles: dict[str, Path]) -> None:
    for folder, phase in ((profiles["segment"], "training"), (profiles["segment"], "prediction"),
                          (profiles["unmix"], "training")):  # fmt: skip
        rows = rows_of(folder, phase)
        assert list(rows)[-1] == REST
        assert all(row["seconds"] >= 0 for row in rows.values())
        assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0)


@pytest.mark.slow
def test_kernels_are_seen_whichever_way_they_are_called(profiles: dict[str, Path]) -> None:
    # Through prepared calls, past torch's dispatcher.
    direct = rows_of(profiles["unmix"])
    names = {"skinny_linear forward", "skinny_linear backward", "gate forward", "gate backward", "adamw_outer"}
    assert names | {"gated_mixture forward", "gated_mixture backward", "random numbers"} <= set(direct)
    # Through registered operations, and torch's own.
    registered = rows_of(profiles["segment"])
    names = {"clustering_objective forward", "clustering_objective backward", "extract_crop_pairs"}
    assert names | {"convolution forward", "convolution backward"} <= set(registered)
    assert {"scene_spectra", "mean_shift_assign forward"} <= set(rows_of(profiles["segment"], "prediction"))
    steps = json.loads((profiles["unmix"] / "profile.json").read_text())["phases"][0]["steps"]
    assert direct["adamw_outer"]["calls"] == steps
    assert direct["gate backward"]["calls"] == steps
    for name in names | {"convolution forward", "convolution backward"}:
        assert registered[name]["calls"] > 0
        assert registered[name]["gb_per_s"] > 0
        assert registered[name]["share_of_bound"] > 0
    assert direct[REST]["gb_per_s"] is None


@pytest.mark.slow
def test_traces_are_of_a_few_steps_and_name_the_kernels(profiles: dict[str, Path]) -> None:
    trace = json.loads((profiles["unmix"] / "trace-training.json").read_text(encoding="utf-8"))
    found = [event["name"] for event in trace["traceEvents"]]
    assert found.count("adamw_outer") == recorder.TRACED_STEPS
    assert "skinny_linear forward" in found
    trace = json.loads((profiles["segment"] / "trace-training.json").read_text(encoding="utf-8"))
    assert "spectrafuse::clustering_objective" in [event["name"] for event in trace["traceEvents"]]


@pytest.mark.slow
def test_a_profile_replaces_a_profile_and_nothing_else(table: Path, tmp_path: Path) -> None:
    words_of = ["profile", "unmix", table, "-o", tmp_path / "out", *UNMIX]
    words_of[words_of.index("--max-epoch") + 1] = 200
    assert run(*words_of).exit_code == 0
    assert run(*words_of).exit_code == 0
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    fails_with(run(*words_of), "thesis.tex", "new folder")
    (tmp_path / "file").write_text("")
    fails_with(run("profile", "unmix", table, "-o", tmp_path / "file", *UNMIX), "is a file")


@pytest.mark.slow
def test_wrong_arguments_are_one_sentence_and_leave_nothing(scene: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fails_with(run("profile", "segment", tmp_path / "absent.mat", "-o", out), "absent.mat")
    fails_with(run("profile", "segment", scene, "-o", out, "--n-clusters", 3, "--merge", "0=0,1"), "--merge")
    fails_with(run("profile", "unmix", tmp_path / "absent.csv", "-o", out), "absent.csv")
    fails_with(run("profile", "unmix", table, "-o", out, "--device", "cuda:7"), "cuda")
    fails_with(run("profile", "unmix", table, "-o", out, "--pool-size", 5, "--max-epoch", 1), "--max-epoch")
    assert list(tmp_path.iterdir()) == []
    assert run("profile", "cluster", scene).exit_code == 2


@pytest.mark.slow
def test_interruption_leaves_nothing_half_written(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    usual = extensions.cpu
    monkeypatch.setattr(command, "write", interrupt)
    result = run("profile", "unmix", table, "-o", tmp_path / "out", "--pool-size", 8, "--device", "cpu")
    assert result.exit_code == 130
    assert "interrupted: Nothing was written" in result.stderr
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(recorder.Recorder, "step_done", interrupt)
    assert run("profile", "unmix", table, "-o", tmp_path / "out", "--pool-size", 8, "--device", "cpu").exit_code == 130
    assert list(tmp_path.iterdir()) == []
    assert extensions.cpu is usual


@pytest.mark.process
@pytest.mark.slow
def test_nothing_of_a_profile_is_loaded_without_one() -> None:
    code = (
        "import sys, torch, spectrafuse\nfrom spectrafuse import ops\nfrom spectrafuse._runtime import extensions\n"
        "ops.skinny_linear(torch.ones(2, 3), torch.ones(4, 3), None)\n"
        "assert type(extensions.cpu()).__name__ == 'module'\n"
        "print([name for name in sys.modules if name.startswith('spectrafuse.cli.profile')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_kernel_has_a_name_and_its_work() -> None:
    module = extensions.cpu()
    known = {
        name
        for name in dir(module)
        if callable(getattr(module, name)) and not name.startswith(("_", "pair_term")) and "workspace" not in name
    }
    only_for_gpus = {"adamw_layer", "unmixing_loss_gradient"}
    assert known - {"isa"} == set(kernels.EXTENSIONS) - only_for_gpus


def test_work_is_counted_from_the_arguments() -> None:
    layer = ops.operations()["skinny_linear"].work(3, 5, 7).forward
    assert kernels.extension_call("skinny_linear_forward", (0, 3, 5, 7, 1, 0, 0, 0, 0, 0, 1)) == (
        "skinny_linear forward",
        layer,
    )
    wide = kernels.extension_call("skinny_linear_backward", (1, 3, 5, 7, 0, 0, 0, 1))
    assert wide == ("skinny_linear backward", Work(layer.operations, 2 * layer.bytes))
    assert kernels.extension_call("skinny_linear_forward", (3, 5, 7, 1, 0), cuda=True) == (
        "skinny_linear forward",
        layer,
    )
    parameters = [(16, 4, 6, 0, 0, 0, 0, 0), (16, 1, 4, 0, 0, 0, 0, 0)]
    assert kernels.extension_call("adamw_outer", (0, parameters))[1] == Work(44 * 28, 24 * 28)
    used = torch.tensor([True, False, True, True])
    arguments = ((4, 10), "rbf", 2, 0.0, 1.0, 0.0, True, 2, 0, used.data_ptr(), 1.0, 5)
    penalty = ops.operations()["ambiguity_penalty"].work
    assert kernels.extension_call("component_penalty", (0, *arguments, 1))[1] == penalty(3, 10).both
    # What a GPU holds is not read on the host.
    assert (
        kernels.extension_call("component_penalty", (*arguments, (1,) * 5, 1, 0), cuda=True)[1] == penalty(4, 10).both
    )
    assert kernels.extension_call("adamw_layer", (parameters[0], 0.1), cuda=True)[1] == Work(76 * 24, 24 * 24)
    assert kernels.extension_call("unmixing_loss_gradient", ((3, 5), ()), cuda=True)[1] == Work(60, 180)


def test_convolutions_and_products_are_counted_from_their_shapes() -> None:
    x, weight, out = [2, 5, 1, 30], [7, 5, 1, 3], [2, 7, 1, 30]
    one = 2 * 60 * 5 * 7 * 3
    assert kernels.torch_call("aten::conv2d", [x, weight, []], [])[1].operations == one  # type: ignore[index]
    backward = ("aten::convolution_backward", [out, x, weight])
    assert kernels.torch_call(*backward, [1, [False, True, False]])[1].operations == one  # type: ignore[index]
    assert kernels.torch_call(*backward, [1, [True, True, False]])[1].operations == 2 * one  # type: ignore[index]
    assert kernels.torch_call("aten::addmm", [[4], [2, 3], [3, 4]], [])[1].operations == 48  # type: ignore[index]
    assert kernels.torch_call("aten::add", [[4], [4]], []) is None


def test_kernels_of_a_gpu_have_the_labels_their_work_is_counted_under() -> None:
    labels = {
        "void spectrafuse::(anonymous namespace)::adamw_outer_kernel<4>(spectrafuse::AdamwOuter, long)": "adamw_outer",
        "spectrafuse::(anonymous namespace)::forward_kernel<4>(spectrafuse::SkinnyLinear)": "skinny_linear forward",
        "forward_kernel": "mean_shift_assign forward",
        "assign_kernel": "clustering_objective forward",
        "sm80_xmma_fprop_implicit_gemm_tf32f32": None,
    }
    assert {name: kernels.label_on_device(name) for name in labels} == labels
    table = Path(__file__).parents[2] / "benchmarks" / "resources" / "cuda.json"
    named = {name: kernels.label_on_device(name) for name in json.loads(table.read_text(encoding="utf-8"))["rows"]}
    assert [name for name, label in named.items() if label is None and "self_test" not in name] == []


def measured(*rows: Row) -> Measured:
    return Measured(list(rows), sum(row.seconds for row in rows), 10, 5, 0.1)


BOUNDS = Bounds(bandwidth=1e10, arithmetic_rate=1e11)


def test_the_sentence_names_the_operation_that_takes_longest() -> None:
    forward = Row("convolution forward", 10, 0.35, Work(2 * 10**10, 10**6))
    backward = Row("convolution backward", 10, 0.35, Work(2 * 10**10, 10**6))
    sentence = diagnosis.limit(measured(Row("adamw_outer", 10, 0.4), forward, backward), BOUNDS, "training")
    assert sentence.startswith(
        "The encoder's convolutions (convolution) take 64 % of the time of training; they run at"
    )
    assert "57 % of the speed of the fastest arithmetic measured here, so a smaller encoder" in sentence
    slow = Row("adamw_outer", 10, 1.0, Work(10, 10**9))
    assert "at 10 % of the speed of a large copy in memory, which leaves room" in diagnosis.limit(
        measured(slow), BOUNDS, "training"
    )
    assert "No operation limits it: 80 %" in diagnosis.limit(measured(slow, Row(REST, 0, 4.0)), BOUNDS, "prediction")
    idle = Row("gate forward", 10, 1.0, Work(10, 10**7))
    assert "fewer --threads" in diagnosis.limit(measured(idle), BOUNDS, "training")
    fast = Row("matrix product", 10, 1.0, Work(11 * 10**10, 10))
    assert "110 % of the speed of the fastest arithmetic measured here, so" in diagnosis.limit(
        measured(fast), BOUNDS, "training"
    )
    beyond = Row("matrix product", 10, 1.0, Work(2 * 10**11, 10))
    assert (
        "200 % of the speed of the fastest arithmetic measured here: they compute in lower precision, or other programs"
        in diagnosis.limit(measured(beyond), BOUNDS, "training")
    )
    assert OTHER in diagnosis.limit(measured(slow, Row(OTHER, 0, 4.0)), BOUNDS, "training")
    assert "(relu) takes" in diagnosis.limit(measured(Row("relu", 1, 1.0)), BOUNDS, "training")
    cached = Row("gate forward", 1, 1e-3, Work(10, 10**9))
    assert "because the data stay in the cache" in diagnosis.limit(measured(cached), BOUNDS, "training")


def test_every_named_operation_of_the_tables_has_words() -> None:
    labels = {"adamw_outer", "ambiguity_penalty", "random numbers", "scene_spectra", "extract_crop_pairs"}
    labels |= {label for operation in ops.operations().values() for label in operation.gpu_kernels.values()} | {
        f"{name} forward" for name in kernels.TORCH
    }
    assert {diagnosis.operation(label) for label in labels} - set(diagnosis._NAMES) == {"dense_mean_shift"}


def test_time_of_other_threads_is_not_added() -> None:
    from spectrafuse.cli.profile.table import collect

    device = torch.autograd.DeviceType.CPU

    class Event:
        cpu_parent, cpu_children, device_type, concrete_inputs = None, (), device, ()
        input_shapes, cpu_memory_usage = (), 0

        def __init__(self, name: str, thread: int, seconds: float) -> None:
            self.name, self.thread, self.self_cpu_time_total = name, thread, 1e6 * seconds

    events = [Event("aten::add", 2, 1.0), Event(MARK, 1, 0.0), Event("aten::mul", 1, 0.25)]
    found = collect(events, {}, 1.0, 4, 1, 0.25, "cpu")
    assert {row.label: row.seconds for row in found.rows} == {"mul": 0.25, OTHER: 0.0, REST: 0.75}
    # Time that the recorder takes is not the run's.
    assert collect(events, {}, 1.0, 4, 1, 0.1, "cpu").rows[-1].seconds == pytest.approx(0.15)


def test_a_bound_is_the_best_of_several_tries_however_long_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrafuse.cli.profile import bounds

    # One that is not timed, one that other programs interrupt for longer than there is time, and four more.
    now, lengths = [0.0], iter([9.0, 5.0, 1.0, 1.0, 1.0, 1.0])

    def call() -> None:
        now[0] += next(lengths)

    monkeypatch.setattr(bounds, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert bounds._best(call, torch.device("cpu")) == 1.0
    assert list(lengths) == []


def test_arithmetic_is_the_faster_of_a_product_and_a_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectrafuse.cli.profile import bounds

    operations = {"product": 2 * 1024**3, "convolution": 2 * 64 * 64 * 9 * 256**2}
    for product, convolution in ((1e-2, 1e-3), (1e-3, 1e-1)):
        seconds = iter([0.5, product, convolution])
        monkeypatch.setattr(bounds, "_best", lambda call, device, seconds=seconds: next(seconds))
        found = measure(torch.device("cpu"))
        assert found.bandwidth == 2 * 2**28 / 0.5
        best = max(operations["product"] / product, operations["convolution"] / convolution)
        assert found.arithmetic_rate == pytest.approx(best)


def test_bounds_are_measured_quickly() -> None:
    found = measure(torch.device("cpu"))
    assert 1e8 < found.bandwidth < 1e13
    assert 1e8 < found.arithmetic_rate < 1e15
    assert found.seconds(found.arithmetic_rate, 0) == pytest.approx(1.0)
    assert found.is_arithmetic(10**12, 1)
    assert not found.is_arithmetic(1, 10**12)
