"""Processes that end, as if killed, right before they change a file; and what they would leave behind there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

KILLED = 77
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def in_child(
    action: Callable[[], int], folder: Path, kill_before: int | None = None, keep: Path | None = None
) -> tuple[int, int]:
    """Run an action in a forked process; it ends before its change number `kill_before` (from 0) below a folder.

    With `keep`, it does not end: before each change the folder is copied to `keep/<number>`, as a kill leaves it.
    Nothing waits for the disk, which makes no difference to what a killed process leaves.

    Returns
    -------
    (int, int)
        Its exit code, `KILLED` if it was killed; and how many changes it made or was about to make.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            counted = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), len(counted)
    os.close(reading)
    inside, count = str(folder.resolve()), 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        written = event == "open" and (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not (written or event in _CHANGES) or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not f"{os.path.abspath(os.fsdecode(arguments[0]))}/".startswith(f"{inside}/"):
            return
        os.write(writing, b"x")
        if count == kill_before:
            os._exit(KILLED)
        if keep is not None and folder.is_dir():
            shutil.copytree(folder, keep / str(count))
        count += 1

    code = 99
    try:
        os.fsync = lambda _: None  # type: ignore[assignment]
        sys.addaudithook(watch)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        code = action()
    finally:
        os._exit(code)
