"""The report of a profile: table, picture of the shares, summary and record, written into a folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrafuse.cli.profile.bounds import Bounds
from spectrafuse.cli.profile.table import OTHER, REST, Measured, Row

COLUMNS = (
    "phase", "operation", "calls", "seconds", "share", "ms_per_call", "gb_per_s", "gflop_per_s", "share_of_bound",
    "memory_mb",
)  # fmt: skip
RECORD = "profile.json"


@dataclass
class Phase:
    """One part of a run.

    Attributes
    ----------
    name : str
        "training" or "prediction".
    unit : str
        What a step is.
    sentence : str
        What limits it.
    """

    name: str
    unit: str
    measured: Measured
    sentence: str


def table_rows(phase: Phase, bounds: Bounds) -> list[dict[str, Any]]:
    """The table of a phase, as plain values by `COLUMNS`; None where nothing is known."""
    return [_as_row(phase, row, bounds) for row in phase.measured.rows]


def _as_row(phase: Phase, row: Row, bounds: Bounds) -> dict[str, Any]:
    known = row.work is not None and row.seconds > 0
    work = row.work if row.work is not None and known else (0, 0)
    return {
        "phase": phase.name,
        "operation": row.label,
        "calls": row.calls or None,
        "seconds": row.seconds,
        "share": row.seconds / phase.measured.seconds if phase.measured.seconds else 0.0,
        "ms_per_call": 1e3 * row.seconds / row.calls if row.calls else None,
        "gb_per_s": 1e-9 * work[1] / row.seconds if known else None,
        "gflop_per_s": 1e-9 * work[0] / row.seconds if known else None,
        "share_of_bound": bounds.seconds(*work) / row.seconds if known else None,
        "memory_mb": row.memory / 2**20 if row.memory > 0 else None,
    }


def write(folder: Path, phases: Sequence[Phase], bounds: Bounds, record: Mapping[str, Any]) -> None:
    """Everything but the traces, into a folder."""
    from spectrafuse.io.fingerprint import sha256
    from spectrafuse.io.results import write_json

    rows = [row for phase in phases for row in table_rows(phase, bounds)]
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)
    (folder / "summary.txt").write_text(summary(phases, bounds, record), encoding="utf-8")
    _save_picture(folder / "shares.png", phases)
    phase_records = [
        {
            "phase": phase.name,
            "steps": phase.measured.steps,
            "first_step": phase.measured.first_step,
            "seconds": phase.measured.seconds,
            "recorded_step_seconds": phase.measured.step_seconds,
            "sentence": phase.sentence,
        }
        for phase in phases
    ]
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    listed = {"files": sorted([*hashes, RECORD]), "sha256": hashes}
    write_json(folder / RECORD, {**record, "bounds": bounds._asdict(), "phases": phase_records, "rows": rows, **listed})


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def summary(phases: Sequence[Phase], bounds: Bounds, record: Mapping[str, Any]) -> str:
    """The summary as text, one page."""
    lines = [
        *(phase.sentence for phase in phases),
        "",
        f"Device: {record['device_name']}; copy {1e-9 * bounds.bandwidth:.3g} GB/s, float32 arithmetic "
        f"{1e-9 * bounds.arithmetic_rate:.4g} GFLOP/s, measured at the start.",
        f"Peak memory of {record['memory_of']}: {record['peak_memory'] / 2**20:.0f} MiB.",
    ]
    for phase in phases:
        found = phase.measured
        last = found.first_step + found.steps - 1
        lines.append(
            f"{phase.name}: {phase.unit} {found.first_step} to {last}; a {phase.unit} takes "
            f"{1e3 * found.seconds / found.steps:.3g} ms, and {1e3 * found.step_seconds:.3g} ms while it is recorded."
        )
    lines += ["", *record["notes"], ""]
    return "\n".join(lines)


def _save_picture(path: Path, phases: Sequence[Phase]) -> None:
    """Bars of the shares, a panel for each phase."""
    from spectrafuse.reports.style import GRAY, new_figure, palette

    height = 1.0 + sum(0.7 + 0.28 * len(phase.measured.rows) for phase in phases)
    figure = new_figure(8.0, height, layout="constrained")
    panels = figure.subplots(
        len(phases), 1, squeeze=False, gridspec_kw={"height_ratios": [len(p.measured.rows) + 2 for p in phases]}
    )[:, 0]
    color = palette(1)[0]
    for panel, phase in zip(panels, phases, strict=True):
        rows = phase.measured.rows[::-1]
        shares = [100 * row.seconds / phase.measured.seconds for row in rows]
        bars = panel.barh(
            [row.label for row in rows], shares, color=[GRAY if r.label in (REST, OTHER) else color for r in rows]
        )
        panel.bar_label(bars, [f"{share:.1f} %" for share in shares], padding=3, fontsize=8)
        panel.set_xlim(0, 1.15 * max(shares))
        panel.set_xlabel("share of the time, %")
        panel.set_title(f"{phase.name}, {phase.measured.steps} {phase.unit}s", loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
