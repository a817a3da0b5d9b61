"""All-pairs mean shift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import BYTES, Counts, Work, labeled
from spectrafuse.ops import _mean_shift, _self_test
from spectrafuse.ops.dense_mean_shift import pytorch, reference, registration


def dense_mean_shift(embeddings: Tensor, bandwidth: Tensor, *, num_iters: int = 5) -> Tensor:
    """Move every pixel's embedding towards a mode, with all pixels of its image as neighbours.

    Per iteration ``z_i = sum_j w_ij z_j / (sum_j w_ij + 1e-6)`` with
    ``w_ij = exp(-|z_i - z_j|^2 / (2 bandwidth^2))``. Both sides are the moved embeddings, and gradients pass
    through all iterations.

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
    checks.integer("num_iters", num_iters)
    return operation(embeddings, bandwidth, num_iters=num_iters)


def work(batch: int, dim: int, pixels: int, iterations: int) -> Counts:
    """For two pixels 3 D multiply-adds and 20 for the exponential forward, 7 D and as many backward."""
    pairs, values = batch * pixels**2 // 2 * iterations, batch * pixels * iterations
    return Counts(
        Work(pairs * (6 * dim + 20), BYTES * values * (2 * dim + 1)),
        Work(pairs * (14 * dim + 20), BYTES * values * (4 * dim + 1)),
        Work(pairs * (20 * dim + 40), BYTES * values * (6 * dim + 1)),
    )


def _extension_call(sizes: Sequence[int], bandwidth: float, *addresses: int) -> tuple[str, Work]:
    (batch, pixels, dim), direction = sizes, "backward" if addresses[3] else "forward"
    return f"dense_mean_shift {direction}", work(batch, dim, pixels, 1).of(direction)


def _triton_work(direction: str) -> Callable[..., Work]:
    def of_call(first: Tensor, bandwidth: Tensor, *rest: Any) -> Work:
        batch, dim, height, width = first.shape
        iterations = rest[0] if direction == "forward" else rest[1].shape[0]
        return work(batch, dim, height * width, iterations).of(direction)

    return of_call


def self_test(device: str) -> list[Tensor]:
    """All pairs of two small images."""
    leaves = _self_test.numbers(device, (2, 5, 7, 9), ())
    return _self_test.with_gradients([dense_mean_shift(*leaves)], leaves)


operation = backends.declare(
    "dense_mean_shift",
    reference=reference.dense_mean_shift,
    pytorch=pytorch.dense_mean_shift,
    kernel=registration.dense_mean_shift,
    kernels={"cpu": (), "triton": (_mean_shift.many_dimensions, backends.not_float64)},
    work=work,
    self_test=self_test,
    extension_calls={"dense_mean_shift_iteration": _extension_call},
    triton_calls={
        direction: labeled(f"dense_mean_shift {direction}", _triton_work(direction))
        for direction in ("forward", "backward")
    },
    gpu_kernels={"^_shift$": "dense_mean_shift forward", "^_shift_backward$": "dense_mean_shift backward"},
)
