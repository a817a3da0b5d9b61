"""What a piece of code takes in a process of its own: seconds, and the most memory beyond what it began with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NamedTuple

_CODE = """
import json, resource, sys, time
import numpy, h5py, torch, scipy.ndimage
from spectrafuse.io import DataError, open_cube, read_cube, read_labels, read_spectra
from spectrafuse.io import arrays, envi, labelme, labels, spectra, tables
path, call = sys.argv[1:]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
before, start = status("VmRSS"), time.perf_counter()
try:
    outcome = str(getattr(eval(call), "shape", ""))
except DataError as error:
    outcome = f"DataError: {error}"
print(json.dumps([outcome, time.perf_counter() - start, status("VmHWM") - before]))
"""


class Measured(NamedTuple):
    """Outcome ("DataError: ..." or a shape), seconds, and bytes of memory beyond what was there before."""

    outcome: str
    seconds: float
    memory: int


def measured(path: object, call: str, limit: float = 60.0) -> Measured:
    """Evaluate a call of a reader on `path`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", "-c", _CODE, str(path), call]
    done = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=environment)
    assert done.returncode == 0, f"rc {done.returncode}: {done.stderr[-2000:]}"
    return Measured(*json.loads(done.stdout))
