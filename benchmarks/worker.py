"""One version of spectrafuse that measures on request: `compare.py` runs two of these against each other.

Reads a request per line (JSON) from standard input and answers with a line on standard output. It is started with the
version to measure first on its path, while the benchmarks themselves are always those of this folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

SAMPLE_SECONDS = 0.004
_MOST_REPEATS = 10_000


class Worker:
    """Answers requests; holds the case that was prepared last."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.call: Callable[[], object] = lambda: None
        self.repeats = 1

    def prepare(self, operation: str, implementation: str, size: str, direction: str) -> dict[str, Any]:
        """Make a case ready and warm; `reason` says why it cannot run here."""
        import measure
        from declared import operations
        from spectrafuse import backends

        case = operations()[operation]
        try:
            reason = backends.why_not(case.name, implementation, "cpu")
        except KeyError:
            reason = f"this version has no {case.name}"
        call = None if reason else case.prepare(implementation, size, direction)
        if call is None:
            return {"reason": reason or "it needs too much memory"}
        self.call, self.repeats = call, 1
        peak = measure.peak_memory(call)
        seconds = min(self._seconds() for _ in range(3))
        self.repeats = max(1, min(_MOST_REPEATS, round(SAMPLE_SECONDS / max(seconds, 1e-9))))
        return {"reason": None, "peak_memory": peak, "repeats": self.repeats}

    def repeat(self, repeats: int) -> dict[str, Any]:
        """Take over the other version's number of repeats, so that both do the same work."""
        self.repeats = repeats
        self._seconds()
        return {}

    def sample(self) -> dict[str, Any]:
        return {"seconds": self._seconds()}

    def _seconds(self) -> float:
        start = time.thread_time_ns()
        for _ in range(self.repeats):
            self.call()
        return (time.thread_time_ns() - start) * 1e-9 / self.repeats


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


def main() -> None:
    if len(sys.argv) > 1:
        import_only_from(sys.argv[1])
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
