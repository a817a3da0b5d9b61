"""`spectrafuse profile`: what it is given, and where it writes, at its worst."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command_line import UNMIX, fails_with, run
from spectrafuse.cli.profile import command, recorder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short")]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "WARM_SECONDS", 0.01)
    monkeypatch.setattr(recorder, "RECORDED_SECONDS", 0.02)
    monkeypatch.setattr("spectrafuse.cli.profile.bounds._SECONDS", 0.01)


@pytest.fixture(scope="module")
def done(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished profile."""
    output = tmp_path_factory.mktemp("profile") / "out"
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("spectrafuse.cli.profile.bounds._SECONDS", 0.01)
        quick.setattr(recorder, "RECORDED_SECONDS", 0.02)
        result = run("profile", "unmix", table, "-o", output, *UNMIX[:2], "--device", "cpu")
    assert result.exit_code == 0, result.output
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record(output: Path, **changes: Any) -> None:
    path = output / "profile.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def drawn_over(output: Path) -> None:
    (output / "shares.png").write_bytes(b"mine")


def inside_a_folder(output: Path) -> None:
    (output / "notes").mkdir()
    (output / "notes" / "thesis.tex").write_text("mine")


def claimed(output: Path) -> None:
    (output / "thesis.tex").write_text("mine")
    record(output, files=["thesis.tex", "table.csv", "", ".."])


def damaged(output: Path) -> None:
    (output / "profile.json").write_text("[" * 10**5)


def no_hashes(output: Path) -> None:
    record(output, sha256=["table.csv"])


def linked(output: Path) -> None:
    (output / "table.csv").rename(output.parent / "mine.csv")
    (output / "table.csv").symlink_to(output.parent / "mine.csv")


@pytest.mark.parametrize("change", [drawn_over, inside_a_folder, claimed, damaged, no_hashes, linked])
def test_what_a_profile_did_not_write_is_kept(
    change: Callable[[Path], None], done: Path, table: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done, output)
    change(output)
    before = contents(tmp_path)
    fails_with(run("profile", "unmix", table, "-o", output, "--pool-size", 5), "not of a profile, or were changed")
    assert contents(tmp_path) == before


def test_a_disk_that_refuses_is_one_sentence(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(command, "write", refuse)
    fails_with(run("profile", "unmix", table, "-o", tmp_path / "out", "--pool-size", 5), "No space left")
    assert not list(tmp_path.iterdir())


def test_a_folder_below_a_file_is_refused_before_the_work(table: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    fails_with(run("profile", "unmix", table, "-o", tmp_path / "file" / "out", "--pool-size", 5), "cannot be written")


def test_names_are_data(table: Path, tmp_path: Path) -> None:
    name = "=1+[/b]$x_1$%d{}\x1b]0;owned\x07"
    data = tmp_path / f"{name.replace('/', '|')}.csv"
    shutil.copy(table, data)
    result = run("profile", "unmix", data, "-o", tmp_path / name.replace("/", "|"), "--pool-size", 5)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize(
    "words",
    [
        ["segment", "{}", "--n-clusters", 10**9],
        ["segment", "{}", "--crop-size", -3],
        ["segment", "{}", "--batch-size", 10**12],
        ["unmix", "{}", "--pool-size", 10**12],
        ["unmix", "{}", "--threads", 0],
    ],
    ids=lambda words: " ".join(map(str, words[2:])),
)
def test_sizes_without_sense_are_one_sentence(words: list[object], table: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "scene.npy", np.random.default_rng(0).random((6, 20, 20)))
    data = table if words[0] == "unmix" else tmp_path / "scene.npy"
    filled = [data if word == "{}" else word for word in words]
    result = run("profile", *filled, *(["--layout", "chw"] if words[0] == "segment" else []), "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()
