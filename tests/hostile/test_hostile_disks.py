"""Disks that fill up, folders that go, damaged state, inputs with the same name and other content."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command_line import SEGMENT, UNMIX, fails_with, run
from helpers.kill_points import in_child
from spectrafuse._runtime.tensor_files import load_state
from spectrafuse.cli import run_folder
from spectrafuse.cli.run_folder import RunFolder, working_in
from spectrafuse.cli.terminal import CommandError
from spectrafuse.dgc.estimator import _empty_map
from spectrafuse.dgc.training import trainer as dgc_trainer
from spectrafuse.io.atomic import atomic_write

pytestmark = pytest.mark.slow

NO_DISK = "a small file system of its own cannot be made here"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip(NO_DISK)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("command", ["segment", "unmix"])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_after_making_room(
    command: str, scene: Path, table: Path, small_disk: Path
) -> None:
    words = ["segment", scene, *SEGMENT, "--max-epoch", 2] if command == "segment" else ["unmix", table, *UNMIX]
    words += ["-o", small_disk / "out"]
    filler = small_disk / "filler"
    for free in (0, 40_000, 150_000, 300_000, 600_000):
        filler.write_bytes(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
        os.truncate(filler, filler.stat().st_size - free)
        result = run(*words)
        if result.exit_code == 0:
            break
        fails_with(result, "no space left in", "run the same command after making room")
        filler.unlink()
    filler.unlink(missing_ok=True)
    assert run(*words).exit_code == 0
    assert not (small_disk / "out" / "state").exists()


def fails_from(monkeypatch: pytest.MonkeyPatch, code: int, epoch: int) -> None:
    """Let writing the training state fail from an epoch on."""
    usual = dgc_trainer.save_training

    def save(folder: Path, state: dict, fingerprint: dict) -> None:  # type: ignore[type-arg]
        if state["epoch"] >= epoch:
            raise OSError(code, os.strerror(code), os.fspath(Path(folder, "training.pt")))
        usual(folder, state, fingerprint)

    monkeypatch.setattr(dgc_trainer, "save_training", save)


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_a_disk_says_is_a_sentence_and_the_state_is_kept(
    code: int, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["segment", scene, "-o", tmp_path / "out", *SEGMENT, "--max-epoch", 3]
    with monkeypatch.context() as broken:
        fails_from(broken, code, 2)
        fails_with(run(*words), "run the same command", "is kept in")
    again = run(*words)
    assert again.exit_code == 0, again.output
    assert "from the checkpoint" in again.stderr


def test_a_folder_that_goes_is_one_sentence(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    usual = dgc_trainer.save_training

    def save(*arguments: object) -> None:
        usual(*arguments)  # type: ignore[arg-type]
        shutil.rmtree(output)

    words = ["segment", scene, "-o", output, *SEGMENT, "--max-epoch", 3]
    with monkeypatch.context() as broken:
        broken.setattr(dgc_trainer, "save_training", save)
        broken.setattr(run_folder.RunFolder, "seconds", property(lambda self: self._saved + 10))
        fails_with(run(*words), "was removed while the command ran")


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("command", ["unmix", "apply"])
def test_a_folder_that_goes_while_results_are_written_is_no_success(
    command: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["unmix", table, *UNMIX, "--no-feasible-bands"]
    if command == "apply":
        assert run(*words, "-o", tmp_path / "fitted").exit_code == 0
        words = ["apply", tmp_path / "fitted", table]
    usual = RunFolder.write_report

    def write(self: RunFolder, *arguments: Any, **page: Any) -> None:
        shutil.rmtree(self.path)
        usual(self, *arguments, **page)

    with monkeypatch.context() as broken:
        broken.setattr(RunFolder, "write_report", write)
        fails_with(run(*words, "-o", tmp_path / "out"), "was removed while the command ran")
    assert not (tmp_path / "out").exists()
    assert run(*words, "-o", tmp_path / "out").exit_code == 0


def test_a_map_for_which_there_is_no_room_is_an_error_and_no_killed_process(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        _empty_map((2000, 2000), small_disk / "labels.npy")
    assert raised.value.filename.endswith("labels-confidence.npy")
    assert not any(small_disk.iterdir())


def test_a_writer_that_hides_the_reason_is_found_out(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(7 << 19))

    def write() -> None:
        with atomic_write(small_disk / "x") as path:
            path.write_bytes(bytes(1000))
            raise RuntimeError("file write failed")

    with pytest.raises(OSError, match="No space left"):
        write()


def test_too_little_space_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no space left in .* GB are needed"):
        RunFolder(tmp_path / "out", {"command": "test"}, space=1 << 60)
    assert not any((tmp_path / "out").iterdir())


def test_an_error_elsewhere_is_not_one_of_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out", {"command": "test"})
    with pytest.raises(FileNotFoundError), working_in(folder):
        (tmp_path / "absent").read_bytes()
    with pytest.raises(CommandError, match="cannot be used"), working_in(folder):
        (folder.path / "absent").read_bytes()


STATES = ["empty", "cut", "flipped", "bytes", "tensor", "other"]


Unfinished = dict[str, tuple[Path, list[object]]]


@pytest.fixture(scope="module")
def unfinished(scene: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Unfinished:
    """Runs of both commands that were stopped after their first state, and how to go on."""
    made = {}
    commands = {
        "segment": ["segment", scene, *SEGMENT, "--max-epoch", 2],
        "unmix": ["unmix", table, *UNMIX, "--recipe", "trained", "--no-feasible-bands"],
    }
    for name, words in commands.items():
        output = tmp_path_factory.mktemp(name) / "out"
        results = RunFolder.results

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        try:
            RunFolder.results = stop  # type: ignore[assignment]
            assert run(*words, "-o", output).exit_code == 130
        finally:
            RunFolder.results = results  # type: ignore[method-assign]
        assert (output / "state" / "training.pt").is_file()
        made[name] = output, words
    return made


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        # In the numbers of the largest part.
        content[len(content) // 2] ^= 0x55
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how in ("tensor", "other"):
        import torch

        torch.save(torch.ones(3) if how == "tensor" else {"version": 2, "fingerprint": 3, "state": []}, path)
        return
    else:
        content = bytearray(b"" if how == "empty" else os.urandom(500))
    path.write_bytes(content)


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("command", ["segment", "unmix"])
@pytest.mark.parametrize("file", ["training.pt", "command.json", "clock.json"])
@pytest.mark.parametrize("how", STATES)
def test_damaged_state_is_one_sentence_and_the_way_out(
    how: str, file: str, command: str, unfinished: Unfinished, tmp_path: Path
) -> None:
    source, words = unfinished[command]
    output = tmp_path / "out"
    shutil.copytree(source, output)
    damage(output / "state" / file, how)
    result = run(*words, "-o", output)
    if result.exit_code != 0:
        fails_with(result, "--restart")
        result = run(*words, "-o", output, "--restart")
    else:
        # Bytes that align numbers, and the run's own number, decide nothing.
        assert (how, file) in [("flipped", "command.json"), ("flipped", "training.pt")]
    assert result.exit_code == 0, result.output
    assert not (output / "state").exists()


def test_a_flipped_bit_of_a_state_changes_nothing_or_is_refused(tmp_path: Path) -> None:
    import torch

    path, numbers = tmp_path / "training.pt", torch.arange(40.0)
    torch.save({"fingerprint": {"lr": "0.1"}, "state": {"numbers": numbers, "epoch": 3}}, path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            found = load_state(path)
        except ValueError as error:
            assert "is damaged" in str(error)  # noqa: PT017
            refused += 1
            continue
        assert torch.equal(found["state"].pop("numbers"), numbers), place
        assert found == {"fingerprint": {"lr": "0.1"}, "state": {"epoch": 3}}, place
    assert refused > len(whole) / 12


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("option", ["--labels", "--mask"])
def test_labels_and_masks_are_compared_by_content(option: str, scene: Path, tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    values = np.zeros((12, 15), np.int64)
    values[:, 7:] = option == "--labels"
    values[0, 0] = 1
    np.save(path, values)
    words = ["segment", scene, "-o", tmp_path / "out", *SEGMENT, "--max-epoch", 1, option]
    assert run(*words, path).exit_code == 0
    shutil.copy(path, tmp_path / "renamed.npy")
    assert "Nothing to do" in run(*words, tmp_path / "renamed.npy").stdout
    values[0, 1] = 1 - values[0, 1]
    np.save(path, values)
    fails_with(run(*words, path), option[2:])


@pytest.mark.usefixtures("pictures_left_empty")
def test_true_components_are_compared_by_content(table: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.npy"
    shutil.copy(table.parent / "components.npy", known)
    words = ["unmix", table, "-o", tmp_path / "out", *UNMIX, "--true-components"]
    assert run(*words, known).exit_code == 0
    assert "Nothing to do" in run(*words, table.parent / "components.npy").stdout
    np.save(known, np.load(known) + 1)
    fails_with(run(*words, known), "true_components")


@pytest.mark.process
@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_signals_one_after_the_other(signals: list[signal.Signals], tmp_path: Path) -> None:
    from spectrafuse.cli.terminal import catch_interrupts

    def action() -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        catch_interrupts()
        seen = 0
        try:
            os.kill(os.getpid(), signals[0])
        except KeyboardInterrupt:
            seen = 1
            for number in signals[1:]:
                os.kill(os.getpid(), number)
        return seen

    assert in_child(action, tmp_path)[0] == 1
