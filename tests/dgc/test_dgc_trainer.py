"""Training: what a step does, stop rules, schedules, repeatability, interruption and resumption to the bit."""

from __future__ import annotations

import builtins
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.dgc_training import QUICK, assert_same_bits, make_trainer
from spectrafuse._runtime.progress import Progress
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe, corrected, published
from spectrafuse.dgc.training import step as step_module
from spectrafuse.dgc.training import trainer as trainer_module
from spectrafuse.dgc.training.checkpoint import FILE_NAME
from spectrafuse.dgc.training.trainer import Trainer
from spectrafuse.random import RandomStream


@pytest.mark.parametrize("base", [corrected, published], ids=lambda recipe: recipe.name)
def test_both_recipes_train_repeatably(base: Recipe) -> None:
    recipe = dataclasses.replace(base, max_epoch=2, reuse_iter=2)
    runs = [make_trainer(recipe) for _ in range(2)]
    before = {name: value.clone() for name, value in runs[0].model.state_dict().items()}
    for run in runs:
        run.run()
    assert_same_bits(*runs)
    for name, value in runs[0].model.state_dict().items():
        assert value.isfinite().all()
        assert not torch.equal(value, before[name]), name
    other = make_trainer(recipe, seed=1)
    other.run()
    assert other.history != runs[0].history
    torch.testing.assert_close(runs[0].model.centers.detach().norm(dim=1), torch.ones(3))


def test_history_and_progress() -> None:
    trainer, seen = make_trainer(dataclasses.replace(published, max_epoch=4, reuse_iter=1)), []
    trainer.run(callback=seen.append)
    assert [p.epoch for p in seen] == [h["epoch"] for h in trainer.history] == [1, 2, 3, 4]
    assert all(isinstance(p, Progress) and p.total_epochs == 4 and "loss" in p.message for p in seen)
    assert "nmi" not in trainer.history[0]
    assert all({"nmi", "vi", "entropy", "clusters", "loss", "uniform"} <= h.keys() for h in trainer.history[1:])
    assert [h["kick"] for h in trainer.history] == pytest.approx([0.05, 0.05, 0.0375, 0.025])
    assert {h["learning_rate"] for h in trainer.history} == {1e-4}
    assert trainer.stop_reason == "Ran all 4 epochs." or "clusters are in use" in trainer.stop_reason
    assert not trainer.model.training


def test_a_run_is_epochs_of_training_and_evaluation() -> None:
    by_hand, whole = (make_trainer(dataclasses.replace(QUICK, max_epoch=3)) for _ in range(2))
    history = [{**by_hand.train_epoch(), **by_hand.evaluate()} for _ in range(3)]
    whole.run()
    assert by_hand.epoch == 3
    assert history == whole.history
    assert torch.equal(by_hand.model.centers, whole.model.centers)


def test_crops_are_as_large_as_the_recipe_says() -> None:
    drawn = RandomStream(50)
    scenes = [drawn.normal((4, 20, 24))]
    for given, side in ((None, 9), (7, 7)):
        recipe = dataclasses.replace(QUICK, crop_size=9)
        trainer = Trainer(SegmentationModel(4, 8, 3), scenes, recipe, RandomStream(0), crop_size=given)
        assert trainer.batches.crop_size == (side, side)


def test_learning_rate_falls_to_its_share() -> None:
    trainer = make_trainer(dataclasses.replace(QUICK, max_epoch=3, learning_rate=1e-3, learning_rate_end=0.5))
    trainer.run()
    assert [h["learning_rate"] for h in trainer.history] == pytest.approx([1e-3, 7.5e-4, 5e-4])
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)


def test_second_forward_is_what_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published code logs the loss after the step, from a second forward pass on the same crops."""
    calls: list[tuple[bool, float]] = []
    original = step_module.step_objective

    def spy(*args: object, **kwargs: object) -> object:
        result = original(*args, **kwargs)  # type: ignore[arg-type]
        calls.append((result.total.requires_grad, result.terms[0].item()))
        return result

    monkeypatch.setattr(step_module, "step_objective", spy)
    trainer = make_trainer(dataclasses.replace(published, max_epoch=1, reuse_iter=1))
    trainer.run()
    assert [grad for grad, _ in calls] == [True, False]
    assert trainer.history[0]["loss"] == pytest.approx(calls[1][1])
    calls.clear()
    make_trainer(dataclasses.replace(QUICK, max_epoch=1, reuse_iter=1)).run()
    assert [grad for grad, _ in calls] == [True]


def test_gradient_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: object, **kwargs: object) -> object:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    make_trainer(dataclasses.replace(QUICK, max_epoch=1, clip=1e-3, spectral=100.0)).run()
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-2)


def test_stops_when_the_maps_settle() -> None:
    recipe = dataclasses.replace(QUICK, max_epoch=30, patience=3, tolerance=10.0)
    trainer = make_trainer(recipe)
    trainer.run()
    assert len(trainer.history) == 4  # the first epoch has none before it
    assert trainer.stop_reason.startswith("Stopped after epoch 4 of 30: the label maps changed by at most 10 nats")
    never = make_trainer(dataclasses.replace(recipe, max_epoch=5, tolerance=0.0, balance=20.0, learning_rate=5e-3))
    never.run()
    assert max(h["vi"] for h in never.history[1:]) > 0
    assert never.stop_reason.startswith("Ran all 5 epochs")


def test_empty_clusters_are_reported() -> None:
    trainer = make_trainer(dataclasses.replace(QUICK, max_epoch=1, reuse_iter=1))
    with torch.no_grad():
        trainer.model.centers[2] = -trainer.model.centers.sum(0)
    trainer.model.encoder.requires_grad_(False)
    trainer.run()
    used = int(trainer.history[-1]["clusters"])
    assert (used == 3) == trainer.stop_reason.endswith("epochs.")
    if used < 3:
        assert trainer.stop_reason.endswith(f"; {used} of 3 clusters are in use.")


def test_bfloat16_trains_close_to_float32() -> None:
    recipe = dataclasses.replace(QUICK, max_epoch=1)
    full, half = make_trainer(recipe), make_trainer(recipe, precision="bfloat16")
    full.run()
    half.run()
    assert half.model.centers.dtype == torch.float32
    assert half.history[0]["loss"] != full.history[0]["loss"]
    assert half.history[0]["loss"] == pytest.approx(full.history[0]["loss"], rel=0.05)
    with pytest.raises(ValueError, match="`precision` must be one of 'float32', 'bfloat16'"):
        make_trainer(precision="float16")


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model.cluster.log_bandwidth.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="no longer finite in epoch 1"):
        trainer.run()


def interrupt_at(epoch: int) -> object:
    def callback(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    return callback


@pytest.mark.parametrize("base", [corrected, published], ids=lambda recipe: recipe.name)
def test_interrupted_and_resumed_equals_whole(base: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(base, max_epoch=6, reuse_iter=2)
    whole = make_trainer(recipe)
    whole.run()
    for epoch in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            make_trainer(recipe).run(callback=interrupt_at(epoch), checkpoint_dir=tmp_path)  # type: ignore[arg-type]
    resumed, seen = make_trainer(recipe), []
    resumed.run(checkpoint_dir=tmp_path, callback=seen.append)
    assert [p.epoch for p in seen] == [6]
    assert_same_bits(resumed, whole)
    again, seen = make_trainer(recipe), []
    again.run(checkpoint_dir=tmp_path, callback=seen.append)
    assert seen == []
    assert_same_bits(again, whole)


KILLED = """
import os, signal
from helpers.dgc_training import make_trainer

def callback(progress):
    if progress.epoch == 3:
        os.kill(os.getpid(), signal.SIGKILL)

make_trainer().run(callback=callback, checkpoint_dir={folder!r})
"""


@pytest.mark.process
@pytest.mark.slow
def test_killed_and_resumed_equals_whole(tmp_path: Path) -> None:
    script = KILLED.format(folder=str(tmp_path))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]
    whole, resumed = make_trainer(), make_trainer()
    whole.run()
    epochs: list[int] = []
    resumed.run(checkpoint_dir=tmp_path, callback=lambda p: epochs.append(p.epoch))
    assert epochs == [4, 5, 6]
    assert_same_bits(resumed, whole)


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    recipe = dataclasses.replace(QUICK, max_epoch=1)
    make_trainer(recipe).run(checkpoint_dir=tmp_path, fingerprint={"seed": 1, "crop": 12, "data": "abc"})
    with pytest.raises(ValueError, match=r"belongs to another run: crop was 12, now 16; data was abc, now None"):
        make_trainer(recipe).run(checkpoint_dir=tmp_path, fingerprint={"seed": 1, "crop": 16})


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 cut"])
def test_a_damaged_state_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ValueError, match=r"training\.pt' is damaged .* delete it to start again"):
        make_trainer().run(checkpoint_dir=tmp_path)


def test_saved_state_holds_no_code(tmp_path: Path) -> None:
    make_trainer(dataclasses.replace(QUICK, max_epoch=1)).run(checkpoint_dir=tmp_path, fingerprint={"a": 1})
    content = torch.load(tmp_path / FILE_NAME, weights_only=True)
    assert content["state"]["epoch"] == 1
    json.dumps(content["state"]["history"])


def test_tensorboard_is_asked_for_only_when_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return original(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    make_trainer()
    with pytest.raises(ImportError, match=r"`log_dir` needs the package tensorboard.*spectrafuse\[tensorboard\]"):
        make_trainer(log_dir=tmp_path)


def test_tensorboard_gets_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        closed = False

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            written.append((name, value, epoch))

        def close(self) -> None:
            self.closed = True

    writer = Writer()
    monkeypatch.setattr(trainer_module, "_tensorboard", lambda log_dir: writer)
    trainer = make_trainer(dataclasses.replace(QUICK, max_epoch=2), log_dir="anywhere")
    trainer.run()
    assert writer.closed
    assert [("train/loss", h["loss"], h["epoch"]) for h in trainer.history] == [
        entry for entry in written if entry[0] == "train/loss"
    ]
