"""One layer of either network in plain PyTorch, activated in place where autograd permits it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def skinny_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Linear layer with an activation; arguments and result as `spectrafuse.ops.skinny_linear`."""
    y = functional.linear(x, weight, bias)
    # Backward of tanh and relu needs the output only, that of the linear layer does not need it.
    if activation == "tanh":
        return torch.tanh_(y)
    if activation == "relu":
        return torch.relu_(y)
    if activation == "abs":
        return torch.abs(y)
    return y
