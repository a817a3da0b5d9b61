"""The table of benchmarks/README.md: every operation at its published size, and why some gain little."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrafuse.benchmarks.history import Row, latest

RATIO, SHARE = 1.5, 0.30
"""What falls below either, of PyTorch's speed and of the bound, is explained."""
BEGIN, END = "<!-- written by `make headline` -->\n", "<!-- end -->\n"
EXPLANATIONS = Path(__file__).with_name("explanations.json")


def published(rows: Sequence[Row]) -> list[Row]:
    """Last rows of every operation's kernel at published size, forward and backward together where there is both."""
    found = [row for row in latest(rows).values() if row["implementation"] == "cpu" and row["size"].startswith("paper")]
    timed = [row for row in found if "milliseconds" in row]
    both = {(row["operation"], row["size"]) for row in timed if row["direction"] == "both"}
    kept = [row for row in timed if row["direction"] == "both" or (row["operation"], row["size"]) not in both]
    return sorted(kept, key=lambda row: (row["operation"], row["size"]))


def below(row: Row) -> bool:
    """Whether an operation has to be explained."""
    return row.get("ratio_to_torch", RATIO) < RATIO or row["share_of_bound"] < SHARE


def name(row: Row) -> str:
    return row["operation"] + row["size"].removeprefix("paper").replace("-", ", ", 1)


def write(rows: Sequence[Row], readme: Path) -> list[str]:
    """Put the table between the markers of a file; returns operations that have to be explained and are not.

    Raises
    ------
    ValueError
        Where there is nothing to show, or the file has no markers.
    """
    found = published(rows)
    if not found:
        raise ValueError("No figures of published size: `spectrafuse-bench run` makes some.")
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme} has no lines {BEGIN.strip()} and {END.strip()}.")
    explanations: dict[str, Any] = json.loads(EXPLANATIONS.read_text(encoding="utf-8"))
    before, rest = text.split(BEGIN, 1)
    readme.write_text(before + BEGIN + table(found, explanations) + END + rest.split(END, 1)[1], encoding="utf-8")
    return [name(row) for row in found if below(row) and name(row) not in explanations]


def table(found: Sequence[Row], explanations: dict[str, Any]) -> str:
    """Markdown: figures, and a line for everything that is below a limit."""
    first = found[0]
    lines = [
        f"{first['processor']}, {first['instruction_set']}, {first['threads']} threads, torch {first['torch']},"
        f" commit {first['commit']}. Published sizes, forward and backward where there is one.",
        "",
        "| operation | ms | x published | x PyTorch | peak MB | share of bound |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        ratios = (f"{row[key]:.3g}" if key in row else "" for key in ("ratio_to_reference", "ratio_to_torch"))
        share = f"{row['share_of_bound']:.0%} of {row['bound']}"
        cells = [name(row), f"{row['milliseconds']:.3g}", *ratios, f"{row['peak_memory_mb']:.3g}", share]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines += [f"- {name(row)}: {explanations.get(name(row), 'not explained')}" for row in found if below(row)]
    return "\n".join(lines) + "\n"
