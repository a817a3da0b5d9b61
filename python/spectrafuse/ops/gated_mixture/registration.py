"""The kernels of `gated_mixture`, registered with torch: float32 and float64 on the CPU, float32 on CUDA devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register
from spectrafuse.ops._mixture import before_absolute, mixture_workspace, workspace_addresses


def shared_arguments(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> tuple[Any, ...]:
    """What the kernels of both directions take first, of dense tensors."""
    sizes = (*concentration.shape, components.shape[1])
    inputs = concentration.data_ptr(), select_prob.data_ptr(), components.data_ptr()
    return components.dtype, components.device, sizes, non_negative, norm, inputs


def forward_kernel(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> Tensor:
    c, s, v = concentration.contiguous(), select_prob.contiguous(), components.contiguous()
    mixture = v.new_empty((c.shape[0], v.shape[1]))
    workspace = mixture_workspace(len(c), v, forward=True)
    extensions.run(
        "gated_mixture_forward", *shared_arguments(c, s, v, non_negative, norm), mixture.data_ptr(),
        *workspace_addresses(workspace),
    )  # fmt: skip
    return mixture


def backward_kernel(
    grad: Tensor,
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    non_negative: bool,
    norm: int,
    before: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the inputs; of `before` instead of the concentrations if these are its absolute values."""
    c, s, v = concentration.contiguous(), select_prob.contiguous(), components.contiguous()
    upstream = grad.contiguous()
    grads = torch.empty_like(c), torch.empty_like(s), torch.empty_like(v)
    workspace = mixture_workspace(len(c), v, forward=False, before=before)
    extensions.run(
        "gated_mixture_backward", *shared_arguments(c, s, v, non_negative, norm), upstream.data_ptr(),
        tuple(g.data_ptr() for g in grads),
        *workspace_addresses(workspace),
    )  # fmt: skip
    return before_absolute(grads[0], before), *grads[1:]


def _forward_fake(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> Tensor:
    return components.new_empty((concentration.shape[0], components.shape[1]))


def _backward_fake(
    grad: Tensor, concentration: Tensor, select_prob: Tensor, components: Tensor, *unused: Any
) -> tuple[Tensor, Tensor, Tensor]:
    like_weights = concentration.new_empty(concentration.shape)
    return like_weights, torch.empty_like(like_weights), components.new_empty(components.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = _gradients(grad, *ctx.saved_tensors, *ctx.options)
    return (*grads, None, None)


_gradients = register("gated_mixture_backward", backward_kernel, _backward_fake, cuda=backward_kernel)
_mixture = register(
    "gated_mixture",
    forward_kernel,
    _forward_fake,
    cuda=forward_kernel,
    backward=_backward,
    setup_context=_setup_context,
)


def gated_mixture(
    concentration: Tensor, select_prob: Tensor, components: Tensor, *, non_negative: bool, norm: int | None
) -> Tensor:
    """The mixture in the type of the components."""
    working = extensions.working_dtype(components.dtype)
    inputs = (concentration.to(working), select_prob.to(working), components.to(working))
    return _mixture(*inputs, non_negative, norm or 0).to(components.dtype)
