"""Stored figures: JSON lines, one file a machine, and the counted quantities that a later version must not exceed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spectrafuse.benchmarks import measure

FOLDER = Path("benchmarks/history")
"""In the folder the command is run in."""
BASELINE = "baseline.jsonl"
COUNTED = {
    "operations": None,
    "bytes": None,
    "tensor_bytes": "torch",
    "scratch_bytes": None,
    "instructions": "compiler",
}
"""Quantities that are the same in every run, and what two rows must agree in to be compared by them."""
TOLERANCE = 0.02
"""By which share a counted quantity may grow unnoticed."""
CASE = ("operation", "implementation", "size", "direction")

Row = Mapping[str, Any]


def fingerprint() -> str:
    """A short name of this machine: architecture, processor, threads and instruction set."""
    facts = measure.machine()
    text = "|".join([platform.machine(), facts["processor"], facts["threads"], facts["instruction_set"]])
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def of_this_machine(folder: Path = FOLDER) -> Path:
    """The file of this machine's rows."""
    return folder / f"{fingerprint()}.jsonl"


def append(rows: Iterable[Row], file: Path) -> None:
    """Add rows to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def read(file: Path, *required: str) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines; figures have the keys of `CASE`.

    Raises
    ------
    ValueError
        Where the file cannot be read, or a line is no object with the required keys, with its number.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}.") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: expected a JSON object; {error}.") from error
        if not isinstance(row, dict) or any(key not in row for key in required):
            raise ValueError(f"{file}, line {number}: expected a JSON object with {', '.join(required) or 'keys'}.")
        rows.append(row)
    return rows


def case_of(row: Row) -> tuple[str, ...]:
    """What a row measures."""
    return tuple(row[key] for key in CASE)


def latest(rows: Iterable[Row]) -> dict[tuple[str, ...], Row]:
    """The last row of every case."""
    return {case_of(row): row for row in rows}


def counted(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The counted quantities alone, one row a case: what a baseline is made of."""
    kept = [*CASE, "input_hash", *COUNTED, *filter(None, COUNTED.values())]
    found = [{key: row[key] for key in kept if key in row} for row in latest(rows).values()]
    return sorted((row for row in found if COUNTED.keys() & row.keys()), key=case_of)


def grown(base: Iterable[Row], head: Iterable[Row]) -> list[str]:
    """A sentence for every counted quantity of `head` that is larger than in `base`."""
    sentences = []
    earlier = latest(base)
    for case, row in latest(head).items():
        name = " ".join(case)
        before = earlier.get(case, {})
        for quantity, same in COUNTED.items():
            if quantity not in row or quantity not in before or (same and row.get(same) != before.get(same)):
                continue
            if row[quantity] > before[quantity] * (1 + TOLERANCE):
                share = f" ({row[quantity] / before[quantity] - 1:+.1%})" if before[quantity] else ""
                sentences.append(f"{name}: {quantity} {before[quantity]} -> {row[quantity]}{share}")
    return sentences


def added(base: Iterable[Row], head: Iterable[Row]) -> list[str]:
    """Cases of `head` that `base` lacks."""
    earlier = latest(base)
    return [" ".join(case) for case in latest(head) if case not in earlier]


def uncompared(base: Iterable[Row], head: Iterable[Row]) -> list[str]:
    """Counted quantities of base that say nothing about head, by case, and why."""
    later = latest(head)
    found = []
    for case, row in latest(base).items():
        after = later.get(case, {})
        for quantity, same in COUNTED.items():
            if quantity in row and quantity not in after:
                found.append(f"{quantity} of {' '.join(case)} (not counted in head)")
            elif quantity in row and same and row.get(same) != after.get(same):
                found.append(f"{quantity} of {' '.join(case)} (another {same})")
    return found
