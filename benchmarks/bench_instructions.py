"""Instructions that every CPU kernel executes on small inputs, and memory it takes for itself: figures without noise.

The kernels run in a driver of their own (instructions/), without Python or torch, on one thread and with AVX2
(callgrind knows no AVX-512). Counts are compared within one compiler version; another compiler makes other code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from spectrafuse.benchmarks import harness

SOURCE = Path(__file__).with_name("instructions")
BUILD = SOURCE.parents[1] / "build" / "kernel_driver"


def missing() -> str | None:
    """Why nothing can be counted here, or None."""
    tools = [tool for tool in ("cmake", "valgrind") if shutil.which(tool) is None]
    if tools:
        return f"{' and '.join(tools)} cannot be found"
    machine = os.uname().machine
    return None if machine == "x86_64" else f"AVX2 kernels are counted, and this machine is {machine}"


def build_driver() -> Path:
    """Compile the driver; returns its path."""
    for command in (["cmake", "-S", str(SOURCE), "-B", str(BUILD)], ["cmake", "--build", str(BUILD), "--parallel"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return BUILD / "kernel_driver"


def compiler() -> str:
    """Name and version of the compiler that made the driver."""
    text = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", text, re.MULTILINE)
    assert found is not None
    return subprocess.run([found[1], "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def count(driver: Path, case: str) -> dict[str, int]:
    """Instructions of one case, and the bytes it takes for itself."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=measured", f"--callgrind-out-file={folder}/out"]
        environment = {**os.environ, "SPECTRAFUSE_ISA": "avx2"}
        done = subprocess.run(
            [*command, str(driver), case], capture_output=True, text=True, env=environment, check=False
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"callgrind of '{case}' failed:\n{done.stderr[-2000:]}")
    return {"instructions": int(found[1]), "scratch_bytes": int(done.stdout)}


def rows() -> list[dict[str, Any]]:
    """A row for every case of the driver."""
    driver = build_driver()
    cases = subprocess.run([str(driver)], capture_output=True, text=True, check=True).stdout.splitlines()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = list(pool.map(lambda case: count(driver, case), cases))
    made = compiler()
    found = []
    for case, counted in zip(cases, counts, strict=True):
        operation, _, direction = case.rpartition(" ")
        named = {"operation": operation, "implementation": "cpu", "size": "driver", "direction": direction}
        found.append({**named, **counted, "compiler": made})
    return found


@pytest.mark.parametrize(("implementation", "size"), [("cpu", "driver")])
def test_instructions(implementation, size):
    reason = missing()
    if reason is not None:
        pytest.skip(f"no instructions counted: {reason}")
    harness.ROWS += rows()
