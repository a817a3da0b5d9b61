"""Segmentation by several processes: the same result as by one, and what happens when one of them is gone."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import group
from helpers.dgc_training import make_trainer, trainer_with_gaps
from helpers.models import segmentation
from spectrafuse import RandomStream
from spectrafuse._runtime import ranks
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe, corrected, published
from spectrafuse.dgc.training.trainer import Trainer

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed here"),
]

RECIPES = {
    "corrected": dataclasses.replace(corrected, max_epoch=2, reuse_iter=4, patience=0),
    # Batches of three scenes and of one: a process has no crop at all.
    "published": dataclasses.replace(published, max_epoch=2, reuse_iter=2, patience=0, spectral=0.7),
}
WIDE = dataclasses.replace(
    corrected, spectral_labels=False, spectral_start=False, max_epoch=2, reuse_iter=4, patience=0
)


def trainer(recipe: Recipe, dtype: torch.dtype) -> Trainer:
    drawn, stream = RandomStream(50), RandomStream(0)
    scenes = [drawn.normal((12, *size), dtype=dtype) for size in ((20, 24), (15, 13), (15, 33), (14, 16))]
    learned = recipe.bandwidth is not None
    model = SegmentationModel(12, 8, 3, stream=stream, bandwidth=recipe.bandwidth or 1.0, learn_bandwidth=learned)
    return Trainer(model.to(dtype), scenes, recipe, stream, crop_size=12, batch_size=3)


def trained(made: Trainer) -> dict[str, Any]:
    """Loss terms of every step, the model, and the history."""
    steps: list[torch.Tensor] = []
    inner = made.step

    def step(inputs: Any) -> torch.Tensor:
        steps.append(inner(inputs).clone())
        return steps[-1]

    made.step = step
    made.run()
    return {"steps": torch.stack(steps).double(), "state": made.model.state_dict(), "history": made.history}


def scene(rows: int = 37, columns: int = 24) -> np.ndarray:
    values = np.random.default_rng(3).random((5, rows, columns)).astype(np.float32)
    values[:, :, columns // 2 :] += np.random.default_rng(4).random((5, 1, 1)).astype(np.float32)
    return values


def holed() -> np.ndarray:
    values = scene()
    values[:, 9:20, 3:20] = -1
    return values


def everything(folder: Path) -> dict[str, Any]:
    """All that processes do together, once, since they are costly to start."""
    found: dict[str, Any] = {name: trained(trainer(recipe, torch.float32)) for name, recipe in RECIPES.items()}
    found |= {"wide": trained(trainer(WIDE, torch.float64))}
    wide = dataclasses.replace(RECIPES["published"], max_epoch=1)
    found |= {"wide published": trained(trainer(wide, torch.float64))}
    found |= {"gaps": trained(trainer_with_gaps())}
    fitted = segmentation(batch_size=3, max_epoch=2, nodata=-1).fit(scene(), layout="chw")
    found["labels"] = fitted.predict(scene(), layout="chw")
    found["holed"], found["sure"] = fitted.predict_with_confidence(holed(), layout="chw")
    found["of file"] = np.array(fitted.predict(folder / "scene.npy", layout="chw", out=folder / "labels.npy"))
    found["two rows"] = fitted.predict(scene(2), layout="chw")
    found["centers"] = fitted.cluster_centers_
    found["history"] = fitted.history_
    if ranks.together():
        try:
            segmentation(max_epoch=2 + ranks.number()).fit(scene(), layout="chw")
        except ValueError as error:
            found["unlike"] = str(error)
        try:
            ranks.from_first(lambda: [][1])
        except (IndexError, ranks.LostProcessError) as error:
            found["failed"] = str(error)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    np.save(folder / "scene.npy", scene())
    return everything(folder)


@pytest.fixture(scope="module", params=[2, 3])
def processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("group")
    np.save(folder / "scene.npy", scene())
    return group.together(request.param, folder / "state", everything, folder)


NAMES = [*RECIPES, "wide", "wide published", "gaps"]


@pytest.mark.parametrize("name", NAMES)
def test_training_gives_what_one_process_gives(alone: Any, processes: Any, name: str) -> None:
    one, several = alone[name], processes[0][name]
    tight = name.startswith("wide")
    torch.testing.assert_close(
        several["steps"], one["steps"], rtol=1e-10 if tight else 2e-5, atol=1e-12 if tight else 1e-6
    )
    for key, value in one["state"].items():
        torch.testing.assert_close(
            several["state"][key], value, rtol=1e-9 if tight else 1e-4, atol=1e-11 if tight else 1e-5, msg=key
        )
    assert one["history"][-1]["clusters"] == several["history"][-1]["clusters"]
    for other in processes[1:]:
        for key, value in several["state"].items():
            assert torch.equal(other[name]["state"][key], value), key
        assert other[name]["history"] == several["history"]


def test_bytes_are_counted(alone: Any, processes: Any) -> None:
    count = len(processes)
    assert "bytes_per_step" not in alone["corrected"]["history"][-1]
    state = alone["wide"]["state"]
    parameters = sum(value.numel() for value in state.values())
    # Gradients, seven terms, mass and sums of three clusters of eight numbers; then counts and marginals.
    expected = 2 * (count - 1) / count * 8 * (parameters - 1 + 7 + 3 + 3 * 8 + 3 + 2 * 3)
    assert abs(processes[0]["wide"]["history"][-1]["bytes_per_step"] - expected) <= 8


def test_labels_are_those_of_one_process(alone: Any, processes: Any) -> None:
    for found in processes:
        np.testing.assert_array_equal(found["centers"], processes[0]["centers"])
        for name in ("labels", "holed", "of file", "two rows"):
            assert (found[name] == alone[name]).mean() > 0.999, name
            np.testing.assert_array_equal(found[name], processes[0][name])
        np.testing.assert_allclose(found["sure"], alone["sure"], atol=1e-3)
        assert np.isnan(found["sure"]).sum() == 11 * 17


def test_processes_that_were_started_otherwise_refuse(processes: Any) -> None:
    for found in processes:
        assert found["unlike"] == (
            "Processes 0 and 1 must be started alike, but their recipe max_epoch differ: 2 and 3; give all the same "
            "version, files and parameters."
        )


def test_what_fails_in_the_first_process_ends_the_others(processes: Any) -> None:
    assert processes[0]["failed"] == "list index out of range"
    count = len(processes)
    for found in processes[1:]:
        assert found["failed"] == f"Process 0 of {count} stopped, and this one with it: list index out of range"


def _predicted(folder: Path) -> list[np.ndarray]:
    from spectrafuse import DeepGlobalClustering

    model = DeepGlobalClustering.load(folder / "model")
    model.nodata = -1
    return [model.predict(values, layout="chw") for values in (scene(), holed())]


def test_prediction_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    segmentation(max_epoch=1).fit(scene(), layout="chw").save(tmp_path / "model")
    expected = _predicted(tmp_path)
    for found in group.together(3, tmp_path / "state", _predicted, tmp_path):
        for one, several in zip(expected, found, strict=True):
            np.testing.assert_array_equal(several, one)


def _fit(folder: Path, end: str, *, dies: int = -1) -> Any:
    """A fit of three epochs; after the first, process `dies` is killed."""

    def watch(progress: Any) -> None:
        if dies == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if dies > 0:
            (folder / end).touch()

    if ranks.number() == dies > 0:
        _die_when(folder / end)
    fitted = segmentation(batch_size=4, max_epoch=3, reuse_iter=2, patience=0)
    fitted.fit(scene(), layout="chw", checkpoint_dir=folder, callback=watch)
    return fitted.cluster_centers_, fitted.history_


def _die_when(file: Path) -> None:
    """Kill this process in its next exchange after a file has appeared."""
    inner = ranks.add

    def add(tensors: Any) -> None:
        if file.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        inner(tensors)

    ranks.add = add


@pytest.mark.parametrize("dies", [0, 1])
def test_a_killed_process_ends_the_others_and_any_number_goes_on(tmp_path: Path, dies: int) -> None:
    centers, history = _fit(tmp_path / "alone", "")
    folder = tmp_path / "run"
    started = group.start(2, tmp_path / "state", _fit_and_die, folder, dies)
    found = group.results(started, tmp_path / "state")
    assert found[dies] == (None, "")
    assert found[1 - dies][1] == (
        f"LostProcessError: Process {dies} of 2 has ended, so this one stops too; the same command, with any number of "
        "processes, goes on from the last epoch that was saved."
    )
    if dies == 0:
        again, longer = _fit(folder, "")
    else:
        again, longer = group.together(3, tmp_path / "more", _fit, folder, "")[0]
    assert [row["epoch"] for row in longer] == [1, 2, 3]
    np.testing.assert_allclose(again, centers, atol=1e-4)
    np.testing.assert_allclose([row["loss"] for row in longer], [row["loss"] for row in history], rtol=1e-4)


def _fit_and_die(folder: Path, dies: int) -> Any:
    return _fit(folder, "die", dies=dies)


def test_without_a_group_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", None)
    tensor = torch.ones(3)
    ranks.add([tensor])
    ranks.copy_first([tensor])
    assert (ranks.count(), ranks.number(), ranks.together(), list(ranks.share(5))) == (1, 0, False, [0, 1, 2, 3, 4])
    assert ranks.gathered(4) == [4]
    assert ranks.from_first(lambda: 5) == 5
    assert ranks.each([1, 2], str) == ["1", "2"]
    assert make_trainer().train_epoch().keys() >= {"loss"}


@pytest.mark.parametrize("total", [0, 1, 7])
def test_shares_are_even_and_make_up_the_whole(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(ranks, "number", lambda number=number: number)
        shares.append(ranks.share(total))
    assert [i for share in shares for i in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
