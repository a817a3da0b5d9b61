"""The published trainer's name, arguments, attributes, printed lines and files."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Dataset

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.compat.hsi_global_clustering._batches import crop_and_stack, pad_and_stack
from spectrafuse.compat.hsi_global_clustering._reporting import make_writer, print_epoch_summary
from spectrafuse.compat.hsi_global_clustering._scores import align_automatically, align_by_hand, published_scores
from spectrafuse.compat.hsi_global_clustering.crops import Crops, as_views, replaced, room_for_both
from spectrafuse.compat.hsi_global_clustering.eval import (
    area_rmse,
    cluster_entropy,
    dice_score,
    iou_score,
    normalized_mutual_information,
    variation_of_information,
)
from spectrafuse.compat.hsi_global_clustering.hsi_clustering import HyperspectralClusteringModel
from spectrafuse.compat.hsi_global_clustering.hsi_processing import AugmentationPipeline, cut_views
from spectrafuse.compat.hsi_global_clustering.step_terms import Assigned, lay_out, step_losses, takes_together
from spectrafuse.compat.hsi_global_clustering.utils import LinearWarmupDecayScheduler
from spectrafuse.dgc.training.centers import update_centers

__all__ = ["HSIClusteringTrainer"]

_WEIGHTS = ("lambda_unif", "lambda_orth", "lambda_bal", "lambda_cons")


def set_seed(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, as published."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  callers' transforms may draw from it
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def _fading(value: float, epochs: int) -> LinearWarmupDecayScheduler:
    return LinearWarmupDecayScheduler(value, value, 0.0, warmup_steps=0, total_steps=epochs)


class HSIClusteringTrainer:
    """Trains, validates and applies a model (docs/algorithms/dgc.md, "Training").

    Parameters
    ----------
    train_dataset, val_dataset : Dataset or None
        Cubes (C, H, W) or pairs of a cube and a label map (H, W). Without the second, the first is validated on.
    augmentor : callable
        Cubes (B, C, H, W) to views (B, 2, C, h, w).
    model : nn.Module, optional
        Built from `model_kwargs` where it is not given.
    device : torch.device
    optimizer_cls, optimizer_kwargs, optim_scheduler_cls, optim_scheduler_kwargs
        Classes and their keyword arguments; the scheduler moves once per epoch.
    loss_weight_scheduling : dict
        Which of the weights `lambda_unif`, `lambda_orth`, `lambda_bal`, `lambda_cons` fade to 0.
    ema_decay, ema_kick, ema_kick_scheduling
        Of the center update: share of the old center, push of clusters without mass, whether it fades to 0.
    batch_size, num_workers, num_epochs, reuse_iter : int
        Cubes per batch, reading processes, epochs, steps per batch.
    grad_clip : float
        Largest norm of the gradient.
    precision : str
        "fp32", or anything else for bfloat16 autocast, on a GPU as well.
    seed : int
        Of the global generators.
    log_dir, ckpt_dir : str
        Folders of the TensorBoard logs and of the checkpoints `epoch_<n>` and `final`.
    save_interval, eval_interval, log_interval : int
        Epochs, epochs and steps between checkpoints (0: the last only), validations and logged losses.
    early_stopping, early_stopping_patience, early_stopping_metric
        Stop when the metric, a function of a dict with `NMI`, `VI` and `entropy`, has not grown in so many validations.
    """

    _crops: Crops | None = None

    def __init__(
        self,
        train_dataset: Dataset | None,
        val_dataset: Dataset | None = None,
        augmentor: Callable[[Tensor], Tensor] | None = None,
        model: nn.Module | None = None,
        model_kwargs: dict[str, Any] = {},  # noqa: B006  as published, and never changed
        device: torch.device = torch.device("cpu"),  # noqa: B008
        optimizer_cls: Callable[..., Any] = optim.AdamW,
        optimizer_kwargs: dict[str, Any] = {"lr": 1e-4},  # noqa: B006
        optim_scheduler_cls: Callable[..., Any] | None = None,
        optim_scheduler_kwargs: dict[str, Any] = {},  # noqa: B006
        loss_weight_scheduling: dict[str, bool] = {  # noqa: B006
            "lambda_unif": True,
            "lambda_orth": False,
            "lambda_bal": False,
            "lambda_cons": False,
        },
        ema_decay: float = 0.99,
        ema_kick: float = 0.05,
        ema_kick_scheduling: bool = True,
        batch_size: int = 4,
        num_workers: int = 8,
        num_epochs: int = 10,
        reuse_iter: int = 10,
        grad_clip: float = 1.0,
        precision: str = "bf16",
        seed: int = 42,
        log_dir: str = "./runs",
        ckpt_dir: str = "./checkpoints",
        save_interval: int = 1,
        eval_interval: int = 1,
        log_interval: int = 10,
        early_stopping: bool = False,
        early_stopping_patience: int = 10,
        early_stopping_metric: Callable[[dict[str, float]], float] | None = None,
    ) -> None:
        set_seed(seed)
        self.device = torch.device(device)
        self.model: Any = (HyperspectralClusteringModel(**model_kwargs) if model is None else model).to(self.device)
        self.precision = precision
        self.augmentor = augmentor

        def loader(dataset: Dataset, collate: Callable[..., Any], size: int, shuffle: bool) -> DataLoader:
            return DataLoader(
                dataset,
                batch_size=size,
                shuffle=shuffle,
                num_workers=num_workers,
                pin_memory=self.device.type == "cuda",
                collate_fn=collate,
            )

        self.train_loader = None
        if train_dataset is not None:
            self.train_loader = loader(train_dataset, pad_and_stack, batch_size, True)
        self.val_loader = None
        if val_dataset is not None:
            self.val_loader = loader(val_dataset, pad_and_stack, 1, False)
        elif train_dataset is not None:
            self.val_loader = loader(train_dataset, crop_and_stack, 1, False)

        self.optimizer = optimizer_cls(self.model.parameters(), **optimizer_kwargs)
        self.optim_scheduler = None
        if optim_scheduler_cls:
            self.optim_scheduler = optim_scheduler_cls(self.optimizer, **optim_scheduler_kwargs)

        unknown = sorted(set(loss_weight_scheduling) - set(_WEIGHTS))
        if unknown:
            raise InvalidValueError(
                f"`loss_weight_scheduling` knows {', '.join(_WEIGHTS)}; got {', '.join(unknown)} as well."
            )
        self.loss_weight_scheduling = loss_weight_scheduling
        self.loss_weight_scheduler = {
            name: _fading(getattr(self.model, name), num_epochs) if loss_weight_scheduling.get(name) else None
            for name in _WEIGHTS
        }
        self.batch_size = batch_size
        self.num_epochs = num_epochs
        self.reuse_iter = reuse_iter
        self.ema_decay = ema_decay
        self.ema_kick = ema_kick
        self.grad_clip = grad_clip
        self.ema_kick_scheduling = ema_kick_scheduling
        self.ema_kick_scheduler = _fading(ema_kick, num_epochs) if ema_kick_scheduling else None

        self.writer = make_writer(os.path.join(log_dir, time.strftime("%Y%m%d_%H%M%S")))
        os.makedirs(ckpt_dir, exist_ok=True)
        self.ckpt_dir = ckpt_dir
        self.save_interval = save_interval
        self.eval_interval = eval_interval
        self.log_interval = log_interval
        self.prev_epoch_preds: list[Tensor] | None = None
        self.early_stopping = early_stopping
        self.patience = early_stopping_patience
        self.es_metric = early_stopping_metric
        self.best_metric: float | None = None
        self.no_improve = 0

    def train(self) -> None:
        """Train, write checkpoints and print a line per validated epoch; without a training dataset, say so only."""
        if self.train_loader is None:
            print("⚠️  No train_dataset provided—skipping train().")
            return
        self._run(len(self.train_loader))
        print("HSIClustering training done !!")

    def _batches(self) -> Iterator[Tensor]:
        """The cubes (B, C, H, W) of an epoch, on the device."""
        assert self.train_loader is not None
        for cubes, _ in self.train_loader:
            yield cubes.to(self.device, non_blocking=True)

    def _run(self, batches_per_epoch: int) -> None:
        weights = {name: None if s is None else s() for name, s in self.loss_weight_scheduler.items()}
        kick = self.ema_kick
        for epoch in range(1, self.num_epochs + 1):
            self.model.train()
            loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
            for batch, cubes in enumerate(self._batches(), start=1):
                for reuse in range(1, self.reuse_iter + 1):
                    loss, terms = self._step(cubes, weights, kick)
                    loss_sum += loss
                    if batch % self.log_interval == 0:
                        at = (epoch * batches_per_epoch + batch - 1) * self.reuse_iter + reuse
                        for name, value in terms.items():
                            self.writer.add_scalar(f"train/{name}", value.item(), at)
            mean_loss = loss_sum.item() / (batches_per_epoch * self.reuse_iter)
            self.writer.add_scalar("train/total_loss", mean_loss, epoch)
            if self.save_interval > 0 and epoch % self.save_interval == 0:
                self.model.save(os.path.join(self.ckpt_dir, f"epoch_{epoch}"))
                self.model.to(self.device)  # a caller's model may move itself to be saved
            if self.val_loader and epoch % self.eval_interval == 0:
                supervised, unsupervised = self._evaluate(epoch)
                print_epoch_summary(epoch, mean_loss, supervised, unsupervised, self.num_epochs)
            if self.optim_scheduler:
                self.optim_scheduler.step()
            if self.ema_kick_scheduler:
                kick = self.ema_kick_scheduler.step()
            for name, scheduler in self.loss_weight_scheduler.items():
                if scheduler is not None:
                    weights[name] = scheduler.step()
            if self.early_stopping and self.es_metric and self.no_improve >= self.patience:
                print(f"Early stopping at epoch {epoch}")
                break
        self.model.save(os.path.join(self.ckpt_dir, "final"))
        self.writer.close()

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision != "fp32")

    def _step(self, cubes: Tensor, weights: dict[str, float | None], kick: float) -> tuple[Tensor, dict[str, Tensor]]:
        """One step on fresh views; the loss and its terms after it, () each, without gradient."""
        train_step = self._train_step_on(cubes)
        self.optimizer.zero_grad()
        with self._autocast():
            loss, _, _ = train_step(**weights)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self.optimizer.step()
        with torch.no_grad(), self._autocast():
            loss, terms, moved = train_step(**weights)
        if isinstance(moved, Assigned) and moved.unread and self._has_own_update():
            self._update_centers(moved.mass, moved.sums, self.ema_decay, kick)
        else:
            self._ema_update_centroids(moved["z1"], moved["p1"], moved["z2"], moved["p2"], self.ema_decay, kick)
        return loss.detach(), terms

    def _train_step_on(self, cubes: Tensor) -> Callable[..., Any]:
        """The model's `train_step` on fresh views of cubes.

        Its own finds them laid out once for both passes, in the memory of the step before.
        """
        if self.augmentor is None:
            raise InvalidValueError(
                "`augmentor` must be given for training, an AugmentationPipeline for example; got None."
            )
        model, augmentor = self.model, cast(Any, self.augmentor)
        own_step = replaced(model, HyperspectralClusteringModel, ("train_step",)) is None
        if own_step and replaced(augmentor, AugmentationPipeline, ("__call__",)) is None and takes_together(model):
            together = room_for_both(model.encoder, cubes, augmentor.crop_size, self._crops)
            if together is not None:
                cut_views(augmentor, cubes, as_views(together, cubes.shape[1]))
                self._crops = together
                return partial(step_losses, model, together)
        views = augmentor(cubes)
        first, second = views[:, 0], views[:, 1]
        if not own_step:
            return partial(model.train_step, first, second)
        self._crops = lay_out(model, first, second, self._crops)
        return partial(step_losses, model, self._crops)

    def _has_own_update(self) -> bool:
        """Whether nobody has replaced the update of the centers."""
        own = HSIClusteringTrainer._ema_update_centroids
        return getattr(self._ema_update_centroids, "__func__", None) is own

    @torch.no_grad()
    def _ema_update_centroids(
        self,
        z1: Tensor,
        p1: Tensor,
        z2: Tensor,
        p2: Tensor,
        ema_decay: float,
        kick_scale: float,
        mass_thresh: float = 1e-3,
        eps: float = 1e-6,
    ) -> None:
        """Move the centers toward the mean embeddings of their pixels, and push those without mass at random.

        As published, embeddings (B, D, h, w) meet assignments (B, h, w, K) in the order of memory: the wrong pixels.
        """
        centers = self.model.cluster.cluster_centers
        rows = torch.cat([z.reshape(-1, z.shape[1]) for z in (z1, z2)]).to(centers.dtype)
        probs = torch.cat([p.reshape(-1, centers.shape[0]) for p in (p1, p2)]).to(centers.dtype)
        self._update_centers(probs.sum(dim=0), probs.t() @ rows, ema_decay, kick_scale, min_mass=mass_thresh, eps=eps)

    @torch.no_grad()
    def _update_centers(self, mass: Tensor, sums: Tensor, decay: float, kick: float, **limits: float) -> None:
        """Move the centers, given the mass (K,) of every cluster and the weighted sums (K, D) of its embeddings."""
        centers = self.model.cluster.cluster_centers
        noise = torch.randn_like(centers)
        centers.copy_(update_centers(centers, mass.to(centers), sums.to(centers), decay, kick, noise, **limits))

    @torch.no_grad()
    def _evaluate(self, epoch: int) -> tuple[dict[str, float] | None, dict[str, float] | None]:
        """Scores against the labels, clusters taken as labels as published, and against the last validation."""
        assert self.val_loader is not None
        self.model.eval()
        preds, scores = [], []
        for cubes, labels in self.val_loader:
            pred = self.model.inference(cubes.to(self.device)).cpu()
            preds.append(pred)
            if labels is not None:
                scores.append([score(pred, labels).item() for score in (iou_score, dice_score, area_rmse)])

        supervised = None
        if scores:
            means = [sum(column) / len(scores) for column in zip(*scores, strict=True)]
            supervised = dict(zip(("IoU", "Dice", "RMSE"), means, strict=True))
            self._log_validation(supervised, epoch)
        unsupervised = None
        if self.prev_epoch_preds is not None:
            pairs = list(zip(self.prev_epoch_preds, preds, strict=False))
            unsupervised = {
                "entropy": sum(cluster_entropy(now).item() for _, now in pairs) / len(pairs),
                "NMI": sum(normalized_mutual_information(*pair).item() for pair in pairs) / len(pairs),
                "VI": sum(variation_of_information(*pair).item() for pair in pairs) / len(pairs),
            }
            self._log_validation(unsupervised, epoch)
            if self.es_metric:
                value = self.es_metric({name: unsupervised[name] for name in ("NMI", "VI", "entropy")})
                improved = self.best_metric is None or value > self.best_metric
                self.best_metric = value if improved else self.best_metric
                self.no_improve = 0 if improved else self.no_improve + 1
        self.prev_epoch_preds = preds
        return supervised, unsupervised

    def _log_validation(self, values: dict[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"val/{name}", value, epoch)

    @torch.no_grad()
    def inference(
        self,
        dataset: Dataset,
        batch_size: int | None = None,
        num_workers: int | None = None,
        pin_memory: bool = True,
        auto_align: bool = True,
        manual_mapping: dict[int, tuple[int, ...]] | None = None,
        progress_interval: int | None = None,
    ) -> list[Tensor] | tuple[list[Tensor], dict[str, float]]:
        """Label maps of cubes of any size.

        Parameters
        ----------
        dataset : Dataset
        batch_size, num_workers, pin_memory
            Of the loader; 1 and 0 where None.
        auto_align : bool
            Rename clusters to the labels they match, whatever the numbers of both; goes before `manual_mapping`.
        manual_mapping : dict, optional
            {label: clusters}.
        progress_interval : int, optional
            Print a line after so many batches.

        Returns
        -------
        list of Tensor (B, H, W)
            The maps, alone where the dataset has no labels; else with
        dict
            `mean_IoU`, `mean_Dice` (doubled, as published), `mean_RMSE`; `IoU_class_<i>`, `Dice_class_<i>`.
        """
        loader: DataLoader = DataLoader(
            dataset,
            batch_size=batch_size or 1,
            num_workers=num_workers or 0,
            pin_memory=pin_memory and self.device.type == "cuda",
            collate_fn=pad_and_stack,
        )
        self.model.eval()
        self.model.to(self.device)
        preds, labels = [], []
        for step, (cubes, known) in enumerate(loader, start=1):
            preds.append(self.model.inference(cubes.to(self.device)).long().cpu())
            if known is not None:
                labels.append(known.long())
            if progress_interval is not None and step % progress_interval == 0:
                print(f"Inference progress: {step}/{len(loader)}")
        if not labels:
            return preds
        if auto_align:
            preds = align_automatically(preds, labels)
        elif manual_mapping is not None:
            preds = align_by_hand(preds, manual_mapping)
        return preds, published_scores(preds, labels)
