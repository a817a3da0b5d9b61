"""All-pairs mean shift as published, with an N x N tensor per step."""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHT_EPS = 1e-6
"""Added to the sum of the weights."""


def dense_mean_shift(embeddings: Tensor, bandwidth: Tensor, *, num_iters: int, eps: float = WEIGHT_EPS) -> Tensor:
    """Move all N pixels of an image towards the modes of their embeddings.

    Every iteration measures the distances between the moved embeddings; gradients pass through all
    iterations.

    Parameters
    ----------
    embeddings : Tensor (B, D, H, W)
    bandwidth : Tensor ()
        Width of the Gaussian weights, positive.
    num_iters : int
    eps : float
        Added to the sum of the weights.

    Returns
    -------
    Tensor (B, D, H, W)
        Not normalised.

    Notes
    -----
    Source: arXiv 2512.24172, unrolled mean shift; in the public code the form without local approximation.
    """
    batch, dim, height, width = embeddings.shape
    point = embeddings.reshape(batch, dim, height * width).permute(0, 2, 1)
    for _ in range(num_iters):
        squared_norm = (point**2).sum(-1, keepdim=True)
        squared_distance = squared_norm + squared_norm.transpose(1, 2) - 2 * (point @ point.transpose(1, 2))
        weights = torch.exp(-squared_distance / (2 * bandwidth**2))
        point = (weights @ point) / (weights.sum(-1, keepdim=True) + eps)
    return point.permute(0, 2, 1).reshape(batch, dim, height, width)
