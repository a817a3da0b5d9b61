"""One training step as published: two forward passes, one backward pass, center update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrafuse.benchmarks.published.encoder import encode
from spectrafuse.dgc.training.centers import update_centers
from spectrafuse.ops.clustering_objective.reference import (
    balance,
    compactness,
    consistency,
    memory_order_rows,
    orthogonality,
    uniform_assignment,
)
from spectrafuse.ops.mean_shift_assign.reference import mean_shift_assign

ENCODER_PREFIX = "encoder."


def forward(
    parameters: Mapping[str, Tensor],
    views: tuple[Tensor, Tensor],
    pseudo_labels: Tensor,
    weights: Mapping[str, float],
    *,
    num_iters: int = 5,
    window: int = 5,
    temperature: float = 0.05,
) -> tuple[Tensor, dict[str, Tensor], list[Tensor], list[Tensor]]:
    """Losses of two views.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        `encoder.*` as `reference.encoder.encode` takes them, `cluster.log_bandwidth` (),
        `cluster.cluster_centers` (K, D).
    views : two Tensors (B, C, h, w)
    pseudo_labels : Tensor (2, B h w) of int64
    weights : mapping of str to float
        Of the terms "unif", "orth", "bal" and "cons"; both compactness terms have weight 1.
    num_iters, window, temperature
        As in `reference.mean_shift_assign`.

    Returns
    -------
    total : Tensor ()
    terms : dict of str to Tensor ()
        "comp1", "comp2", "unif", "orth", "bal", "cons".
    shifted : two Tensors (B, D, h, w)
    probs : two Tensors (B, h, w, K)
    """
    encoder = {
        name[len(ENCODER_PREFIX) :]: value for name, value in parameters.items() if name.startswith(ENCODER_PREFIX)
    }
    centers = parameters["cluster.cluster_centers"]
    embeddings = [encode(view, encoder) for view in views]
    batch, dim, height, width = embeddings[0].shape
    shifted, probs = [], []
    for embedding in embeddings:
        moved, assignment = mean_shift_assign(
            embedding,
            centers,
            F.softplus(parameters["cluster.log_bandwidth"]),
            num_iters=num_iters,
            window=window,
            temperature=temperature,
        )
        shifted.append(moved)
        probs.append(assignment)
    rows = [e.reshape(batch, dim, height * width).permute(0, 2, 1) for e in embeddings]
    flat = [q.reshape(batch, height * width, -1) for q in probs]
    uniform = [uniform_assignment(q, labels) for q, labels in zip(flat, pseudo_labels, strict=True)]
    terms = {
        "comp1": compactness(rows[0], flat[0], centers),
        "comp2": compactness(rows[1], flat[1], centers),
        "unif": (uniform[0] + uniform[1]) / 2,
        "orth": orthogonality(centers),
        "bal": (balance(flat[0]) + balance(flat[1])) / 2,
        "cons": consistency(flat[0], flat[1]),
    }
    total = terms["comp1"] + terms["comp2"]
    for name in ("unif", "orth", "bal", "cons"):
        total = total + weights[name] * terms[name]
    return total, terms, shifted, probs


def train_step(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    views: tuple[Tensor, Tensor],
    pseudo_labels: Tensor,
    kick_noise: Tensor,
    weights: Mapping[str, float],
    *,
    decay: float = 0.99,
    kick: float = 0.05,
    max_norm: float = 1.0,
    num_iters: int = 5,
    window: int = 5,
    temperature: float = 0.05,
) -> dict[str, Tensor]:
    """Train on two views, in place.

    Parameters
    ----------
    parameters : mapping of str to Tensor
        As in `forward`; leaves with gradient, the ones the optimizer steps.
    optimizer : torch.optim.Optimizer
        AdamW in the public code.
    views : two Tensors (B, C, h, w)
    pseudo_labels : Tensor (2, 2, B h w) of int64
        Per forward pass and view; the public code draws new ones for the second pass.
    kick_noise : Tensor (K, D)
        Standard normal numbers for centers without mass.
    weights : mapping of str to float
        As in `forward`.
    decay, kick : float
        Of the center update.
    max_norm : float
        Bound on the norm of the whole gradient.
    num_iters, window, temperature
        As in `reference.mean_shift_assign`.

    Returns
    -------
    dict of str to Tensor ()
        The terms and "total" of the second pass, which is the one the public code logs.

    Notes
    -----
    Source: the public code of arXiv 2512.24172, training loop in full precision.
    """
    options: dict[str, Any] = {"num_iters": num_iters, "window": window, "temperature": temperature}
    optimizer.zero_grad()
    total, _, _, _ = forward(parameters, views, pseudo_labels[0], weights, **options)
    total.backward()
    torch.nn.utils.clip_grad_norm_(list(parameters.values()), max_norm)
    optimizer.step()
    with torch.no_grad():
        total, terms, shifted, probs = forward(parameters, views, pseudo_labels[1], weights, **options)
        centers = parameters["cluster.cluster_centers"]
        rows = torch.cat([memory_order_rows(moved) for moved in shifted])
        assignments = torch.cat([q.reshape(-1, q.shape[-1]) for q in probs])
        sums = assignments.t() @ rows
        centers.copy_(update_centers(centers, assignments.sum(dim=0), sums, decay, kick, kick_noise))
    return {**terms, "total": total}
