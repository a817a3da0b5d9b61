"""The command line: what commands leave behind, print and resume."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

import spectrafuse
from helpers.command_line import SEGMENT, UNMIX, fails_with, run
from spectrafuse.cli import segment
from spectrafuse.cli.app import app
from spectrafuse.cli.segment import _scores, parse_bytes, parse_classes
from spectrafuse.cli.terminal import CommandError
from spectrafuse.io import results
from spectrafuse.io.results import colors
from spectrafuse.reports import maps


@pytest.mark.parametrize("words", [[], ["segment"], ["unmix"], ["demo"], ["doctor"]])
def test_help(words: list[str]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_version() -> None:
    assert run("--version").output.strip() == f"spectrafuse {spectrafuse.__version__}"


@pytest.mark.parametrize(
    ("typed", "completed"), [("se", {"segment"}), ("unmix --n-c", {"--n-components"}), ("demo --r", {"--restart"})]
)
def test_a_shell_completes_commands_and_options(typed: str, completed: set[str]) -> None:
    words = f"spectrafuse {typed}"
    asked = {"_SPECTRAFUSE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(typed.split()))}
    result = CliRunner().invoke(app, [], env=asked, prog_name="spectrafuse")
    assert set(result.stdout.split()) == completed


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spectrafuse.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('heavy:', sorted({'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout


def test_segment_leaves_maps_pictures_model_and_record(segmented: tuple[Path, Result], scene: Path) -> None:
    output, result = segmented
    assert result.exit_code == 0, result.output
    assert "Hungarian" in result.stdout
    expected = {"labels.npy", "labels.png", "map.png", "spectra.png", "loss.png", "report.html", "model", "run.json"}
    expected |= {"classes.hdr", "classes.img", "confidence.hdr", "confidence.img"}
    expected |= {"spectra.csv", "spectra.npz", "spectra.hdr", "spectra.sli"}
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
    assert record["normalization"] in ("meanstd", "signal+meanstd")
    assert record["normalization_reason"].startswith("Brightness is ")
    shares = {"unsure", "small_patches", "explained", "explained_by_k_means"}
    assert {*shares, "noisy_bands", "parted_by_place", "cautions"} == set(record["doubt"][0])
    assert all(0 <= row["found_again"] <= 1 for row in record["clusters"][0] if row["pixels"])
    assert record["tree"] is None
    assert all(0 <= row["confidence"] <= 1 for row in record["clusters"][0] if row["pixels"])


def test_segment_without_a_network(scene: Path, tmp_path: Path) -> None:
    result = run("segment", scene, "-o", tmp_path / "out", "--n-clusters", 3)
    assert result.exit_code == 0, result.output
    assert "Nothing was trained" in result.stdout
    assert "loss.png" not in result.stdout
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["epochs"] == 0
    assert set(record["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    assert not {"loss.png", "state"} & set(record["files"])
    result = run("apply", tmp_path / "out", scene, "-o", tmp_path / "applied")
    assert result.exit_code == 0, result.output
    labels = [np.load(tmp_path / name / "labels.npy") for name in ("out", "applied")]
    np.testing.assert_array_equal(*labels)
    options = ["--n-clusters", 3, "--no-network", "--max-epoch", 2]
    fails_with(run("segment", scene, "-o", tmp_path / "b", *options), "--no-network", "`max_epoch`")


@pytest.mark.slow
def test_the_tree_of_the_clusters(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = run("segment", scene, "-o", output, *SEGMENT, "--max-epoch", 1, "--tree")
    assert result.exit_code == 0, result.output
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    levels = record["tree"]["levels"]
    assert len(record["tree"]["merges"]) == 2
    assert [level["clusters"] for level in levels] == [2, 3]
    assert sorted(cluster for group in levels[0]["groups"] for cluster in group) == [0, 1, 2]
    assert all(-1 <= level["agreement"] <= 1 for level in levels)
    assert "2 clusters: halves of the scene agree to" in result.stdout
    picture = np.round(imread(output / "tree.png")[..., :3] * 255).astype(np.uint8)
    assert all((picture == color).all(-1).sum() > 100 for color in colors(3)[np.unique(np.load(output / "labels.npy"))])
    fails_with(
        run("segment", scene, "-o", tmp_path / "b", *SEGMENT, "--tree", "--merge", "0=0,1,2"), "--tree", "--merge"
    )


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


@pytest.mark.slow
def test_restart_replaces_results_and_spares_other_files(scene: Path, tmp_path: Path) -> None:
    words = ["segment", scene, "-o", tmp_path, *SEGMENT]
    assert run(*words, "--max-epoch", 1).exit_code == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert run(*words, "--max-epoch", 2, "--restart").exit_code == 0
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
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


@pytest.mark.slow
def test_unmix_leaves_tables_pictures_model_and_record(table: Path, tmp_path: Path) -> None:
    folder, output = table.parent, tmp_path / "out"
    known = ["--true-components", folder / "components.npy", "--true-concentrations", folder / "concentrations.csv"]
    result = run("unmix", table, "-o", output, *UNMIX, *known, "--axis-label", "shift (cm-1)")
    assert result.exit_code == 0, result.output
    names = {path.name for path in output.iterdir()}
    assert names == {
        *("components.csv", "components.npz", "components.png", "concentrations.csv", "concentrations.npz"),
        *("concentrations.png", "concentrations_against_true.png", "count_curve.csv", "count_curve.png"),
        *("count_path.csv", "count_path.png", "feasible_bands.png", "feasible_concentrations.csv"),
        *("feasible_contributions.csv", "feasible_spectra.csv", "model", "report.html", "residuals.png", "run.json"),
    }
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    count = record["n_components"]
    with np.load(output / "components.npz") as archive:
        assert archive["components"].shape == (count, 20)
        assert archive["axis"].tolist() == list(range(900, 1100, 10))
        assert archive["component_ids"].tolist() == record["component_ids"]
    assert (output / "concentrations.csv").read_text().count("\n") == 10
    assert (output / "count_curve.csv").read_text().startswith("r2_from,r2_to,count,r2,nmse,epoch\n")
    assert (output / "count_path.csv").read_text().startswith("count,r2,nmse,cost,chosen\n")
    assert record["count_evidence"]["reason"] == record["chosen_reason"]
    assert len(record["scores"]["pairs"]) == min(2, count)
    assert {"cosine", "rmse", "r2"} <= set(record["scores"]["pairs"][0])
    assert spectrafuse.EBgMCR.load(output / "model").n_components_ == count
    again = run("unmix", table, "-o", output, *UNMIX, *known, "--axis-label", "shift (cm-1)")
    assert "Nothing to do" in again.stdout


@pytest.mark.process
@pytest.mark.slow
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
    assert "Run the same command to resume" in errors
    assert str(output / "state") in errors
    assert "Traceback" not in errors
    assert not (output / "run.json").exists()
    changed = run(*words[:3], "2", *words[4:], output)
    fails_with(changed, "n_clusters was 3, now 2", "unfinished")
    resumed = run(*words, output)
    assert resumed.exit_code == 0, resumed.output
    assert "from the checkpoint" in resumed.stderr
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


@pytest.mark.slow
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
    fails_with(run(*words), "masks changed")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_scene_with_a_place_has_a_geotiff(scene: Path, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the part geo is not installed")
    cube = np.load(scene)["cube"].astype("<f4")
    (tmp_path / "x.img").write_bytes(cube.tobytes())
    rows, columns, bands = cube.shape
    (tmp_path / "x.hdr").write_text(
        f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {bands}\ndata type = 4\ninterleave = bip\n"
        "map info = {UTM, 1, 1, 380000, 5820000, 30, 30, 33, North, WGS-84, units=Meters}\n"
    )
    result = run("segment", tmp_path / "x.hdr", "-o", tmp_path / "out", *SEGMENT, "--max-epoch", 1)
    assert result.exit_code == 0, result.output
    assert "classes.hdr, classes.tif," in result.output
    with rasterio.open(tmp_path / "out" / "classes.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform[:6] == (30, 0, 380000, 0, -30, 5820000)
        np.testing.assert_array_equal(file.read(1), np.load(tmp_path / "out" / "labels.npy") + 1)
    with rasterio.open(tmp_path / "out" / "confidence.img") as file:
        assert file.crs.to_epsg() == 32633
        assert 0 <= file.read(1).min() <= file.read(1).max() <= 1


@pytest.mark.slow
def test_large_maps_are_kept_in_files(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["segment", scene, *SEGMENT, "--max-epoch", 1]
    assert run(*words, "-o", tmp_path / "held").exit_code == 0
    monkeypatch.setattr(segment, "_LARGE_MAP", 10)
    monkeypatch.setattr(results, "_MOST_PICTURE_PIXELS", 100)
    monkeypatch.setattr(maps, "MOST_PIXELS", 100)
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
