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


def _command(words: list[str]) -> Said:
    result = run(*words)
    return result.exit_code, result.stdout, result.stderr


def torchrun(folder: Path, *words: str) -> list[Said]:
    """What two processes say that run a command together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = group.start(2, folder, _command, list(words), port=port)
    found = group.results(started, folder)
    assert [error for _, error in found] == ["", ""]
    return [said for said, _ in found]


@pytest.mark.slow
def test_the_first_process_speaks_and_writes(tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", cube())
    words = ["segment", str(tmp_path / "scene.npy"), "--layout", "chw", *SEGMENT, "--max-epoch", "1", "-o"]
    alone = run(*words, tmp_path / "alone")
    assert alone.exit_code == 0
    again = [*words, str(tmp_path / "out")]
    missing = ["segment", str(tmp_path / "none.npy"), *again[2:]]
    lines = {"1": again, "2": again, "3": missing, "4": [*again, "--seed", "7"]}
    said = [torchrun(tmp_path / name, *line) for name, line in lines.items()]
    assert [first[0] for first, _ in said] == [0, 0, 2, 2]
    assert [second for _, second in said] == [(0, "", ""), (0, "", ""), (2, "", ""), (2, "", "")]
    assert "MB exchanged a step" in said[0][0][2]
    assert "Nothing to do" in said[1][0][1]
    assert said[2][0][2].strip() == f"error: '{tmp_path / 'none.npy'}' does not exist."
    assert "holds the results of a different command (parameters.random_state" in said[3][0][2]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy"), np.load(tmp_path / "alone" / "labels.npy"))
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("alone", "out")]
    assert records[0]["clusters"] == records[1]["clusters"]


def test_unmix_says_how_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    fails_with(run("unmix", tmp_path / "x.csv", "-o", tmp_path / "out"), "start it without torchrun")
