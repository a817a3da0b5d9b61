"""Local mean shift and soft assignment in plain PyTorch, without any tensor of the window's size.

One neighbour offset at a time is read from the zero-padded embeddings. The moving point enters the weights
detached, so only the last iteration has a gradient; it is written by hand below, since autograd would keep
every offset's difference and product until the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

WEIGHT_EPS = 1e-6
NORM_EPS = 1e-12


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
    columns = shifted.reshape(batch, dim, height * width)
    # Dividing the K products by the norm needs no normalised copy of the embeddings.
    norm = torch.linalg.vector_norm(columns, dim=1, keepdim=True).clamp_min(NORM_EPS)
    logits = (centers @ columns) / (norm * temperature)
    return logits.transpose(1, 2).softmax(dim=-1).reshape(batch, height, width, centers.shape[0])


def _neighbors(padded: Tensor, window: int) -> Iterator[Tensor]:
    """Views (B, D, H, W) of the padded tensor, one per offset of the window."""
    height, width = padded.shape[2] - window + 1, padded.shape[3] - window + 1
    for y in range(window):
        for x in range(window):
            yield padded[:, :, y : y + height, x : x + width]


def _shift(padded: Tensor, point: Tensor, inverse: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """One iteration: the weighted mean of the neighbours, and the sum of the weights (B, 1, H, W)."""
    weighted_sum = torch.zeros_like(point)
    weight_sum = torch.full_like(point[:, :1], WEIGHT_EPS)
    difference = torch.empty_like(point)
    for neighbor in _neighbors(padded, window):
        torch.sub(neighbor, point, out=difference)
        weight = difference.square_().sum(1, keepdim=True).mul_(-inverse).exp_()
        weighted_sum.addcmul_(neighbor, weight)
        weight_sum += weight
    return weighted_sum.div_(weight_sum), weight_sum


class _LastShift(torch.autograd.Function):
    """The last iteration z' = sum_j w_j p_j / W, with w_j = exp(-s |p_j - z|^2) and W = sum_j w_j + eps.

    With g the gradient of z' and h = g / W, the gradient of w_j is h . (p_j - z'). So p_j receives
    w_j h - 2 s w_j (h . (p_j - z')) (p_j - z), and s receives -sum_ij w_j |p_j - z|^2 (h . (p_j - z')).
    The point z is a constant. Saved are the embeddings, z, z' and W.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, point: Tensor, inverse: Tensor, window: int) -> Tensor:
        shifted, weight_sum = _shift(_pad(embeddings, window), point, inverse, window)
        ctx.save_for_backward(embeddings, point, inverse, shifted, weight_sum)
        ctx.window = window
        return shifted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, point, inverse, shifted, weight_sum = ctx.saved_tensors
        padded = _pad(embeddings, ctx.window)
        grad_padded = torch.zeros_like(padded)
        grad_inverse = torch.zeros_like(inverse)
        scaled = grad / weight_sum
        # h . (p - z') is taken as h . (p - z) - h . (z' - z): both are small where p, z and z' are close, so
        # nothing is lost to cancellation in float32, and p - z is needed anyway.
        moved = (scaled * (shifted - point)).sum(1, keepdim=True)
        for neighbor, target in zip(_neighbors(padded, ctx.window), _neighbors(grad_padded, ctx.window), strict=True):
            difference = neighbor - point
            squared_distance = difference.square().sum(1, keepdim=True)
            weight = torch.exp(-inverse * squared_distance)
            grad_exponent = weight * ((scaled * difference).sum(1, keepdim=True) - moved)
            grad_inverse -= (grad_exponent * squared_distance).sum()
            target.addcmul_(scaled, weight)
            target.addcmul_(difference, grad_exponent * (-2 * inverse))
        radius = ctx.window // 2
        height, width = point.shape[2:]
        grad_embeddings = grad_padded[:, :, radius : radius + height, radius : radius + width]
        return grad_embeddings, None, grad_inverse, None


def _pad(embeddings: Tensor, window: int) -> Tensor:
    radius = window // 2
    return F.pad(embeddings, (radius, radius, radius, radius))


def mean_shift_assign(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    *,
    num_iters: int,
    window: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Move every pixel's embedding towards the mode of its window, then assign it to the centers.

    Parameters
    ----------
    embeddings : Tensor (B, D, H, W)
        float64, float32, or a narrower float, for which everything is computed in float32.
    centers : Tensor (K, D)
    bandwidth : Tensor ()
        Width of the Gaussian weights, positive.
    num_iters : int
        Iterations; gradients pass through the last one only.
    window : int
        Odd side length of the window around a pixel.
    temperature : float

    Returns
    -------
    shifted : Tensor (B, D, H, W)
        Not normalised.
    probs : Tensor (B, H, W, K)
    """
    dtype = embeddings.dtype
    working = dtype if dtype == torch.float64 else torch.float32
    embeddings = embeddings.to(working)
    inverse = 0.5 / bandwidth.to(working) ** 2
    shifted = embeddings
    if num_iters > 0:
        with torch.no_grad():
            point = embeddings.contiguous()
            padded = _pad(embeddings, window)
            for _ in range(num_iters - 1):
                point, _ = _shift(padded, point, inverse, window)
            del padded
        shifted = _LastShift.apply(embeddings, point, inverse, window)
    probs = assign(shifted, centers.to(working), temperature)
    return shifted.to(dtype), probs.to(dtype)
