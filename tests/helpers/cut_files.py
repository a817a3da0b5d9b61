"""Files that another program cuts short in the middle of a read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from spectrafuse.io import mapped

LEFT = 1000


def cut_short_at(monkeypatch: pytest.MonkeyPatch, path: Path, read: int) -> list[int]:
    """Leave `LEFT` bytes of a file just before its `read`-th read of numbers; what is given back counts the reads."""
    usual, count = mapped.UnchangedFile.open, [0]

    class Counted(io.FileIO):
        def readinto(self, place: Any) -> int:
            count[0] += 1
            if count[0] == read:
                os.truncate(path, LEFT)
            return super().readinto(place)

    def opened(self: mapped.UnchangedFile) -> Any:
        usual(self).close()
        return Counted(self.path)

    monkeypatch.setattr(mapped.UnchangedFile, "open", opened)
    return count
