"""What a command reads: compared by content when a run is found done, and never replaced by its results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import SEGMENT, UNMIX, fails_with, run
from helpers.models import spectra, unmixing
from spectrafuse.cli import demo as demo_command
from spectrafuse.cli.experiments import joined
from spectrafuse.io import read_spectra
from spectrafuse.mcr.recipes import published
from spectrafuse.mcr.training.rules import recipe_bands

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pictures_left_empty")]
QUICK = ["--no-feasible-bands", "--max-components", 1]


def another(table: Path, path: Path, factor: float) -> Path:
    """A table like another, with larger numbers."""
    values = np.loadtxt(table, delimiter=",", skiprows=1) * factor
    header = table.read_text().partition("\n")[0]
    np.savetxt(path, values, delimiter=",", header=header, comments="", fmt="%.6f")
    return path


def library(path: Path, components: np.ndarray) -> Path:
    """An ENVI library: numbers, and a header that does not change with them."""
    count, bands = components.shape
    fields = f"samples = {bands}\nlines = {count}\nbands = 1\nheader offset = 0\ndata type = 4\ninterleave = bsq\n"
    path.write_text(f"ENVI\n{fields}file type = ENVI Spectral Library\nbyte order = 0\n")
    path.with_suffix(".sli").write_bytes(components.astype("<f4").tobytes())
    return path


@pytest.fixture(scope="module")
def done(scene: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each command."""
    folder = tmp_path_factory.mktemp("done")
    assert run("segment", scene, "-o", folder / "segment", *SEGMENT, "--max-epoch", 1).exit_code == 0
    assert run("unmix", table, "-o", folder / "unmix", *UNMIX, *QUICK).exit_code == 0
    return {name: folder / name for name in ("segment", "unmix")}


def test_another_second_file_is_another_run(table: Path, tmp_path: Path) -> None:
    second = another(table, tmp_path / "second.csv", 2)
    words = ["unmix", table, second, "-o", tmp_path / "out", *UNMIX, *QUICK]
    assert run(*words).exit_code == 0
    assert "Nothing to do" in run(*words).stdout
    another(table, second, 3)
    fails_with(run(*words), "data changed")


def test_other_known_spectra_and_options_are_another_run(table: Path, tmp_path: Path) -> None:
    components = np.load(table.parent / "components.npy")
    known = library(tmp_path / "known.hdr", components)
    words = ["unmix", table, "--known", known, "-o", tmp_path / "out", *UNMIX]
    assert run(*words, *QUICK).exit_code == 0
    assert "Nothing to do" in run(*words, *QUICK).stdout
    fails_with(run(*words, *QUICK[1:], "--feasible-bands"), "feasible_bands was False, now True")
    library(known, components * np.linspace(1, 2, components.shape[1]))
    fails_with(run(*words, *QUICK), "truth.known changed")


def own_model(done: Path, _: Path) -> list[object]:
    return ["apply", done, done.parent / "new.csv"]


def own_model_folder(done: Path, _: Path) -> list[object]:
    return ["apply", done / "model", done.parent / "new.csv"]


def through_a_link(done: Path, elsewhere: Path) -> list[object]:
    elsewhere.symlink_to(done, target_is_directory=True)
    return ["apply", elsewhere, done.parent / "new.csv"]


def own_concentrations(done: Path, _: Path) -> list[object]:
    return ["unmix", done / "concentrations.csv", *UNMIX, *QUICK]


def own_components(done: Path, _: Path) -> list[object]:
    return ["unmix", done.parent / "new.csv", "--known", done / "components.csv", *UNMIX, *QUICK]


Words = Callable[[Path, Path], list[object]]


@pytest.mark.parametrize("words", [own_model, own_model_folder, through_a_link, own_concentrations, own_components])
def test_what_is_read_is_not_replaced(words: Words, done: dict[str, Path], table: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(done["unmix"], output)
    another(table, tmp_path / "new.csv", 1)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    fails_with(run(*words(output, tmp_path / "link"), "-o", output, "--restart"), "is read by this command")
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_labels_of_a_run_are_not_replaced_by_it(done: dict[str, Path], scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(done["segment"], output)
    words = ["segment", scene, *SEGMENT, "--max-epoch", 1, "-o", output, "--restart"]
    fails_with(run(*words, "--labels", output / "labels.npy"), "labels.npy", "is read by this command")
    assert (output / "labels.npy").exists()


def test_a_model_folder_may_hold_other_things(done: dict[str, Path], table: Path, tmp_path: Path) -> None:
    model = shutil.copytree(done["unmix"] / "model", tmp_path / "model")
    (model / "drafts").mkdir()
    (model / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(model / "pipe")
    result = run("apply", model, table, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output


def test_a_pipe_in_a_model_folder_does_not_hang(done: dict[str, Path], scene: Path, tmp_path: Path) -> None:
    model = shutil.copytree(done["segment"] / "model", tmp_path / "model")
    (model / "spectrafuse.json").unlink()
    os.mkfifo(model / "spectrafuse.json")
    run("apply", model, scene, "-o", tmp_path / "out")
    run("info", model)


def test_runs_have_names_of_their_own(table: Path, tmp_path: Path) -> None:
    names = ["a.csv", "a.txt", "a-2.csv", "A.tsv", "b\nc.csv", "d" * 250 + ".csv", "$x$.csv", os.fsdecode(b"\xff.csv")]
    parts = []
    for name in names:
        shutil.copy(table, tmp_path / name)
        parts.append(read_spectra(tmp_path / name))
    found = joined(parts, beside=False).names
    assert len({name.casefold() for name in found}) == len(names)
    assert all(len(name.encode()) <= 110 and name.isprintable() for name in found)
    result = run("unmix", *(tmp_path / name for name in names[-4:]), "-o", tmp_path / "out", *UNMIX, *QUICK)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").glob("concentrations_*.csv"))) == 4


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that writes its data and a picture, and runs nothing."""
    monkeypatch.setattr(demo_command, "indian_pines", lambda: (np.ones(3), np.ones(3), np.ones(3, int)))
    monkeypatch.setattr(demo_command, "fermentation", lambda: (np.ones((2, 2)), np.ones(2), np.ones(2)))
    for name in ("segment", "unmix", "_say_how_glucose_fared"):
        monkeypatch.setattr(demo_command, name, lambda *_: None)
    monkeypatch.setattr(demo_command, "_picture_of_labeled_pixels", lambda path, *_: path.write_bytes(b"picture"))


@pytest.mark.usefixtures("short_demo")
@pytest.mark.parametrize("name", ["data/glucose.csv", "indian_pines_against_truth.png", "demo.json", "data"])
def test_the_demo_replaces_only_its_own(name: str, tmp_path: Path) -> None:
    output = tmp_path / "demo"
    (output / name).parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    if name == "data":
        (output / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    else:
        (output / name).write_text("years of work")
    for words in (["demo", "-o", output], ["demo", "-o", output, "--restart"]):
        fails_with(run(*words), "is in the way")
    assert not list((tmp_path / "elsewhere").iterdir())
    assert name == "data" or (output / name).read_text() == "years of work"


@pytest.mark.usefixtures("short_demo")
def test_the_demo_runs_again(tmp_path: Path) -> None:
    for _ in range(3):
        assert run("demo", "-o", tmp_path).exit_code == 0
    (tmp_path / "indian_pines_against_truth.png").write_bytes(b"drawn over by hand")
    fails_with(run("demo", "-o", tmp_path), "is in the way")


def test_a_folder_that_is_called_like_a_state_is_kept(tmp_path: Path) -> None:
    estimator = unmixing(recipe="published", max_epoch=1)
    band = recipe_bands(published, 0.0, 1.0, 1.0)[0].name
    (tmp_path / band).mkdir()
    (tmp_path / band / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis.tex"):
        estimator.fit(spectra(), checkpoint_dir=tmp_path)
    assert (tmp_path / band / "thesis.tex").read_text() == "years of work"
