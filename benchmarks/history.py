"""Stored figures: JSON lines, one file a machine, and the counts that a later version must not exceed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import measure

FOLDER = Path(__file__).with_name("history")
COUNTED = ("operations", "bytes")
"""Quantities that do not depend on the machine."""


def fingerprint() -> str:
    """A short name of this machine: architecture, processor, threads and instruction set."""
    facts = measure.machine()
    text = "|".join([platform.machine(), facts["processor"], facts["threads"], facts["instruction_set"]])
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def append(rows: Iterable[Mapping[str, Any]], folder: Path = FOLDER) -> Path:
    """Add rows to this machine's file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{fingerprint()}.jsonl"
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    return file


def read(file: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines.

    Raises
    ------
    ValueError
        Where a line is no JSON object, with its number.
    """
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}, line {number}: expected a JSON object; {error}.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number}: expected a JSON object; got {type(row).__name__}.")
        rows.append(row)
    return rows


def case_of(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What a row measures."""
    return row["operation"], row["implementation"], row["size"], row["direction"]


def latest(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str, str], Mapping[str, Any]]:
    """The last row of every case."""
    return {case_of(row): row for row in rows}
