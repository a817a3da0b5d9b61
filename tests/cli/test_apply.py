"""Stored models on new data, and what is said of files and models before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import spectrafuse
from helpers.command_line import UNMIX, fails_with, run
from spectrafuse.cli import apply
from spectrafuse.reports.page import Caution


@pytest.fixture(scope="module")
def unmixed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("unmixed") / "out"
    result = run("unmix", table, "-o", output, *UNMIX)
    assert result.exit_code == 0, result.output
    return output


def record(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return loaded


def test_a_model_labels_the_scene_it_was_made_of_as_before(
    segmented: tuple[Path, Result], scene: Path, tmp_path: Path
) -> None:
    output, _ = segmented
    for model in (output, output / "model"):
        target = tmp_path / model.name
        result = run("apply", model, scene, "-o", target, "--labels", f"{scene}:labels", "--device", "cpu")
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(np.load(target / "labels.npy"), np.load(output / "labels.npy"))
        expected = {path.name for path in output.iterdir()} - {"loss.png", "model"}
        assert {path.name for path in target.iterdir()} == expected
        assert record(target)["scores"] == record(output)["scores"]
        assert "Nothing was trained" in result.stdout
        assert "bands where the model has its own (450 to 700 nm)" in result.stdout


def test_new_scenes_have_folders_and_their_bands_are_those_of_the_model(
    segmented: tuple[Path, Result], scene: Path, tmp_path: Path
) -> None:
    output, _ = segmented
    with np.load(scene) as archive:
        cube, axis = archive["cube"], archive["wavelengths"]
    more = np.concatenate([np.ones_like(cube[..., :1]), cube, cube[..., :1]], axis=2)
    np.savez(tmp_path / "more.npz", cube=more, wavelengths=[400, *axis, 750])
    np.savez(tmp_path / "bare.npz", cube=cube)
    np.savez(tmp_path / "shifted.npz", cube=cube, wavelengths=axis + 25)
    np.savez(tmp_path / "fewer.npz", cube=cube[..., 1:])
    target = tmp_path / "out"
    words = ["apply", output, tmp_path / "more.npz", tmp_path / "bare.npz", "-o", target, "--layout", "hwc"]
    result = run(*words)
    assert result.exit_code == 0, result.output
    for name in ("more", "bare"):
        np.testing.assert_array_equal(np.load(target / name / "labels.npy"), np.load(output / "labels.npy"))
    assert "the file does not say where its bands lie, so that only their number was compared" in result.stdout
    assert "Nothing to do" in run(*words).stdout
    fails_with(run(*words[:3], "-o", target, "--layout", "hwc"), "different command")
    for name, said in (("shifted", "none at 450 nm, where the model has its band 0"), ("fewer", "must have 6 bands")):
        path = tmp_path / f"{name}.npz"
        fails_with(run("apply", output, path, "-o", tmp_path / name, "--layout", "hwc"), said, f"{name}.npz")
        assert not (tmp_path / name).exists()


def test_a_model_gives_the_concentrations_of_its_own_spectra_as_before(
    unmixed: Path, table: Path, tmp_path: Path
) -> None:
    result = run("apply", unmixed, table, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for name in ("concentrations.csv", "components.csv"):
        assert (tmp_path / "out" / name).read_text() == (unmixed / name).read_text()
    before, now = record(unmixed), record(tmp_path / "out")
    assert now["files_applied_to"][0]["nmse"] == pytest.approx(before["nmse"], rel=1e-5)
    assert now["components"] == [f"component {i + 1}" for i in range(len(now["components"]))]
    assert "Caution" not in result.stdout
    assert "arXiv:2507.23600" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_spectrum_in_another_order_and_a_substance_that_is_new(unmixed: Path, table: Path, tmp_path: Path) -> None:
    spectra = spectrafuse.io.read_spectra(table)
    assert spectra.axis is not None
    known, strange = spectra.data[2], np.maximum(spectra.data[2] + 5 * (np.arange(20) > 14), 0)
    for name, values in (("known", known), ("strange", strange)):
        lines = [f"{x:g},{y:.7g}" for x, y in zip(spectra.axis[::-1], values[::-1], strict=True)]
        (tmp_path / f"{name}.csv").write_text("wavenumber,sample\n" + "\n".join(lines) + "\n")
    files = [tmp_path / "known.csv", tmp_path / "strange.csv"]
    result = run("apply", unmixed / "model", *files, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    expected = spectrafuse.EBgMCR.load(unmixed / "model").transform(spectra.data[2:3])
    found = np.load(tmp_path / "out" / "known" / "concentrations.npz")["concentrations"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    facts = record(tmp_path / "out")["files_applied_to"]
    assert facts[0]["nmse"] < 1e-4 < facts[1]["nmse"]
    cautions = [line for line in result.stdout.splitlines() if line.startswith("Caution:")]
    assert len(cautions) == 1
    assert f"{100 * facts[1]['nmse']:.3g} %" in cautions[0]
    shifted = tmp_path / "shifted.csv"
    shifted.write_text("\n".join(f"{x + 5:g},{y:.7g},{y:.7g}" for x, y in zip(spectra.axis, known, strict=True)))
    fails_with(run("apply", unmixed, shifted, "-o", tmp_path / "no"), "shifted.csv", "none at 900", "interpolate")


def test_spectra_of_another_length_and_a_model_without_its_record(unmixed: Path, table: Path, tmp_path: Path) -> None:
    spectra = spectrafuse.io.read_spectra(table)
    np.save(tmp_path / "short.npy", spectra.data[:, 1:])
    result = run("apply", unmixed, tmp_path / "short.npy", "-o", tmp_path / "out")
    fails_with(result, "short.npy' has 19 bands and the model 20", "Give data with the model's bands")
    bare = tmp_path / "bare"
    shutil.copytree(unmixed / "model", bare)
    (bare / "spectrafuse.json").unlink()
    result = run("apply", bare, table, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "Caution" in result.stdout
    assert "holds no spectrafuse.json" in " ".join(result.stdout.split())
    fails_with(run("apply", unmixed, table, "-o", unmixed), "different command (command was unmix, now apply).")


def test_wrong_models_and_options(
    unmixed: Path, segmented: tuple[Path, Result], scene: Path, table: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    fails_with(run("apply", tmp_path / "none", table, "-o", target), "does not exist", "output folder of `segment`")
    fails_with(run("apply", tmp_path, table, "-o", target), "holds no model")
    fails_with(run("apply", unmixed, table, "-o", target, "--labels", scene), "--labels is for scenes")
    fails_with(run("apply", segmented[0], scene, "-o", target, "--decimal", "comma"), "--decimal is not for the scenes")
    fails_with(run("apply", unmixed, table, "-o", target, "--mask", scene, "--mask", scene), "once per file")
    fails_with(run("apply", unmixed, table, table, "-o", target, "--transpose", "--spectra-in", "rows"), "the opposite")
    assert not target.exists()


def test_info_says_what_the_readers_see(
    unmixed: Path, segmented: tuple[Path, Result], scene: Path, table: Path
) -> None:
    paths = [scene, table, segmented[0], unmixed / "model"]
    result = run("info", *paths, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    cube = np.load(scene)["cube"]
    facts = found[str(scene)]
    assert facts["size"] == "12 rows, 15 columns, 6 bands"
    assert facts["axis of the bands"] == "450 to 700 nm"
    assert facts["values (of a sample)"]["highest"] == pytest.approx(cube.max(), rel=1e-6)
    assert "labels (12 x 15, numeric)" in facts["variables"]
    facts = found[str(table)]
    assert (facts["kind"], facts["size"], facts["axis of the bands"]) == (
        "spectra",
        "9 spectra, 20 bands",
        "900 to 1090",
    )
    facts = found[str(segmented[0])]
    assert (facts["clusters"], facts["axis of the bands"]) == (3, "450 to 700 nm")
    facts, before = found[str(unmixed / "model")], record(unmixed)
    assert facts["components"] == before["n_components"]
    assert facts["fit"]["nmse"] == pytest.approx(before["nmse"], rel=1e-3)
    assert facts["why this count"] == before["chosen_reason"]
    shown = run("info", *paths)
    assert shown.exit_code == 0
    for part in ("12 rows, 15 columns", "9 spectra, 20 bands", "model of segment", "model of unmix"):
        assert part in shown.stdout


def test_info_lists_the_variables_of_a_file_that_needs_a_key(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    np.savez(path, first=np.ones((4, 5, 6)), second=np.ones((4, 5, 6)))
    result = run("info", path)
    fails_with(result, "--key")
    assert "first" in result.stdout
    assert "4 x 5 x 6" in result.stdout
    assert run("info", path, "--key", "second", "--layout", "hwc").exit_code == 0
    shape = np.load(path)["second"].shape[:2]
    np.save(tmp_path / "mask.npy", np.eye(*shape, dtype="u1"))
    masked = run("info", path, "--key", "second", "--layout", "hwc", "--mask", tmp_path / "mask.npy", "--json")
    assert json.loads(masked.stdout)[str(path)]["pixels without data"] == min(shape)
    fails_with(run("info", tmp_path), "a folder without a model")
    fails_with(run("info", tmp_path / "none.npy"), "does not exist")


@pytest.mark.parametrize(("times", "told"), [(3.9, False), (4.1, True)])
def test_what_a_model_does_not_know_is_said_from_four_times_its_own_misfit(times: float, told: bool) -> None:
    path = [{"nmse": 0.5, "chosen": False}, {"nmse": 0.01, "chosen": True}]
    estimator = SimpleNamespace(components_=np.ones((1, 3)), count_evidence_={"path": path})
    facts, blocks = apply._run(estimator, ["sugar"], Path("new.csv"), np.ones((2, 1)), (0.9, times * 0.01))
    cautions = [block.text for block in blocks if isinstance(block, Caution)]
    assert facts["nmse"] == times * 0.01
    assert len(cautions) == told
    if told:
        assert "leaves 4.1 % of the sum of squares of 'new.csv' unexplained, and 1 % of the spectra" in cautions[0]
