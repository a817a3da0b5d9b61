"""The loss of one training step, put together as a recipe says (docs/algorithms/dgc.md, "Losses")."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.dgc.training.shared_objective import SharedTerms, shared_terms
from spectrafuse.ops.clustering_objective import clustering_objective
from spectrafuse.ops.spectral_compactness import spectral_compactness
from spectrafuse.random import RandomStream

TERMS = ("compactness", "uniform", "orthogonality", "balance", "consistency", "spectral")


class StepObjective(NamedTuple):
    """What a step minimises, and what the centre update needs; of a batch that is shared, this process's part of it."""

    total: Tensor
    """() with gradient."""
    terms: Tensor
    """(7,) detached: the total, then the terms in the order of `TERMS`, without their weights."""
    mass: Tensor
    """(K,) detached."""
    sums: Tensor
    """(K, D) detached."""


def random_labels(n_pixels: int, n_clusters: int, stream: RandomStream) -> Tensor:
    """Equally frequent random labels of both views, (2, n_pixels) int64 on the CPU."""
    base = n_pixels // n_clusters
    labels = torch.cat((torch.arange(n_clusters).repeat_interleave(base), torch.arange(n_pixels - base * n_clusters)))
    return torch.stack([labels[stream.permutation(n_pixels, device="cpu")] for _ in range(2)])


def step_objective(
    model: SegmentationModel,
    batch: CropBatch,
    recipe: Recipe,
    *,
    uniform_weight: float | Tensor,
    pseudo_labels: Tensor | None,
    autocast: torch.dtype | None = None,
) -> StepObjective:
    """The loss of a batch of crop pairs; pixels without data take no part in it.

    Parameters
    ----------
    batch : CropBatch
        All on the model's device, the geometry too where the recipe aligns.
    uniform_weight : float or Tensor ()
        Weight of the uniform term now; a recipe may fade it.
    pseudo_labels : Tensor (2, B h w) int64 or None
        Labels of the uniform term; needed where `uniform_weight` is not 0.
    autocast : torch.dtype, optional
        The encoder's convolutions run in this type; everything after them stays in float32.
    """
    device = batch.padded.device.type
    # The cache of narrowed weights would outlive the capture of a CUDA graph; every weight is used once.
    with torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None, cache_enabled=False):
        embeddings = model.encoder(batch.padded)
    terms = clustering_objective(
        embeddings,
        model.centers,
        model.bandwidth,
        batch.geometry if recipe.aligned else None,
        num_iters=model.num_iters,
        window=model.window,
        temperature=model.temperature,
        aligned=recipe.aligned,
        pseudo_labels=None if ranks.together() else pseudo_labels,
        memory_order_sums=recipe.memory_order_sums,
        dense=model.dense,
        valid=batch.valid,
        return_probs=recipe.spectral > 0 or ranks.together(),
    )
    if ranks.together():
        parts = shared_terms(terms, batch.views if recipe.spectral else None, batch.valid, pseudo_labels)
    else:
        compactness = terms.compactness.sum()
        spectral = torch.zeros_like(compactness)
        if recipe.spectral:
            spectral = spectral_compactness(batch.views, terms.probs, batch.valid)
        parts = SharedTerms(compactness, *terms[1:5], spectral)
    balance_weight = -recipe.balance if recipe.maximise_balance else recipe.balance
    total = (
        parts.compactness
        + uniform_weight * parts.uniform
        + recipe.orthogonality * parts.orthogonality
        + balance_weight * parts.balance
        + recipe.consistency * parts.consistency
        + recipe.spectral * parts.spectral
    )
    return StepObjective(total, torch.stack([x.detach() for x in (total, *parts)]), terms.mass, terms.sums)
