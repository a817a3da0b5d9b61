"""Signals, one or several, that reach a command in its work; and clocks that jump: nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from helpers.command_line import SEGMENT, UNMIX, run
from spectrafuse.cli.app import main
from spectrafuse.cli.terminal import INTERRUPTED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.usefixtures("pictures_left_empty"),
]
Words = dict[str, list[str]]


@pytest.fixture(scope="module")
def words(scene: Path, table: Path) -> Words:
    """Commands that train for longer than a signal needs."""
    epochs = ["--max-epoch", "8"]
    return {
        "segment": ["segment", str(scene), *SEGMENT, *epochs],
        "unmix": ["unmix", str(table), *UNMIX, "--max-epoch", "400", "--recipe", "trained", "--no-feasible-bands"],
    }


@pytest.fixture(scope="module")
def straight(words: Words, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, command in words.items():
        folders[name] = tmp_path_factory.mktemp(name) / "out"
        assert run(*command, "-o", folders[name]).exit_code == 0
    return folders


def forked(command: list[str], said: Path) -> int:
    """The process of a command as the console script runs it, with what it says in a file."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdout = sys.stderr = said.open("w")
        sys.argv = ["spectrafuse", *command]
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def begun(output: Path, said: Path) -> bool:
    """Whether a run trains: `segment` saves every epoch, `unmix` when it is interrupted, and at its end."""
    saved = (output / "state" / "training.pt").exists()
    return saved or (said.exists() and "unmixing: started" in said.read_text())


@pytest.mark.parametrize(
    "signals",
    [["SIGTERM"], ["SIGINT", "SIGINT"], ["SIGTERM", "SIGINT"], ["SIGINT"] * 3],
    ids="-".join,
)
@pytest.mark.parametrize("name", ["segment", "unmix"])
def test_a_run_that_signals_end_goes_on_with_the_same_bits(
    name: str, signals: list[str], words: Words, straight: dict[str, Path], tmp_path: Path
) -> None:
    output, said = tmp_path / "out", tmp_path / "said.txt"
    command = [*words[name], "-o", str(output)]
    process = forked(command, said)
    deadline = time.monotonic() + 60
    while not begun(output, said) and time.monotonic() < deadline:
        time.sleep(0.002)
    for number in signals:
        os.kill(process, getattr(signal, number))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == INTERRUPTED, said.read_text()
    assert "Traceback" not in said.read_text()
    assert not (output / "run.json").exists()
    again = run(*command)
    assert again.exit_code == 0, again.output
    assert not (output / "state").exists()
    files = sorted(
        path.relative_to(straight[name])
        for path in straight[name].rglob("*")
        if path.suffix in (".npy", ".csv", ".safetensors") and path.name not in ("history.csv", "loss.csv")
    )
    assert files
    for file in files:
        assert (output / file).read_bytes() == (straight[name] / file).read_bytes(), file


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_changes_nothing(
    jump: float, words: Words, straight: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = time.time, [0]

    def jumping() -> float:
        calls[0] += 1
        return usual() + jump * (calls[0] % 2)

    monkeypatch.setattr(time, "time", jumping)
    output = tmp_path / "out"
    assert run(*words["segment"], "-o", output).exit_code == 0
    record = json.loads((output / "run.json").read_text())
    assert 0 <= record["seconds"] < 600
    assert (output / "labels.npy").read_bytes() == (straight["segment"] / "labels.npy").read_bytes()
