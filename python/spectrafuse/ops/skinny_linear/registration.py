"""The kernels of `skinny_linear`, registered with torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register

ACTIVATIONS = ("none", "tanh", "relu", "abs")

MOST_ROWS = 64
"""Beyond these a matrix product by blocks is faster than reading every weight once."""


def before_activation(grad_y: Tensor, y: Tensor, before: Tensor | None, activation: str) -> Tensor:
    """Gradient with respect to the values before the activation, from what the forward pass returned."""
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(grad_y, y)
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad_y, y, 0)
    if activation == "abs":
        assert before is not None
        return grad_y * before.sgn()
    return grad_y


def _forward_cpu(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> tuple[Tensor, Tensor]:
    """The layer, and for the absolute value what it was taken of; else nothing (0,)."""
    working = extensions.working_dtype(x.dtype)
    dense, weights = x.to(working).contiguous(), weight.to(working).contiguous()
    added = None if bias is None else bias.to(working).contiguous()
    y = dense.new_empty((len(x), len(weight)))
    before = torch.empty_like(y) if ACTIVATIONS[activation] == "abs" else dense.new_empty(0)
    _forward_call(dense, weights, added, activation, y, before)()
    return y.to(x.dtype), before.to(x.dtype)


def _forward_call(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: int, y: Tensor, before: Tensor | None
) -> Callable[[], Any]:
    return extensions.prepared(
        "skinny_linear_forward", x.dtype, *x.shape, len(weight), activation, x.data_ptr(), weight.data_ptr(),
        0 if bias is None else bias.data_ptr(), y.data_ptr(), 0 if before is None else before.data_ptr(),
    )  # fmt: skip


def layer_call(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, y: Tensor, before: Tensor | None = None
) -> Callable[[], Any]:
    """A call that writes a layer of these dense CPU tensors to y (B, O), again and again.

    For the absolute value it also writes what that was taken of to `before` (B, O).
    """
    if len(x) <= MOST_ROWS:
        return _forward_call(x, weight, bias, ACTIVATIONS.index(activation), y, before)

    def by_product() -> None:
        torch.addmm(bias, x, weight.T, out=y)
        if before is not None:
            before.copy_(y)
        if activation != "none":
            getattr(torch, f"{activation}_")(y)

    return by_product


def input_gradient_call(grad_y: Tensor, weight: Tensor, grad_x: Tensor) -> Callable[[], Any]:
    """A call that writes `grad_y @ weight` of dense CPU tensors to grad_x (B, I), again and again."""
    return extensions.prepared(
        "skinny_linear_backward", grad_y.dtype, len(grad_y), weight.shape[1], weight.shape[0], weight.data_ptr(),
        grad_y.data_ptr(), grad_x.data_ptr(),
    )  # fmt: skip


def _input_gradient_cpu(grad_y: Tensor, weight: Tensor, values: Tensor | None = None, activation: int = 0) -> Tensor:
    """`grad_y @ weight`, and back through the activation whose `values` the layer's input is, if it is one's."""
    working = extensions.working_dtype(grad_y.dtype)
    upstream, weights = grad_y.to(working).contiguous(), weight.to(working).contiguous()
    grad_x = upstream.new_empty((grad_y.shape[0], weight.shape[1]))
    input_gradient_call(upstream, weights, grad_x)()
    if values is None:
        return grad_x.to(grad_y.dtype)
    return before_activation(grad_x.to(grad_y.dtype), values, None, ACTIVATIONS[activation])


def _forward_cuda(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> tuple[Tensor, Tensor]:
    # Where rows are not read four numbers at once, sums have another order: it must not depend on where tensors begin.
    dense, weights = extensions.dense(x.float()), extensions.dense(weight.float())
    added = None if bias is None else bias.float().contiguous()
    batch, inputs = x.shape
    y = dense.new_empty((batch, weight.shape[0]))
    before = torch.empty_like(y) if ACTIVATIONS[activation] == "abs" else dense.new_empty(0)
    extensions.run_on_gpu(
        "skinny_linear_forward", x.device, batch, inputs, weight.shape[0], activation, dense.data_ptr(),
        weights.data_ptr(), 0 if added is None else added.data_ptr(), y.data_ptr(), before.data_ptr(),
    )  # fmt: skip
    return y.to(x.dtype), before.to(x.dtype)


def _input_gradient_cuda(grad_y: Tensor, weight: Tensor, values: Tensor | None = None, activation: int = 0) -> Tensor:
    upstream, weights = grad_y.float().contiguous(), weight.float().contiguous()
    inner = None if values is None else values.float().contiguous()
    batch, (outputs, inputs) = len(grad_y), weight.shape
    grad_x, parts = upstream.new_empty((batch, inputs)), -(-outputs // extensions.cuda().linear_part)
    workspace = upstream.new_empty((parts, batch, inputs))
    extensions.run_on_gpu(
        "skinny_linear_backward", grad_y.device, batch, inputs, outputs, weights.data_ptr(), upstream.data_ptr(),
        grad_x.data_ptr(), 0 if inner is None else inner.data_ptr(), activation, workspace.data_ptr(),
    )  # fmt: skip
    return grad_x.to(grad_y.dtype)


def _forward_fake(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> tuple[Tensor, Tensor]:
    y = x.new_empty((x.shape[0], weight.shape[0]))
    return y, torch.empty_like(y) if ACTIVATIONS[activation] == "abs" else x.new_empty(0)


def _input_gradient_fake(grad_y: Tensor, weight: Tensor, values: Tensor | None = None, activation: int = 0) -> Tensor:
    return grad_y.new_empty((grad_y.shape[0], weight.shape[1]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, activation = inputs
    ctx.save_for_backward(x, weight, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.activation = ACTIVATIONS[activation]
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad_y: Tensor | None, unused: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 4
    x, weight, y, before = ctx.saved_tensors
    upstream = before_activation(grad_y, y, before, ctx.activation)
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    return (
        skinny_linear_input_gradient(upstream, weight) if needs_x else None,
        upstream.T @ x if needs_weight else None,
        upstream.sum(0) if needs_bias and ctx.has_bias else None,
        None,
    )


skinny_linear_input_gradient = register(
    "skinny_linear_input_gradient", _input_gradient_cpu, _input_gradient_fake, cuda=_input_gradient_cuda
)
_layer = register(
    "skinny_linear",
    _forward_cpu,
    _forward_fake,
    cuda=_forward_cuda,
    backward=_backward,
    setup_context=_setup_context,
)


def hidden_gradient(grad_y: Tensor, weight: Tensor, values: Tensor, activation: str) -> Tensor:
    """The input gradient before the activation of the layer that made the input."""
    return skinny_linear_input_gradient(grad_y, weight, values, ACTIVATIONS.index(activation))


def layer_and_before(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's absolute values by the kernel of its device, and what they were taken of."""
    return _layer(x, weight, bias, ACTIVATIONS.index("abs"))


def skinny_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """The layer alone."""
    return _layer(x, weight, bias, ACTIVATIONS.index(activation))[0]
