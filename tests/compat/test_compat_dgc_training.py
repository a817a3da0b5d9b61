"""The stand-ins of the trainers and of the data server: what they print, write, and no longer fail at."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers.compat_dgc_parts import SMALL, Items, normal, random_labels, small_trainer
from spectrafuse.compat import hsi_global_clustering as compat


def test_training_prints_logs_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = [(normal(i, 6, 12, 11 + i), random_labels(i, 3, 12, 11 + i)) for i in range(3)]
    schedule = {"step_size": 1, "gamma": 0.5}
    trainer = small_trainer(
        tmp_path,
        *items,
        optim_scheduler_cls=torch.optim.lr_scheduler.StepLR,
        optim_scheduler_kwargs=schedule,
        log_interval=1,
        precision="bf16",
    )
    logged: dict[str, list[int]] = {}
    trainer.writer.add_scalar = lambda name, value, step: logged.setdefault(name, []).append(step)
    trainer.train()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Epoch 1/2 | TrainLoss=")
    assert [part.split("=")[0] for part in lines[0].split(" | ")[1:]] == ["TrainLoss", "IoU", "Dice", "RMSE"]
    assert [part.split("=")[0] for part in lines[1].split(" | ")[-3:]] == ["Ent", "NMI", "VI"]
    assert lines[2:] == ["HSIClustering training done !!"]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch_1", "epoch_2", "final"]
    assert logged["train/comp1"] == [3, 4, 5, 6]
    assert logged["train/total_loss"] == logged["val/Dice"] == [1, 2]
    assert logged["val/NMI"] == [2]
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 / 4)
    assert list(trainer.loss_weight_scheduler) == ["lambda_unif", "lambda_orth", "lambda_bal", "lambda_cons"]
    assert trainer.ema_kick_scheduler.last_step == trainer.loss_weight_scheduler["lambda_unif"].last_step == 1
    assert trainer.loss_weight_scheduler["lambda_bal"] is None


def test_training_repeats_and_resets_the_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> str:
        small_trainer(tmp_path, normal(0, 6, 12, 12), normal(1, 6, 12, 12), num_epochs=1).train()
        return capsys.readouterr().out

    first = run()
    torch.rand(17)
    assert run() == first


def test_early_stopping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    trainer = small_trainer(
        tmp_path,
        normal(0, 6, 9, 9),
        num_epochs=9,
        early_stopping=True,
        early_stopping_patience=2,
        early_stopping_metric=lambda values: seen.append(sorted(values)) or 0.0,
    )
    trainer.train()
    # The metric is known from the second epoch on, and then fails to grow twice.
    assert "Early stopping at epoch 4" in capsys.readouterr().out
    assert seen == [["NMI", "VI", "entropy"]] * 3
    assert (tmp_path / "checkpoints" / "final").is_dir()
    assert not (tmp_path / "checkpoints" / "epoch_5").exists()


def test_without_training_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = small_trainer(tmp_path)
    assert trainer.train() is None
    assert "No train_dataset provided" in capsys.readouterr().out
    assert trainer.train_loader is trainer.val_loader is None


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = small_trainer(tmp_path, normal(0, 6, 9, 9), num_epochs=1)
        trainer.train()
    assert [str(w.message) for w in caught if "tensorboard" in str(w.message)] == [
        "The package tensorboard is missing, so no logs are written; `pip install tensorboard` adds them."
    ]
    assert not (tmp_path / "runs").exists()


def test_wrong_schedule_and_missing_augmentor(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got lambda_x as well"):
        small_trainer(tmp_path, loss_weight_scheduling={"lambda_x": True})
    with pytest.raises(ValueError, match="`augmentor` must be given"):
        small_trainer(tmp_path, normal(0, 6, 9, 9), augmentor=None).train()


class Echo(torch.nn.Module):
    """A caller's own model: its labels are the first band."""

    lambda_unif = lambda_orth = lambda_bal = lambda_cons = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def inference(self, cubes: Tensor) -> Tensor:
        return cubes[:, 0].long()


def echo_trainer(folder: Path) -> compat.HSIClusteringTrainer:
    return small_trainer(folder, model=Echo())


def test_matching_undoes_a_cyclic_permutation(tmp_path: Path) -> None:
    labels = [random_labels(i, 3, 7, 5 + i) for i in range(2)]
    items = [(((x + 1) % 3)[None].float(), x) for x in labels]
    preds, found = echo_trainer(tmp_path).inference(Items(*items))
    assert all(torch.equal(pred[0], x) for pred, x in zip(preds, labels, strict=True))
    assert (found["mean_IoU"], found["mean_Dice"], found["mean_RMSE"]) == (1.0, 2.0, 0.0)
    keys = [f"{score}_class_{i}" for score in ("IoU", "Dice") for i in range(3)]
    assert list(found) == ["mean_IoU", "mean_Dice", "mean_RMSE", *keys]
    assert all(found[key] == 1.0 for key in keys)


def test_matching_of_unequal_numbers(tmp_path: Path) -> None:
    labels = random_labels(0, 2, 6, 6)
    clusters = torch.where(labels == 0, 3, 1)
    clusters[0, :2] = torch.tensor([0, 2])
    preds, found = echo_trainer(tmp_path).inference(Items((clusters[None].float(), labels)))
    right = (preds[0][0] == labels).sum().item()
    assert right == 36 - 2
    assert found["IoU_class_2"] == found["IoU_class_3"] == 0.0


def test_manual_mapping_and_none(tmp_path: Path) -> None:
    labels = torch.tensor([[0, 0, 1, 1]])
    items = Items((torch.tensor([[[3.0, 1.0, 0.0, 0.0]]]), labels))
    trainer = echo_trainer(tmp_path)
    mapping = {0: (1, 3), 1: (0,)}
    preds, found = trainer.inference(items, auto_align=False, manual_mapping=mapping)
    assert torch.equal(preds[0][0], labels)
    assert found["mean_IoU"] == 1.0
    with pytest.raises(ValueError, match="`manual_mapping` must name every cluster; it lacks 3"):
        trainer.inference(items, auto_align=False, manual_mapping={0: (1,), 1: (0,)})
    preds, _ = trainer.inference(items, auto_align=False)
    assert preds[0].tolist() == [[[3, 1, 0, 0]]]
    later = trainer.inference(items, auto_align=False, manual_mapping={0: (0, 1, 3), 5: (0,)})[0]
    assert later[0].tolist() == [[[0, 0, 5, 5]]]


def test_inference_without_labels_and_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = Items(*(normal(i, 6, 5, 6) for i in range(3)))
    preds = small_trainer(tmp_path).inference(items, progress_interval=2)
    assert isinstance(preds, list)
    assert [(tuple(pred.shape), pred.dtype) for pred in preds] == [((1, 5, 6), torch.int64)] * 3
    assert capsys.readouterr().out.splitlines() == ["Inference progress: 2/3"]


def test_large_scenes_with_labels(tmp_path: Path) -> None:
    """Above 480 pixels the published code returns a wrong shape, and fails with labels."""
    scene = (normal(0, 6, 487, 5), random_labels(0, 3, 487, 5))
    trainer = small_trainer(tmp_path, scene)
    preds, found = trainer.inference(Items(scene), auto_align=False)
    assert torch.equal(preds[0], trainer.model.inference(scene[0][None]))
    assert 0 < found["mean_IoU"] < 1
    assert trainer._evaluate(1)[0]["IoU"] == pytest.approx(found["mean_IoU"])


# Reading ahead


class Broken(Items):
    """Raises at its second item."""

    def __getitem__(self, index: int) -> Tensor:
        if index == 1:
            raise OSError("disc gone")
        return self.items[index]


def collect(server: compat.DataServer, size: int) -> tuple[Tensor, Tensor | None]:
    while True:
        new, cubes, labels = server.get_batch(size)
        if new:
            assert cubes is not None
            return cubes, labels


def test_data_server_starts_delivers_and_ends() -> None:
    """Unpicklable, so it is forked; the first round is in order, batches may be larger than the queue."""
    items = [(torch.full((2, 3, 3 + i), float(i)), torch.full((3, 3 + i), i)) for i in range(5)]
    dataset = Items(*items)
    dataset.transform = lambda cube: cube  # type: ignore[attr-defined]
    server = compat.DataServer(dataset, queue_size=2)
    assert server.get_batch(1) == (False, None, None)
    assert server.queue_size == 2
    for _ in range(2):
        server.start()
        process = server._proc
        cubes, labels = collect(server, 3)
        assert cubes.shape == (3, 2, 3, 5)
        assert cubes[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert labels is not None
        assert labels[:, 0, 0].tolist() == [0, 1, 2]
        later = [int(collect(server, 1)[0][0, 0, 0, 0]) for _ in range(7)]
        assert later[:2] == [3, 4]
        assert sorted(later[2:]) == [0, 1, 2, 3, 4]
        server.start()
        assert server._proc is process
        server.stop()
        assert server._proc is None
        assert multiprocessing.active_children() == []
    server.stop()


def test_data_server_reports_what_the_dataset_raised() -> None:
    dataset = Broken(torch.zeros(1, 2, 2), None)
    dataset.transform = lambda cube: cube  # type: ignore[attr-defined]
    server = compat.DataServer(dataset)
    server.start()
    with pytest.raises(RuntimeError, match="disc gone"):
        collect(server, 2)
    assert multiprocessing.active_children() == []
    with pytest.raises(ValueError, match="the length of `dataset`"):
        compat.DataServer(Items())


def test_data_server_notices_a_killed_process() -> None:
    dataset = Items(torch.zeros(1, 2, 2))
    dataset.transform = lambda cube: cube  # type: ignore[attr-defined]
    server = compat.DataServer(dataset, queue_size=1)
    server.start()
    server._proc.kill()
    server._proc.join()
    with pytest.raises(RuntimeError, match="ended with exit code -9"):
        collect(server, 9)
    assert server._proc is None


@pytest.mark.slow
def test_asynchronous_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By spawn. More steps than batches are ready for, so batches are used again."""
    train, validation = Items(*(normal(i, 6, 10, 9 + i) for i in range(3))), Items(normal(5, 6, 10, 10))
    trainer = compat.AsyncHSIClusteringTrainer(
        train,
        validation,
        40,
        compat.AugmentationPipeline((8, 8)),
        model_kwargs=SMALL,
        batch_size=2,
        num_workers=0,
        num_epochs=2,
        precision="fp32",
        log_dir=str(tmp_path / "runs"),
        ckpt_dir=str(tmp_path / "checkpoints"),
    )
    assert trainer.train_loader is None
    assert trainer.reuse_iter == 1
    trainer.train()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2", "HSIClustering training done !!"]
    assert multiprocessing.active_children() == []
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch_1", "epoch_2", "final"]
    another = compat.AsyncHSIClusteringTrainer(train, batch_size=2, log_dir=str(tmp_path), ckpt_dir=str(tmp_path))
    assert another.steps_per_epoch == 2


def test_the_process_ends_when_training_fails(tmp_path: Path) -> None:
    dataset = Items(normal(0, 6, 9, 9))
    dataset.transform = lambda cube: cube  # type: ignore[attr-defined]
    trainer = compat.AsyncHSIClusteringTrainer(
        dataset, model_kwargs=SMALL, ckpt_dir=str(tmp_path / "c"), log_dir=str(tmp_path / "r")
    )
    with pytest.raises(ValueError, match="`augmentor` must be given"):
        trainer.train()
    assert multiprocessing.active_children() == []
