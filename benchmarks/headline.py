"""The table of benchmarks/README.md: every operation at its published size; and beside it why some gain little."""

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
EXPLAINED = "explained.md"
"""File beside the table."""


def published(rows: Sequence[Row]) -> list[Row]:
    """Last rows of every operation's kernel at published size."""
    found = [row for row in latest(rows).values() if row["implementation"] == "cpu" and row["size"].startswith("paper")]
    return sorted((row for row in found if "milliseconds" in row), key=lambda row: (row["operation"], row["size"]))


def whole(found: Sequence[Row]) -> list[Row]:
    """Of every operation the row of both directions together, where there is one."""
    both = {name(row) for row in found if row["direction"] == "both"}
    return [row for row in found if row["direction"] == "both" or name(row) not in both]


def below(found: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows that have to be explained, by operation."""
    slow: dict[str, list[Row]] = {}
    for row in found:
        if row.get("ratio_to_torch", RATIO) < RATIO or row["share_of_bound"] < SHARE:
            slow.setdefault(name(row), []).append(row)
    return slow


def name(row: Row) -> str:
    return row["operation"] + row["size"].removeprefix("paper").replace("-", ", ", 1)


def write(rows: Sequence[Row], readme: Path) -> list[str]:
    """Put the table between the markers of a file, and what explains it into one beside it.

    Returns operations that have to be explained and are not.

    Raises
    ------
    ValueError
        Where there is nothing to show, or the file cannot be read or has no markers.
    """
    found = published(rows)
    if not found:
        raise ValueError("No figures of published size: `spectrafuse-bench run` makes some.")
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{readme} cannot be read: {error.strerror}.") from None
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme} has no lines {BEGIN.strip()} and {END.strip()}.")
    explanations: dict[str, Any] = json.loads(EXPLANATIONS.read_text(encoding="utf-8"))
    before, rest = text.split(BEGIN, 1)
    readme.write_text(before + BEGIN + table(found) + END + rest.split(END, 1)[1], encoding="utf-8")
    sections = {
        f"Below {RATIO} times PyTorch or {SHARE:.0%} of the bound": explained(found, explanations),
        "Whole methods of other libraries": whole_methods(rows),
    }
    parts = [f"# What the table does not say\n\nWritten by `make headline`. {explanations['figures']}\n"]
    parts += [f"\n## {title}\n\n" + "".join(f"- {x}\n" for x in lines) for title, lines in sections.items() if lines]
    readme.with_name(EXPLAINED).write_text("".join(parts), encoding="utf-8")
    return [operation for operation in below(found) if operation not in explanations]


def table(found: Sequence[Row]) -> str:
    """Markdown."""
    first = found[0]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in found))
    lines = [
        f"{first['processor']}, {first['instruction_set']}, {first['threads']} threads, torch {first['torch']},"
        f" commit {commits}. Published sizes, forward and backward where there is one.",
        "",
        "| operation | ms | x published | x PyTorch | peak MB | share of bound |",
        "|---|---|---|---|---|---|",
    ]
    for row in whole(found):
        ratios = (f"{row[key]:.3g}" if key in row else "" for key in ("ratio_to_reference", "ratio_to_torch"))
        share = f"{row['share_of_bound']:.0%} of {row['bound']}"
        cells = [name(row), f"{row['milliseconds']:.3g}", *ratios, f"{row['peak_memory_mb']:.3g}", share]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def explained(found: Sequence[Row], explanations: dict[str, Any]) -> list[str]:
    """A sentence for everything that is below a limit."""
    lines = []
    for operation, rows in below(found).items():
        figures = (f"{row['direction']} {_times(row)}, {row['share_of_bound']:.0%}" for row in rows)
        lines.append(f"{operation} ({'; '.join(figures)}): {explanations.get(operation, 'not explained')}")
    return lines


def whole_methods(rows: Sequence[Row]) -> list[str]:
    """A sentence for every task that our method and other libraries' were given, with the time to the same quality."""
    found: dict[str, list[str]] = {}
    for row in latest(rows).values():
        if "ours" not in row:
            continue
        ours, seconds, quality = row["ours"]
        told = found.setdefault(row["operation"], [f"{ours} takes {seconds:.3g} s to a quality of {quality:.4f}"])
        if row["implementation"] != ours:
            own = f"{row['quality']:.4f}, {row['milliseconds'] / 1e3:.3g} s, {row['effort']}"
            told.append(f"{row['implementation']} {'reaches' if row['reaches_ours'] else 'never reaches'} it ({own})")
    return [f"{task}: {'; '.join(told)}." for task, told in found.items()]


def _times(row: Row) -> str:
    return f"{row['ratio_to_torch']:.2g} x" if "ratio_to_torch" in row else ""
