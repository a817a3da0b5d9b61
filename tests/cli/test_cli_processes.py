"""Commands that torchrun has started several times."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import group
from helpers.command_line import SEGMENT, fails_with, run
from helpers.models import cube

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed here"),
]

Said = tuple[int, str, str]
"""Exit code, standard output, standard error."""


def _commands(lines: list[list[str]]) -> list[Said]:
    done = [run(*words) for words in lines]
    return [(result.exit_code, result.stdout, result.stderr) for result in done]


def torchrun(folder: Path, *lines: list[str]) -> list[list[Said]]:
    """What two processes say that run commands one after the other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = group.start(2, folder, _commands, [*lines], port=port)
    found = group.results(started, folder)
    assert [error for _, error in found] == ["", ""]
    return [said for said, _ in found]


def test_the_first_process_speaks_and_writes(tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", cube())
    words = ["segment", str(tmp_path / "scene.npy"), "--layout", "chw", *SEGMENT, "--max-epoch", "1", "-o"]
    alone = run(*words, tmp_path / "alone")
    assert alone.exit_code == 0
    again = [*words, str(tmp_path / "out")]
    missing = ["segment", str(tmp_path / "none.npy"), *again[2:]]
    other = [*again, "--seed", "7"]
    first, second = torchrun(tmp_path / "state", again, again, missing, other)
    assert [code for code, *_ in first] == [code for code, *_ in second] == [0, 0, 2, 2]
    assert all(not out and not said for _, out, said in second)
    assert "MB exchanged a step" in first[0][2]
    assert "Nothing to do" in first[1][1]
    assert first[2][2].strip() == f"error: '{tmp_path / 'none.npy'}' does not exist."
    assert "holds the results of a different command (parameters.random_state" in first[3][2]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy"), np.load(tmp_path / "alone" / "labels.npy"))
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("alone", "out")]
    assert records[0]["clusters"] == records[1]["clusters"]


def test_unmix_says_how_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    fails_with(run("unmix", tmp_path / "x.csv", "-o", tmp_path / "out"), "start it without torchrun")
