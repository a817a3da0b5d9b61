"""The script for a machine with a GPU, without one: stages, limits, what is kept and gone on from."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gpu
import gpu_report
import gpu_work
from gpu import Stage

MACHINE = {"gpu": "NVIDIA GeForce RTX 4090", "driver": "1.2", "commit": "abc", "changed": False}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "BUILD", tmp_path / "build")
    monkeypatch.setattr(gpu, "SITE", tmp_path / "build" / "site")


def python(name, code, limit=20, needs=()):
    """A stage that runs a piece of Python, with the file of its figures as first argument."""
    return Stage(name, (sys.executable, "-c", "import sys, json\n" + code, "{figures}"), limit, needs)


FIGURES = "json.dump({'answer': 42}, open(sys.argv[1], 'w'))"


def carry_out(tmp_path, planned, record=None, say=lambda line: None):
    record = {"machine": MACHINE, "stages": {}} if record is None else record
    passed = gpu.carry_out(planned, record, tmp_path / "results" / "rtx-4090", say)
    return passed, json.loads((tmp_path / "results" / "rtx-4090.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_stage_that_fails_or_hangs_loses_only_itself(tmp_path):
    child = tmp_path / "child"
    hanging = (
        f"import subprocess, time\n{FIGURES}\n"
        f"p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(child)!r}, 'w').write(str(p.pid))\ntime.sleep(60)"
    )
    planned = [
        python("first", FIGURES),
        python("broken", "print('so it goes')\nraise SystemExit(3)"),
        python("hanging", hanging, limit=3),
        Stage("missing", ("a-program-that-is-not-there",), 5, needs=()),
        python("after broken", FIGURES, needs=("first", "broken")),
        python("last", FIGURES, needs=("first",)),
    ]
    start = time.monotonic()
    passed, record = carry_out(tmp_path, planned)
    assert time.monotonic() - start < 20
    assert not passed
    found = record["stages"]
    assert {name: outcome["status"] for name, outcome in found.items()} == {
        "first": "passed",
        "broken": "failed: it ended with 3",
        "hanging": "stopped after 3 s",
        "missing": "failed: a-program-that-is-not-there: No such file or directory",
        "after broken": "not run: broken did not pass",
        "last": "passed",
    }
    assert found["broken"]["end"] == ["so it goes"]
    # What a stage had found before it was stopped is kept, and what it had started is gone.
    assert found["hanging"]["figures"] == {"answer": 42}
    assert found["last"]["figures"] == {"answer": 42}
    assert not alive(int(child.read_text()))


def alive(process):
    """Whether a process runs; one that ended and is not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_file_is_written_after_every_stage(tmp_path):
    seen = []

    def say(line):
        file = tmp_path / "results" / "rtx-4090.json"
        seen.append(sorted(json.loads(file.read_text())["stages"]) if file.exists() else [])

    carry_out(tmp_path, [python("a", ""), python("b", "")], say=say)
    assert seen == [[], ["a"], ["a"], ["a", "b"]]
    assert not [file for file in (tmp_path / "results").iterdir() if file.suffix == ".tmp"]


def test_what_has_passed_is_not_run_again(tmp_path):
    runs = tmp_path / "runs"
    log = f"open({str(runs)!r}, 'a').write('x')\n"
    target = tmp_path / "results" / "rtx-4090"
    failing = [python("a", log), python("b", "raise SystemExit(1)", needs=("a",))]
    assert not carry_out(tmp_path, failing)[0]
    again = gpu.begun(target, MACHINE, restart=False)
    passed, record = carry_out(tmp_path, [failing[0], python("b", log + FIGURES, needs=("a",))], again)
    assert passed
    assert runs.read_text() == "xx"
    assert record["stages"]["b"]["figures"] == {"answer": 42}
    for changed, restart in (
        ({**MACHINE, "commit": "def"}, False),
        ({**MACHINE, "driver": "1.3"}, False),
        (MACHINE, True),
        ({**MACHINE, "changed": True}, False),
    ):
        assert gpu.begun(target, changed, restart=restart) == {"machine": changed, "stages": {}}
    # Files that differ from the commit may differ again.
    gpu.write({"machine": {**MACHINE, "changed": True}, "stages": record["stages"]}, target)
    assert gpu.begun(target, {**MACHINE, "changed": True}, restart=False)["stages"] == {}
    (tmp_path / "results" / "rtx-4090.json").write_text("{")
    assert gpu.begun(target, MACHINE, restart=False)["stages"] == {}


def test_a_build_that_is_gone_is_made_again(tmp_path):
    build = python("build", f"import os\nos.makedirs({str(gpu.SITE)!r}, exist_ok=True)\n{FIGURES}")
    passed, record = carry_out(tmp_path, [build])
    assert passed
    said = []
    carry_out(tmp_path, [build], record, said.append)
    assert said == ["build: has passed before"]
    gpu.SITE.rmdir()
    carry_out(tmp_path, [build], record, said.append)
    assert gpu.SITE.exists()


def test_an_interrupt_ends_what_was_started(tmp_path, monkeypatch):
    started = []
    usual = gpu.subprocess.Popen.wait

    def interrupted(self, timeout=None):
        if timeout is not None:
            started.append(self.pid)
            raise KeyboardInterrupt
        return usual(self)

    monkeypatch.setattr(gpu.subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gpu.run(python("slow", "import time\ntime.sleep(60)"), tmp_path / "log", tmp_path / "figures")
    assert not alive(started[0])


def test_without_a_gpu_one_sentence_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.main([]) == 1
    said = capsys.readouterr()
    assert (
        said.err
        == "There is no NVIDIA GPU on this machine (nvidia-smi is not installed), so nothing can be measured.\n"
    )
    assert said.out == ""
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\nexit 9\n")
    fake.chmod(0o755)
    assert gpu.main([]) == 1
    assert "nvidia-smi finds none" in capsys.readouterr().err


def test_the_machine_is_recorded(monkeypatch, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 8.9, 570.1, 24564 MiB'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = gpu.machine()
    assert (found["gpu"], found["driver"]) == (MACHINE["gpu"], "570.1")
    assert found["architecture"] == "89"
    assert found["torch"]
    assert {"commit", "changed", "python", "cuda", "triton"} <= set(found)
    assert gpu.file_name(found["gpu"]) == "rtx-4090"
    assert gpu.file_name("NVIDIA H200") == "h200"


def test_a_dry_run_prints_the_stages_and_starts_none(capsys, monkeypatch):
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda *a, **k: pytest.fail("something was started"))
    assert gpu.main(["--dry-run"]) == 0
    printed = capsys.readouterr().out
    for stage in gpu.stages("89"):
        assert f"{stage.name}, at most {stage.limit} s: " in printed


def test_a_dry_run_names_the_folder_of_the_published_packages(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTRAFUSE_PUBLISHED", str(tmp_path))
    assert gpu.main(["--dry-run"]) == 0
    assert f"{gpu_work.__name__}.py published '{{figures}}' {tmp_path}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run", "--published", str(tmp_path / "none")])
    assert "must be the folder that holds the published packages" in capsys.readouterr().err


def test_the_stages_end_within_ten_minutes_and_run_files_that_exist():
    planned = gpu.stages("89")
    assert sum(stage.limit for stage in planned) < 600
    names = [stage.name for stage in planned]
    first = ["build", "kernels", "tests", "sizes", "sanitizer"]
    assert names == [*first, "figures", "compiled", "published", "profile", "ncu"]
    for stage in planned:
        assert all(name in names[: names.index(stage.name)] for name in stage.needs)
        assert all((gpu.ROOT / word).is_file() for word in stage.command if word.startswith(("tests/", "benchmarks/")))
    assert "-Ccmake.define.CMAKE_CUDA_ARCHITECTURES=89-real" in planned[0].command


def test_what_cannot_be_done_is_left_out_with_its_reason_and_tried_again(tmp_path, capsys):
    file = tmp_path / "published.json"
    assert gpu_work.published(file) == gpu.CANNOT
    sentence = capsys.readouterr().out.strip()
    assert sentence == "the folder of the published packages was not named (--published, or SPECTRAFUSE_PUBLISHED)"
    stage = python("published", f"print({sentence!r})\nraise SystemExit({gpu.CANNOT})")
    passed, record = carry_out(tmp_path, [stage])
    assert passed
    assert record["stages"]["published"]["status"] == f"left out: {sentence}"
    assert f"| published | left out: {sentence} |" in gpu_report.markdown(record)
    passed, record = carry_out(tmp_path, [python("published", "")], record)
    assert record["stages"]["published"]["status"] == "passed"


COUNTING = """
class Asked:
    runs = []
    def __init__(self, *given, **named): self.named = named
    def fit(self, data): self.runs.append(self.named["max_epoch"])
    def train(self): self.runs.append(self.named["reuse_iter"])
DenseEBgMCR = HSIClusteringTrainer = AugmentationPipeline = Asked
"""


@pytest.mark.filterwarnings("ignore:The package tensorboard")
def test_the_published_packages_are_timed_beside_their_stand_ins(tmp_path, monkeypatch):
    import bench_dgc_step
    import bench_ebgmcr_epoch

    names = "ebgmcr", "hsi_global_clustering"
    for name in names:
        (tmp_path / f"{name}.py").write_text(COUNTING)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", sys)
    for module, size, value in (
        (bench_dgc_step, "BANDS", 8),
        (bench_dgc_step, "CROP", 8),
        (bench_ebgmcr_epoch, "BANDS", 8),
    ):
        monkeypatch.setattr(module, size, value)
    for script, more in (("dgc_script", {}), ("ebgmcr_script", {"pool": 4})):
        monkeypatch.setattr(gpu_work, script, partial(getattr(gpu_work, script), few=1, many=2, **more))
    assert gpu_work.published(tmp_path / "found.json", str(tmp_path), "cpu") == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    for label, name in zip(found, reversed(names), strict=True):
        assert list(found[label]) == ["this package", "published package"]
        assert sys.modules.pop(name).Asked.runs == [1, 1, 2]


def test_the_heaviest_kernels_are_those_of_the_profile():
    rows = [
        ("gate forward", 4.0),
        ("mean_shift_assign forward", 1.0),
        ("everything else", 99.0),
        ("random numbers", 3.0),
    ]
    record = {
        "phases": [{"phase": "training", "steps": 2}, {"phase": "prediction", "steps": 1}],
        "rows": [{"phase": "training", "operation": label, "seconds": seconds} for label, seconds in rows]
        + [{"phase": "prediction", "operation": "mean_shift_assign forward", "seconds": 2.0}],
    }
    seconds = gpu_work.seconds_a_step(record)
    assert seconds["mean_shift_assign forward"] == 2.5
    chosen = gpu_work.heaviest({"segment": seconds, "unmix": {"adamw_outer": 2.0, "convolution": 50.0}})
    assert chosen == ["mean_shift_assign forward", "adamw_outer", "gate forward"]
    # Without a profile those with the most declared arithmetic.
    assert gpu_work.heaviest({}) == ["dense_mean_shift backward", "dense_mean_shift forward", "skinny_linear backward"]


HEADER = '"ID","Process ID","Kernel Name","Block Size","Section Name","Metric Name","Metric Unit","Metric Value"'
METRICS = {
    "gpu__time_duration.sum": ("ns", "2,016"),
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": ("%", "12.5"),
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": ("%", "88.2"),
    "sm__warps_active.avg.pct_of_peak_sustained_active": ("%", "n/a"),
    "launch__registers_per_thread": ("register/thread", "40"),
}


def printed_by_ncu():
    """Two launches, the second of which takes longer."""
    lines = ["==PROF== Connected to process 7", "the program speaks", HEADER]
    for launch, name in enumerate(("void small<int>(float const*, long)", "void large<int>(float const*, long)")):
        for metric, (unit, value) in METRICS.items():
            shown = "1,000" if value == "2,016" and launch == 0 else value
            lines.append(f'"{launch}","7","{name}","(256, 1, 1)","Command line","{metric}","{unit}","{shown}"')
    return "\n".join([*lines, "==PROF== Disconnected"])


def test_of_what_ncu_prints_the_longest_launch_is_kept():
    launch = gpu_work.longest_launch(printed_by_ncu())
    assert launch == {
        "kernel": "void large<int>(float const*, long)",
        "nanoseconds": 2016.0,
        "arithmetic": 12.5,
        "memory": 88.2,
        "registers": 40.0,
    }
    assert gpu_work.longest_launch("==WARNING== No kernels were profiled.") is None


def test_ncu_on_the_heaviest_kernels(tmp_path, monkeypatch, capsys):
    printed = []

    def run(command, **options):
        if not printed:
            raise FileNotFoundError("ncu")
        assert command[0] == "ncu"
        return SimpleNamespace(stdout=printed[0], stderr="")

    monkeypatch.setattr(gpu_work.subprocess, "run", run)
    file = tmp_path / "ncu.json"
    assert gpu_work.ncu(file) == gpu.CANNOT
    assert capsys.readouterr().out == "Nsight Compute (`ncu`) is not installed\n"
    printed.append("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access ...")
    assert gpu_work.ncu(file) == gpu.CANNOT
    said = "the driver lets only administrators read the counters of the GPU (ERR_NVGPUCTRPERM)\n"
    assert capsys.readouterr().out == said
    printed[0] = "==WARNING== No kernels were profiled."
    assert gpu_work.ncu(file) == 1
    printed[0] = printed_by_ncu()
    (tmp_path / "profile.json").write_text(json.dumps({"labels": {"segment": {"gate forward": 1.0}}}))
    assert gpu_work.ncu(file) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert list(found["launches"]) == ["gate forward"]
    page = gpu_report.markdown({"machine": MACHINE, "stages": {"ncu": outcome(found)}})
    assert "| gate forward | `void large<int>` | 2.0 | 12 % | 88 % | - | 40 |" in page


def outcome(figures):
    return {"status": "passed", "seconds": 1.0, "figures": figures}


def record_of(figures):
    return {"machine": MACHINE, "stages": {"figures": outcome(figures)}}


def test_the_page_shows_how_many_times_longer_others_take():
    found = {"step": {"this package": {"seconds": 1e-3}, "torch.compile": {"seconds": 2.5e-3}, "x": {"reason": "no"}}}
    page = gpu_report.markdown({"machine": MACHINE, "stages": {"compiled": outcome(found)}})
    assert "| step | this package | 1000.0 | 1.00 |" in page
    assert "| step | torch.compile | 2500.0 | 2.50 |" in page
    assert "| step | x | no | - |" in page


def test_both_algorithms_are_timed_beside_plain_and_compiled_torch(tmp_path, monkeypatch):
    import bench_dgc_step

    monkeypatch.setattr(bench_dgc_step, "BANDS", 8)
    monkeypatch.setattr(bench_dgc_step, "CROP", 8)
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda call: compiled.append(call) or call)
    assert gpu_work.compiled(tmp_path / "found.json", "cpu", pool=4) == 0
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert list(found) == ["step of DGC as published", "step of EB-gMCR, N = 4"]
    for names in found.values():
        assert list(names) == ["this package", "plain PyTorch", "torch.compile"]
        assert all(times["seconds"] > 0 for times in names.values())
    assert len(compiled) == 2


def test_the_page_shows_kernels_steps_and_what_failed():
    call = {"implementation": "cuda", "seconds": 1e-3, "bytes": 10**9, "operations": 10**9}
    figures = {
        "operations": {
            "adamw_outer": {**call, "kernels": {"adamw_outer": 2e-4}},
            "energy_gate": {"reason": "it broke"},
        },
        "steps": {"DGC": {"seconds": 3e-2}, "EB-gMCR, N = 1024": {"reason": "no memory"}},
    }
    text = gpu_report.markdown(record_of(figures))
    assert "| adamw_outer | 200.0 |" in text
    assert "| step of DGC | 30000.0 |" in text
    assert "step of EB-gMCR" not in text
    assert "| adamw_outer | cuda | 1000.0 | 1000 | 1000 | |" in text
    assert "| energy_gate | - | - | - | - | it broke |" in text


def test_figures_are_taken_and_kept_part_by_part(tmp_path, monkeypatch):
    import declared

    chosen = {name: declared.operations()[name] for name in ("gate", "adamw_outer")}
    monkeypatch.setattr(declared, "operations", lambda: chosen)
    monkeypatch.setattr(gpu_work, "dgc_step", lambda device: 1 / 0)
    monkeypatch.setattr(gpu_work, "ebgmcr_step", lambda device, usual=gpu_work.ebgmcr_step: usual(device, 8))
    monkeypatch.setattr(gpu_work, "CALLS", 1)
    file = tmp_path / "figures.json"
    assert gpu_work.figures(file, "cpu", "small") == 1
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["steps"]["DGC"] == {"reason": "ZeroDivisionError: division by zero"}
    assert found["steps"]["EB-gMCR, N = 1024"]["seconds"] > 0
    for name, operation in chosen.items():
        assert found["operations"][name]["seconds"] > 0
        assert found["operations"][name]["implementation"] == "cpu"
        work = operation.work("small", "both" if operation.leaves else "forward")
        assert found["operations"][name]["bytes"] == work[1]


def test_a_step_of_dgc_runs_as_it_is_timed(monkeypatch):
    import bench_dgc_step

    monkeypatch.setattr(bench_dgc_step, "BANDS", 8)
    monkeypatch.setattr(bench_dgc_step, "CROP", 8)
    assert 0 < gpu_work.dgc_step("cpu") < 10


def test_kernels_that_cannot_be_taken_fail_the_stage(tmp_path, monkeypatch):
    from spectrafuse import backends

    file = tmp_path / "kernels.json"
    assert gpu_work.kernels(file) == 1
    reasons = json.loads(file.read_text(encoding="utf-8"))["verdicts"]
    assert {"adamw_outer, cuda", "clustering_objective, triton"} <= set(reasons)
    assert all(reasons.values())
    usual = backends.why_not

    def works(operation, implementation, device):
        reason = usual(operation, implementation, device)
        return reason if reason and reason.endswith("kernel") and "has no" in reason else None

    monkeypatch.setattr(backends, "why_not", works)
    assert gpu_work.kernels(file) == 0
