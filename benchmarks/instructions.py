"""Instructions that every CPU kernel executes on small inputs, counted by callgrind: a figure without noise.

    python benchmarks/instructions.py            count, write benchmarks/instructions/counts.json
    python benchmarks/instructions.py --check    fail where a kernel executes more than the table says

The kernels run in a driver of their own, without Python or torch, on one thread and with AVX2 (callgrind knows no
AVX-512). Counts are compared within one compiler version; another compiler makes other code.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).with_suffix("")
TABLE = SOURCE / "counts.json"
BUILD = ROOT / "build" / "kernel_driver"
TOLERANCE = 0.02
"""By which share a count may grow unnoticed; the same code always gives the same count."""


def missing() -> str | None:
    """Why nothing can be counted here, or None."""
    tools = [tool for tool in ("cmake", "valgrind") if shutil.which(tool) is None]
    if tools:
        return f"{' and '.join(tools)} cannot be found"
    machine = os.uname().machine
    return None if machine == "x86_64" else f"the table is one of AVX2 kernels, and this machine is {machine}"


def build_driver() -> Path:
    """Compile the driver; returns its path."""
    for command in (["cmake", "-S", str(SOURCE), "-B", str(BUILD)], ["cmake", "--build", str(BUILD), "--parallel"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return BUILD / "kernel_driver"


def compiler() -> str:
    """Name and version of the compiler that made the driver."""
    text = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", text, re.MULTILINE)
    assert found is not None
    return subprocess.run([found[1], "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def count(driver: Path, case: str) -> int:
    """Instructions of one case."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=measured", f"--callgrind-out-file={folder}/out"]
        environment = {**os.environ, "SPECTRAFUSE_ISA": "avx2"}
        done = subprocess.run(
            [*command, str(driver), case], capture_output=True, text=True, env=environment, check=False
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"callgrind of '{case}' failed:\n{done.stderr[-2000:]}")
    return int(found[1])


def measure_all() -> dict[str, Any]:
    """The table: the compiler, and the count of every case."""
    driver = build_driver()
    cases = subprocess.run([str(driver)], capture_output=True, text=True, check=True).stdout.splitlines()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = pool.map(lambda case: count(driver, case), cases)
        return {"compiler": compiler(), "instructions": dict(zip(cases, counts, strict=True))}


def grown(stored: dict[str, int], found: dict[str, int]) -> list[str]:
    """A sentence for every case that the stored table lacks, or that executes more than it says."""
    sentences = []
    for case, instructions in found.items():
        if case not in stored:
            sentences.append(f"{case}: the table lacks it")
        elif instructions > stored[case] * (1 + TOLERANCE):
            sentences.append(f"{case}: {stored[case]} -> {instructions} ({instructions / stored[case] - 1:+.1%})")
    return sentences


def main() -> int:
    """Count and write the table, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the stored table and write nothing")
    check = parser.parse_args().check
    reason = missing()
    if reason is not None:
        print(f"No instructions counted: {reason}.")
        return 0 if check else 2
    stored = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {"compiler": None, "instructions": {}}
    found = measure_all()
    if not check:
        TABLE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{len(found['instructions'])} cases, {found['compiler']}")
        return 0
    if stored["compiler"] != found["compiler"]:
        print(f"Not compared: the table is of {stored['compiler']}, this machine has {found['compiler']}.")
        return 0
    sentences = grown(stored["instructions"], found["instructions"])
    print("\n".join(sentences) or f"{len(found['instructions'])} kernels execute no more than the table says.")
    if sentences:
        print("If that is meant, run 'make instructions' and commit the table.")
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
