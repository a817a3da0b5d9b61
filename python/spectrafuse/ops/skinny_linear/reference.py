"""One layer of either network as published: a linear layer, then its activation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def skinny_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Linear layer with an activation; arguments and result as `spectrafuse.ops.skinny_linear`."""
    y = functional.linear(x, weight, bias)
    if activation == "tanh":
        return torch.tanh(y)
    if activation == "relu":
        return torch.relu(y)
    if activation == "abs":
        return torch.abs(y)
    return y
