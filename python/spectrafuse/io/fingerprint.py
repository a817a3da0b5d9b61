"""What identifies a run: the hash of a file, and how two runs differ."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spectrafuse._runtime.progress import tell
from spectrafuse.io.errors import DataError

_LONGEST = 60


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in pieces; of a folder, of the names and bytes of its files.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        folder = Path(path) if os.path.isdir(path) else None
        places = [path] if folder is None else sorted(found for found in folder.rglob("*") if found.is_file())
        whole, done = sum(os.path.getsize(place) for place in places), 0
        for place in places:
            if folder is not None:
                digest.update(f"{Path(place).relative_to(folder).as_posix()}\0{os.path.getsize(place)}\0".encode())
            with open(place, "rb") as file:
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
