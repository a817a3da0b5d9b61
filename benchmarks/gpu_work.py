"""What the stages of `gpu.py` run on a GPU: `python benchmarks/gpu_work.py kernels|figures|profile FILE`.

What is found goes to FILE as JSON, after each part of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STEPS, CALLS = 50, 20


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
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _wait(device)
    return (time.perf_counter() - start) / calls


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


def operation_figures(operation: Any, size: str, device: str, calls: int = CALLS) -> dict[str, Any]:
    """Time of an operation in both directions, where it has them, and of its kernels alone."""
    from spectrafuse import backends

    direction = "both" if operation.leaves else "forward"
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


def dgc_step(device: str) -> float:
    """Seconds of a training step of the recipe `corrected` at the published sizes, recorded where that is possible."""
    from functools import partial

    import bench_dgc_step
    from spectrafuse._runtime.cuda_graph import StaticStep
    from spectrafuse.dgc.recipes import corrected
    from spectrafuse.dgc.training.step import StepInputs, training_step

    model, inputs = bench_dgc_step.model_and_inputs(corrected)
    model = model.to(device)
    gpu = device == "cuda"
    rate: Any = torch.tensor(1e-4, device=device) if gpu else 1e-4
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, fused=True, capturable=gpu)
    placed = inputs.mapped(lambda tensor: tensor.to(device))
    step: StaticStep[StepInputs] = StaticStep(partial(training_step, model, optimizer, corrected), record=gpu)
    for _ in range(3):
        step(placed)
    return timed(lambda: step(placed), STEPS if gpu else 1, device)


def ebgmcr_step(device: str, pool: int = 1024) -> float:
    """Seconds of a training step of EB-gMCR, of epochs without their evaluation."""
    import bench_ebgmcr_epoch as bench
    from spectrafuse.mcr.noise import NoiseLevel
    from spectrafuse.mcr.training.trainer import Trainer
    from spectrafuse.random import RandomStream

    trainer = Trainer(
        bench.new_model(pool, False).to(device), bench.spectra().to(device), bench.RECIPE,
        NoiseLevel(0.1, 1e-9, "given"), RandomStream(2), batch_size=bench.BATCH, max_epoch=10**9,
    )  # fmt: skip
    for _ in range(3):
        trainer.train_epoch()
    epoch = timed(trainer.train_epoch, STEPS if device == "cuda" else 1, device)
    return epoch * bench.BATCH / bench.SAMPLES


def figures(file: Path, device: str = "cuda", size: str = "paper") -> int:
    """Time every operation at its published size, and the steps; 1 if something could not be measured."""
    from declared import operations

    found: dict[str, dict[str, Any]] = {"steps": {}, "operations": {}}
    parts: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        ("steps", "DGC", lambda: {"seconds": dgc_step(device)}),
        ("steps", "EB-gMCR, N = 1024", lambda: {"seconds": ebgmcr_step(device)}),
    ]
    for label, operation in operations().items():
        parts.append(("operations", label, lambda operation=operation: operation_figures(operation, size, device)))
    for kind, label, measure in parts:
        try:
            found[kind][label] = measure()
        except Exception as error:
            found[kind][label] = {"reason": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
        print(f"{label}: {found[kind][label]}", flush=True)
        save(found, file)
    return 1 if any("reason" in outcome for part in found.values() for outcome in part.values()) else 0


def profile(file: Path) -> int:
    """`spectrafuse profile` on made-up data, on the GPU; the sentences about what limits both runs."""
    import numpy as np

    from spectrafuse.cli.app import app

    rng = np.random.default_rng(0)
    sentences: dict[str, list[str]] = {}
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
            sentences[name] = [phase["sentence"] for phase in record["phases"]]
            save({"sentences": sentences}, file)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    sys.exit({"kernels": kernels, "figures": figures, "profile": profile}[sys.argv[1]](Path(sys.argv[2])))
