"""What calls of readers take in a process of their own: seconds, and the most memory beyond what each began with."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

# Imported before a process is measured.
import h5py  # noqa: F401
import scipy.ndimage  # noqa: F401

from spectrafuse.io import DataError, envi, labelme, labels, matlab5, spectra, tables  # noqa: F401


class Measured(NamedTuple):
    """Outcome ("DataError: ..." or a shape), seconds, and bytes of memory beyond what was there before."""

    outcome: str
    seconds: float
    memory: int


def measured(*calls: Callable[[], Any], limit: int = 120) -> list[Measured]:
    """Call functions one after the other in a forked process, which ends after so many seconds."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        code = 99
        try:
            signal.alarm(limit)
            os.write(writing, json.dumps([_measure(call) for call in calls]).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == 0, f"the process ended with {code}"
    return [Measured(*figures) for figures in json.loads(found)]


def _measure(call: Callable[[], Any]) -> Measured:
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, start = _status("VmRSS"), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = str(getattr(call(), "shape", ""))
    except DataError as error:
        outcome = f"DataError: {error}"
    return Measured(outcome, time.perf_counter() - start, _status("VmHWM") - before)


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
