"""The operations that the files `bench_*.py` beside this one declare."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from spectrafuse.benchmarks.harness import Operation


@functools.cache
def operations() -> dict[str, Operation]:
    """Every operation that is declared and that the imported version of spectrafuse has, by its label."""
    found = []
    for file in sorted(Path(__file__).parent.glob("bench_*.py")):
        try:
            module = importlib.import_module(f"spectrafuse.benchmarks.{file.stem}")
        except ImportError:  # an earlier version without this operation
            continue
        found += [value for value in vars(module).values() if isinstance(value, Operation)]
    return {operation.label: operation for operation in found}
