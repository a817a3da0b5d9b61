"""How much memory a file may take: what it says of itself is believed up to a limit that its own size sets.

Packed numbers, and numbers that were never written, can claim any size: two megabytes become gigabytes. A variable may
take 32 times the bytes of its file, and 256 MiB in any case; the environment variable `SPECTRAFUSE_MAX_MEMORY` (or
`--max-memory` in a command that has it) raises that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spectrafuse.io.errors import DataError

VARIABLE = "SPECTRAFUSE_MAX_MEMORY"
MOST_VARIABLES = 10_000
_LEAST = 256 << 20
_MOST_PACKED = 32
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_asked: ContextVar[int] = ContextVar("asked", default=0)


def bytes_of(text: str) -> int | None:
    """`"700MB"`, `"1.5 GiB"` or `"1000000"` as a number of bytes; None if it is none."""
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kmg]i?)?b?\s*", text.lower(), re.ASCII)
    return int(float(found[1]) * _UNITS[found[2] or ""]) or None if found is not None else None


@contextmanager
def at_least(size: int | None) -> Iterator[None]:
    """Let variables take this many bytes."""
    token = _asked.set(max(size or 0, _asked.get()))
    try:
        yield
    finally:
        _asked.reset(token)


def check_size(label: str, size: int, file_size: int) -> None:
    """Refuse what would take far more memory than its file makes believable.

    Parameters
    ----------
    label : str
        How the message calls it.
    size : int
        Bytes that it would take.
    file_size : int
        Bytes of its file.

    Raises
    ------
    DataError
        With how to raise the limit.
    """
    text = os.environ.get(VARIABLE, "")
    raised = bytes_of(text) if text else 0
    if raised is None:
        raise DataError(f"The environment variable {VARIABLE} must read like '4GB'; got {text!r}.")
    if size > max(_LEAST, _MOST_PACKED * file_size, raised, _asked.get()):
        raise DataError(
            f"{label} would take {in_words(size)} of memory, far more than the file can hold, which has "
            f"{in_words(file_size)}. If that is right, set the environment variable {VARIABLE}={-(-size // 10**9)}GB."
        )


def check_count(label: str, count: int) -> None:
    """Refuse a file with more than `MOST_VARIABLES` variables."""
    if count > MOST_VARIABLES:
        raise DataError(f"{label} holds {count} variables; at most {MOST_VARIABLES} can be looked through.")


def in_words(count: int) -> str:
    """Bytes in words: "1.8 GB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
