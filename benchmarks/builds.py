"""Versions to compare, each built into a folder of its own: commits, a folder with a checkout, or what is installed."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Freed memory stays with the process: no page faults among what is timed."""


class Build(NamedTuple):
    """A version that can be imported."""

    name: str
    """What tables call it."""
    path: Path | None
    """Folder to put before everything else on Python's path; None for the version that is installed."""
    sources: Path | None
    """Its checkout, where one is at hand."""

    def environment(self) -> dict[str, str]:
        """What a process needs to import this version, at one thread."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = {} if self.path is None else {"PYTHONPATH": str(self.path)}
        return {**kept, **path, **_MEMORY, "OMP_NUM_THREADS": "1"}


def git(*arguments: str, folder: Path | None = None) -> str:
    """Output of a git command in a folder, or in the current one."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


@functools.cache
def checkout() -> Path:
    """The checkout of spectrafuse that the current folder lies in.

    Raises
    ------
    ValueError
        Where it lies in none.
    """
    root = Path(git("rev-parse", "--show-toplevel"))
    if not (root / "python" / "spectrafuse").is_dir():
        raise ValueError(f"Commits are compared inside a checkout of spectrafuse; {root} is none.")
    return root


def build(version: str, **defines: str) -> Build:
    """Build a version, or find it built: commits are kept under build/versions of the checkout.

    Parameters
    ----------
    version : str
        "installed"; "." for this checkout as it stands; or a commit, branch or tag.
    **defines : str
        For CMake.
    """
    if version == "installed":
        return Build(version, None, None)
    root = checkout()
    if version == ".":
        return Build(version, _install(root, Path(tempfile.mkdtemp(prefix="spectrafuse-bench-")), defines), root)
    commit = git("rev-parse", "--verify", f"{version}^{{commit}}", folder=root)
    cache = root / "build" / "versions"
    target = cache / "-".join([commit[:12], *(f"{name}={value}" for name, value in sorted(defines.items()))])
    sources = cache / f"{commit[:12]}-sources"
    if not sources.exists():
        git("worktree", "prune", folder=root)
        git("worktree", "add", "--detach", "--force", str(sources), commit, folder=root)
    if not target.exists():
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        _install(sources, part, defines)
        part.rename(target)
    return Build(commit[:12], target, sources)


def _install(sources: Path, target: Path, defines: dict[str, str]) -> Path:
    settings = [f"-Ccmake.define.{name}={value}" for name, value in {"SPECTRAFUSE_CUDA": "OFF", **defines}.items()]
    with tempfile.TemporaryDirectory() as objects:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        if importlib.util.find_spec("scikit_build_core") and importlib.util.find_spec("pybind11"):
            command.append("--no-build-isolation")
        command += [*settings, f"-Cbuild-dir={objects}", str(sources)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{sources} could not be built: {done.stderr.strip()[-2000:]}")
    return target
