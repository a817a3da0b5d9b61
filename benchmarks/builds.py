"""Versions to compare, each built into a folder of its own: commits, a folder with a checkout, or what is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


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
        return {**kept, **path, "OMP_NUM_THREADS": "1"}


def git(*arguments: str) -> str:
    """Output of a git command in this checkout."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def build(version: str, cache: Path, **defines: str) -> Build:
    """Build a version, or find it built.

    Parameters
    ----------
    version : str
        "installed"; "." for this checkout as it stands; or a commit, branch or tag.
    cache : path
        Where builds of commits are kept.
    **defines : str
        For CMake.
    """
    if version == "installed":
        return Build(version, None, None)
    if version == ".":
        return Build(version, _install(ROOT, Path(tempfile.mkdtemp(prefix="spectrafuse-bench-")), defines), ROOT)
    commit = git("rev-parse", "--verify", f"{version}^{{commit}}")
    target = cache / "-".join([commit[:12], *(f"{name}={value}" for name, value in sorted(defines.items()))])
    sources = cache / f"{commit[:12]}-sources"
    if not sources.exists():
        git("worktree", "prune")
        git("worktree", "add", "--detach", "--force", str(sources), commit)
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
