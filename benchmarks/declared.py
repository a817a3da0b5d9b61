"""The operations that the files `bench_*.py` beside this one declare."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from harness import Operation


@functools.cache
def operations() -> dict[str, Operation]:
    """Every operation that is declared, by its label."""
    modules = [importlib.import_module(file.stem) for file in sorted(Path(__file__).parent.glob("bench_*.py"))]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Operation)]
    return {operation.label: operation for operation in found}
