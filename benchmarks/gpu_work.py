"""What the stages of `gpu.py` run on a GPU: `python benchmarks/gpu_work.py STAGE FILE [FOLDER]`.

What is found goes to FILE as JSON, after each part of it. `once LABEL` launches a kernel a few times, for `ncu`.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from gpu import CANNOT

STEPS, CALLS = 50, 20
OWN = "this package"
Part = tuple[str, str, Callable[[], dict[str, Any]]]
"""A group, a name in it and how it is measured."""
METRICS = {
    "gpu__time_duration.sum": "nanoseconds",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "arithmetic",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": "memory",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy",
    "launch__registers_per_thread": "registers",
}
"""What `ncu` counts, and what it is called here; percentages of what the GPU can do."""


def save(found: Any, file: Path) -> None:
    """Overwrite the file in one step."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    os.replace(temporary, file)


def kernels(file: Path) -> int:
    """Compare every kernel for a GPU with plain PyTorch, forward and backward; 1 if one cannot be taken."""
    from spectrafuse import backends, ops

    verdicts: dict[str, str | None] = {}
    for operation in ops.operations():
        for implementation in ("cuda", "triton"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                reason = backends.why_not(operation, implementation, "cuda")
            if reason is None or not reason.endswith(f"has no {implementation} kernel"):
                verdicts[f"{operation}, {implementation}"] = reason
                print(f"{operation}, {implementation}: {reason or 'as plain PyTorch'}", flush=True)
                save({"verdicts": verdicts}, file)
    return 1 if any(verdicts.values()) or not verdicts else 0


def on(device: str, given: Any) -> Any:
    """An argument on a device; what is no tensor stays as it is."""
    return given.to(device) if isinstance(given, Tensor) else given


def timed(call: Callable[[], object], calls: int, device: str) -> float:
    """Seconds of a call, of several in a row."""
    call()

    def several() -> None:
        for _ in range(calls):
            call()

    return timed_once(several, device) / calls


def timed_once(call: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def warmed(call: Callable[[], object], device: str) -> float:
    """Seconds of a call after those that record or compile it."""
    for _ in range(3):
        call()
    return timed(call, STEPS if device == "cuda" else 1, device)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def kernel_seconds(call: Callable[[], object], calls: int) -> dict[str, float]:
    """Seconds of the package's kernels in one call, by the labels of their operations."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    from spectrafuse.cli.profile.kernels import label_on_device

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        label = label_on_device(event.name) if event.device_type != DeviceType.CPU else None
        if label is not None:
            seconds[label] += 1e-6 * event.time_range.elapsed_us() / calls
    return dict(seconds)


def whole_call(operation: Any, size: str, device: str) -> Callable[[], None]:
    """An operation in both directions, where it has them."""
    given = [on(device, value) for value in operation.inputs(operation.sizes[size])]
    for index in operation.leaves:
        given[index] = given[index].detach().requires_grad_()
    leaves = [given[index] for index in operation.leaves]

    def call() -> None:
        outcome = operation.call(*given)
        results = outcome if isinstance(outcome, tuple) else (outcome,)
        made = [x for x in results if isinstance(x, Tensor) and x.requires_grad]
        if made:
            torch.autograd.grad(made, leaves, [torch.ones_like(x) for x in made])

    return call


def operation_figures(operation: Any, size: str, device: str, calls: int = CALLS) -> dict[str, Any]:
    """Time of an operation in both directions, where it has them, and of its kernels alone."""
    from spectrafuse import backends

    direction = "both" if operation.leaves else "forward"
    call = whole_call(operation, size, device)
    work = operation.work(size, direction)
    found = {
        "implementation": backends.choose(operation.name, device),
        "direction": direction,
        "seconds": timed(call, calls, device),
        "operations": work[0],
        "bytes": work[1],
    }
    if device == "cuda":
        measured = kernel_seconds(call, calls)
        # Operations share kernels, which have the label of one of them.
        found["kernels"] = {label: s for label, s in measured.items() if label.split()[0] == operation.name}
    return found


def dgc_step(device: str, name: str = "corrected") -> float:
    """Seconds of a training step of a recipe at the published sizes, recorded where that is possible."""
    import bench_dgc_step
    from spectrafuse._runtime.cuda_graph import StaticStep
    from spectrafuse.dgc.recipes import RECIPES
    from spectrafuse.dgc.training.step import StepInputs, training_step

    recipe = RECIPES[name]
    model, inputs = bench_dgc_step.model_and_inputs(recipe)
    model = model.to(device)
    gpu = device == "cuda"
    rate: Any = torch.tensor(1e-4, device=device) if gpu else 1e-4
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True, capturable=gpu)
    placed = inputs.mapped(lambda tensor: tensor.to(device))
    step: StaticStep[StepInputs] = StaticStep(partial(training_step, model, optimizer, recipe), record=gpu)
    return warmed(lambda: step(placed), device)


def ebgmcr_step(device: str, pool: int = 1024) -> float:
    """Seconds of a training step of EB-gMCR, of epochs without their evaluation."""
    import bench_ebgmcr_epoch as bench

    return warmed(bench.trainer(pool, False, device).train_epoch, device) * bench.BATCH / bench.SAMPLES


def figures(file: Path, device: str = "cuda", size: str = "paper") -> int:
    """Time every operation at its published size, and the steps; 1 if something could not be measured."""
    from declared import operations

    parts: list[Part] = [
        ("steps", "DGC", lambda: {"seconds": dgc_step(device)}),
        ("steps", "EB-gMCR, N = 1024", lambda: {"seconds": ebgmcr_step(device)}),
    ]
    for label, operation in operations().items():
        parts.append(("operations", label, partial(operation_figures, operation, size, device)))
    return take(parts, file)


def take(parts: Iterable[Part], file: Path) -> int:
    """Measure one part after the other; 1 if one could not be measured."""
    found: dict[str, dict[str, Any]] = {}
    for kind, label, measure in parts:
        group = found.setdefault(kind, {})
        try:
            group[label] = measure()
        except Exception as error:
            group[label] = {"reason": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
        print(f"{kind}, {label}: {group[label]}", flush=True)
        save(found, file)
    return 1 if any("reason" in outcome for part in found.values() for outcome in part.values()) else 0


def compiled(file: Path, device: str = "cuda", pool: int = 1024) -> int:
    """Time a training step of both algorithms beside plain PyTorch and what `torch.compile` makes of it."""
    import bench_dgc_step
    import bench_ebgmcr_epoch as bench

    def torch_dgc(compiled: bool) -> dict[str, Any]:
        return {"seconds": warmed(bench_dgc_step.published_step(compiled=compiled, device=device), device)}

    def torch_ebgmcr(compiled: bool) -> dict[str, Any]:
        steps = bench.torch_steps(bench.trainer(pool, False, device), compiled=compiled)
        return {"seconds": warmed(steps, device) * bench.BATCH / bench.SAMPLES}

    dgc, ebgmcr = "step of DGC as published", f"step of EB-gMCR, N = {pool}"
    parts: list[Part] = [
        (dgc, OWN, lambda: {"seconds": dgc_step(device, "published")}),
        (ebgmcr, OWN, lambda: {"seconds": ebgmcr_step(device, pool)}),
    ]
    for name, compiling in (("plain PyTorch", False), ("torch.compile", True)):
        parts += [(dgc, name, partial(torch_dgc, compiling)), (ebgmcr, name, partial(torch_ebgmcr, compiling))]
    return take(parts, file)


def published(file: Path, folder: str = "", device: str = "cuda") -> int:
    """Time the published packages in a folder, and the stand-ins for them in the same script."""
    if not folder:
        print("the folder of the published packages was not named (--published, or SPECTRAFUSE_PUBLISHED)")
        return CANNOT
    sys.path.insert(0, folder)
    try:
        importlib.import_module("torch.utils.tensorboard")
    except ImportError:  # they ask for it, and log nothing here
        sys.modules["torch.utils.tensorboard"] = MagicMock()

    def script(run: Callable[..., float], package: str) -> dict[str, Any]:
        return {"seconds": run(importlib.import_module(package), device)}

    parts: list[Part] = []
    for label, run, package in (
        ("script that trains DGC, a step", dgc_script, "hsi_global_clustering"),
        ("script that trains EB-gMCR, an epoch", ebgmcr_script, "ebgmcr"),
    ):
        for name, home in ((OWN, f"spectrafuse.compat.{package}"), ("published package", package)):
            parts.append((label, name, partial(script, run, home)))
    return take(parts, file)


def marginal(run: Callable[[int], object], device: str, few: int, many: int) -> float:
    """Seconds of one repetition more, from runs of few and of many."""
    run(few)
    seconds = [timed_once(partial(run, count), device) for count in (few, many)]
    return (seconds[1] - seconds[0]) / (many - few)


def dgc_script(package: Any, device: str, few: int = 5, many: int = 35) -> float:
    """Seconds of a training step of a package with the names of `hsi_global_clustering`."""
    from bench_dgc_step import BANDS, BATCH, CROP

    cubes = [torch.rand(BANDS, 2 * CROP, 2 * CROP) for _ in range(BATCH)]

    def train(steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            package.HSIClusteringTrainer(
                cubes, augmentor=package.AugmentationPipeline((CROP, CROP)), model_kwargs={"num_bands": BANDS},
                device=torch.device(device), batch_size=BATCH, num_workers=0, num_epochs=1, reuse_iter=steps,
                precision="fp32", log_dir=folder, ckpt_dir=folder, save_interval=0, eval_interval=10**9,
                log_interval=10**9,
            ).train()  # fmt: skip

    return marginal(train, device, few, many)


def ebgmcr_script(package: Any, device: str, few: int = 5, many: int = 35, pool: int = 1024) -> float:
    """Seconds of an epoch, with its evaluation, of a package with the names of `ebgmcr`."""
    from bench_ebgmcr_epoch import BANDS, BATCH, spectra

    def fit(epochs: int) -> None:
        solver = package.DenseEBgMCR(
            pool, BANDS, mini_batch_size=BATCH, checkpoint_criterion=None, device=device, max_epoch=epochs
        )
        solver.fit(spectra().to(device))

    return marginal(fit, device, few, many)


def profile(file: Path) -> int:
    """`spectrafuse profile` on made-up data, on the GPU: what limits both runs, and seconds a step by label."""
    import numpy as np

    from spectrafuse.cli.app import app

    rng = np.random.default_rng(0)
    found: dict[str, dict[str, Any]] = {"sentences": {}, "labels": {}}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/scene.npy", rng.random((301, 256, 256), dtype=np.float32))
        np.save(f"{folder}/spectra.npy", rng.random((64, 512), dtype=np.float32))
        commands = {
            "segment": [f"{folder}/scene.npy", "--layout", "chw"],
            "unmix": [f"{folder}/spectra.npy", "--pool-size", "1024"],
        }
        for name, words in commands.items():
            output = f"{folder}/{name}"
            with contextlib.suppress(SystemExit):
                app(["profile", name, *words, "--output", output, "--device", "cuda"])
            record = json.loads(Path(output, "profile.json").read_text(encoding="utf-8"))
            found["sentences"][name] = [phase["sentence"] for phase in record["phases"]]
            found["labels"][name] = seconds_a_step(record)
            save(found, file)
    return 0


def seconds_a_step(record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of every label of a profile in one step of each of its phases."""
    steps = {phase["phase"]: phase["steps"] for phase in record["phases"]}
    seconds: dict[str, float] = defaultdict(float)
    for row in record["rows"]:
        seconds[row["operation"]] += row["seconds"] / steps[row["phase"]]
    return dict(seconds)


def heaviest(profiled: Mapping[str, Mapping[str, float]], count: int = 3) -> list[str]:
    """Labels of the kernels that took longest a step of profiled runs; of none, those with most declared arithmetic."""
    from declared import operations
    from spectrafuse.cli.profile.kernels import GPU_KERNELS

    own = set(GPU_KERNELS.values())
    weights: dict[str, float] = defaultdict(float)
    for seconds in profiled.values():
        for label in own & set(seconds):
            weights[label] = max(weights[label], seconds[label])
    if not weights:
        declared = {operation.name: operation for operation in operations().values()}
        for label in own:
            name, _, direction = label.partition(" ")
            if name in declared:
                forward = declared[name].work("paper", "forward")[0]
                both = declared[name].work("paper", "both")[0] if direction == "backward" else 2 * forward
                weights[label] = both - forward
    return sorted(weights, key=lambda label: (-weights[label], label))[:count]


def once(label: str) -> int:
    """Launch the kernels of a label a few times, at the published size."""
    from declared import operations

    found = [operation for operation in operations().values() if operation.name == label.split()[0]]
    if found:
        timed(whole_call(found[0], "paper", "cuda"), 2, "cuda")
    else:  # of no operation, but in every step of unmixing
        ebgmcr_step("cuda")
    return 0


def ncu(file: Path) -> int:
    """Counters of the three heaviest kernels of the profile beside the file, by Nsight Compute."""
    from spectrafuse.cli.profile.kernels import GPU_KERNELS

    try:
        profiled = json.loads(file.with_name("profile.json").read_text(encoding="utf-8"))["labels"]
    except (OSError, ValueError, KeyError):
        profiled = {}
    found: dict[str, dict[str, Any]] = {}
    for label in heaviest(profiled):
        names = "|".join(f"({pattern})" for pattern, of in GPU_KERNELS.items() if of == label)
        command = [
            "ncu", "--csv", "--print-units", "base", "--metrics", ",".join(METRICS), "--kernel-name-base", "demangled",
            "--kernel-name", f"regex:{names}", "--launch-count", "8", sys.executable, __file__, "once", label,
        ]  # fmt: skip
        try:
            printed = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            print("Nsight Compute (`ncu`) is not installed")
            return CANNOT
        text = printed.stdout + printed.stderr
        if "ERR_NVGPUCTRPERM" in text:
            print("the driver lets only administrators read the counters of the GPU (ERR_NVGPUCTRPERM)")
            return CANNOT
        reason = next(iter(reversed(text.strip().splitlines())), "`ncu` printed nothing")
        found[label] = longest_launch(printed.stdout) or {"reason": reason}
        print(f"{label}: {found[label]}", flush=True)
        save({"launches": found}, file)
    return 1 if any("reason" in launch for launch in found.values()) else 0


def longest_launch(printed: str) -> dict[str, Any] | None:
    """Name and `METRICS` of the longest launch in what `ncu --csv` printed; None if there is none."""
    lines = printed.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID",')), len(lines))
    launches: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        if row["Metric Name"] in METRICS:
            launch = launches[row["ID"]]
            launch["kernel"] = row["Kernel Name"]
            with contextlib.suppress(ValueError):  # "n/a" where a GPU lacks a counter
                launch[METRICS[row["Metric Name"]]] = float(row["Metric Value"].replace(",", ""))
    return max(launches.values(), key=lambda launch: launch.get("nanoseconds", 0.0), default=None)


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    if sys.argv[1] == "once":
        sys.exit(once(sys.argv[2]))
    if sys.argv[1] == "published":
        sys.exit(published(Path(sys.argv[2]), *sys.argv[3:]))
    of_stage = {"kernels": kernels, "figures": figures, "compiled": compiled, "profile": profile, "ncu": ncu}
    sys.exit(of_stage[sys.argv[1]](Path(sys.argv[2])))
