"""The published model's name, arguments, training step and files on `spectrafuse.dgc` and `spectrafuse.ops`."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse.compat.hsi_global_clustering.module import HyperspectralEncoder, UnrolledMeanShift
from spectrafuse.compat.hsi_global_clustering.step_terms import lay_out, step_losses
from spectrafuse.compat.hsi_global_clustering.utils import load_safetensors, save_as_safetensors
from spectrafuse.dgc.encoder import Encoder
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.model_io import CONFIG_FILE, WEIGHTS_FILE
from spectrafuse.dgc.prediction.inference import DEFAULT_MEMORY, halo_rows, plan_strips, strip_height
from spectrafuse.io.atomic import atomic_write

__all__ = ["HyperspectralClusteringModel"]

_DEFAULT_CLUSTERS = inspect.signature(UnrolledMeanShift).parameters["n_clusters"].default


class HyperspectralClusteringModel(SegmentationModel):
    """Encoder and mean shift with the published training step and files.

    Parameters
    ----------
    num_bands : int
        Bands C of the cubes.
    encoder_kwargs, mean_shift_kwargs : dict, optional
        Arguments of `HyperspectralEncoder` and `UnrolledMeanShift`.
    loss_weights : dict, optional
        Weights `orth`, `bal`, `unif`, `cons` of the losses, 1.0 where not named.

    Notes
    -----
    It is a `spectrafuse.dgc.SegmentationModel` and goes wherever one does; parameters carry the published names, in
    the published order.
    """

    encoder: HyperspectralEncoder
    cluster: UnrolledMeanShift

    def __init__(
        self,
        num_bands: int = 301,
        encoder_kwargs: dict[str, Any] | None = None,
        mean_shift_kwargs: dict[str, Any] | None = None,
        loss_weights: dict[str, float] | None = None,
    ) -> None:
        # Not SegmentationModel's own initialization: both parts draw from torch's global generator here.
        nn.Module.__init__(self)
        self._init_args: dict[str, Any] = {
            "num_bands": num_bands,
            "encoder_kwargs": dict(encoder_kwargs or {}),
            "mean_shift_kwargs": dict(mean_shift_kwargs or {}),
            "loss_weights": dict(loss_weights or {}),
        }
        self.encoder = HyperspectralEncoder(num_bands, **self._init_args["encoder_kwargs"])
        self.cluster = UnrolledMeanShift(**self._init_args["mean_shift_kwargs"])
        weights = dict.fromkeys(("orth", "bal", "unif", "cons"), 1.0) | self._init_args["loss_weights"]
        self.lambda_orth = weights["orth"]
        self.lambda_bal = weights["bal"]
        self.lambda_unif = weights["unif"]
        self.lambda_cons = weights["cons"]

    # What SegmentationModel keeps itself lies in the published parts here, where users look for it and change it.

    @property
    def num_iters(self) -> int:  # type: ignore[override]
        """Mean-shift iterations."""
        return self.cluster.num_iters

    @property
    def window(self) -> int:  # type: ignore[override]
        """Side of the mean shift's window in pixels."""
        return self.cluster.kernel_size

    @property
    def temperature(self) -> float:  # type: ignore[override]
        """Temperature of the assignment."""
        return self.cluster.temp

    @property
    def dense(self) -> bool:  # type: ignore[override]
        """Whether all pixels are neighbors."""
        return not self.cluster.use_approx

    @property
    def loss_weights(self) -> dict[str, float]:  # type: ignore[override]
        """Weights as given to the model."""
        return self._init_args["loss_weights"]

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that build this model, with the number of clusters there are now: `config.json`."""
        arguments = {name: dict(value) if isinstance(value, dict) else value for name, value in self._init_args.items()}
        shift = arguments["mean_shift_kwargs"]
        if shift.get("n_clusters", _DEFAULT_CLUSTERS) != self.cluster.n_clusters:
            shift["n_clusters"] = self.cluster.n_clusters
        return arguments

    def assign(self, embeddings: Tensor) -> Any:
        """Shifted embeddings and assignments of embeddings (B, D, H, W)."""
        return self.cluster(embeddings, return_probs=True)

    def forward(  # type: ignore[override]
        self, x: Tensor, return_probs: bool = False, return_labels: bool = False
    ) -> tuple[Tensor, ...]:
        """Shifted embeddings (B, D, H, W) of cubes (B, C, H, W), and what else is asked for, in a tuple."""
        outputs = self.cluster(self.encoder(x), return_probs=return_probs, return_labels=return_labels)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def train_step(
        self,
        crop1: Tensor,
        crop2: Tensor,
        lambda_unif: float | None = None,
        lambda_orth: float | None = None,
        lambda_bal: float | None = None,
        lambda_cons: float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], MutableMapping[str, Tensor]]:
        """The published loss of two views (docs/algorithms/dgc.md, "Losses").

        Parameters
        ----------
        crop1, crop2 : Tensor (B, C, h, w)
        lambda_unif, lambda_orth, lambda_bal, lambda_cons : float, optional
            Replace the model's weights.

        Returns
        -------
        Tensor ()
            The total, with gradient.
        dict
            `comp1`, `comp2`, `unif`, `orth`, `bal`, `cons`: the terms without their weights.
        mapping
            `z1`, `z2` (B, D, h, w), `p1`, `p2` (B, h, w, K): shifted embeddings and assignments, computed when they are
            first read, with the values and the gradient of this step.

        Notes
        -----
        Convolutions run on both views together and one operation gives all terms, unless something of the caller's
        has to be called in between: `crops.why_one_by_one` and `step_terms.why_separate_losses` say what.
        """
        return step_losses(self, lay_out(self, crop1, crop2), lambda_unif, lambda_orth, lambda_bal, lambda_cons)

    @torch.no_grad()
    def inference(self, x: Tensor) -> Tensor:
        """Most probable cluster of every pixel, (B, H, W), in evaluation mode.

        Cubes that need much memory are taken in strips of rows, with the neighbor rows that make the labels those of
        the whole cubes.
        """
        training = self.training
        self.eval()
        try:
            return self.labels(x)
        finally:
            self.train(training)

    @torch.no_grad()
    def labels(self, cubes: Tensor) -> Tensor:
        """Most probable cluster of every pixel, (B, H, W) int64."""
        height, width = cubes.shape[2:]
        rows = height
        # How far an encoder of the caller's looks is not known.
        own_encoder = getattr(self.encoder.forward, "__func__", None) is Encoder.forward
        if own_encoder and not self.dense:
            rows = strip_height(self, width, max(1, DEFAULT_MEMORY // max(1, cubes.shape[0])))
        if rows >= height:
            return self.cluster(self.encoder(cubes), return_labels=True)[-1]
        out = cubes.new_empty((cubes.shape[0], height, width), dtype=torch.int64)
        for strip in plan_strips(height, rows, halo_rows(self, width)):
            block = self.encoder(cubes[:, :, strip.first : strip.last])
            labels = self.cluster(block, return_labels=True)[-1]
            out[:, strip.start : strip.stop] = labels[:, strip.start - strip.first : strip.stop - strip.first]
        return out

    def save(self, path: str) -> None:
        """Write `config.json` and `weights.safetensors` into the folder `path`, which is made if it is missing."""
        with atomic_write(os.path.join(path, CONFIG_FILE)) as temporary:
            temporary.write_text(json.dumps(self.config, indent=2), encoding="utf-8")
        save_as_safetensors(self.state_dict(), os.path.join(path, WEIGHTS_FILE))

    @classmethod
    def load(
        cls, path: str, device: str | torch.device = "cpu", **override_init_args: Any
    ) -> HyperspectralClusteringModel:
        """The model of a folder, on `device`; keyword arguments replace what its `config.json` says."""
        with open(os.path.join(path, CONFIG_FILE), encoding="utf-8") as file:
            arguments = json.load(file)
        model = cls(**(arguments | override_init_args))
        model.load_state_dict(load_safetensors(os.path.join(path, WEIGHTS_FILE), device=device))
        return model.to(device)
