"""Output folders in which something of the user's lies: none of it is lost, and the refusal is one sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.command_line import SEGMENT, UNMIX, fails_with, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pictures_left_empty")]

Change = Callable[[Path, Path], None]


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: contents of files, targets of links."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def words(scene: Path, table: Path) -> dict[str, list[object]]:
    return {
        "segment": ["segment", scene, *SEGMENT, "--max-epoch", 1],
        "unmix": ["unmix", table, *UNMIX, "--no-feasible-bands"],
    }


@pytest.fixture(scope="module")
def done(words: dict[str, list[object]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each command."""
    folders = {}
    for name, command in words.items():
        folders[name] = tmp_path_factory.mktemp(name) / "out"
        result = run(*command, "-o", folders[name])
        assert result.exit_code == 0, result.output
    return folders


def thesis(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thesis.tex").write_text("years of work")


def foreign_state(output: Path, _: Path) -> None:
    thesis(output / "state")


def foreign_state_with_our_names(output: Path, _: Path) -> None:
    thesis(output / "state")
    (output / "state" / "command.json").write_text('{"command": "segment"}')
    (output / "state" / "training.pt").write_text("mine")


def linked_state(output: Path, elsewhere: Path) -> None:
    thesis(elsewhere)
    output.mkdir(exist_ok=True)
    (output / "state").symlink_to(elsewhere, target_is_directory=True)


def state_is_a_file(output: Path, _: Path) -> None:
    output.mkdir(exist_ok=True)
    (output / "state").write_text("mine")


def foreign_model(output: Path, _: Path) -> None:
    shutil.rmtree(output / "model", ignore_errors=True)
    thesis(output / "model")


def linked_model(output: Path, elsewhere: Path) -> None:
    thesis(elsewhere)
    output.mkdir(exist_ok=True)
    shutil.rmtree(output / "model", ignore_errors=True)
    (output / "model").symlink_to(elsewhere, target_is_directory=True)


def foreign_record(output: Path, _: Path) -> None:
    output.mkdir(exist_ok=True)
    (output / "run.json").write_text('{"lr": 0.1, "files": ["thesis.tex", "", "..", "."]}')
    thesis(output)


@pytest.mark.parametrize("restart", [[], ["--restart"]], ids=["", "restart"])
@pytest.mark.parametrize("command", ["segment", "unmix"])
@pytest.mark.parametrize(
    "prepare",
    [
        foreign_state,
        foreign_state_with_our_names,
        linked_state,
        state_is_a_file,
        foreign_model,
        linked_model,
        foreign_record,
    ],
)
def test_a_foreign_folder_is_refused_and_kept(
    prepare: Change, command: str, restart: list[str], words: dict[str, list[object]], tmp_path: Path
) -> None:
    prepare(tmp_path / "out", tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    fails_with(run(*words[command], "-o", tmp_path / "out", *restart), "out")
    assert snapshot(tmp_path) == before


def inside_the_model(output: Path, _: Path) -> None:
    thesis(output / "model")


def changed_result(output: Path, _: Path) -> None:
    path = next(path for path in sorted(output.iterdir()) if path.suffix == ".png")
    path.write_bytes(b"drawn over by hand")


def linked_result(output: Path, elsewhere: Path) -> None:
    thesis(elsewhere)
    path = next(path for path in sorted(output.iterdir()) if path.suffix == ".png")
    path.unlink()
    path.symlink_to(elsewhere / "thesis.tex")


@pytest.mark.parametrize("command", ["segment", "unmix"])
@pytest.mark.parametrize(
    "prepare", [inside_the_model, changed_result, linked_result, foreign_model, linked_model, foreign_state]
)
def test_what_lies_among_results_is_kept(
    prepare: Change, command: str, words: dict[str, list[object]], done: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[command], output)
    prepare(output, tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    fails_with(run(*words[command], "-o", output, "--restart"), "out")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", ["segment", "unmix"])
@pytest.mark.parametrize(
    "names",
    [[""], ["."], [".."], ["../elsewhere"], ["/"], ["state"], ["thesis.tex"], ["model/../thesis.tex"], [1, None]],
)
def test_a_record_with_other_names_removes_nothing(
    names: list[object], command: str, words: dict[str, list[object]], done: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[command], output)
    thesis(output)
    thesis(tmp_path / "elsewhere")
    record = json.loads((output / "run.json").read_text())
    record["files"] = names
    record["sha256"].update({str(name): "0" * 64 for name in names})
    (output / "run.json").write_text(json.dumps(record))
    run(*words[command], "-o", output, "--restart")
    assert (output / "thesis.tex").read_text() == "years of work"
    assert (tmp_path / "elsewhere" / "thesis.tex").exists()
    assert (output / "run.json").is_file()


DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"request": {"comm',
    "bytes": bytes(range(256)),
    "list": b"[]",
    "null": b"null",
    "number": b"1" * 5000,
    "deep": b"[" * 100_000,
    "object": b"{}",
    "wrong": b'{"request": 3, "files": {"a": 1}, "sha256": [], "run": 7, "seconds": "x", "starts": []}',
}


@pytest.mark.parametrize("command", ["segment", "unmix"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_one_sentence_and_restart_is_the_way_out(
    damage: str, command: str, words: dict[str, list[object]], done: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(done[command], output)
    (output / "run.json").write_bytes(DAMAGE[damage])
    fails_with(run(*words[command], "-o", output), "damaged", "--restart")
    thesis(output)
    again = run(*words[command], "-o", output, "--restart")
    assert again.exit_code == 0, again.output
    assert json.loads((output / "run.json").read_text())["request"]["command"] == command
    assert (output / "thesis.tex").read_text() == "years of work"


def test_a_pipe_in_place_of_a_record_does_not_hang(words: dict[str, list[object]], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "run.json")
    fails_with(run(*words["unmix"], "-o", tmp_path / "out"), "no regular file")


def test_files_that_someone_puts_into_the_state_stay(words: dict[str, list[object]], tmp_path: Path) -> None:
    from spectrafuse.cli.run_folder import RunFolder

    folder = RunFolder(tmp_path / "out", {"command": "test"})
    thesis(folder.state)
    thesis(folder.state / "drafts")
    with folder.results({}) as results:
        (results / "a.txt").write_text("a")
    assert snapshot(tmp_path / "out" / "state") == {
        "drafts": "folder",
        "drafts/thesis.tex": b"years of work",
        "spectrafuse-state": (tmp_path / "out" / "state" / "spectrafuse-state").read_bytes(),
        "thesis.tex": b"years of work",
    }
    assert RunFolder(tmp_path / "out", {"command": "test"}).finished
