"""The page of what `gpu.py` found on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def seconds_of(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Kernels and whole steps with the seconds they took."""
    kernels = [
        (label, float(seconds))
        for found in figures.get("operations", {}).values()
        for label, seconds in found.get("kernels", {}).items()
    ]
    steps = figures.get("steps", {}).items()
    return kernels + [(f"step of {name}", float(found["seconds"])) for name, found in steps if "seconds" in found]


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
    rows = seconds_of(figures)
    if rows:
        lines += [
            "",
            "## Kernels at published sizes, and whole steps, measured",
            "",
            "Time of the kernels alone.",
            "",
            "| | us |",
            "|---|---|",
            *(f"| {label} | {1e6 * seconds:.1f} |" for label, seconds in rows),
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


def _call_row(label: str, found: Mapping[str, Any]) -> str:
    if "seconds" not in found:
        return f"| {label} | - | - | - | - | {found.get('reason', '')} |"
    seconds = found["seconds"]
    speeds = f"{1e-9 * found['bytes'] / seconds:.0f} | {1e-9 * found['operations'] / seconds:.0f}"
    return f"| {label} | {found['implementation']} | {1e6 * seconds:.1f} | {speeds} | |"
