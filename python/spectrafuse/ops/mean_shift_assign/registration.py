"""The kernels of `mean_shift_assign` and `mean_shift_labels`, registered with torch.

`previous` (z before the last iteration) and `weight_sum` are what the backward needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register


def _sizes(embeddings: Tensor, centers: Tensor) -> tuple[int, ...]:
    return (*embeddings.shape, centers.shape[0])


def _forward_cpu(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    working = extensions.working_dtype(embeddings.dtype)
    e, c = embeddings.to(working), centers.to(working).contiguous()
    shifted = e.new_empty((batch, dim, height, width))
    probs = e.new_empty((batch, height, width, c.shape[0]))
    previous = torch.empty_like(shifted)
    weight_sum = e.new_empty((batch, height, width))
    extensions.cpu().mean_shift_assign_forward(
        extensions.DTYPE_CODE[working], _sizes(e, c), e.stride(), num_iters, window, bandwidth.item(), temperature,
        e.data_ptr(), c.data_ptr(), shifted.data_ptr(), probs.data_ptr(), previous.data_ptr(), weight_sum.data_ptr(),
        0, torch.get_num_threads(),
    )  # fmt: skip
    return shifted.to(embeddings.dtype), probs.to(embeddings.dtype), previous, weight_sum


def _labels_cpu(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> Tensor:
    batch, _, height, width = embeddings.shape
    working = extensions.working_dtype(embeddings.dtype)
    e, c = embeddings.to(working), centers.to(working).contiguous()
    labels = torch.empty((batch, height, width), dtype=torch.int64, device="cpu")
    extensions.cpu().mean_shift_assign_forward(
        extensions.DTYPE_CODE[working], _sizes(e, c), e.stride(), num_iters, window, bandwidth.item(), temperature,
        e.data_ptr(), c.data_ptr(), 0, 0, 0, 0, labels.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return labels


def _backward_cpu(
    grad_shifted: Tensor | None,
    grad_probs: Tensor | None,
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    shifted: Tensor,
    probs: Tensor,
    previous: Tensor,
    weight_sum: Tensor,
    window: int,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    working = previous.dtype

    def dense(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(working).contiguous()

    e, c = embeddings.to(working), centers.to(working).contiguous()
    y, q, g_shifted, g_probs = dense(shifted), dense(probs), dense(grad_shifted), dense(grad_probs)
    assert y is not None
    assert q is not None
    upstream, upstream_dot = torch.empty_like(previous), torch.empty_like(weight_sum)
    grad_embeddings = torch.empty_like(previous)
    grad_centers = torch.empty(c.shape, dtype=torch.float64, device="cpu")
    grad_bandwidth = extensions.cpu().mean_shift_assign_backward(
        extensions.DTYPE_CODE[working], _sizes(e, c), e.stride(), window, bandwidth.item(), temperature,
        e.data_ptr(), c.data_ptr(), y.data_ptr(), q.data_ptr(), previous.data_ptr(), weight_sum.data_ptr(),
        0 if g_shifted is None else g_shifted.data_ptr(), 0 if g_probs is None else g_probs.data_ptr(),
        upstream.data_ptr(), upstream_dot.data_ptr(), grad_embeddings.data_ptr(), grad_centers.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return (
        grad_embeddings.to(embeddings.dtype),
        grad_centers.to(centers.dtype),
        torch.full_like(bandwidth, grad_bandwidth),
    )


def _forward_fake(embeddings: Tensor, centers: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    working = extensions.working_dtype(embeddings.dtype)
    return (
        embeddings.new_empty((batch, dim, height, width)),
        embeddings.new_empty((batch, height, width, centers.shape[0])),
        embeddings.new_empty((batch, dim, height, width), dtype=working),
        embeddings.new_empty((batch, height, width), dtype=working),
    )


def _labels_fake(embeddings: Tensor, *others: Any) -> Tensor:
    batch, _, height, width = embeddings.shape
    return embeddings.new_empty((batch, height, width), dtype=torch.int64)


def _backward_fake(
    grad_shifted: Tensor | None,
    grad_probs: Tensor | None,
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        embeddings.new_empty(embeddings.shape),
        centers.new_empty(centers.shape),
        torch.empty_like(bandwidth),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    embeddings, centers, bandwidth, _, window, temperature = inputs
    ctx.save_for_backward(embeddings, centers, bandwidth, *output)
    ctx.mark_non_differentiable(output[2], output[3])
    ctx.set_materialize_grads(False)
    ctx.window, ctx.temperature = window, temperature


def _backward(ctx: Any, grad_shifted: Tensor | None, grad_probs: Tensor | None, *unused: Tensor | None) -> tuple:
    if grad_shifted is None and grad_probs is None:
        return (None,) * 6
    grads = _gradients(grad_shifted, grad_probs, *ctx.saved_tensors, ctx.window, ctx.temperature)
    return (*grads, None, None, None)


_gradients = register("mean_shift_assign_backward", _backward_cpu, _backward_fake, triton="mean_shift_assign.backward")
_assign = register(
    "mean_shift_assign",
    _forward_cpu,
    _forward_fake,
    triton="mean_shift_assign.forward",
    backward=_backward,
    setup_context=_setup_context,
)
_labels = register("mean_shift_labels", _labels_cpu, _labels_fake, triton="mean_shift_assign.labels")


def mean_shift_assign(*inputs: Tensor, num_iters: int, window: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Shifted embeddings and assignments."""
    shifted, probs, _, _ = _assign(*inputs, num_iters, window, temperature)
    return shifted, probs


def mean_shift_labels(*inputs: Tensor, num_iters: int, window: int, temperature: float) -> Tensor:
    """The most probable clusters."""
    return _labels(*inputs, num_iters, window, temperature)
