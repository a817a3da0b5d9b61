"""All-pairs mean shift."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse import _checks, _native, _triton, backends
from spectrafuse.composed.dense_mean_shift import dense_mean_shift as composed
from spectrafuse.ops import (
    _dense_mean_shift_cpu,  # noqa: F401  registers the operation of the `cpu` kernel
    _trials,
)
from spectrafuse.reference.dense_mean_shift import dense_mean_shift as reference

_LARGEST_DIM = 128

backends.declare(
    "dense_mean_shift",
    {"cpu": _native.cpu_kernel_reason, "triton": _triton.kernel_reason},
    trial=_trials.dense_mean_shift,
)


def dense_mean_shift(embeddings: Tensor, bandwidth: Tensor, *, num_iters: int = 5) -> Tensor:
    """Move every pixel's embedding towards a mode, with all pixels of its image as neighbours.

    Per iteration z_i = sum_j w_ij z_j / (sum_j w_ij + 1e-6) with w_ij = exp(-|z_i - z_j|^2 / (2
    bandwidth^2)). Both sides are the moved embeddings, and gradients pass through all iterations.

    Parameters
    ----------
    embeddings : Tensor (B, D, H, W)
        Embeddings of the pixels.
    bandwidth : Tensor ()
        Width of the Gaussian weights, positive.
    num_iters : int
        Number of iterations, at least 1.

    Returns
    -------
    Tensor (B, D, H, W)
        The moved embeddings, not normalised.

    Raises
    ------
    TypeError, ValueError
        If a shape, dtype or device is wrong.

    Notes
    -----
    Source: arXiv 2512.24172, unrolled mean shift; in the public code the form without local approximation. The
    `triton` kernel computes weights tile by tile, forward and backward, and takes up to 128 dimensions, no float64;
    the `cpu` kernel takes every pair of pixels once for both. Both keep one state an iteration for backward.
    """
    _checks.tensor("embeddings", embeddings, shape="(B, D, H, W)", ndim=4)
    _checks.tensor("bandwidth", bandwidth, shape="()", ndim=0)
    if bandwidth.device != embeddings.device:
        expected = f"on {embeddings.device} like the embeddings"
        raise _checks.fail("bandwidth", expected, f"a tensor on {bandwidth.device}")
    num_iters = _checks.integer("num_iters", num_iters)
    dim = embeddings.shape[1]
    limits = {"triton": _triton.dtype_reason(embeddings.dtype)}
    if dim > _LARGEST_DIM:
        limits["triton"] = f"it takes up to {_LARGEST_DIM} dimensions; got {dim}"
    chosen = backends.choose("dense_mean_shift", embeddings.device.type, limits)
    if chosen == "cpu":
        return torch.ops.spectrafuse.dense_mean_shift_cpu(embeddings, bandwidth, num_iters)[0]
    if chosen == "triton":
        return torch.ops.spectrafuse.dense_mean_shift(embeddings, bandwidth, num_iters)[0]
    implementation = reference if chosen == "reference" else composed
    return implementation(embeddings, bandwidth, num_iters=num_iters)


# Registration of the Triton kernel. `states`, z before and after every iteration up to one vector an image, and
# `totals`, the sums of the weights, are what the backward needs. Pixels are rows there: a pixel's numbers lie together.

torch.library.define(
    "spectrafuse::dense_mean_shift",
    "(Tensor embeddings, Tensor bandwidth, int num_iters) -> (Tensor shifted, Tensor states, Tensor totals)",
)
torch.library.define(
    "spectrafuse::dense_mean_shift_backward",
    "(Tensor grad, Tensor bandwidth, Tensor states, Tensor totals) -> (Tensor, Tensor)",
)


def _forward_triton(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    from spectrafuse.kernels import dense_mean_shift as kernels

    rows = embeddings.flatten(2).transpose(1, 2)
    moved, states, totals = kernels.forward(rows, bandwidth, num_iters)
    shifted = torch.empty(embeddings.shape, dtype=embeddings.dtype, device=embeddings.device)
    return shifted.copy_(moved.transpose(1, 2).reshape(embeddings.shape)), states, totals


def _backward_triton(grad: Tensor, bandwidth: Tensor, states: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    from spectrafuse.kernels import dense_mean_shift as kernels

    rows = grad.flatten(2).transpose(1, 2)
    along_rows, along_bandwidth = kernels.backward(rows, states, totals, bandwidth)
    grad_embeddings = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
    return grad_embeddings.copy_(along_rows.transpose(1, 2).reshape(grad.shape)), along_bandwidth


torch.library.impl("spectrafuse::dense_mean_shift", ("CPU", "CUDA"), _forward_triton)
torch.library.impl("spectrafuse::dense_mean_shift_backward", ("CPU", "CUDA"), _backward_triton)


@torch.library.register_fake("spectrafuse::dense_mean_shift")
def _forward_fake(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    working = _native.working_dtype(embeddings.dtype)
    return (
        embeddings.new_empty((batch, dim, height, width)),
        embeddings.new_empty((num_iters + 1, batch, height * width, dim), dtype=working),
        embeddings.new_empty((num_iters, batch, height * width), dtype=working),
    )


@torch.library.register_fake("spectrafuse::dense_mean_shift_backward")
def _backward_fake(grad: Tensor, bandwidth: Tensor, states: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), torch.empty_like(bandwidth)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[1], *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.spectrafuse.dense_mean_shift_backward(grad, *ctx.saved_tensors)
    return (*grads, None)


torch.library.register_autograd("spectrafuse::dense_mean_shift", _backward, setup_context=_setup_context)
