"""Names and text of any kind: they are data at every way out, and end no run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from helpers.command_line import SEGMENT, UNMIX, fails_with, run
from spectrafuse._runtime import text
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.cli.segment import scene_names
from spectrafuse.io import write_concentrations, write_json

pytestmark = pytest.mark.slow

ESCAPE = "\x1b[31mred\x1b]0;title\x07"
NAMES = [
    "[/b]", "[bold red]", "[link=http://a]", ":smile:", "$x$", "$\\frac{1$", "a$b", "\\$", "%s {0} {x}", "-5 C",
    "=1+1", "@SUM(A1)", "+cmd", "line\nbreak", ESCAPE, "\x9b2J", "\u202eabc", "\udcff\udcfe", "æ° ⁻¹ 水 😀", "a" * 300,
    " ", "..", "'", '"', "a,b;c",
]  # fmt: skip


def harmless(shown: str) -> bool:
    """No hidden character, the mark aside that tells Excel of a table in UTF-8."""
    return not any(text.printable(c, keep="\n") != c for c in shown.removeprefix("\ufeff") if c != "\r")


def check(result: Result, output: Path) -> None:
    assert result.exit_code == 0, result.output
    assert harmless(result.stdout)
    assert harmless(result.stderr)
    content = (output / "run.json").read_bytes().decode("utf-8")
    assert harmless(content)
    json.loads(content)


def as_file_name(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:200])


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("name", NAMES)
def test_names_of_scenes_variables_and_classes(name: str, scene: Path, tmp_path: Path) -> None:
    path = tmp_path / f"x{as_file_name(name)}.npz"
    path.parent.mkdir(exist_ok=True)
    with np.load(scene) as archive:
        np.savez(path, **{"cube": archive["cube"]})
    drawn = tmp_path / "truth.json"
    shapes = [{"label": name, "points": [[7, 0], [15, 0], [15, 12], [7, 12]]}]
    drawn.write_text(json.dumps({"imageHeight": 12, "imageWidth": 15, "shapes": shapes}))
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"other": 0, name: 1}))
    output = tmp_path / "out"
    words = ["segment", path, scene, "-o", output, *SEGMENT, "--max-epoch", 1, "--layout", "hwc"]
    check(run(*words, "--labels", drawn, "--labels", f"{scene}:labels", "--classes", classes), output)
    folders = [p for p in output.iterdir() if p.is_dir() and p.name != "model"]
    assert len(folders) == 2
    assert all((folder / "map.png").exists() for folder in folders)


@pytest.mark.usefixtures("pictures_left_empty")
@pytest.mark.parametrize("name", NAMES)
def test_names_of_spectra_components_and_axes(name: str, table: Path, tmp_path: Path) -> None:
    values = np.loadtxt(table, delimiter=",", skiprows=1)
    path = tmp_path / "spectra.csv"
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *range(900, 1100, 10)])
        writer.writerows([[f"{name.strip() or 'x'}{i}".replace("\n", " "), *row] for i, row in enumerate(values)])
    true = tmp_path / "true.csv"
    with true.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a" + name.replace("\n", " "), "b"])
        writer.writerows(np.loadtxt(table.parent / "concentrations.csv", delimiter=",", skiprows=1))
    output = tmp_path / "out"
    words = ["unmix", path, "-o", output, *UNMIX, "--no-feasible-bands", "--axis-label", name]
    result = run(*words, "--true-concentrations", true)
    if "\x9b" not in name:  # which ends a line for some readers of tables
        check(result, output)
        lines = (output / "concentrations.csv").read_text(encoding="utf-8")
        assert harmless(lines)
        assert not any(row[0][:1] in ("=", "+", "@", "\t") for row in csv.reader(lines.splitlines()))


def test_all_names_at_once_are_painted(table: Path, tmp_path: Path) -> None:
    values = np.loadtxt(table, delimiter=",", skiprows=1)
    path = tmp_path / "spectra.csv"
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *range(900, 1100, 10)])
        names = [f"{name.strip() or 'x'}{i}".replace("\n", " ") for i, name in enumerate(NAMES) if "\x9b" not in name]
        writer.writerows([[name, *values[i % len(values)]] for i, name in enumerate(names)])
    output = tmp_path / "out"
    check(run("unmix", path, "-o", output, *UNMIX, "--axis-label", "$\\frac{1$"), output)
    assert (output / "concentrations.png").stat().st_size > 5000


@pytest.mark.parametrize("name", NAMES)
def test_errors_about_a_name_are_one_harmless_line(name: str, scene: Path, tmp_path: Path) -> None:
    missing = tmp_path / f"{as_file_name(name)}.mat"
    for words in (
        ["segment", missing, "-o", tmp_path / "out"],
        ["segment", scene, "-o", tmp_path / "out", "--key", f"x{name}"],
        ["segment", scene, "-o", tmp_path / "out", f"--merge={name}="],
        ["segment", scene, "-o", tmp_path / "out", "--device", f"x{name}"],
        ["unmix", missing, "-o", tmp_path / "out"],
    ):
        result = run(*words)
        fails_with(result)
        assert harmless(result.stderr)
        assert len(result.stderr.strip()) <= text.MOST_CHARACTERS + len("error: ")


@pytest.mark.parametrize("cell", ["[/]", "[bold]", ESCAPE, "\u202e", "1" * 10_000 + "x", "9" * 100_000])
def test_cells_that_are_no_numbers(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"a,b\n1,2\n3,{cell}\n", encoding="utf-8")
    result = run("unmix", path, "-o", tmp_path / "out")
    assert harmless(result.stderr)
    if cell.isdigit():  # beyond all numbers: a value that is missing, as is said
        assert result.exit_code == 0, result.output
        assert "1 of 4 values is missing and takes no part" in result.stdout
        return
    fails_with(result)
    assert len(result.stderr) <= text.MOST_CHARACTERS + 10


def test_scenes_called_like_results_get_other_folders(scene: Path, tmp_path: Path) -> None:
    names = ["model", "state", "run.json", "loss.png", "Model", "STATE", "..", "con", "a", "a", "A", "a-2"]
    found = scene_names([Path(f"{name}.npz") for name in names])
    assert len({name.casefold() for name in found}) == len(names)
    assert not {name.casefold() for name in found} & {"model", "state", "run.json", "loss.png", "..", "con"}
    paths = []
    for name in ("model", "state", "run.json", "loss.png"):
        paths.append(tmp_path / f"{name}.npz")
        paths[-1].write_bytes(scene.read_bytes())
    output = tmp_path / "out"
    check(run("segment", *paths, "-o", output, *SEGMENT, "--max-epoch", 1), output)
    assert len([p for p in output.iterdir() if (p / "labels.npy").exists()]) == 4


@pytest.mark.process
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminals_that_lack_characters(encoding: str, scene: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"sc\xff\xe2\x81\xbb[x].npz")
    path.write_bytes(scene.read_bytes())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": encoding}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0"}
    words = ["segment", path, "-o", tmp_path / "out", *SEGMENT, "--max-epoch", "1"]
    done = subprocess.run([sys.executable, "-m", "spectrafuse", *words], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\\xff" in done.stdout
    assert (tmp_path / "out" / "run.json").exists()


def test_ways_out() -> None:
    assert text.printable("a\x1b[1m\n\udcff") == "a\\x1b[1m\\x0a\\xff"
    assert text.in_picture("a$b\\$\n") == "a\\$b\\\\$\n"
    cells = ["=1", "-3.5", "+1e5", "-a", "@x", " =1", "a,b", 'a"b', "a;=1", "plain"]
    shown = ["'=1", "-3.5", "+1e5", "'-a", "'@x", "' =1", '"a,b"', '"a""b"', '"a;=1"', "plain"]
    assert [text.in_csv(cell) for cell in cells] == shown
    long = text.message("begin " + "x" * 10**6 + " end")
    assert len(long) <= text.MOST_CHARACTERS
    assert long.startswith("begin")
    assert long.endswith("end")
    assert len(str(InvalidValueError("y" * 10**6))) <= text.MOST_CHARACTERS
    assert text.file_name("a/b\\c\n", "x") == "a_b_c_x0a"
    assert text.file_name("..", "x") == "x"
    assert len(text.file_name("水" * 500, "x").encode()) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_records_and_tables_give_names_back(name: str, tmp_path: Path) -> None:
    content = json.loads(write_json(tmp_path / "a.json", {"name": name}).read_text(encoding="utf-8"))
    assert content == {"name": name}
    table, archive = write_concentrations(tmp_path, np.ones((1, 2)), names=[name])
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2
    assert len(rows[1]) == 3
    with np.load(archive) as arrays:
        assert arrays["names"].tolist() == [name]
