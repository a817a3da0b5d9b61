"""One version of spectrafuse that measures on request: `compare.py` runs two of these against each other.

    python worker.py COUNTS [VERSION]

Reads a request per line (JSON) from standard input and answers with a line on standard output. It is started with the
version to measure first on its path, while the benchmarks themselves are always those of this folder, and what they
count is counted by the file COUNTS.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCHES, BATCH_SECONDS = 5, 0.0004
"""A sample is the second fastest of some batches of calls: what was not interrupted, on caches that are warm."""
_MOST_REPEATS = 1000
_GAINS = 15
"""How often a call is measured with and without all of its kernels' work repeated."""


class Worker:
    """Answers requests; holds the case that was prepared last."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self.call: Callable[[], object] = lambda: None
        self.case: dict[str, str] = {}
        self.repeats = 1

    def prepare(self, operation: str, implementation: str, size: str, direction: str) -> dict[str, Any]:
        """Make a case ready and warm; `reason` says why it cannot run here."""
        from spectrafuse.benchmarks.declared import operations

        case = operations().get(operation)
        reason = f"this version has no {operation}" if case is None else case.why_not(implementation, size)
        if case is None or reason:
            return {"reason": reason}
        self.call, self.repeats = case.prepare(implementation, size, direction), 1
        self._seconds()
        self.repeats = max(1, min(_MOST_REPEATS, round(BATCH_SECONDS / max(self._seconds(), 1e-9))))
        return {"reason": None, "repeats": self.repeats}

    def repeat(self, repeats: int) -> dict[str, Any]:
        """Take over the other version's number of repeats, so that both do the same work."""
        self.repeats = repeats
        self._seconds()
        return {}

    def slow_down(self, percent: float) -> dict[str, Any]:
        """Let the kernels of a build with SPECTRAFUSE_REPEAT_WORK repeat work until a call takes this much longer."""
        from spectrafuse import _cpu

        gains = []
        for _ in range(_GAINS):
            _cpu.repeat_work(0)
            once = self._seconds()
            _cpu.repeat_work(100)
            gains.append(self._seconds() / once - 1)
        # What all the kernels' work adds; the rest of a call is not in the kernels.
        repeated = min(100, round(percent / sorted(gains)[_GAINS // 2]))
        _cpu.repeat_work(repeated)
        return {"repeated": repeated}

    def sample(self) -> dict[str, Any]:
        return {"seconds": self._seconds()}

    def peak_memory(self) -> dict[str, Any]:
        from spectrafuse.benchmarks import measure

        return {"bytes": measure.peak_memory(self.call)}

    def _seconds(self) -> float:
        """Processor time of one call."""
        batches = []
        for _ in range(BATCHES):
            start = time.thread_time_ns()
            for _ in range(self.repeats):
                self.call()
            batches.append(time.thread_time_ns() - start)
        return sorted(batches)[1] * 1e-9 / self.repeats


def import_only_from(folder: str) -> None:
    """Make sure that the version in `folder` is the one that is measured, not one installed in editable form.

    Raises
    ------
    ImportError
        If another one is found all the same.
    """
    # The finder of an editable installation comes before the path.
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
    import spectrafuse

    if not os.path.realpath(spectrafuse.__file__).startswith(os.path.realpath(folder) + os.sep):
        raise ImportError(f"expected spectrafuse from {folder}; got {spectrafuse.__file__}")


def import_file(name: str, file: Path, search: list[str] | None = None) -> None:
    """Make a module of the package this file, whatever the version to measure brings along."""
    found = importlib.util.spec_from_file_location(f"spectrafuse.{name}", file, submodule_search_locations=search)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    setattr(sys.modules["spectrafuse"], name, module)


def main() -> None:
    # The folder of a script is on the path, and its modules would hide others of the same name.
    sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).parent.resolve()]
    counts, *version = sys.argv[1:]
    if version:
        import_only_from(*version)
    import spectrafuse  # noqa: F401

    import_file("counts", Path(counts))
    folder = Path(__file__).parent
    import_file("benchmarks", folder / "__init__.py", [str(folder)])
    # Whatever a version prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
