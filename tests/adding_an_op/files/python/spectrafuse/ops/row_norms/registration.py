"""The kernels of `row_norms`, registered with torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register


def _cpu(x: Tensor) -> Tensor:
    working = extensions.working_dtype(x.dtype)
    dense = x.to(working).contiguous()
    norms = dense.new_empty(len(dense))
    extensions.run("row_norms", working, x.device, tuple(dense.shape), dense.data_ptr(), norms.data_ptr())
    return norms.to(x.dtype)


def _fake(x: Tensor) -> Tensor:
    return x.new_empty(len(x))


def _setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    x, norms = ctx.saved_tensors
    return (grad / torch.where(norms > 0, norms, 1.0)).unsqueeze(1) * x


row_norms = register(
    "row_norms", _cpu, _fake, triton="row_norms.forward", backward=_backward, setup_context=_setup_context
)
