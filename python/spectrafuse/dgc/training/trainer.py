"""The training loop (docs/algorithms/dgc.md, "Training"): steps, schedules, centre updates, stop rule, saved state."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import checks, ranks
from spectrafuse._runtime.cuda_graph import StaticStep
from spectrafuse._runtime.errors import DivergedError
from spectrafuse._runtime.progress import Callback, Progress
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.dgc.training.batches import CropBatch, CropBatches
from spectrafuse.dgc.training.checkpoint import load_training, save_training
from spectrafuse.dgc.training.initialise import measure_bandwidth, start_training
from spectrafuse.dgc.training.objective import TERMS, random_labels
from spectrafuse.dgc.training.prototypes import Prototypes, find_prototypes
from spectrafuse.dgc.training.schedules import fading, warmup_decay
from spectrafuse.dgc.training.step import StepInputs, training_step
from spectrafuse.dgc.training.stop_rule import StabilityWatch
from spectrafuse.dgc.windows import NormalizedScene, as_normalized
from spectrafuse.random import RandomStream

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Trainer:
    """Trains a model on normalised scenes.

    Parameters
    ----------
    model : SegmentationModel
        On the training device; changed in place.
    scenes : sequence of NormalizedScene, or of Tensor (bands, rows, columns)
        Normalised, of any sizes, on the same device; or read window by window.
    recipe : Recipe
        Every choice of the training.
    stream : RandomStream
        Source of all random numbers.
    crop_size, batch_size : int
        As in `CropBatches`; without `crop_size` the recipe's.
    precision : {"float32", "bfloat16"}
        Type of the encoder's convolutions in training; everything else stays in float32.
    log_dir : path, optional
        Folder for TensorBoard.

    Attributes
    ----------
    step : callable
        Trains on one batch: `StepInputs` to the values of the loss terms. May be replaced, to watch or record steps.
    epoch : int
        Epochs that have been trained.
    history : list of dict
        One entry per epoch: `epoch`, `loss` and its terms (means over the steps), `learning_rate`, `kick`, `entropy`
        and `clusters` of the label maps, and from the second epoch on `nmi` and `vi` against the epoch before. In a
        group of processes also `bytes_per_step`: what each sends to others.
    stop_reason : str
        One sentence, once `run` has ended.
    """

    def __init__(
        self,
        model: SegmentationModel,
        scenes: Sequence[Tensor | NormalizedScene],
        recipe: Recipe,
        stream: RandomStream,
        *,
        crop_size: int | None = None,
        batch_size: int = 4,
        precision: str = "float32",
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.stream = stream
        self.autocast = PRECISIONS[checks.choice("precision", precision, PRECISIONS)]
        size = recipe.crop_size if crop_size is None else crop_size
        self.scenes = as_normalized(scenes)
        self.batches = CropBatches(self.scenes, recipe, size, batch_size, stream.seed)
        self.prototypes: Prototypes | None = None
        self.watch = StabilityWatch(self.scenes, patience=recipe.patience, tolerance=recipe.tolerance)
        self.device = model.centers.device
        on_gpu = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            # A recorded step reads the rate where it lies.
            lr=torch.tensor(recipe.learning_rate, device=self.device) if on_gpu else recipe.learning_rate,
            betas=(0.9, 0.999),
            weight_decay=recipe.weight_decay,
            fused=on_gpu or self.device.type == "cpu",
            capturable=on_gpu,
        )
        step = partial(training_step, model, self.optimizer, recipe, autocast=self.autocast)
        # What processes tell each other is not recorded.
        recorded = on_gpu and not ranks.together()
        self.step: Callable[[StepInputs], Tensor] = StaticStep(step, record=True) if recorded else step
        self.writer = None if log_dir is None else _tensorboard(log_dir)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.stop_reason = ""

    def run(
        self,
        *,
        callback: Callback | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        """Train until the recipe's last epoch or its stop rule.

        Parameters
        ----------
        callback : callable, optional
            Called with a `Progress` after every epoch, when its state has been saved; what it raises ends the run.
        checkpoint_dir : path, optional
            Folder of the saved state. A run with the same `fingerprint` goes on from what lies there and ends with the
            same bits as an uninterrupted one.
        fingerprint : mapping, optional
            Plain values that say which run this is.

        Raises
        ------
        ValueError
            If the saved state is damaged or belongs to another run.
        FloatingPointError
            If the loss is no longer finite.
        """
        fingerprint = fingerprint or {}
        folder = checkpoint_dir
        saved = ranks.from_first(lambda: load_training(folder, fingerprint) if folder is not None else None)
        if saved is not None:
            self._restore(saved)
        try:
            while not self.stop_reason:
                values = {**self.train_epoch(), **self.evaluate()}
                self.history.append(values)
                if self.writer is not None:
                    for name, value in values.items():
                        self.writer.add_scalar(f"train/{name}", value, self.epoch)
                self.stop_reason = self._why_stop()
                ranks.from_first(partial(self._finish_epoch, callback, folder, fingerprint))
        finally:
            self.model.eval()
            if self.writer is not None:
                self.writer.close()

    def _finish_epoch(
        self, callback: Callback | None, folder: str | os.PathLike[str] | None, fingerprint: Mapping[str, Any]
    ) -> None:
        if folder is not None:
            save_training(folder, self._state(), fingerprint)
        if callback is not None:
            values = self.history[-1]
            callback(Progress(self.epoch, self.recipe.max_epoch, dict(values), _message(values)))

    def _start(self) -> None:
        found = ranks.from_first(self._find_start)
        if ranks.together():
            self.prototypes, self.stream.step, state = found
            self.model.load_state_dict(state)

    def _find_start(self) -> tuple[Prototypes | None, int, Mapping[str, Tensor]]:
        if self.recipe.spectral_labels:
            self.prototypes = find_prototypes(self.scenes, self.model.n_clusters, self.stream)
        start_training(self.model, self.recipe, self.batches, self.prototypes, self.stream)
        return self.prototypes, self.stream.step, self.model.state_dict()

    def train_epoch(self) -> dict[str, float]:
        """Train one more epoch; the first one puts encoder and centres where the recipe starts them before it.

        Returns
        -------
        dict
            `epoch`, `loss` and its terms (means over the steps), `learning_rate` and `kick`.

        Raises
        ------
        FloatingPointError
            If the loss is no longer finite.
        """
        if self.epoch == 0:
            self._start()
        self.epoch += 1
        recipe, epoch = self.recipe, self.epoch
        kick = fading(epoch, recipe.kick, recipe.max_epoch) if recipe.fade_kick else recipe.kick
        uniform = fading(epoch, recipe.uniform, recipe.max_epoch) if recipe.fade_uniform else recipe.uniform
        # A schedule over the whole run, so that the last epoch uses the last value.
        rate = recipe.learning_rate * warmup_decay(
            epoch - 1, initial=1, peak=1, final=recipe.learning_rate_end, warmup=0, total=max(recipe.max_epoch - 1, 1)
        )
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self.model.train()
        before = ranks.sent()
        total = torch.zeros(1 + len(TERMS), device=self.device, dtype=torch.float64)
        with closing(self.batches.epoch(epoch)) as batches, _repeatable_convolutions(self.device):
            for number, batch in enumerate(batches):
                if number == 0 and recipe.bandwidth is None:
                    measure_bandwidth(self.model, batch)
                total += self.step(self._inputs(batch, uniform, kick))
        means = (total / self.batches.steps_per_epoch).tolist()
        if not all(map(math.isfinite, means)):
            raise DivergedError(
                f"The training loss is no longer finite in epoch {epoch}; try a `learning_rate` below {rate:g}."
            )
        self.model.eval()
        # Processors of different kinds may round differently.
        ranks.copy_first([value.data for value in self.model.state_dict().values()])
        exchanged = (ranks.sent() - before) / self.batches.steps_per_epoch
        return {
            "epoch": epoch,
            **dict(zip(("loss", *TERMS), means, strict=True)),
            "learning_rate": rate,
            "kick": kick,
            **({"bytes_per_step": exchanged} if ranks.together() else {}),
        }

    def evaluate(self) -> dict[str, float]:
        """Scores of the label maps now, against those of the evaluation before: `StabilityWatch.update`."""
        return self.watch.update(self.model)

    def _inputs(self, batch: CropBatch, uniform: float, kick: float) -> StepInputs:
        labels = None
        if uniform:
            forwards = 2 if self.recipe.second_forward else 1
            if self.prototypes is not None:
                labels = self.prototypes.labels(batch).expand(forwards, -1, -1)
            else:
                pixels, clusters = math.prod(batch.padded.shape[2:]), self.model.n_clusters
                first, last, pairs = batch.share or (0, len(batch.geometry), len(batch.geometry))
                drawn = [random_labels(pairs * pixels, clusters, self.stream) for _ in range(forwards)]
                labels = torch.stack(drawn)[:, :, first * pixels : last * pixels]
        noise = self.stream.normal(tuple(self.model.centers.shape), device="cpu")
        inputs = StepInputs(batch, labels, noise, torch.tensor(uniform), torch.tensor(kick))
        return inputs.mapped(lambda tensor: tensor.to(self.device, non_blocking=True))

    def _why_stop(self) -> str:
        reason = ""
        if self.watch.settled:
            reason = (
                f"Stopped after epoch {self.epoch} of {self.recipe.max_epoch}: the label maps changed by at most "
                f"{self.recipe.tolerance:g} nats (variation of information) in each of the last "
                f"{self.recipe.patience} epochs"
            )
        elif self.epoch >= self.recipe.max_epoch:
            reason = f"Ran all {self.recipe.max_epoch} epochs"
        if not reason:
            return ""
        used = int(self.history[-1]["clusters"])
        empty = self.model.n_clusters - used
        return f"{reason}; {used} of {self.model.n_clusters} clusters are in use." if empty else f"{reason}."

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state,
            "watch": self.watch.state,
            "prototypes": None if self.prototypes is None else list(self.prototypes),
            "history": self.history,
            "stop_reason": self.stop_reason,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"] = group["lr"].to(self.device)
        self.stream.seed, self.stream.step = state["stream"]["seed"], state["stream"]["step"]
        self.watch.restore(state["watch"])
        if (found := state.get("prototypes")) is not None:
            self.prototypes = Prototypes(*(tensor.to(self.device) for tensor in found))
        self.history = list(state["history"])
        self.stop_reason = state["stop_reason"]


def _message(values: Mapping[str, float]) -> str:
    parts = [f"loss {values['loss']:.4f}", f"{values['clusters']:.0f} clusters"]
    if "nmi" in values:
        parts.append(f"NMI with the epoch before {values['nmi']:.3f}")
    if "bytes_per_step" in values:
        parts.append(f"{values['bytes_per_step'] / 1e6:.3g} MB exchanged a step")
    return ", ".join(parts)


def _repeatable_convolutions(device: torch.device) -> AbstractContextManager[Any]:
    """On a GPU: the same convolution algorithms in every run."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=torch.backends.cudnn.allow_tf32
    )


def _tensorboard(log_dir: str | os.PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "`log_dir` needs the package tensorboard; install it with `pip install spectrafuse[tensorboard]`."
        ) from error
    return SummaryWriter(os.fspath(log_dir))
