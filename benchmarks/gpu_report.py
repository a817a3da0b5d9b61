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
    figures = _figures(stages, "figures")
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
    compared = {**_figures(stages, "compiled"), **_figures(stages, "published")}
    if compared:
        lines += ["", "## Beside `torch.compile` and the published code, measured", ""]
        lines += ["| | | us | times this package |", "|---|---|---|---|"]
        lines += [_peer_row(label, name, found) for label, found in compared.items() for name in found]
    launches = _figures(stages, "ncu").get("launches", {})
    if launches:
        lines += ["", "## The heaviest kernels, by Nsight Compute", "", "Shares of what the GPU can do.", ""]
        lines += ["| | kernel | us | arithmetic | memory | occupancy | registers |", "|---|---|---|---|---|---|---|"]
        lines += [_launch_row(label, launch) for label, launch in launches.items()]
    sentences = _figures(stages, "profile").get("sentences", {})
    for name, texts in sentences.items():
        lines += ["", f"## What limits `{name}`", "", *texts]
    return "\n".join(lines) + "\n"


def _figures(stages: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a stage found; nothing where it did not run."""
    return (stages.get(name) or {}).get("figures") or {}


def _peer_row(label: str, name: str, found: Mapping[str, Any]) -> str:
    """One way to do the first of `found`, the time of which is 1."""
    own, seconds = (found.get(key, {}).get("seconds") for key in (next(iter(found)), name))
    if seconds is None:
        return f"| {label} | {name} | {found[name].get('reason', '')} | - |"
    return f"| {label} | {name} | {1e6 * seconds:.1f} | {f'{seconds / own:.2f}' if own else '-'} |"


def _launch_row(label: str, launch: Mapping[str, Any]) -> str:
    if "kernel" not in launch:
        return f"| {label} | {launch.get('reason', '')} | - | - | - | - | - |"
    shares = [f"{launch[name]:.0f} %" if name in launch else "-" for name in ("arithmetic", "memory", "occupancy")]
    time = f"{1e-3 * launch['nanoseconds']:.1f}" if "nanoseconds" in launch else "-"
    name = launch["kernel"].partition("(")[0].replace("|", "\\|")
    return f"| {label} | `{name}` | {time} | {' | '.join(shares)} | {launch.get('registers', 0):.0f} |"


def _call_row(label: str, found: Mapping[str, Any]) -> str:
    if "seconds" not in found:
        return f"| {label} | - | - | - | - | {found.get('reason', '')} |"
    seconds = found["seconds"]
    speeds = f"{1e-9 * found['bytes'] / seconds:.0f} | {1e-9 * found['operations'] / seconds:.0f}"
    return f"| {label} | {found['implementation']} | {1e6 * seconds:.1f} | {speeds} | |"
