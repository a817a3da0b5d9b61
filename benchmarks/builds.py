"""Versions to compare, each built into a folder of its own: commits, a folder with a checkout, or what is installed."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
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
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError("Versions are compared by git, which is not installed.") from None
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
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
    if not (root / "python" / "spectrafuse").is_dir():
        raise ValueError(f"Commits, and '.', are compared inside a checkout of spectrafuse; {root} is none.")
    return root


def build(version: str, tell: Callable[[str], None] = print, **defines: str) -> Build:
    """Build a version, or find it built: commits are kept under build/versions of the checkout.

    Parameters
    ----------
    version : str
        "installed"; "." for this checkout as it stands; or a commit, branch or tag.
    tell : callable
        Takes sentences about what is built and how long it took.
    **defines : str
        For CMake.
    """
    if version == "installed":
        return Build(version, None, None)
    root = checkout()
    cache = root / "build" / "versions"
    if version == ".":
        target = Path(tempfile.mkdtemp(prefix="spectrafuse-bench-"))
        atexit.register(shutil.rmtree, target, ignore_errors=True)
        _install(version, root, target, cache / "checkout.log", tell, defines, objects=cache / "checkout-objects")
        return Build(version, target, root)
    commit = git("rev-parse", "--verify", f"{version}^{{commit}}", folder=root)
    target = cache / "-".join([commit[:12], *(f"{name}={value}" for name, value in sorted(defines.items()))])
    sources = cache / f"{commit[:12]}-sources"
    if not sources.exists():
        git("worktree", "prune", folder=root)
        git("worktree", "add", "--detach", "--force", str(sources), commit, folder=root)
    if not target.exists():
        part = target.with_name(target.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        name = f"{version}, {git('log', '-1', '--format=%h %s', commit, folder=root)}"
        _install(name, sources, part, target.with_name(target.name + ".log"), tell, defines)
        part.rename(target)
    return Build(commit[:12], target, sources)


def _install(
    name: str,
    sources: Path,
    target: Path,
    log: Path,
    tell: Callable[[str], None],
    defines: dict[str, str],
    objects: Path | None = None,
) -> None:
    """Install a checkout into a folder; with a folder of objects, only what changed is compiled."""
    tell(f"Building {name}; what the compiler says goes to {log}.")
    began = time.monotonic()
    settings = [f"-Ccmake.define.{name}={value}" for name, value in {"SPECTRAFUSE_CUDA": "OFF", **defines}.items()]
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "pip", "install", "--verbose", "--no-deps", "--target", str(target)]
        if importlib.util.find_spec("scikit_build_core") and importlib.util.find_spec("pybind11"):
            command.append("--no-build-isolation")
        command += [*settings, f"-Cbuild-dir={objects or scratch}", str(sources)]
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise ValueError(f"{name} could not be built. The end of {log}:\n{last}")
    tell(f"Built in {time.monotonic() - began:.0f} s.")
