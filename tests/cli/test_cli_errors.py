"""The command line when something is wrong, and its small parts."""

from __future__ import annotations

import ast
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from matplotlib.image import imread

import spectrafuse
from helpers.command_line import SEGMENT, fails_with, run
from spectrafuse._runtime import checks
from spectrafuse._runtime.progress import Progress, in_parts, listening, tell
from spectrafuse.cli import terminal
from spectrafuse.cli.scene_options import split_key
from spectrafuse.cli.segment import parse_merge, scene_names
from spectrafuse.io.labels import read_labels

PACKAGE = Path(spectrafuse.__file__).parent


def test_errors_of_the_user_are_one_sentence(scene: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fails_with(run("segment", tmp_path / "absent.mat", "-o", out), "absent.mat")
    fails_with(run("segment", scene, "-o", out, "--key", "nothing"), "nothing", "cube")
    fails_with(run("segment", scene, "-o", out, "--merge", "0:1"), "--merge", "'0:1'")
    fails_with(run("segment", scene, "-o", out, "--n-clusters", 3, "--merge", "0=0,1"), "--merge", "2")
    fails_with(run("segment", scene, "-o", out, "--labels", "a.npy", "--labels", "b.npy"), "--labels", "once per scene")
    fails_with(run("segment", scene, "-o", out, "--mask", "a.npy", "--mask", "b.npy"), "--mask", "once per scene")
    fails_with(run("segment", scene, "-o", out, "--mask", "a.npy"), "a.npy", "does not exist")
    np.save(tmp_path / "mask.npy", np.full((12, 15), 2))
    fails_with(run("segment", scene, "-o", out, "--mask", tmp_path / "mask.npy"), "--mask", "it has 2")
    np.save(tmp_path / "mask.npy", np.zeros((15, 12), int))
    fails_with(run("segment", scene, "-o", out, "--mask", tmp_path / "mask.npy"), "transposed")
    fails_with(run("segment", scene, "-o", out, "--classes", "a,b"), "--classes", "no --labels file")
    for size in ("much", "0", "-3MB", "3TB"):
        fails_with(run("segment", scene, "-o", out, f"--max-memory={size}"), "--max-memory", size)
    fails_with(
        run("segment", scene, "-o", tmp_path / "small", "--max-memory", 9), "`max_memory` must be at least 1 MiB"
    )
    fails_with(run("unmix", tmp_path / "absent.csv", "-o", out), "absent.csv")
    short = tmp_path / "short.csv"
    short.write_text("sugar,salt\n1,2\n")
    fails_with(run("unmix", table, "-o", out, "--true-concentrations", short), "9 spectra")
    fails_with(run("unmix", table, "-o", out, "--true-components", short), "20 bands")
    assert not out.exists(), "a command that cannot begin leaves nothing behind"


def test_output_that_cannot_be_used(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails_with(run("segment", scene, "-o", tmp_path / "file"), "is a file")
    fails_with(run("segment", scene, "-o", tmp_path / "file" / "out"), "cannot be created")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    fails_with(run("segment", scene, "-o", tmp_path / "full"), "not empty", "thesis.tex")


def test_a_folder_in_use_is_left_alone(table: Path, tmp_path: Path) -> None:
    from spectrafuse.cli.run_folder import RunFolder

    first = RunFolder(tmp_path / "out", {"command": "test"})
    with pytest.raises(spectrafuse.io.errors.DataError, match="right now"):
        RunFolder(tmp_path / "out", {"command": "test"})
    first.release()
    RunFolder(tmp_path / "out", {"command": "test"}).release()


def test_forced_backend_that_cannot_run_is_an_error(scene: Path, tmp_path: Path) -> None:
    with spectrafuse.use_backend("cuda"):
        result = run("segment", scene, "-o", tmp_path / "out", *SEGMENT, "--max-epoch", 1)
    fails_with(result, "cuda", "cannot run")


def test_debug_shows_where_an_error_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRAFUSE_DEBUG", "1")
    result = run("unmix", tmp_path / "absent.csv", "-o", tmp_path / "out")
    assert isinstance(result.exception, ValueError)


def _fails(error: Callable[[], object]) -> int:
    """The exit code of a command that fails so."""

    @terminal.friendly
    def broken() -> None:
        error()

    with pytest.raises(typer.Exit) as raised:
        broken()
    return raised.value.exit_code


@pytest.mark.parametrize(
    "error",
    [
        lambda: {}["a bug of ours"],
        lambda: np.zeros(3) + np.zeros(4),
        lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
        lambda: int("abc"),
        lambda: len(3),  # type: ignore[arg-type]
    ],
)
def test_a_bug_shows_its_traceback_and_how_to_report_it(
    error: Callable[[], object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["spectrafuse", "segment", "a scene.mat"])
    assert _fails(error) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert f"in {error.__name__}" in shown
    assert f"version: spectrafuse {spectrafuse.__version__}" in shown
    assert "command: spectrafuse segment 'a scene.mat'" in shown
    assert "`spectrafuse doctor`" in shown
    assert "\nerror: " not in shown


@pytest.mark.parametrize(
    "error",
    [
        lambda: checks.integer("rows", 0),
        lambda: checks.integer("rows", "three"),
        lambda: checks.tensor("x", 3, shape="(n, d)", ndim=2),
        lambda: spectrafuse.EBgMCR(pool_size=0).fit(np.ones((3, 4))),
        lambda: spectrafuse.DeepGlobalClustering(n_clusters=0).fit(np.ones((3, 4, 5))),
        lambda: read_labels("absent.npy"),
        lambda: Path("absent.txt").read_text(encoding="utf-8"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(error: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    assert _fails(error) == 2
    shown = capsys.readouterr().err
    assert re.fullmatch(r"error: .*[^.]\.\n", shown), shown


def test_errors_with_a_message_are_our_own() -> None:
    """A plain `ValueError("...")` would be shown as a bug; one without words is a signal inside a function."""
    rooms = (path for path in PACKAGE.iterdir() if path.name not in ("benchmarks", "kernels"))
    files = sorted(file for room in rooms for file in ([room] if room.suffix == ".py" else room.rglob("*.py")))
    plain = [
        f"{file.relative_to(PACKAGE)}, line {node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in ("ValueError", "TypeError", "FloatingPointError")
    ]
    assert len(files) > 100
    assert not plain


def test_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly.datasets", None)
    monkeypatch.chdir(tmp_path)
    fails_with(run("demo"), "pip install 'spectrafuse[demo]'")


def test_demo_data() -> None:
    from spectrafuse.cli import demo

    cube, wavelengths, labels = demo.indian_pines()
    assert cube.shape == (145, 145, 200)
    assert wavelengths.shape == (200,)
    assert np.unique(labels).tolist() == list(range(len(demo.INDIAN_PINES_CLASSES)))
    spectra, wavenumbers, glucose = demo.fermentation()
    assert spectra.shape == (21, len(wavenumbers))
    assert glucose.shape == (21,)
    assert spectra.min() == 0.0
    # Absorbance rises with glucose where glucose absorbs: the sign of the preparation is right.
    assert np.corrcoef(spectra[:, np.argmin(np.abs(wavenumbers - 1035))], glucose)[0, 1] > 0.5


def test_small_parts_of_the_command_line() -> None:
    assert parse_merge("0=0,2; 1=1;") == {0: [0, 2], 1: [1]}
    assert parse_merge(None) == {}
    assert scene_names([Path("a/x.mat"), Path("b/x.npy"), Path("y.mat")]) == ["x", "x-2", "y"]
    assert split_key("truth.mat:GT") == ("truth.mat", "GT")
    assert split_key("truth.mat") == ("truth.mat", None)


def test_file_name_with_a_colon_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a:b.npy"
    path.write_bytes(b"")
    assert split_key(str(path)) == (str(path), None)


def test_progress_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.training_progress("title") as report:
        for epoch in (1, 2, 3):
            report(Progress(epoch, 3, {"loss": 0.25}, ""))
    first, last = capsys.readouterr().err.splitlines()
    assert first == "title: started"
    assert re.fullmatch(r"title: epoch 3/3: loss 0\.25 \(\d+ s so far, about 0 s left\)", last)


def test_progress_lines_go_on_while_a_fit_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_PLAIN_LINE_SECONDS", 0.0)
    seen = ""
    with terminal.training_progress("title") as report:
        report(Progress(2, 10, {"loss": 0.25}, ""))
        report(Progress(3, 10, {"loss": 0.25}, ""))
        while seen.count("epoch 3/10") < 2:
            time.sleep(0.05)
            seen += capsys.readouterr().err
    assert re.search(r"epoch 3/10: loss 0\.25 \(\d+ s so far, about \d+ s left\)", seen)
    with terminal.training_progress("title") as report:
        for message, left in (("search 1 of at most 6", ", time left not known yet"), ("about 20 s left", "")):
            report(Progress(0, None, {}, message))
            seen = ""
            while f"title: {message} (" not in seen:
                time.sleep(0.05)
                seen += capsys.readouterr().err
            assert re.search(rf"title: {message} \(\d+ s so far{left}\)", seen)


def test_waiting_for_what_has_no_steps_is_said_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal.waiting("reading"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "_PLAIN_LINE_SECONDS", 0.0)
    seen = ""
    with terminal.waiting("reading"):
        while "s so far" not in seen:
            time.sleep(0.05)
            seen += capsys.readouterr().err
    assert re.fullmatch(r"(reading: \d+ s so far, time left not known yet\n)+", seen)


def test_waiting_for_what_is_known_says_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_PLAIN_LINE_SECONDS", 0.0)
    clock = iter(range(1000))
    monkeypatch.setattr(terminal.time, "monotonic", lambda: float(next(clock)))
    lines = terminal._PlainLines("labeling", first=False)
    with listening(lines.share):
        # Of two scenes the first half of the second is done, then another piece of work begins.
        for scene in in_parts([0, 1]):
            tell(0, 4)
            if scene:
                tell(2, 4)
                lines._report()
        tell(0, 3)
        lines._report()
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"labeling: \d+ s so far, about [1-9] s left|labeling: \(\d+ s so far, about \d+ s left\)", first
    )
    assert last.endswith("time left not known yet")
    tell(1, 2)  # nobody listens


def test_segment_of_an_image_with_pixels_that_hold_no_data(tmp_path: Path) -> None:
    cube = np.random.default_rng(0).random((5, 11, 14), dtype=np.float32) + 1
    absent = np.zeros((11, 14), bool)
    absent[:4, 5:] = True
    cube[:, absent] = -9
    (tmp_path / "x.bsq").write_bytes(cube.tobytes())
    (tmp_path / "x.hdr").write_text(
        "ENVI\nsamples = 14\nlines = 11\nbands = 5\ndata type = 4\ninterleave = bsq\nbyte order = 0\n"
    )
    output = tmp_path / "out"
    result = run(
        "segment", tmp_path / "x.hdr", "-o", output, "--nodata", "-9", "--n-clusters", "2", "--max-epoch", "1",
        "--crop-size", "8", "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "36 pixels without data" in " ".join(result.stdout.split())
    labels = np.load(output / "labels.npy")
    np.testing.assert_array_equal(labels == -1, absent)
    np.testing.assert_array_equal(imread(output / "labels.png")[..., 3] == 0, absent)
    np.testing.assert_array_equal(read_labels(output / "classes.hdr"), np.where(labels < 0, -1, labels + 1))
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert record["inputs"][0]["pixels_without_data"] == 36
    assert sum(row["share"] for row in record["clusters"][0]) == pytest.approx(1)
    loaded = spectrafuse.DeepGlobalClustering.load(output / "model", device="cpu")
    np.testing.assert_array_equal(loaded.predict(tmp_path / "x.hdr"), labels)
