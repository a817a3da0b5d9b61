"""Weight gradient formed whole, then the AdamW update term by term (Loshchilov and Hutter 2019)."""

from __future__ import annotations

import torch
from torch import Tensor


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
    gradient = grad_y.T @ x
    weight.mul_(1.0 - lr * weight_decay)
    exp_avg.copy_(beta1 * exp_avg + (1.0 - beta1) * gradient)
    exp_avg_sq.copy_(beta2 * exp_avg_sq + (1.0 - beta2) * gradient * gradient)
    corrected = exp_avg / (1.0 - beta1**step)
    corrected_sq = exp_avg_sq / (1.0 - beta2**step)
    weight.sub_(lr * corrected / (corrected_sq.sqrt() + eps))
