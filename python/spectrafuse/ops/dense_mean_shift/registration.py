"""The kernels of `dense_mean_shift`, registered with torch.

`states`, z before and after every iteration (in Triton up to one vector an image), and `totals`, the sums of the
weights, are what the backward needs. Pixels are rows there: a pixel's numbers lie together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register


def _workspace(states: Tensor, *, backward: bool) -> Tensor:
    sizes = tuple(states.shape[1:])
    count = extensions.cpu().dense_mean_shift_workspace(extensions.DTYPE_CODE[states.dtype], sizes, backward)
    return torch.empty(count, dtype=torch.uint8, device="cpu")


def _forward_cpu(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    working = extensions.working_dtype(embeddings.dtype)
    states = torch.empty((num_iters + 1, batch, height * width, dim), dtype=working, device="cpu")
    totals = torch.empty((num_iters, batch, height * width), dtype=working, device="cpu")
    states[0].view(batch, height, width, dim).copy_(embeddings.permute(0, 2, 3, 1))
    workspace = _workspace(states, backward=False)
    for t in range(num_iters):
        extensions.cpu().dense_mean_shift_iteration(
            extensions.DTYPE_CODE[working], tuple(states.shape[1:]), bandwidth.item(), states[t].data_ptr(),
            totals[t].data_ptr(), 0, 0, states[t + 1].data_ptr(), workspace.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
    shifted = torch.empty((batch, dim, height, width), dtype=embeddings.dtype, device="cpu")
    shifted.copy_(states[-1].view(batch, height, width, dim).permute(0, 3, 1, 2))
    return shifted, states, totals


def _backward_cpu(grad: Tensor, bandwidth: Tensor, states: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    batch, dim, height, width = grad.shape
    outer = torch.empty((batch, height, width, dim), dtype=states.dtype, device="cpu").copy_(grad.permute(0, 2, 3, 1))
    inner = torch.empty_like(outer)
    workspace = _workspace(states, backward=True)
    along_bandwidth = 0.0
    for t in reversed(range(totals.shape[0])):
        along_bandwidth += extensions.cpu().dense_mean_shift_iteration(
            extensions.DTYPE_CODE[states.dtype], tuple(states.shape[1:]), bandwidth.item(), states[t].data_ptr(),
            totals[t].data_ptr(), states[t + 1].data_ptr(), outer.data_ptr(), inner.data_ptr(), workspace.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        outer, inner = inner, outer
    grad_embeddings = torch.empty(grad.shape, dtype=grad.dtype, device="cpu").copy_(outer.permute(0, 3, 1, 2))
    return grad_embeddings, torch.full_like(bandwidth, along_bandwidth)


def _forward_fake(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    working = extensions.working_dtype(embeddings.dtype)
    return (
        embeddings.new_empty((batch, dim, height, width)),
        embeddings.new_empty((num_iters + 1, batch, height * width, dim), dtype=working),
        embeddings.new_empty((num_iters, batch, height * width), dtype=working),
    )


def _backward_fake(grad: Tensor, bandwidth: Tensor, states: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), torch.empty_like(bandwidth)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[1], *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    grads = _gradients(grad, *ctx.saved_tensors)
    return (*grads, None)


_gradients = register("dense_mean_shift_backward", _backward_cpu, _backward_fake, triton="dense_mean_shift.backward")
_shift = register(
    "dense_mean_shift",
    _forward_cpu,
    _forward_fake,
    triton="dense_mean_shift.forward",
    backward=_backward,
    setup_context=_setup_context,
)


def dense_mean_shift(embeddings: Tensor, bandwidth: Tensor, *, num_iters: int) -> Tensor:
    """Shifted embeddings."""
    return _shift(embeddings, bandwidth, num_iters)[0]
