"""Runs that are killed before any one of their changes of files: the same command ends with the same bits.

All points of a run with a fit that takes no time are tried; of real runs, with pictures laid out alone, a few, or all
by SPECTRAFUSE_HOSTILE=all. A run is made once, and goes on from copies of what a kill would leave before each change;
that old results stay whole is seen with processes that are killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import SEGMENT, run
from helpers.kill_points import KILLED, in_child
from spectrafuse.cli import ownership
from spectrafuse.cli.run_folder import RunFolder, working_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
]
TRIED = 4
TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* · [\d.e+-]+ s on".encode())
Action = Callable[[], int]


def state_of(folder: Path) -> dict[str, str]:
    """All files of an output folder and their hashes, but for the times in the record and on the report's page."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == "run.json":
                record = json.loads(content)
                content = json.dumps([record["request"], record["files"], sorted(record["sha256"])]).encode()
            if path.name == "report.html":
                content, count = TIMES.subn(b"", content)
                assert count == 1
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def small_run(output: Path, word: str, restart: bool = False) -> Action:
    """A command whose fit takes no time: it leaves a training state, files and folders, and replaces older ones."""

    def action() -> int:
        def write(place: Path) -> None:
            (place / "labels.npy").write_text(word)
            (place / f"only-{word}.csv").write_text(word)
            (place / "model").mkdir()
            (place / "model" / "weights").write_text(word * 100)

        folder = RunFolder(output, {"command": word}, restart=restart, trial=write)
        if folder.finished:
            return 0
        with working_in(folder):
            (folder.state / "training.pt").write_text(word)
            with folder.results({"inputs": []}) as place:
                write(place)
        return 0

    return action


@pytest.mark.parametrize("before", ["nothing", "results", "unfinished"])
def test_a_run_that_is_killed_anywhere_ends_as_others_do(before: str, tmp_path: Path) -> None:
    straight, output = tmp_path / "straight", tmp_path / "out"
    assert in_child(small_run(straight, "new"), straight)[0] == 0
    expected = state_of(straight)
    if before == "results":
        assert in_child(small_run(output, "old"), output)[0] == 0
    elif before == "unfinished":
        assert in_child(small_run(output, "old"), output, 8)[0] == KILLED
    first, handled = small_run(output, "new", restart=before != "nothing"), 0
    code, changes = in_child(first, output, keep=tmp_path)
    assert code == 0
    for point in range(changes):
        shutil.rmtree(output)
        if (tmp_path / str(point)).exists():  # else killed before there was an output folder
            (tmp_path / str(point)).rename(output)
        again = in_child(small_run(output, "new"), output)[0]
        if again != 0:
            # Killed before the old run was forgotten: the old results or state are whole, and --restart is the way.
            assert before != "nothing"
            again = in_child(first, output)[0]
        assert again == 0, point
        # A second time there is nothing to do, and what is left of a state goes.
        assert in_child(small_run(output, "new"), output)[0] == 0
        assert state_of(output) == expected, point
        assert not (output / "state").exists(), point
        handled += 1
    assert changes == handled > 20
    print(f"kill points ({before}): {changes} tried, {handled} handled")


def test_old_results_are_whole_until_the_new_ones_are(tmp_path: Path) -> None:
    for point in range(10_000):
        output = tmp_path / f"{point}"
        in_child(small_run(output, "old"), output)
        old = state_of(output)
        code, _ = in_child(small_run(output, "new", restart=True), output, point)
        if code == 0:
            break
        now = {name: value for name, value in state_of(output).items() if not name.startswith("state/")}
        complete = (output / "state" / "results").exists() and ownership.is_plain_file(output / "state" / "run.json")
        assert now == old or complete or "only-new.csv" in now


@pytest.fixture(scope="module")
def small_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four mixtures of two spectra of six bands."""
    generator = np.random.default_rng(8)
    path = tmp_path_factory.mktemp("table") / "spectra.csv"
    np.savetxt(path, generator.uniform(1, 3, (4, 2)) @ generator.random((2, 6)), delimiter=",")
    return path


def real_runs(scene: Path, table: Path) -> dict[str, list[object]]:
    unmix = ["unmix", table, "--pool-size", 3, "--max-epoch", 10, "--device", "cpu", "--threads", 1]
    return {
        "segment": ["segment", scene, *SEGMENT, "--max-epoch", 2, "--threads", 1],
        "unmix": unmix,
        "unmix trained": [*unmix, "--recipe", "trained"],
    }


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("name", ["segment", "unmix", "unmix trained"])
def test_a_command_that_is_killed_anywhere_ends_as_others_do(
    name: str, scene: Path, small_table: Path, tmp_path: Path
) -> None:
    words, output = real_runs(scene, small_table)[name], tmp_path / "out"

    def action() -> int:
        return run(*words, "-o", output).exit_code

    # What is imported once is not imported again by every child.
    assert action() == 0
    shutil.rmtree(output)
    code, changes = in_child(action, output, keep=tmp_path)
    assert code == 0
    expected = state_of(output)
    every = os.environ.get("SPECTRAFUSE_HOSTILE") == "all"
    points = range(changes) if every else range(changes // (2 * TRIED), changes, max(1, changes // TRIED))
    for point in points:
        shutil.rmtree(output)
        if (tmp_path / str(point)).exists():  # else killed before there was an output folder
            (tmp_path / str(point)).rename(output)
        assert in_child(action, output)[0] == 0, point
        assert state_of(output) == expected, point
        assert not (output / "state").exists(), point
    print(f"kill points of {name}: {len(points)} of {changes} tried, all handled")
