"""What identifies a run: the hash of a file, and how two runs differ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from spectrafuse._runtime.progress import tell
from spectrafuse.io.errors import DataError

_LONGEST = 60


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in pieces.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            whole, done = os.fstat(file.fileno()).st_size, 0
            while piece := file.read(1 << 20):
                digest.update(piece)
                done += len(piece)
                tell(done, whole)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """What differs between two runs, in words.

    Parameters
    ----------
    before, now : mapping
        What decides the results of each, plain values by name; mappings are compared entry by entry.
    within : str
        What the names are entries of.

    Returns
    -------
    list of str
        `name was this, now that` for each entry that differs; long values, such as hashes, are said to have changed.
    """
    out: list[str] = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += differences(old, new, f"{within}{name}.")
        elif max(len(str(old)), len(str(new))) > _LONGEST:
            out.append(f"{within}{name} changed")
        else:
            out.append(f"{within}{name} was {old}, now {new}")
    return out
