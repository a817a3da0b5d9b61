"""What pieces of code take in a process of their own: seconds, and the most memory beyond what each began with."""

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
path, *calls = sys.argv[1:]
def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
found = []
for call in calls:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, start = status("VmRSS"), time.perf_counter()
    try:
        outcome = str(getattr(eval(call), "shape", ""))
    except DataError as error:
        outcome = f"DataError: {error}"
    found.append([outcome, time.perf_counter() - start, status("VmHWM") - before])
print(json.dumps(found))
"""


class Measured(NamedTuple):
    """Outcome ("DataError: ..." or a shape), seconds, and bytes of memory beyond what was there before."""

    outcome: str
    seconds: float
    memory: int


def measured(path: object, *calls: str, limit: float = 120.0) -> list[Measured]:
    """Evaluate calls of readers on `path`, one after the other."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", "-c", _CODE, str(path), *calls]
    done = subprocess.run(words, capture_output=True, text=True, timeout=limit, env=environment)
    assert done.returncode == 0, f"rc {done.returncode}: {done.stderr[-2000:]}"
    return [Measured(*figures) for figures in json.loads(done.stdout)]
