"""AdamW on a linear layer's weight, the gradient formed by rows of the weight and never whole."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 18
"""Elements of the gradient at a time: 1 MiB of float32, so both buffers stay in a second-level cache."""


@torch.no_grad()
def adamw_outer(
    x: Tensor,
    grad_y: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """Update in place; arguments as `spectrafuse.ops.adamw_outer`."""
    rows, columns = weight.shape
    chunk = min(rows, max(1, _CHUNK_ELEMENTS // max(1, columns)))
    gradient = weight.new_empty(chunk, columns)
    denominator = weight.new_empty(chunk, columns)
    decay = 1.0 - lr * weight_decay
    step_size = lr / (1.0 - beta1**step)
    root_correction = (1.0 - beta2**step) ** 0.5
    for start in range(0, rows, max(1, chunk)):
        stop = min(rows, start + chunk)
        part, divisor = gradient[: stop - start], denominator[: stop - start]
        torch.mm(grad_y[:, start:stop].T, x, out=part)
        first, second = exp_avg[start:stop], exp_avg_sq[start:stop]
        first.lerp_(part, 1.0 - beta1)
        second.mul_(beta2).addcmul_(part, part, value=1.0 - beta2)
        torch.sqrt(second, out=divisor).div_(root_correction).add_(eps)
        weight[start:stop].mul_(decay).addcdiv_(first, divisor, value=-step_size)
