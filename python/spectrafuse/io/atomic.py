"""Files and folders that are either written completely or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LONGEST_STEM = 100
_PROBE_BYTES = 1 << 20


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file completely or not at all.

    Yields a path beside the target, with the same suffix (so that `np.save` and `np.savez` append none), for
    the caller to write. When the block ends normally the file goes to disk and takes the target's name in one
    step; on any exception it is removed and the target stays what it was. Missing parent folders are made; a
    symbolic link as target is followed.

    Parameters
    ----------
    path : path
        The file to write or replace.

    Raises
    ------
    IsADirectoryError
        If the target is a folder.
    FileNotFoundError
        If the block ends without having written anything.
    OSError
        If the disk is full or cannot be written, also where the writer has another error for that, as torch has.

    Examples
    --------
    >>> import numpy as np
    >>> from spectrafuse.io import atomic_write
    >>> with atomic_write("labels.npy") as temporary:
    ...     np.save(temporary, np.zeros((4, 5), int))
    >>> np.load("labels.npy").shape
    (4, 5)
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder, so no file can be written in its place.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, "tmp")
    try:
        yield temporary
        if not temporary.is_file():
            raise FileNotFoundError(f"Nothing was written for '{path}'.")
        if target.exists():
            shutil.copymode(target, temporary)
        _to_disk(temporary)
        os.replace(temporary, target)
        _to_disk(target.parent)
    except Exception as error:
        raise_cause(error, target.parent)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder completely or not at all.

    Yields a new empty folder beside the target. When the block ends normally its files go to disk and it
    takes the target's name; a folder that was there is renamed aside first and removed afterwards. On any
    exception the new folder is removed and the old one is intact. Only a process killed between the two
    renames leaves the target's name unused; the old folder then lies beside it, under a name that begins
    with a dot and ends in `.old`.

    Parameters
    ----------
    path : path
        The folder to write or replace as a whole: what the old folder held and the block does not write again
        is gone.

    Raises
    ------
    NotADirectoryError
        If the target is a file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"'{path}' is a file, so no folder can be written in its place.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, "tmp")
    aside = _beside(target, "old")
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _to_disk(Path(folder, name))
            _to_disk(Path(folder))
        if target.exists():
            os.rename(target, aside)
        os.rename(temporary, target)
        _to_disk(target.parent)
    except Exception as error:
        raise_cause(error, target.parent)
        raise
    finally:
        if aside.exists() and not target.exists():
            os.rename(aside, target)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def raise_cause(error: Exception, folder: Path) -> None:
    """Raise what a file system says, if a writer's own error hides it: torch and NumPy have errors without a reason.

    Whether there is one is found by writing a megabyte into the folder.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return
    probe = _beside(folder / "probe", "tmp")
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise cause from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _beside(target: Path, kind: str) -> Path:
    """An unused hidden name in the target's folder; a temporary one keeps the target's suffix."""
    suffix = target.suffix if kind == "tmp" else ""
    return target.with_name(f".{target.stem[:_LONGEST_STEM]}.{secrets.token_hex(6)}.{kind}{suffix}")


def _to_disk(path: Path) -> None:
    """Make the kernel write a file, or a folder's list of names, to the disk."""
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some file systems cannot synchronize a folder; its renames are atomic all the same.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
