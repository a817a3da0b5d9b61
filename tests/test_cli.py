"""The command line: help, errors in one sentence, output folders, interruption and going on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner, Result

import spectrafuse
from spectrafuse import report_maps, segment_command, terminal
from spectrafuse._progress import Progress
from spectrafuse.cli import app
from spectrafuse.io import results
from spectrafuse.io.labels import read_labels
from spectrafuse.io.results import colors
from spectrafuse.segment_command import _scores
from spectrafuse.segment_inputs import parse_bytes, parse_classes, parse_merge, scene_names, split_key
from spectrafuse.terminal import CommandError

SEGMENT = ["--n-clusters", "3", "--crop-size", "8", "--batch-size", "2", "--device", "cpu"]
UNMIX = ["--pool-size", "5", "--max-epoch", "60", "--device", "cpu"]


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def fails_with(result: Result, *parts: str) -> None:
    """Exit code 2 and one line on stderr that holds the parts."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in result.output


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny problems are slower on more threads, and --threads would stay in force for later tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube (rows, columns, bands) of two materials, with wavelengths and labels."""
    generator = np.random.default_rng(7)
    labels = np.zeros((12, 15), dtype=np.int64)
    labels[:, 7:] = 1
    spectra = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]])
    cube = spectra[labels] + 0.05 * generator.standard_normal((12, 15, 6))
    path = tmp_path_factory.mktemp("data") / "scene.npz"
    np.savez(path, cube=cube, wavelengths=np.linspace(450, 700, 6), labels=labels)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra of two components, with their concentrations and spectra beside."""
    generator = np.random.default_rng(8)
    folder = tmp_path_factory.mktemp("spectra")
    components = generator.random((2, 20))
    concentrations = generator.uniform(1, 3, (9, 2))
    header = ",".join(str(x) for x in range(900, 1100, 10))
    np.savetxt(
        folder / "spectra.csv", concentrations @ components, delimiter=",", header=header, comments="", fmt="%.6f"
    )
    np.save(folder / "components.npy", components)
    np.savetxt(folder / "concentrations.csv", concentrations, delimiter=",", header="sugar,salt", comments="")
    return folder / "spectra.csv"


@pytest.fixture(scope="module")
def segmented(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    output = tmp_path_factory.mktemp("run") / "deep" / "out"
    words = ["segment", scene, "-o", output, *SEGMENT, "--max-epoch", 2, "--labels", f"{scene}:labels"]
    return output, run(*words)


@pytest.mark.parametrize("words", [[], ["segment"], ["unmix"], ["demo"], ["doctor"]])
def test_help(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_version() -> None:
    assert run("--version").output.strip() == f"spectrafuse {spectrafuse.__version__}"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spectrafuse.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('heavy:', sorted({'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout


def test_segment_leaves_maps_pictures_model_and_record(segmented: tuple[Path, Result], scene: Path) -> None:
    output, result = segmented
    assert result.exit_code == 0, result.output
    assert "Hungarian" in result.stdout
    expected = {"labels.npy", "labels.png", "map.png", "spectra.png", "loss.png", "model", "run.json"}
    expected |= {"classes.hdr", "classes.img"}
    assert {path.name for path in output.iterdir()} == expected
    labels = np.load(output / "labels.npy")
    assert labels.shape == (12, 15)
    assert labels.dtype == np.int64
    picture = np.round(imread(output / "labels.png")[..., :3] * 255).astype(np.uint8)
    np.testing.assert_array_equal(picture, colors(3)[labels])
    loaded = spectrafuse.DeepGlobalClustering.load(output / "model", device="cpu")
    cube = np.load(scene)["cube"].transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(cube), labels)


def test_run_json_says_what_was_done(segmented: tuple[Path, Result], scene: Path) -> None:
    output, _ = segmented
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert record["request"]["command"] == "segment"
    assert record["parameters"]["n_clusters"] == 3
    assert record["seed"] == 0
    assert record["epochs"] == 2
    assert record["inputs"][0]["sha256"] == hashlib.sha256(scene.read_bytes()).hexdigest()
    assert "bands" in record["inputs"][0]["layout"]
    assert record["versions"]["spectrafuse"] == spectrafuse.__version__
    assert {"torch", "numpy", "python"} <= set(record["versions"])
    assert record["stop_reason"].endswith(".")
    assert record["threads"] >= 1
    assert record["seconds"] > 0
    assert record["starts"] == 1
    assert sum(row["pixels"] for row in record["clusters"][0]) == 12 * 15
    assert 0 <= record["scores"]["mean_iou"] <= 1
    assert set(record["files"]) == {path.name for path in output.iterdir()}


def test_same_command_again_does_nothing(segmented: tuple[Path, Result], scene: Path) -> None:
    output, _ = segmented
    words = ["segment", scene, "-o", output, *SEGMENT, "--max-epoch", 2, "--labels", f"{scene}:labels"]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    again = run(*words)
    assert again.exit_code == 0
    assert "Nothing to do" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_different_command_on_the_same_folder(segmented: tuple[Path, Result], scene: Path) -> None:
    output, _ = segmented
    result = run("segment", scene, "-o", output, *SEGMENT, "--max-epoch", 3, "--labels", f"{scene}:labels")
    fails_with(result, "parameters.max_epoch was 2, now 3", "--restart")


def test_restart_replaces_results_and_spares_other_files(scene: Path, tmp_path: Path) -> None:
    words = ["segment", scene, "-o", tmp_path, *SEGMENT]
    assert run(*words, "--max-epoch", 1).exit_code == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert run(*words, "--max-epoch", 2, "--restart").exit_code == 0
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "state").exists()


def test_several_scenes_get_a_folder_each_and_clusters_can_be_merged(scene: Path, tmp_path: Path) -> None:
    other = tmp_path / "scene.npz"
    with np.load(scene) as archive:
        np.savez(other, cube=archive["cube"][:9], wavelengths=archive["wavelengths"])
    output = tmp_path / "out"
    result = run("segment", scene, other, "-o", output, *SEGMENT, "--max-epoch", 1, "--merge", "0=0,2;1=1")
    assert result.exit_code == 0, result.output
    assert np.load(output / "scene" / "labels.npy").shape == (12, 15)
    assert np.load(output / "scene-2" / "labels.npy").shape == (9, 15)
    assert set(np.unique(np.load(output / "scene" / "labels.npy"))) <= {0, 1}
    assert len(json.loads((output / "run.json").read_text())["clusters"][0]) == 2


def test_labels_that_occur_nowhere_take_no_cluster() -> None:
    clusters = np.array([[0, 0, 1, 1, 2, 2]])
    truth = np.array([[5, 5, 2, 2, -1, 9]])
    scores = _scores([clusters], [truth])
    assert scores is not None
    assert scores["mapping"] == {2: [1], 5: [0], 9: [2]}
    assert {name for name in scores if name.startswith("iou_")} == {"iou_class_2", "iou_class_5", "iou_class_9"}
    assert scores["mean_iou"] == 1.0


def test_unmix_leaves_tables_pictures_model_and_record(table: Path, tmp_path: Path) -> None:
    folder, output = table.parent, tmp_path / "out"
    known = ["--true-components", folder / "components.npy", "--true-concentrations", folder / "concentrations.csv"]
    result = run("unmix", table, "-o", output, *UNMIX, *known, "--axis-label", "shift (cm-1)")
    assert result.exit_code == 0, result.output
    names = {path.name for path in output.iterdir()}
    assert names == {
        *("components.csv", "components.npz", "components.png", "concentrations.csv", "concentrations.npz"),
        *("concentrations.png", "concentrations_against_true.png", "count_curve.csv", "count_curve.png"),
        *("loss.png", "model", "run.json"),
    }
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    count = record["n_components"]
    with np.load(output / "components.npz") as archive:
        assert archive["components"].shape == (count, 20)
        assert archive["axis"].tolist() == list(range(900, 1100, 10))
        assert archive["component_ids"].tolist() == record["component_ids"]
    assert (output / "concentrations.csv").read_text().count("\n") == 10
    assert (output / "count_curve.csv").read_text().startswith("r2_from,r2_to,count,r2,nmse,epoch\n")
    assert record["chosen_reason"]
    assert len(record["scores"]["pairs"]) == min(2, count)
    assert {"cosine", "rmse", "r2"} <= set(record["scores"]["pairs"][0])
    assert spectrafuse.EBgMCR.load(output / "model").n_components_ == count
    again = run("unmix", table, "-o", output, *UNMIX, *known, "--axis-label", "shift (cm-1)")
    assert "Nothing to do" in again.stdout


def test_interrupted_run_goes_on_and_ends_where_an_uninterrupted_one_ends(scene: Path, tmp_path: Path) -> None:
    words = ["segment", str(scene), *SEGMENT, "--max-epoch", "8", "--threads", "1", "-o"]
    output, straight = tmp_path / "interrupted", tmp_path / "straight"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "spectrafuse", *words, str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True)
    deadline = time.monotonic() + 120
    while not (output / "state" / "training.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "the same command goes on from there" in errors
    assert str(output / "state") in errors
    assert "Traceback" not in errors
    assert not (output / "run.json").exists()
    changed = run(*words[:3], "2", *words[4:], output)
    fails_with(changed, "n_clusters was 3, now 2", "unfinished")
    resumed = run(*words, output)
    assert resumed.exit_code == 0, resumed.output
    assert "going on from the state" in resumed.stderr
    assert not (output / "state").exists()
    assert run(*words, straight).exit_code == 0
    first, second = (json.loads((folder / "run.json").read_text()) for folder in (output, straight))
    assert (first["starts"], second["starts"]) == (2, 1)
    assert (output / "labels.npy").read_bytes() == (straight / "labels.npy").read_bytes()
    weights = "model/weights.safetensors"
    assert (output / weights).read_bytes() == (straight / weights).read_bytes()


def labelme(path: Path, *shapes: tuple[str, list[list[int]]]) -> Path:
    listed = [{"label": name, "points": points} for name, points in shapes]
    path.write_text(json.dumps({"imageHeight": 12, "imageWidth": 15, "shapes": listed}))
    return path


def test_segment_with_a_mask_names_and_little_memory(scene: Path, tmp_path: Path) -> None:
    absent = np.zeros((12, 15), dtype=np.uint8)
    absent[:, :2] = 1
    np.savez(tmp_path / "mask.npz", other=np.arange(3), nothing=absent)
    drawn = labelme(tmp_path / "truth.json", ("right", [[7, 0], [15, 0], [15, 12], [7, 12]]))
    words = ["segment", scene, "-o", tmp_path / "out", *SEGMENT, "--max-epoch", 1, "--max-memory", "2 MB"]
    words += ["--mask", f"{tmp_path / 'mask.npz'}:nothing", "--labels", drawn, "--classes", "left,other,right"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    labels = np.load(tmp_path / "out" / "labels.npy")
    np.testing.assert_array_equal(labels == -1, absent == 1)
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["inputs"][0]["pixels_without_data"] == 24
    assert set(record["scores"]["mapping"]) == {"0", "2"}
    assert record["request"]["classes"] == {"left": 0, "other": 1, "right": 2}
    assert record["request"]["masks"][0]["sha256"] == hashlib.sha256((tmp_path / "mask.npz").read_bytes()).hexdigest()
    # More memory is no other command; another mask is.
    words[words.index("2 MB")] = "1GB"
    assert "Nothing to do" in run(*words).stdout
    np.savez(tmp_path / "mask.npz", nothing=1 - absent)
    fails_with(run(*words), "masks was")


def test_shapes_are_a_mask(scene: Path, tmp_path: Path) -> None:
    drawn = labelme(
        tmp_path / "mask.json",
        ("glass", [[0, 0], [3, 0], [3, 12], [0, 12]]),
        ("edge", [[14, 0], [15, 0], [15, 12], [14, 12]]),
    )
    result = run("segment", scene, "-o", tmp_path / "out", *SEGMENT, "--max-epoch", 1, "--mask", drawn)
    assert result.exit_code == 0, result.output
    absent = np.load(tmp_path / "out" / "labels.npy") == -1
    assert (absent == (np.isin(np.arange(15), [0, 1, 2, 14])[None] & np.ones((12, 1), bool))).all()


def test_large_maps_are_kept_in_files(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["segment", scene, *SEGMENT, "--max-epoch", 1]
    assert run(*words, "-o", tmp_path / "held").exit_code == 0
    monkeypatch.setattr(segment_command, "_LARGE_MAP", 10)
    monkeypatch.setattr(results, "_MOST_PICTURE_PIXELS", 100)
    monkeypatch.setattr(report_maps, "MOST_PIXELS", 100)
    assert run(*words, "-o", tmp_path / "out").exit_code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out/labels.npy"), np.load(tmp_path / "held/labels.npy"))
    assert imread(tmp_path / "out/labels.png").shape == (6, 8, 4)
    assert not (tmp_path / "out/state").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("700MB", 700 * 10**6), ("1.5 GiB", 3 << 29), ("12k", 12000), ("4096", 4096), ("64mib", 1 << 26)],
)
def test_sizes_of_memory(text: str | None, expected: int | None) -> None:
    assert parse_bytes(text) == expected


def test_classes_are_names_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    assert parse_classes(None) is None
    assert parse_classes("background, leaf,root") == {"background": 0, "leaf": 1, "root": 2}
    for content in (["background", "leaf"], {"background": 0, "leaf": 1}):
        path.write_text(json.dumps(content))
        assert parse_classes(str(path)) == {"background": 0, "leaf": 1}
    for wrong, words in (
        ({"leaf": -1}, "whole number"),
        ({"leaf": 1.5}, "whole number"),
        ({}, "whole number"),
        ([], "must be names"),
        ([1], "must be names"),
        (3, "must be names"),
        (["a", "a"], "every class once"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(CommandError, match=words):
            parse_classes(str(path))
    path.write_text("{")
    for text, words in ((str(path), "as JSON"), (str(tmp_path / "no.json"), "as JSON"), ("a,,b", "must be names")):
        with pytest.raises(CommandError, match=words):
            parse_classes(text)


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
    fails_with(run("unmix", table, "-o", out, "--true-components", short), "20 channels")
    assert not out.exists(), "a command that cannot begin leaves nothing behind"


def test_output_that_cannot_be_used(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails_with(run("segment", scene, "-o", tmp_path / "file"), "is a file")
    fails_with(run("segment", scene, "-o", tmp_path / "file" / "out"), "cannot be made")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    fails_with(run("segment", scene, "-o", tmp_path / "full"), "not empty", "thesis.tex")


def test_a_folder_in_use_is_left_alone(table: Path, tmp_path: Path) -> None:
    from spectrafuse.run_folder import RunFolder

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


def test_bugs_keep_their_traceback() -> None:
    @terminal.friendly
    def broken() -> None:
        raise KeyError("a bug of ours")

    with pytest.raises(KeyError):
        broken()


def test_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly.datasets", None)
    monkeypatch.chdir(tmp_path)
    fails_with(run("demo"), "pip install 'spectrafuse[demo]'")


def test_demo_data() -> None:
    from spectrafuse import demo

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
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["title: epoch 1/3: loss 0.25", "title: epoch 3/3: loss 0.25"]


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
