"""All-pairs mean shift."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.dense_mean_shift.pytorch import dense_mean_shift as composed
from spectrafuse.ops.dense_mean_shift.reference import dense_mean_shift as reference

_LARGEST_DIM = 128

backends.declare(
    "dense_mean_shift",
    {"cpu": extensions.cpu_kernel_reason, "triton": triton.kernel_reason},
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
    checks.tensor("embeddings", embeddings, shape="(B, D, H, W)", ndim=4)
    checks.tensor("bandwidth", bandwidth, shape="()", ndim=0)
    if bandwidth.device != embeddings.device:
        expected = f"on {embeddings.device} like the embeddings"
        raise checks.fail("bandwidth", expected, f"a tensor on {bandwidth.device}")
    num_iters = checks.integer("num_iters", num_iters)
    dim = embeddings.shape[1]
    limits = {"triton": triton.dtype_reason(embeddings.dtype)}
    if dim > _LARGEST_DIM:
        limits["triton"] = f"it takes up to {_LARGEST_DIM} dimensions; got {dim}"
    chosen = backends.choose("dense_mean_shift", embeddings.device.type, limits)
    if chosen in ("cpu", "triton"):
        return torch.ops.spectrafuse.dense_mean_shift(embeddings, bandwidth, num_iters)[0]
    implementation = reference if chosen == "reference" else composed
    return implementation(embeddings, bandwidth, num_iters=num_iters)
