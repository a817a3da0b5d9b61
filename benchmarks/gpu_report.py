"""The page of what `gpu.py` found on a machine, with the estimates beside the measurements."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import estimates
from gpu_model import GPUS, Gpu


def known(name: str) -> Gpu | None:
    """The specification of a GPU by the name its driver gives it; None for one that has none here."""
    short = " ".join(re.sub(r"\b(NVIDIA|GeForce)\b", "", name).split())
    return next((gpu for gpu in GPUS if gpu.name == short), None)


def ratio_rows(figures: Mapping[str, Any], gpu: Gpu | None) -> list[tuple[str, float, float | None]]:
    """Operations and steps with measured and estimated seconds; None where there is no estimate."""
    estimated = {} if gpu is None else {label: estimates.seconds(gpu, s) for label, s in estimates.operations().items()}
    steps = {} if gpu is None else {name: estimates.step_seconds(gpu, name) for name in estimates.STEPS}
    kernels = [
        (label, float(seconds), estimated.get(label))
        for found in figures.get("operations", {}).values()
        for label, seconds in found.get("kernels", {}).items()
    ]
    measured = {name: found["seconds"] for name, found in figures.get("steps", {}).items() if "seconds" in found}
    return kernels + [(f"step of {name}", seconds, steps.get(name)) for name, seconds in measured.items()]


def markdown(record: Mapping[str, Any]) -> str:
    """The page."""
    machine, stages = record["machine"], record["stages"]
    lines = [
        f"# {machine['gpu']}",
        "",
        "Written by `python benchmarks/gpu.py`.",
        "",
        ", ".join(f"{name} {value}" for name, value in machine.items() if name != "gpu" and value not in (None, False)),
        "",
        "| stage | outcome | seconds |",
        "|---|---|---|",
        *(f"| {name} | {found['status']} | {found['seconds']:.0f} |" for name, found in stages.items()),
    ]
    figures = (stages.get("figures") or {}).get("figures") or {}
    rows = ratio_rows(figures, known(machine["gpu"]))
    if rows:
        lines += [
            "",
            "## Kernels at published sizes, and whole steps, measured",
            "",
            "Time of the kernels alone, beside what was [estimated](../resources/estimates.md) without a GPU.",
            "",
            "| | measured, us | estimated, us | measured / estimated |",
            "|---|---|---|---|",
            *(_ratio_row(*row) for row in rows),
        ]
    operations = figures.get("operations", {})
    if operations:
        lines += ["", "## Whole calls, measured", ""]
        lines += ["| operation | implementation | us | GB/s | GFLOP/s | |", "|---|---|---|---|---|---|"]
        lines += [_call_row(label, found) for label, found in operations.items()]
    sentences = ((stages.get("profile") or {}).get("figures") or {}).get("sentences", {})
    for name, texts in sentences.items():
        lines += ["", f"## What limits `{name}`", "", *texts]
    return "\n".join(lines) + "\n"


def _ratio_row(label: str, measured: float, estimated: float | None) -> str:
    beside = "- | -" if estimated is None else f"{1e6 * estimated:.1f} | {measured / estimated:.2f}"
    return f"| {label} | {1e6 * measured:.1f} | {beside} |"


def _call_row(label: str, found: Mapping[str, Any]) -> str:
    if "seconds" not in found:
        return f"| {label} | - | - | - | - | {found.get('reason', '')} |"
    seconds = found["seconds"]
    speeds = f"{1e-9 * found['bytes'] / seconds:.0f} | {1e-9 * found['operations'] / seconds:.0f}"
    return f"| {label} | {found['implementation']} | {1e6 * seconds:.1f} | {speeds} | |"
