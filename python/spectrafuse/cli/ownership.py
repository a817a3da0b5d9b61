"""What in an output folder is ours: nothing else is ever removed or replaced.

Results are ours if `run.json` lists them with their SHA-256 and they still have it; the folder of a run's state is ours
if it holds a file of our own, its marker. Nothing is reached through a symbolic link.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import sha256

MARKER = "spectrafuse-state"
_MARK = "The state of an unfinished run of spectrafuse. This folder is removed when the run ends.\n"
_MODEL, _MODEL_RECORD = "model", "spectrafuse.json"
_MODEL_FILES = (_MODEL_RECORD, "config.json", "weights.safetensors", "param.json", "model.safetensors")
# What a run keeps in its folder of state: by name, with temporary files, and folders of states of the training.
_STATE = re.compile(
    r"command\.json|clock\.json|lock|training\.pt|results|trial|run\.json|replaced\.json|labels-\d+(-confidence)?\.npy"
    r"|\..+\.[0-9a-f]{12}\.(tmp(\..*)?|old)"
)
_STATE_FOLDER = {"param.json", "model.safetensors", "result.csv", "sha256"}


def is_plain_file(path: Path) -> bool:
    """Whether a path is a regular file itself: no link, no pipe, no folder."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def is_plain_folder(path: Path) -> bool:
    """Whether a path is a folder itself, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def mark(state: Path) -> None:
    """Make a folder of state, and mark it as ours."""
    state.mkdir(exist_ok=True)
    marker = state / MARKER
    if not is_plain_file(marker) or marker.stat().st_size != len(_MARK):
        marker.write_text(_MARK, encoding="utf-8")


def check_state(state: Path) -> None:
    """Refuse a folder of state that is not ours.

    Raises
    ------
    DataError
        If it is a link or a file, lacks our marker (an empty folder aside), or holds a link.
    """
    if not os.path.lexists(state):
        return
    if not is_plain_folder(state):
        raise DataError(f"'{state}' is a link or a file, and a command keeps its state there. Choose another --output.")
    names = sorted(os.listdir(state))
    if not names:
        return
    marker = state / MARKER
    # A process killed while it wrote the marker left nothing else behind.
    whole = is_plain_file(marker) and _MARK.startswith(marker.read_text(encoding="utf-8", errors="replace")[:200])
    if not whole or (len(names) > 1 and marker.stat().st_size != len(_MARK)):
        raise DataError(
            f"'{state}' is not of spectrafuse (it holds '{names[0]}'), and a command keeps its state under that name. "
            "Choose another --output."
        )
    for name in names:
        if (state / name).is_symlink():
            raise DataError(f"'{state / name}' is a link, which spectrafuse never makes. Remove it.")


def empty_state(state: Path, *keep: str) -> None:
    """Remove what a run has in its folder of state, but for the marker; what someone else put there stays."""
    for name in sorted(os.listdir(state)):
        path = state / name
        if name in keep or not _is_of_state(path):
            continue
        if is_plain_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_state(state: Path) -> None:
    """Remove a folder of state; it stays if someone else put something there."""
    empty_state(state)
    if set(os.listdir(state)) <= {MARKER}:
        (state / MARKER).unlink(missing_ok=True)
        state.rmdir()


def _is_of_state(path: Path) -> bool:
    if _STATE.fullmatch(path.name):
        return True
    return is_plain_folder(path) and {n for n in os.listdir(path) if not _STATE.fullmatch(n)} <= _STATE_FOLDER


def files_in(folder: Path) -> list[str]:
    """All files of a folder, by their path inside, with '/' between its parts."""
    found = (Path(path, name) for path, _, names in os.walk(folder) for name in names)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def foreign(folder: Path, name: str, known: Mapping[str, str]) -> Path | None:
    """The first thing at a name of the folder, or below, that is not as `known` has it; None without one."""
    path = folder / name
    if not os.path.lexists(path):
        return None
    if is_plain_file(path):
        expected = known.get(path.relative_to(folder).as_posix())
        return None if expected is not None and sha256(path) == expected else path
    if not is_plain_folder(path):
        return path
    inside = (foreign(folder, f"{name}/{entry}", known) for entry in sorted(os.listdir(path)))
    return next((found for found in inside if found is not None), None)


def remove(folder: Path, name: str, known: Mapping[str, str]) -> None:
    """Remove a result that is ours, and nothing but what is known.

    Raises
    ------
    DataError
        If something else is there.
    """
    found = foreign(folder, name, known)
    if found is not None:
        raise in_the_way(found)
    path = folder / name
    if is_plain_folder(path):
        for entry in sorted(os.listdir(path)):
            remove(folder, f"{name}/{entry}", known)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def in_the_way(path: Path) -> DataError:
    """The error for what would have to go and is not ours."""
    return DataError(
        f"'{path}' is in the way: spectrafuse did not write it, or it has changed since. Move it elsewhere, or choose "
        "another --output."
    )


def recognized(folder: Path, paths: list[str]) -> dict[str, str]:
    """What is ours where the record is damaged: files by the names of results, beside a model of ours; else nothing."""
    model = folder / _MODEL
    if not is_plain_folder(model) or not is_plain_file(model / _MODEL_RECORD):
        return {}
    named = [*paths, *(f"{_MODEL}/{name}" for name in _MODEL_FILES)]
    return {path: sha256(folder / path) for path in named if is_plain_file(folder / path)}
