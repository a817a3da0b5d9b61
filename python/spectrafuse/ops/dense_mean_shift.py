"""All-pairs mean shift."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse import _checks, _triton, backends
from spectrafuse.composed.dense_mean_shift import dense_mean_shift as composed
from spectrafuse.reference.dense_mean_shift import dense_mean_shift as reference

_LARGEST_DIM = 128

backends.declare("dense_mean_shift", {"triton": _triton.kernel_reason})


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
    `triton` kernel computes weights tile by tile, forward and backward, and takes up to 128 dimensions, no float64.
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
    if chosen == "triton":
        return torch.ops.spectrafuse.dense_mean_shift(embeddings, bandwidth, num_iters)[0]
    implementation = reference if chosen == "reference" else composed
    return implementation(embeddings, bandwidth, num_iters=num_iters)


# Registration. `states` holds, for the image as (DIM, pitch) with zeros beyond, the differences of the embeddings to
# their mean before every iteration and after the last; they and the sums of weights are what the backward needs.

torch.library.define(
    "spectrafuse::dense_mean_shift",
    "(Tensor embeddings, Tensor bandwidth, int num_iters) -> (Tensor shifted, Tensor states, Tensor weight_sums)",
)
torch.library.define(
    "spectrafuse::dense_mean_shift_backward",
    "(Tensor grad, Tensor states, Tensor weight_sums, Tensor bandwidth) -> (Tensor, Tensor)",
)


def _padded(dim: int, pixels: int) -> tuple[int, int]:
    """DIM, a power of two from 16, and pitch, a multiple of 64."""
    return max(16, 1 << (int(dim) - 1).bit_length()), (pixels + 63) // 64 * 64


@torch.library.impl("spectrafuse::dense_mean_shift", ("CPU", "CUDA"))
def _forward(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    from spectrafuse.kernels import dense_mean_shift as kernels

    batch, dim, height, width = embeddings.shape
    padded_dim, pitch = _padded(dim, height * width)
    states = embeddings.new_zeros((num_iters + 1, batch, padded_dim, pitch), dtype=torch.float32)
    weight_sums = states.new_empty((num_iters, batch, pitch))
    shifted = kernels.forward(embeddings.flatten(2), bandwidth, states, weight_sums)
    return shifted.reshape(embeddings.shape), states, weight_sums


@torch.library.impl("spectrafuse::dense_mean_shift_backward", ("CPU", "CUDA"))
def _backward(grad: Tensor, states: Tensor, weight_sums: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
    from spectrafuse.kernels import dense_mean_shift as kernels

    grad_embeddings, grad_bandwidth = kernels.backward(grad.flatten(2), states, weight_sums, bandwidth)
    return grad_embeddings.reshape(grad.shape).to(grad.dtype), grad_bandwidth


@torch.library.register_fake("spectrafuse::dense_mean_shift")
def _forward_fake(embeddings: Tensor, bandwidth: Tensor, num_iters: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    padded_dim, pitch = _padded(dim, height * width)
    states = embeddings.new_empty((num_iters + 1, batch, padded_dim, pitch), dtype=torch.float32)
    return embeddings.new_empty(embeddings.shape), states, states.new_empty((num_iters, batch, pitch))


@torch.library.register_fake("spectrafuse::dense_mean_shift_backward")
def _backward_fake(grad: Tensor, states: Tensor, weight_sums: Tensor, bandwidth: Tensor) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), torch.empty_like(bandwidth)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1], output[2], inputs[1])
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)


def _propagate(ctx: Any, grad: Tensor | None, *unused: Tensor | None) -> tuple:
    if grad is None:
        return None, None, None
    return (*torch.ops.spectrafuse.dense_mean_shift_backward(grad, *ctx.saved_tensors), None)


torch.library.register_autograd("spectrafuse::dense_mean_shift", _propagate, setup_context=_setup_context)
