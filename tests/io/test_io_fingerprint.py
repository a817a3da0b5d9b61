"""What identifies a run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import differences, sha256


def test_hash_of_a_file_larger_than_a_piece(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()
    with pytest.raises(DataError, match=r"absent' cannot be read: No such file"):
        sha256(tmp_path / "absent")


def test_differences_name_every_entry_that_is_not_the_same() -> None:
    before = {"recipe": "published", "same": 1, "gone": 2, "data": "a" * 64, "parameters": {"seed": 0, "rate": 0.1}}
    now = {"recipe": "corrected", "same": 1, "data": "b" * 64, "parameters": {"seed": 1, "rate": 0.1}, "new": [3]}
    assert differences(before, now) == [
        "recipe was published, now corrected",
        "gone was 2, now None",
        "data changed",
        "parameters.seed was 0, now 1",
        "new was None, now [3]",
    ]
    assert differences(now, now) == []
