"""The operations that the files `bench_*.py` beside this one declare."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from harness import Operation


@functools.cache
def operations() -> dict[str, Operation]:
    """Every `OPERATION` by its name."""
    modules = [importlib.import_module(file.stem) for file in sorted(Path(__file__).parent.glob("bench_*.py"))]
    found = [module.OPERATION for module in modules if hasattr(module, "OPERATION")]
    return {operation.name: operation for operation in found}
