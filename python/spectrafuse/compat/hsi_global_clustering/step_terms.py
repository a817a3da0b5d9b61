"""The losses of a training step, by one operation or by the model's own methods, and when it is which."""

from __future__ import annotations

from collections import UserDict
from collections.abc import MutableMapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse import ops
from spectrafuse._runtime.hooks import has_hooks
from spectrafuse.compat.hsi_global_clustering.crops import Crops, embed, replaced, side_by_side, why_one_by_one
from spectrafuse.compat.hsi_global_clustering.module.clustering import UnrolledMeanShift, equally_frequent_labels

__all__ = ["COMPUTES", "Assigned", "lay_out", "step_losses", "takes_together", "why_separate_losses"]

COMPUTES = (
    "forward",
    "_shift",
    "bandwidth",
    "compute_compactness_loss",
    "compute_orthogonality_loss",
    "compute_balance_loss",
    "compute_uniform_assignment_loss",
    "compute_consistency_loss",
)
"""What the mean shift and the losses are computed with; `spectrafuse.patch` gives it to the published class."""

Terms = tuple[dict[str, Tensor], MutableMapping[str, Tensor]]
"""The losses by name, and shifted embeddings and assignments."""


class Assigned(UserDict[str, Tensor]):
    """`z1`, `p1`, `z2`, `p2` of a step, computed when one of them is first read.

    Attributes
    ----------
    mass : Tensor (K,)
        Sum of the assignments over both views.
    sums : Tensor (K, D)
        Sums of the shifted embeddings weighted by them, in the published pairing (by the order of memory).
    """

    def __init__(
        self,
        embeddings: Tensor,
        centers: Tensor,
        bandwidth: Tensor,
        options: dict[str, Any],
        mass: Tensor,
        sums: Tensor,
    ) -> None:
        self._inputs, self._options = (embeddings, centers, bandwidth), options
        self._with_gradient = torch.is_grad_enabled()
        self.mass, self.sums = mass, sums

    @cached_property
    def data(self) -> dict[str, Tensor]:  # type: ignore[override]
        """What a `UserDict` keeps its values in."""
        with torch.set_grad_enabled(self._with_gradient):
            shifted, probs = ops.mean_shift_assign(*self._inputs, **self._options)
            (z1, z2), (p1, p2) = shifted.chunk(2), probs.chunk(2)
        return {"z1": z1, "p1": p1, "z2": z2, "p2": p2}

    @property
    def unread(self) -> bool:
        """Whether nobody has read the values, or could have changed them."""
        return "data" not in vars(self)


def why_separate_losses(model: Any) -> str | None:
    """Why `train_step` calls the mean shift and the methods of the losses one by one, which takes longer.

    Parameters
    ----------
    model : HyperspectralClusteringModel

    Returns
    -------
    str or None
        A sentence; None: `ops.clustering_objective` computes all of them at once.
    """
    cluster = model.cluster
    name = replaced(cluster, UnrolledMeanShift, ("__call__", *COMPUTES))
    if name is not None:
        return f"{type(cluster).__name__} has its own {name}."
    if has_hooks(cluster) or nn.modules.module._has_any_global_hook():
        return "A hook on `cluster`, or on all modules, has to be called."
    if not cluster.use_approx:
        return "All pixels are neighbors (`use_approx=False`); it takes a window."
    if cluster.num_iters == 0:
        return "The embeddings are not shifted (`num_iters=0`)."
    if len({tensor.dtype for tensor in (*model.parameters(), cluster.log_bandwidth)}) > 1:
        return "The parameters are of several types."
    return None


def takes_together(model: Any) -> bool:
    """Whether a step of `model` takes both crops together: nothing of the caller's forbids it."""
    return why_separate_losses(model) is None and why_one_by_one(model) is None


def lay_out(model: Any, first: Tensor, second: Tensor, before: Crops | None = None) -> Crops:
    """Two crops (B, C, h, w) as a step of `model` is fastest on them, in the memory of a step `before` if it fits."""
    return side_by_side(model.encoder, first, second, before) if takes_together(model) else (first, second)


def step_losses(
    model: Any,
    crops: Crops,
    lambda_unif: float | None = None,
    lambda_orth: float | None = None,
    lambda_bal: float | None = None,
    lambda_cons: float | None = None,
) -> tuple[Tensor, dict[str, Tensor], MutableMapping[str, Tensor]]:
    """`train_step` of `HyperspectralClusteringModel` on crops as `lay_out` gives them."""
    unif_weight = model.lambda_unif if lambda_unif is None else lambda_unif
    orth_weight = model.lambda_orth if lambda_orth is None else lambda_orth
    bal_weight = model.lambda_bal if lambda_bal is None else lambda_bal
    cons_weight = model.lambda_cons if lambda_cons is None else lambda_cons
    cluster = model.cluster
    if isinstance(crops, Tensor):
        losses, moved = _joint_terms(cluster, embed(model.encoder, crops))
    else:
        first, second = (model.encoder(crop) for crop in crops)
        alike = first.shape == second.shape and first.dtype == cluster.cluster_centers.dtype
        if alike and why_separate_losses(model) is None:
            losses, moved = _joint_terms(cluster, torch.cat((first, second)))
        else:
            losses, moved = _separate_terms(cluster, first, second)
    total = losses["comp1"] + losses["comp2"] + unif_weight * losses["unif"] + orth_weight * losses["orth"]
    return total + bal_weight * losses["bal"] + cons_weight * losses["cons"], losses, moved


def _joint_terms(cluster: Any, embeddings: Tensor) -> Terms:
    """The terms of embeddings (2B, D, h, w) of both views by one operation, in their type also under autocast."""
    pixels = embeddings.numel() // embeddings.shape[1] // 2
    device = embeddings.device
    # A copy: an optimizer may have moved the centers when the assignments are read.
    centers, bandwidth = cluster.cluster_centers.clone(), cluster.bandwidth
    options: dict[str, Any] = {
        "num_iters": cluster.num_iters,
        "window": cluster.kernel_size,
        "temperature": cluster.temp,
    }
    labels = [equally_frequent_labels(pixels, len(centers), device) for _ in range(2)]
    with torch.autocast(device.type, enabled=False):
        terms = ops.clustering_objective(
            embeddings,
            centers,
            bandwidth,
            None,
            aligned=False,
            pseudo_labels=torch.stack(labels),
            memory_order_sums=True,
            return_probs=False,
            **options,
        )
    comp1, comp2 = terms.compactness.unbind()
    losses = {
        "comp1": comp1,
        "comp2": comp2,
        "unif": terms.uniform,
        "orth": terms.orthogonality,
        "bal": terms.balance,
        "cons": terms.consistency,
    }
    return losses, Assigned(embeddings, centers, bandwidth, options, terms.mass, terms.sums)


def _separate_terms(cluster: Any, first: Tensor, second: Tensor) -> Terms:
    """The same by the methods of `cluster`, whatever a caller has made of them."""
    views = (first, second)
    assigned = [cluster(z, return_probs=True) for z in views]
    rows = [z.flatten(2).transpose(1, 2) for z in views]
    probs = [p.flatten(1, 2) for _, p in assigned]
    comp1, comp2 = (cluster.compute_compactness_loss(z, p) for z, p in zip(rows, probs, strict=True))
    unif1, unif2 = (cluster.compute_uniform_assignment_loss(p) for p in probs)
    orth = cluster.compute_orthogonality_loss()
    bal1, bal2 = (cluster.compute_balance_loss(p) for p in probs)
    losses = {
        "comp1": comp1,
        "comp2": comp2,
        "unif": (unif1 + unif2) / 2,
        "orth": orth,
        "bal": (bal1 + bal2) / 2,
        "cons": cluster.compute_consistency_loss(*probs),
    }
    (z1, p1), (z2, p2) = assigned
    return losses, {"z1": z1, "p1": p1, "z2": z2, "p2": p2}
