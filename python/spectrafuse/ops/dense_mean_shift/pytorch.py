"""All-pairs mean shift in plain PyTorch; the N x N weights exist for one sample and iteration at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

WEIGHT_EPS = 1e-6
"""Added to the sum of the weights."""


def _shift(point: Tensor, inverse: Tensor) -> Tensor:
    """One iteration for the rows (N, D) of one sample; `inverse` is 1 / (2 bandwidth^2)."""
    # Distances do not depend on the origin: around the mean fewer digits cancel in |a|^2 + |b|^2 - 2 ab.
    centered = point - point.detach().mean(0)
    scaled_norm = inverse * (centered * centered).sum(1, keepdim=True)
    one = torch.ones_like(scaled_norm)
    # The exponent as one product of rows (2 s z, -s |z|^2, 1) and (z, 1, -s |z|^2): a single N x N tensor.
    left = torch.cat((2 * inverse * centered, -scaled_norm, one), dim=1)
    right = torch.cat((centered, one, -scaled_norm), dim=1)
    weights = (left @ right.t()).exp_()
    totals = weights @ torch.cat((point, one), dim=1)
    return totals[:, :-1] / (totals[:, -1:] + WEIGHT_EPS)


def dense_mean_shift(embeddings: Tensor, bandwidth: Tensor, *, num_iters: int) -> Tensor:
    """Move all N pixels of an image towards the modes of their embeddings.

    Every iteration measures the distances between the moved embeddings; gradients pass through all
    iterations, whose weights are computed again in the backward pass.

    Parameters
    ----------
    embeddings : Tensor (B, D, H, W)
        float64, float32, or a narrower float, for which everything is computed in float32.
    bandwidth : Tensor ()
        Width of the Gaussian weights, positive.
    num_iters : int

    Returns
    -------
    Tensor (B, D, H, W)
        Not normalised.
    """
    batch, dim, height, width = embeddings.shape
    working = embeddings.dtype if embeddings.dtype == torch.float64 else torch.float32
    inverse = 0.5 / bandwidth.to(working) ** 2
    samples = []
    for sample in embeddings.to(working).reshape(batch, dim, height * width).unbind():
        point = sample.t()
        for _ in range(num_iters):
            point = checkpoint(_shift, point, inverse, use_reentrant=False, preserve_rng_state=False)
        samples.append(point.t())
    shifted = torch.stack(samples) if samples else embeddings
    return shifted.reshape(batch, dim, height, width).to(embeddings.dtype)
