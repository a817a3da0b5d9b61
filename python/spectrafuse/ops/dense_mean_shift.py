"""All-pairs mean shift."""

from __future__ import annotations

from torch import Tensor

from spectrafuse import _checks, backends
from spectrafuse.composed.dense_mean_shift import dense_mean_shift as composed
from spectrafuse.reference.dense_mean_shift import dense_mean_shift as reference

backends.declare("dense_mean_shift")


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
    Source: arXiv 2512.24172, unrolled mean shift; in the public code the form without local approximation.
    """
    _checks.tensor("embeddings", embeddings, shape="(B, D, H, W)", ndim=4)
    _checks.tensor("bandwidth", bandwidth, shape="()", ndim=0)
    if bandwidth.device != embeddings.device:
        expected = f"on {embeddings.device} like the embeddings"
        raise _checks.fail("bandwidth", expected, f"a tensor on {bandwidth.device}")
    num_iters = _checks.integer("num_iters", num_iters)
    chosen = backends.choose("dense_mean_shift", embeddings.device.type)
    implementation = reference if chosen == "reference" else composed
    return implementation(embeddings, bandwidth, num_iters=num_iters)
