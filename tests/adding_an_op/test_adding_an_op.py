"""An operation that was written by docs/adding_an_op.md joins the package with few files, few edits and little glue.

The files are in files/, in the folders where they belong. They are put into a copy of the package; of the C++ kernels
that copy has theirs alone, which takes seconds to compile.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = HERE / "files"
OPERATION = "row_norms"
EDITS = {
    "python/spectrafuse/ops/__init__.py": [
        (
            "from spectrafuse.ops.sample_crop_pairs import",
            "from spectrafuse.ops.row_norms import row_norms\n    from spectrafuse.ops.sample_crop_pairs import",
        ),
        ('    "sample_crop_pairs",\n', '    "row_norms",\n    "sample_crop_pairs",\n'),
    ]
}
MOST_FILES, MOST_FOLDERS, MOST_EDITS, MOST_GLUE = 9, 5, 2, 60


def lines(text: str) -> int:
    """Those that say something."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith(("#", "//", '"""')))


def part(file: str, pattern: str) -> str:
    found = re.search(pattern, (FILES / file).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found, f"{file} has no {pattern}"
    return found[0]


def test_few_files_edits_and_lines_of_glue():
    files = [file for file in FILES.rglob("*") if file.suffix in (".py", ".cpp")]
    assert len(files) <= MOST_FILES, files
    assert len({file.parent for file in files}) <= MOST_FOLDERS
    assert sum(len(edits) for edits in EDITS.values()) <= MOST_EDITS
    room = f"python/spectrafuse/ops/{OPERATION}"
    glue = [
        (FILES / room / "__init__.py").read_text(encoding="utf-8"),
        (FILES / room / "registration.py").read_text(encoding="utf-8"),
        part(f"{room}/api.py", r"^from spectrafuse.*?\n\n"),
        part(f"{room}/api.py", r"^operation = .*?^\)"),
        part(f"csrc/cpu/{OPERATION}.cpp", r"^SPECTRAFUSE_DECLARE.*?$"),
        part(f"csrc/cpu/{OPERATION}.cpp", r"^#if defined\(SPECTRAFUSE_LAUNCHER\).*?^#endif"),
        *(new.replace(old, "") for edits in EDITS.values() for old, new in edits),
    ]
    assert sum(map(lines, glue)) <= MOST_GLUE


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the operation in it, compiled."""
    copy = tmp_path_factory.mktemp("checkout")
    unwanted = shutil.ignore_patterns("*.so", "__pycache__", "results", "history", "kernels.link")
    for folder in ("csrc", "kernels", "python", "benchmarks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=unwanted, symlinks=True)
    shutil.copytree(FILES, copy, dirs_exist_ok=True)
    for name, edits in EDITS.items():
        text = (copy / name).read_text(encoding="utf-8")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (copy / name).write_text(text, encoding="utf-8")
    package = copy / "python" / "spectrafuse"
    for name in ("kernels", "benchmarks"):
        (package / name).unlink(missing_ok=True)
        (package / name).symlink_to(copy / name)
    build(copy, package / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}")
    return copy


def build(copy: Path, module: Path) -> None:
    """The extension with the kernels of this operation alone, for the instruction set that every machine has."""
    sources = [f"csrc/cpu/{OPERATION}.cpp", "csrc/cpu/isa.cpp", "csrc/bindings/module.cpp", "csrc/bindings/device.cpp"]
    flags = [
        "-std=gnu++17", "-O1", "-fPIC", "-shared", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
        "-DSPECTRAFUSE_PYTHON", "-DSPECTRAFUSE_MODULE=_cpu", "-DSPECTRAFUSE_LAUNCHER",
        "-DSPECTRAFUSE_ISA=baseline", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}",
    ]  # fmt: skip
    command = [os.environ.get("CXX", "c++"), *flags, *sources, "-o", str(module)]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def run(checkout: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(checkout / "python"), str(ROOT / "tests"))),
        "TRITON_INTERPRET": "1",
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.process
@pytest.mark.slow
def test_its_tests_pass_for_every_implementation(checkout):
    assert "passed" in run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/ops/test_{OPERATION}.py")


@pytest.mark.process
@pytest.mark.slow
def test_all_that_reads_declarations_knows_it(checkout):
    code = f"""
from spectrafuse import backends, ops
from spectrafuse.benchmarks.declared import operations
from spectrafuse.cli.doctor import examine
from spectrafuse.cli.profile import kernels
assert {OPERATION!r} in ops.operations()
assert backends._run_self_test({OPERATION!r}, "cpu", "cpu") is None
assert operations()[{OPERATION!r}].work("small", "forward").operations == 2 * 100 * 200
assert [row["runs"] for row in examine()["operations"] if row["operation"] == {OPERATION!r}][0] == "cpu"
assert kernels.extension_call({OPERATION!r}, (0, (3, 5), 0, 0, 1))[1].operations == 30
assert kernels.label_on_device("{OPERATION}_kernel") == "{OPERATION} forward"
"""
    run(checkout, "-c", code)
