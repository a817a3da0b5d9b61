"""EB-gMCR as an estimator: conventions, files, odd inputs, and resuming after a kill."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from spectrafuse._runtime.progress import Progress
from spectrafuse.io.errors import DataError, ReadingNote
from spectrafuse.io.spectra import read_spectra
from spectrafuse.mcr import model_io
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.recipes import Recipe, trained
from spectrafuse.mcr.synthesize import MixtureSynthesizer
from spectrafuse.mcr.training import checkpoint

QUICK = dataclasses.replace(
    trained,
    name="quick",
    hidden_size_extension=1,
    hidden_layers=1,
    temperature_eval=0.1,
    select_threshold=0.9,
    noise_factor=20.0,
    checkpoint_threshold=0.01,
    checkpoint_interval=0.3,
    adaptive_bands=False,
)
SPECTRA = MixtureSynthesizer(3, 12, snr_db=20.0, random_state=0).generate(11).spectra.numpy()


def _quick(**options: Any) -> EBgMCR:
    settings: dict[str, Any] = {"recipe": QUICK, "max_epoch": 12, "learning_rate": 2e-2, "batch_size": 4, **options}
    return EBgMCR(settings.pop("pool_size", 8), **settings)


@pytest.fixture(scope="module")
def fitted() -> EBgMCR:
    estimator = _quick().fit(SPECTRA)
    assert estimator.n_components_ > 0
    return estimator


def test_attributes_after_fit(fitted: EBgMCR) -> None:
    count = fitted.n_components_
    assert fitted.components_.shape == (count, 12)
    assert np.linalg.norm(fitted.components_, axis=1) == pytest.approx(np.ones(count), abs=1e-5)
    assert fitted.component_ids_.dtype == np.int64
    assert (np.diff(fitted.component_ids_) > 0).all()
    assert (fitted.n_features_in_, fitted.n_iter_, len(fitted.history_)) == (12, 12, 12)
    assert fitted.stop_reason_.endswith(".")
    assert str(count) in fitted.chosen_reason_
    assert fitted.count_curve_
    for row in fitted.count_curve_:
        assert list(row) == ["r2_from", "r2_to", "count", "r2", "nmse", "epoch"]
        assert row["r2_from"] <= row["r2"] < row["r2_to"]
    assert fitted.get_feature_names_out().tolist() == [f"ebgmcr{i}" for i in range(count)]


def test_transform_parse_and_inverse_agree(fitted: EBgMCR) -> None:
    concentration = fitted.transform(SPECTRA)
    parsed = fitted.parse(SPECTRA)
    assert concentration.shape == (11, fitted.n_components_)
    assert (concentration >= 0).all()
    assert np.array_equal(parsed["concentration"], concentration)
    assert parsed["component_ids"].tolist() == fitted.component_ids_.tolist()
    assert set(np.unique(parsed["select_prob"])) <= {0.0, 1.0}
    assert (concentration[parsed["select_prob"] == 0] == 0).all()
    assert parsed["reconstruction"] == pytest.approx(fitted.inverse_transform(concentration), abs=1e-5)
    assert parsed["reconstruction"] == pytest.approx(concentration @ fitted.components_, rel=1e-4, abs=1e-4)
    # The figures of the chosen state are those of this reconstruction.
    nmse = ((parsed["reconstruction"] - SPECTRA) ** 2).sum() / (SPECTRA**2).sum()
    assert f"nMSE {nmse:.3g}" in fitted.chosen_reason_


def test_repeats_bit_for_bit_and_with_another_seed_not(fitted: EBgMCR) -> None:
    again = _quick().fit(torch.from_numpy(SPECTRA))
    assert again.components_.tobytes() == fitted.components_.tobytes()
    assert again.transform(SPECTRA).tobytes() == fitted.transform(SPECTRA).tobytes()
    assert again.history_ == fitted.history_
    other = _quick(random_state=1).fit(SPECTRA)
    assert other.history_ != fitted.history_


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002  the global generator is what is tested
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    _quick(max_epoch=2).fit(SPECTRA)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_scikit_learn_conventions(fitted: EBgMCR) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    for call in (copy.transform, copy.parse, copy.inverse_transform):
        with pytest.raises(NotFittedError):
            call(SPECTRA)
    with pytest.raises(NotFittedError):
        copy.save("nowhere")
    assert copy.set_params(pool_size=5).pool_size == 5
    # No work in __init__: nonsense is stored and refused by fit.
    odd = EBgMCR("many", recipe="best")  # type: ignore[arg-type]
    assert odd.pool_size == "many"
    with pytest.raises(ValueError, match="`recipe`"):
        odd.fit(SPECTRA)


def test_fit_transform_and_files(fitted: EBgMCR, tmp_path: Path) -> None:
    path = tmp_path / "spectra.npy"
    np.save(path, SPECTRA)
    with pytest.warns(ReadingNote, match=r"spectra\.npy: 11 spectra of 12 bands; .*no axis"):
        from_file = _quick().fit_transform(path)
    assert from_file.tobytes() == fitted.transform(SPECTRA).tobytes()
    assert fitted.transform(str(path)).tobytes() == from_file.tobytes()


def test_spectra_of_a_file_are_taken_at_the_bands_of_the_model(tmp_path: Path) -> None:
    axis = np.linspace(1000, 1110, 12)

    def write(name: str, values: np.ndarray, places: np.ndarray) -> Path:
        titles = ",".join(f"{place:g}" for place in places)
        np.savetxt(tmp_path / name, values, fmt="%.9g", delimiter=",", header=f"wavenumber,{titles}", comments="")
        return tmp_path / name

    rows = np.arange(1, 12)[:, None]
    path = write("spectra.csv", np.hstack([rows, SPECTRA]), axis)
    read = read_spectra(path)
    estimator = _quick().fit(read)
    assert estimator.axis_ is not None
    np.testing.assert_array_equal(estimator.axis_.values, axis)
    estimator.save(tmp_path / "model")
    loaded = EBgMCR.load(tmp_path / "model")
    expected = loaded.transform(read)
    np.testing.assert_array_equal(loaded.transform(path), expected)
    np.testing.assert_array_equal(loaded.transform(read.data), expected)
    more = np.hstack([np.full((11, 1), 9.0), SPECTRA[:, ::-1]])
    falling = write("falling.csv", np.hstack([rows, more]), np.append(1500, axis[::-1]))
    np.testing.assert_allclose(loaded.transform(falling), expected, rtol=1e-4, atol=1e-5)
    shifted = write("shifted.csv", np.hstack([rows, SPECTRA]), axis + 5)
    with pytest.raises(
        DataError, match=r"shifted\.csv' has its bands at 1005 to 1115, and none at 1000, where the model"
    ):
        loaded.transform(shifted)
    with pytest.raises(ValueError, match="features"):
        loaded.transform(SPECTRA[:, :5])


def test_components_in_another_order_with_names(fitted: EBgMCR, tmp_path: Path) -> None:
    fitted.save(tmp_path / "first")
    other = EBgMCR.load(tmp_path / "first")
    count = len(other.component_ids_)
    order, names = np.arange(count)[::-1], [f"<{i}>" for i in range(count)]
    expected = other.transform(SPECTRA)[:, order]
    other.arrange(order, names).save(tmp_path / "second")
    for estimator in (other, EBgMCR.load(tmp_path / "second")):
        np.testing.assert_array_equal(estimator.transform(SPECTRA), expected)
        np.testing.assert_array_equal(estimator.components_, fitted.components_[order])
        np.testing.assert_array_equal(estimator.component_ids_, fitted.component_ids_[order])
        assert estimator.component_names_ == names
        np.testing.assert_allclose(
            estimator.inverse_transform(expected), fitted.inverse_transform(expected[:, order]), rtol=1e-6
        )
    refit = _quick().fit(SPECTRA)
    concentrations = refit.C_opt_[:, order]
    np.testing.assert_array_equal(refit.arrange(order).C_opt_, concentrations)
    assert refit.component_names_ is None
    for wrong in ([0] * count, range(count + 1), [0.5] * count):
        with pytest.raises(ValueError, match="`order` must be each of"):
            other.arrange(wrong)
    with pytest.raises(ValueError, match="`names`"):
        other.arrange(order, ["a"] * (count + 1))


def test_chunks_do_not_matter(fitted: EBgMCR, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted.parse(SPECTRA)
    monkeypatch.setattr("spectrafuse.mcr.model._CHUNK_ROWS", 3)
    parts = fitted.parse(SPECTRA)
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_bad_input_is_one_clear_error(fitted: EBgMCR) -> None:
    broken = SPECTRA.copy()
    broken[2, 3] = np.inf
    for call in (_quick().fit, fitted.transform):
        with pytest.raises(DataError, match="spectrum 2, band 3"):
            call(broken)
    with pytest.raises(ValueError, match="X has 11 features, but EBgMCR is expecting 12 features"):
        fitted.transform(SPECTRA[:, :11])
    with pytest.raises(DataError, match="reshape"):
        fitted.transform(SPECTRA[0])
    with pytest.raises(DataError, match="zero everywhere"):
        _quick().fit(np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"`X` must be of shape \(n, "):
        fitted.inverse_transform(np.ones((2, fitted.n_components_ + 1)))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"pool_size": 0}, "pool_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_epoch": 0}, "max_epoch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"noise": -1.0}, "noise"),
        ({"random_state": -1}, "random_state"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_wrong_parameters_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        _quick(**options).fit(SPECTRA)


@pytest.mark.parametrize("recipe", ["corrected", "published"])
@pytest.mark.parametrize(
    "spectra",
    [
        np.array([[1.0, 2.0, 3.0, 2.0, 1.0]]),
        np.ones((6, 4)),
        np.vstack([np.zeros((3, 5)), np.eye(5)]),
        np.full((5, 1), 2.0),
        np.arange(12).reshape(4, 3),
    ],
    ids=["one spectrum", "constant", "zero spectra", "one channel", "integers"],
)
@pytest.mark.filterwarnings("ignore:No component was found", "ignore:.*zero everywhere")
def test_odd_spectra_have_a_defined_result(spectra: np.ndarray, recipe: str) -> None:
    estimator = EBgMCR(4, recipe=recipe, max_epoch=3).fit(spectra)
    concentration = estimator.transform(spectra)
    assert concentration.shape == (len(spectra), estimator.n_components_)
    assert np.isfinite(concentration).all()
    assert np.isfinite(estimator.components_).all()
    assert np.isfinite(estimator.inverse_transform(concentration)).all()


def test_no_component_is_a_warning_and_empty_arrays() -> None:
    shut = dataclasses.replace(QUICK, select_threshold=1.0)
    with pytest.warns(UserWarning, match="No component was found"):
        estimator = _quick(recipe=shut, max_epoch=2).fit(SPECTRA)
    assert estimator.n_components_ == 0
    assert estimator.components_.shape == (0, 12)
    assert estimator.transform(SPECTRA).shape == (11, 0)
    assert (estimator.inverse_transform(np.empty((2, 0))) == np.zeros((2, 12))).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_plug_ins_are_used_and_asked_for(sparse: bool, tmp_path: Path) -> None:
    def smooth(components: torch.Tensor) -> torch.Tensor:
        return 0.5 * (components + components.roll(1, dims=1))

    def saturate(concentration: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
        return 20.0 * torch.tanh((concentration * components).sum(1) / 20.0)

    estimator = _quick(post_processing=smooth, aggregate=saturate, sparse=sparse, max_epoch=3).fit(SPECTRA)
    parsed = estimator.parse(SPECTRA)
    linear = parsed["concentration"] @ estimator.components_
    assert parsed["reconstruction"] == pytest.approx(20 * np.tanh(linear / 20), rel=1e-4, abs=1e-4)
    estimator.save(tmp_path)
    with pytest.raises(ValueError, match="saturate"):
        EBgMCR.load(tmp_path, post_processing=smooth)
    loaded = EBgMCR.load(tmp_path, post_processing=smooth, aggregate=saturate)
    assert np.array_equal(loaded.parse(SPECTRA)["reconstruction"], parsed["reconstruction"])


@pytest.mark.parametrize("options", [{}, {"sparse": True}, {"recipe": "published", "max_epoch": 2}])
def test_saved_estimators_come_back_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    estimator = _quick(**options).fit(SPECTRA * 1000)
    (tmp_path / "notes.txt").write_text("mine")
    estimator.save(tmp_path)
    names = ["model.safetensors", "notes.txt", "param.json", "spectrafuse.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    loaded = EBgMCR.load(tmp_path)
    assert loaded.get_params() == estimator.get_params()
    for name in ("n_components_", "count_curve_", "history_", "stop_reason_", "chosen_reason_", "n_iter_", "noise_"):
        assert getattr(loaded, name) == getattr(estimator, name), name
    assert np.array_equal(loaded.components_, estimator.components_)
    assert np.array_equal(loaded.transform(SPECTRA * 1000), estimator.transform(SPECTRA * 1000))


def test_a_save_cut_short_is_recognised(fitted: EBgMCR, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    model_io.write_model(tmp_path, fitted.model_.config, checkpoint.rescale(checkpoint.copy_state(fitted.model_), 2))
    with pytest.raises(ValueError, match="cut short"):
        EBgMCR.load(tmp_path)


def test_published_folders_load_and_are_restricted_to_spectra(tmp_path: Path) -> None:
    fitted = _quick(recipe=dataclasses.replace(QUICK, refine=False)).fit(SPECTRA)
    model_io.write_model(tmp_path, fitted.model_.config, checkpoint.copy_state(fitted.model_))
    loaded = EBgMCR.load(tmp_path)
    assert loaded.n_components_ == 8
    assert loaded.model_.select_threshold == model_io.SOLVER_THRESHOLD
    loaded.model_.select_threshold = fitted.model_.select_threshold
    loaded.restrict_to(SPECTRA)
    assert loaded.component_ids_.tolist() == fitted.component_ids_.tolist()
    assert np.array_equal(loaded.transform(SPECTRA), fitted.transform(SPECTRA))


def test_another_row_of_the_curve_can_be_taken(fitted: EBgMCR) -> None:
    estimator = _quick().fit(SPECTRA)
    row = estimator.count_curve_[0]
    estimator.use_band(row["r2_from"])
    assert estimator.n_components_ == row["count"]
    reconstruction = estimator.parse(SPECTRA)["reconstruction"]
    assert ((reconstruction - SPECTRA) ** 2).sum() / (SPECTRA**2).sum() == pytest.approx(row["nmse"], rel=1e-3)
    with pytest.raises(ValueError, match="r2_from"):
        estimator.use_band(0.123)


def test_band_folders_work_on_spectra_as_given(tmp_path: Path) -> None:
    spectra = SPECTRA * 4096
    estimator = _quick().fit(spectra, checkpoint_dir=tmp_path)
    for row in estimator.count_curve_:
        loaded = EBgMCR.load(tmp_path / f"{row['r2_from']}[->]{row['r2_to']}")
        loaded.model_.select_threshold = QUICK.select_threshold
        loaded.restrict_to(spectra)
        assert loaded.n_components_ == row["count"]
        residual = loaded.parse(spectra)["reconstruction"] - spectra
        assert (residual**2).sum() / (spectra**2).sum() == pytest.approx(row["nmse"], rel=1e-3)


def test_progress_is_told_once_an_epoch() -> None:
    reports: list[Progress] = []
    # Refinement reports too, once a second.
    recipe = dataclasses.replace(QUICK, refine=False)
    estimator = _quick(max_epoch=4, recipe=recipe).fit(SPECTRA, callback=reports.append)
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert all(report.total_epochs == 4 for report in reports)
    assert [report.values for report in reports] == estimator.history_
    assert "components" in reports[0].message


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    _quick(max_epoch=2).fit(SPECTRA, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="X changed"):
        _quick(max_epoch=2).fit(SPECTRA + 1, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="learning_rate was 0.02, now 0.03"):
        _quick(max_epoch=2, learning_rate=0.03).fit(SPECTRA, checkpoint_dir=tmp_path)


def test_ctrl_c_in_a_callback_saves_and_the_run_goes_on(fitted: EBgMCR, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _quick().fit(SPECTRA, callback=interrupt, checkpoint_dir=tmp_path)
    resumed = _quick().fit(SPECTRA, checkpoint_dir=tmp_path)
    assert resumed.components_.tobytes() == fitted.components_.tobytes()
    assert resumed.history_ == fitted.history_


_VICTIM = """
import json, sys, time
import numpy as np
import torch
torch.set_num_threads(int(sys.argv[4]))
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.recipes import Recipe
values = json.loads(sys.argv[1])
recipe = Recipe(**{**values["recipe"], "betas": tuple(values["recipe"]["betas"])})
def report(progress):
    print(progress.epoch, flush=True)
    time.sleep(0.02)
EBgMCR(8, **{**values, "recipe": recipe}).fit(
    np.load(sys.argv[2]), callback=report, checkpoint_dir=sys.argv[3], checkpoint_seconds=0.0)
"""


def _start_victim(tmp_path: Path) -> subprocess.Popen[str]:
    np.save(tmp_path / "spectra.npy", SPECTRA)
    values = {"max_epoch": 12, "learning_rate": 2e-2, "batch_size": 4, "recipe": dataclasses.asdict(QUICK)}
    arguments = [json.dumps(values), str(tmp_path / "spectra.npy"), str(tmp_path / "run"), str(torch.get_num_threads())]
    command = [sys.executable, "-c", _VICTIM, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_for_epoch(victim: subprocess.Popen[str], epoch: int) -> None:
    assert victim.stdout is not None
    deadline = time.monotonic() + 120
    for line in victim.stdout:
        if int(line) >= epoch:
            return
        assert time.monotonic() < deadline
    raise AssertionError(victim.stderr.read() if victim.stderr else "no output")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_a_killed_process_leaves_a_run_that_ends_with_equal_bits(how: str, fitted: EBgMCR, tmp_path: Path) -> None:
    import signal

    victim = _start_victim(tmp_path)
    _wait_for_epoch(victim, 4)
    victim.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
    _, errors = victim.communicate(timeout=60)
    if how == "kill":
        assert victim.returncode == -signal.SIGKILL
    else:
        assert "KeyboardInterrupt" in errors
    epochs: list[int] = []
    resumed = _quick().fit(
        SPECTRA, callback=lambda progress: epochs.append(progress.epoch), checkpoint_dir=tmp_path / "run"
    )
    assert epochs
    assert 2 <= epochs[0] <= 12
    assert resumed.components_.tobytes() == fitted.components_.tobytes()
    assert resumed.transform(SPECTRA).tobytes() == fitted.transform(SPECTRA).tobytes()
    assert resumed.history_ == fitted.history_
    assert resumed.count_curve_ == fitted.count_curve_


def test_a_recipe_of_ones_own_survives_saving(fitted: EBgMCR, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = EBgMCR.load(tmp_path)
    assert isinstance(loaded.recipe, Recipe)
    assert loaded.recipe == QUICK
