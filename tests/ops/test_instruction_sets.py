"""The tests marked `instruction_sets` again with every other instruction set of this machine.

The extension fixes its instruction set when it loads, so each takes a process: one for all operations.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from helpers import called_kernels
from spectrafuse._runtime import extensions

TESTS = Path(__file__).parents[1]
INSTRUCTION_SETS = {"baseline": "", "avx2": "avx2", "avx512": "avx512bw"}
"""What `SPECTRAFUSE_ISA` may name on x86, and the processor flag that says a machine has it."""
MARKED = [
    path.relative_to(TESTS).as_posix()
    for path in sorted(TESTS.rglob("test_*.py"))
    if path != Path(__file__) and "pytest.mark.instruction_sets" in path.read_text(encoding="utf-8")
]
# It computes nothing.
NOT_KERNELS = {"isa"}

pytestmark = [pytest.mark.process, pytest.mark.slow]


def present(isa: str) -> bool:
    return INSTRUCTION_SETS[isa] in Path("/proc/cpuinfo").read_text(encoding="utf-8")


def environment(isa: str) -> dict[str, str]:
    return {**os.environ, "SPECTRAFUSE_ISA": isa, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def others() -> list[str]:
    """All but the one that this process has, whose tests run in it as they are."""
    found = [isa for isa in INSTRUCTION_SETS if present(isa)]
    own = None if extensions.cpu_reason() else extensions.cpu_info()["instruction_set"]
    return [isa for isa in found if isa != own] or found


class Outcome(NamedTuple):
    output: str
    tests: dict[str, int]
    """How many tests of each file ran."""
    failures: dict[str, list[str]]
    called: set[str]


@functools.cache
def outcome(isa: str) -> Outcome:
    """What a session of all marked tests with this instruction set found."""
    with tempfile.TemporaryDirectory() as folder:
        report, calls = Path(folder, "report.xml"), Path(folder, "calls.json")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-m", "instruction_sets", "-o", "junit_family=xunit1"),
                *("-p", "no:cacheprovider", "-p", "helpers.called_kernels", f"--junitxml={report}", *MARKED),
            ],
            cwd=TESTS,
            env={**environment(isa), called_kernels.VARIABLE: str(calls), "PYTEST_ADDOPTS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert report.exists(), done.stdout + done.stderr
        cases = ElementTree.parse(report).getroot().iter("testcase")
        called = set(json.loads(calls.read_text(encoding="utf-8")))
    tests = dict.fromkeys(MARKED, 0)
    failures: dict[str, list[str]] = {name: [] for name in MARKED}
    for case in cases:
        file = case.get("file", "").removeprefix("tests/")
        tests[file] += case.find("skipped") is None
        failures[file] += [
            f"{case.get('name')}\n{part.text}" for tag in ("failure", "error") for part in case.iter(tag)
        ]
    return Outcome(done.stdout + done.stderr, tests, failures, called)


@pytest.mark.parametrize("isa", others())
@pytest.mark.parametrize("file", MARKED)
def test_operations_agree_with_the_reference(file: str, isa: str) -> None:
    found = outcome(isa)
    assert not found.failures[file], "\n\n".join(found.failures[file])
    assert found.tests[file], found.output


@pytest.mark.parametrize("isa", others())
def test_every_kernel_is_among_them(isa: str) -> None:
    assert set(called_kernels.functions()) - outcome(isa).called <= NOT_KERNELS


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_a_process_has_the_instruction_set_it_asks_for_or_says_that_the_machine_lacks_it(isa: str) -> None:
    code = (
        "from spectrafuse._runtime import extensions\n"
        "print(extensions.cpu_reason() or extensions.cpu_info()['instruction_set'])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment(isa), capture_output=True, text=True, check=True
    ).stdout
    if present(isa):
        assert said == f"{isa}\n"
    else:
        assert said.startswith("SPECTRAFUSE_ISA must name an instruction set")


def test_the_extension_is_there() -> None:
    assert extensions.cpu_reason() is None
