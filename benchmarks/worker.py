"""One version of spectrafuse that measures on request: `compare.py` runs two of these against each other.

    python worker.py COUNTS [VERSION]

Reads a request per line (JSON) from standard input and answers with a line on standard output. It is started with the
version to measure first on its path, while the benchmarks themselves are always those of this folder, and what they
count is counted by the file COUNTS. A request to `renew` has a fresh copy of the process take over: where the memory
of a process happens to lie makes identical code up to a tenth slower or faster, for as long as the process lives.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

BATCHES, BATCH_SECONDS = 5, 0.0004
"""A sample is the second fastest of some batches of calls: what was not interrupted, on caches that are warm."""
_MOST_REPEATS = 1000
_AGAIN = 3
"""Exit status of a copy of this process after which another takes over."""
_GAINS = 15
"""How often a call is measured with and without all of its kernels' work repeated."""


class Worker:
    """Answers requests; holds the case that was prepared last."""

    def __init__(self) -> None:
        self.call: Callable[[], object] = lambda: None
        self.case: dict[str, str] = {}
        self.repeats = 1
        # Where arrays lie follows from what was taken before them.
        self._padding = bytearray(secrets.randbelow(2**20))

    def prepare(
        self, operation: str, implementation: str, size: str, direction: str, repeats: int = 0
    ) -> dict[str, Any]:
        """Make a case ready and warm, with this many calls a batch.

        `reason` says why it cannot run here, `error` what it raised.
        """
        from spectrafuse.benchmarks.declared import operations

        case = operations().get(operation)
        if case is None:
            return {"reason": f"this version has no {operation}"}
        try:
            reason = case.why_not(implementation, size)
            if reason is not None:
                return {"reason": reason}
            self.call, self.repeats = case.prepare(implementation, size, direction), repeats or 1
            self._seconds()
            if not repeats:
                self.repeats = max(1, min(_MOST_REPEATS, round(BATCH_SECONDS / max(self._seconds(), 1e-9))))
        except Exception as error:
            return {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
        return {"reason": None, "repeats": self.repeats}

    def slow_down(self, percent: float) -> dict[str, Any]:
        """How much of a kernel's work to repeat so that a call takes this much longer."""
        gains = []
        for _ in range(_GAINS):
            self.repeat_work(0)
            once = self._seconds()
            self.repeat_work(100)
            gains.append(self._seconds() / once - 1)
        # What all the kernels' work adds; the rest of a call is not in the kernels.
        return {"repeated": min(100, round(percent / sorted(gains)[_GAINS // 2]))}

    def repeat_work(self, percent: int) -> dict[str, Any]:
        """Have kernels repeat this share of their work; needs a build with SPECTRAFUSE_REPEAT_WORK."""
        from spectrafuse import _cpu

        _cpu.repeat_work(percent)
        return {}

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
    if sys.argv[1:]:
        import_only_from(*sys.argv[1:])
    import torch

    import spectrafuse  # noqa: F401

    torch.set_num_threads(1)
    folder = Path(__file__).parent
    import_file("benchmarks", folder / "__init__.py", [str(folder)])
    from spectrafuse.benchmarks.declared import operations

    operations()  # Copies of this process need not import anything.
    # Whatever a version prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    while _in_a_copy(lambda: serve(Worker(), answers)):
        pass


def serve(worker: Worker, answers: TextIO) -> bool:
    """Answer requests until there are no more (False), or until another process shall take over (True)."""
    for line in sys.stdin:
        request = json.loads(line)
        renew = request["do"] == "renew"
        answer = {} if renew else getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if renew:
            return True
    return False


def _in_a_copy(work: Callable[[], bool]) -> bool:
    """What `work` returns in a copy of this process; its failure ends this one."""
    if not hasattr(os, "fork"):
        return work()
    process = os.fork()
    if process == 0:
        os._exit(_AGAIN if work() else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status not in (0, _AGAIN):
        raise SystemExit(status)
    return status == _AGAIN


if __name__ == "__main__":
    main()
