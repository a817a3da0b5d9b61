"""Local mean shift and soft assignment as published: every window is copied out in every iteration.

Source: arXiv 2512.24172, unrolled mean shift, with the public code's details: zero vectors outside the image
are neighbours, and the moving point enters the weights detached.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT_EPS = 1e-6


def assign(shifted: Tensor, centers: Tensor, temperature: float) -> Tensor:
    """Soft assignment of every pixel to the centers by cosine similarity.

    Parameters
    ----------
    shifted : Tensor (B, D, H, W)
        Normalised here, over D.
    centers : Tensor (K, D)
        Used as they are.
    temperature : float
        Divides the similarities before the softmax.

    Returns
    -------
    Tensor (B, H, W, K)
        Probabilities that sum to 1 over K.
    """
    batch, dim, height, width = shifted.shape
    rows = shifted.reshape(batch, dim, height * width).permute(0, 2, 1)
    similarity = F.normalize(rows, p=2, dim=-1) @ centers.t()
    return F.softmax(similarity / temperature, dim=-1).reshape(batch, height, width, centers.shape[0])


def mean_shift_assign(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    *,
    num_iters: int,
    window: int,
    temperature: float,
    eps: float = WEIGHT_EPS,
) -> tuple[Tensor, Tensor]:
    """Move every pixel's embedding towards the mode of its window, then assign it to the centers.

    Parameters
    ----------
    embeddings : Tensor (B, D, H, W)
    centers : Tensor (K, D)
    bandwidth : Tensor ()
        Width of the Gaussian weights, positive.
    num_iters : int
        Iterations; gradients pass through the last one only.
    window : int
        Odd side length of the window around a pixel.
    temperature : float
    eps : float
        Added to the sum of the weights.

    Returns
    -------
    shifted : Tensor (B, D, H, W)
        Not normalised.
    probs : Tensor (B, H, W, K)
    """
    batch, dim, height, width = embeddings.shape
    pixels = height * width
    point = embeddings.reshape(batch, dim, pixels).permute(0, 2, 1)
    for _ in range(num_iters):
        columns = F.unfold(embeddings, kernel_size=window, padding=window // 2)
        patches = columns.view(batch, dim, window * window, pixels).permute(0, 3, 2, 1)
        difference = patches - point.detach().unsqueeze(2)
        squared_distance = (difference * difference).sum(-1)
        weights = torch.exp(-squared_distance / (2 * bandwidth**2))
        weighted_sum = (weights.unsqueeze(-1) * patches).sum(2)
        point = weighted_sum / (weights.sum(2, keepdim=True) + eps)
    shifted = point.permute(0, 2, 1).reshape(batch, dim, height, width)
    return shifted, assign(shifted, centers, temperature)
