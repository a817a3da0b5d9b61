"""The training objective of both views: losses, center sums, assignments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, counts, labeled
from spectrafuse.ops import _mean_shift, _self_test
from spectrafuse.ops.clustering_objective import pytorch, reference, registration
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.ops.mean_shift_assign import assign, mean_shift_assign


class ClusteringTerms(NamedTuple):
    """What `clustering_objective` returns: assignments q, embeddings z, centers c, pixels i, clusters k.

    Attributes
    ----------
    compactness : Tensor (2,)
        One per view: ``sum_ik q_ik max(1 - z_i . c_k, 0) / number of pixels``, z from the encoder.
    uniform : Tensor ()
        Mean negative log-likelihood of the pseudo-labels, mean of the views; zero without them.
    orthogonality : Tensor ()
        Sum of the squared entries of ``C C^T - I``.
    balance : Tensor ()
        Entropy ``-sum_k m_k log m_k`` of ``m_k = mean_i q_ik + 1e-6``, mean of the views. High is balanced.
    consistency : Tensor ()
        Mean symmetric Kullback-Leibler divergence of the two views' assignments.
    mass : Tensor (K,)
        Sum of the assignments over both views, detached.
    sums : Tensor (K, D)
        ``sum_i q_ik z_i`` over both views, z moved and not normalised, detached.
    probs : Tensor (2B, h, w, K)
        The assignments, with gradient; (0, h, w, K) without `return_probs`.
    counts : Tensor (3,) int64
        How many the means are over: pixels of the first and of the second views, pairs of the consistency.
    """

    compactness: Tensor
    uniform: Tensor
    orthogonality: Tensor
    balance: Tensor
    consistency: Tensor
    mass: Tensor
    sums: Tensor
    probs: Tensor
    counts: Tensor


def _check_pairs(
    embeddings: Tensor,
    centers: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    aligned: bool,
) -> None:
    checks.tensor("embeddings", embeddings, shape="(2B, D, h, w)", ndim=4)
    views, dim, height, width = embeddings.shape
    if views % 2 or 0 in (dim, height, width):
        raise checks.fail(
            "embeddings", "of shape (2B, D, h, w) with D, h and w at least 1", f"{tuple(embeddings.shape)}"
        )
    checks.tensor("centers", centers, shape="(K, D)", ndim=2, like=embeddings)
    if centers.shape[0] == 0 or centers.shape[1] != dim:
        raise checks.fail("centers", f"of shape (K, {dim}) with K >= 1", f"{tuple(centers.shape)}")
    if geometry is None:
        if aligned:
            raise checks.fail("geometry", "given where aligned=True", "None")
    else:
        dtypes = (torch.float32, torch.float64)
        checks.tensor("geometry", geometry, shape="(B, 2, 9)", ndim=3, dtypes=dtypes)
        if tuple(geometry.shape) != (views // 2, 2, 9):
            raise checks.fail("geometry", f"of shape {(views // 2, 2, 9)}", f"{tuple(geometry.shape)}")
    if pseudo_labels is not None:
        checks.tensor("pseudo_labels", pseudo_labels, shape="(2, B h w)", ndim=2, dtypes=(torch.int64,))
        expected = (2, views // 2 * height * width)
        if tuple(pseudo_labels.shape) != expected:
            raise checks.fail("pseudo_labels", f"of shape {expected}", f"{tuple(pseudo_labels.shape)}")
        if pseudo_labels.device != embeddings.device:
            raise checks.fail(
                "pseudo_labels",
                f"on {embeddings.device} like the embeddings",
                f"a tensor on {pseudo_labels.device}",
            )
    if valid is not None:
        checks.tensor("valid", valid, shape="(2B, h, w)", ndim=3, dtypes=(torch.bool,))
        if tuple(valid.shape) != (views, height, width):
            raise checks.fail("valid", f"of shape {(views, height, width)}", f"{tuple(valid.shape)}")
        if valid.device != embeddings.device:
            raise checks.fail("valid", f"on {embeddings.device} like the embeddings", f"a tensor on {valid.device}")


def clustering_objective(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    *,
    num_iters: int = 5,
    window: int = 5,
    temperature: float = 0.05,
    aligned: bool = True,
    pseudo_labels: Tensor | None = None,
    memory_order_sums: bool = False,
    dense: bool = False,
    valid: Tensor | None = None,
    return_probs: bool = True,
) -> ClusteringTerms:
    """Mean shift, assignment and all losses of a batch of view pairs.

    Parameters
    ----------
    embeddings : Tensor (2B, D, h, w)
        Unit-norm embeddings from the encoder: the first views of all samples, then the second views. Without
        a pair (B = 0) every term of the pixels is 0.
    centers : Tensor (K, D)
        Cluster centers.
    bandwidth : Tensor ()
        Width of the mean shift's Gaussian weights, positive.
    geometry : Tensor (B, 2, 9) or None
        float32 or float64, on any device, as `sample_crop_pairs` draws it. Needed if `aligned`.
    num_iters : int
        Mean-shift iterations.
    window : int
        Odd side length of the mean shift's window; not used if `dense`.
    temperature : float
        Divides the similarities before the softmax.
    aligned : bool
        True: every pixel is compared with the other view's assignment at the same place of the scene, read by
        bilinear interpolation, border reads clamped, without gradient to the side that is read. It counts
        where its place lies inside both crop windows and inside the other view, each taken from half a pixel
        before the first to half a pixel behind the last pixel center. Both directions share one mean; without
        a single such pixel value and gradient are zero. False: the views are compared index by index, with
        gradient to both, as published.
    pseudo_labels : Tensor (2, B h w) of int64, or None
        Random balanced labels per view in the order (b, y, x), each from 0 to K - 1.
    memory_order_sums : bool
        True: the published pairing of assignments and moved embeddings, which reads each view's (B, D, h, w)
        as (B h w, D) by memory order.
    dense : bool
        All pixels of a view are neighbours (`dense_mean_shift`) instead of a window.
    valid : Tensor (2B, h, w) of bool, or None
        Pixels that count; None: all. The others take no part in any term, mass or sum: means are over valid
        pixels, and a pair of the consistency counts where its own pixel is valid and so are all that the
        bilinear read touches (with aligned=False: both pixels). They remain neighbours of the mean shift. A
        view without a valid pixel adds 0.
    return_probs : bool
        False: the assignments are not returned, for a caller that needs only terms, mass and sums.

    Returns
    -------
    ClusteringTerms
        Terms, mass and sums are float64 for float64 embeddings, else at least float32 except under the
        reference.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or device.

    Notes
    -----
    Source: arXiv 2512.24172, training objective. The aligned consistency replaces the published one, which
    compares pixels of different places.
    """
    _check_pairs(embeddings, centers, geometry, pseudo_labels, valid, aligned)
    if dense:
        checks.number("temperature", temperature, above=0.0)
    else:
        _mean_shift.check_window(embeddings, bandwidth, num_iters, window, temperature)
    terms = operation(
        embeddings,
        centers,
        bandwidth,
        geometry if aligned else None,
        pseudo_labels,
        valid,
        num_iters=num_iters,
        window=window,
        temperature=temperature,
        memory_order_sums=memory_order_sums,
        return_probs=return_probs,
        dense=dense,
    )
    return ClusteringTerms(*terms)


def _composed(terms_of: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    """Mean shift and assignment by their own operations, then the terms."""

    def composed(
        embeddings: Tensor,
        centers: Tensor,
        bandwidth: Tensor,
        geometry: Tensor | None,
        pseudo_labels: Tensor | None,
        valid: Tensor | None,
        *,
        num_iters: int,
        window: int,
        temperature: float,
        memory_order_sums: bool,
        return_probs: bool,
        dense: bool,
    ) -> tuple[Tensor, ...]:
        if dense:
            shifted = dense_mean_shift(embeddings, bandwidth, num_iters=num_iters)
            probs = assign(shifted, centers, temperature)
        else:
            shifted, probs = mean_shift_assign(
                embeddings, centers, bandwidth, num_iters=num_iters, window=window, temperature=temperature
            )
        *terms, counts = terms_of(
            embeddings,
            shifted,
            probs,
            centers,
            geometry,
            aligned=geometry is not None,
            pseudo_labels=pseudo_labels,
            memory_order_sums=memory_order_sums,
            valid=valid,
        )
        return *terms, probs if return_probs else probs[:0], counts

    return composed


def all_pairs(*inputs: Any, dense: bool, **options: Any) -> backends.Reason:
    """The limit of the kernels: their mean shift is that of a window."""
    return "it shifts inside a window, got dense=True" if dense else None


def work(pixels: int, dim: int, clusters: int, iterations: int, window: int) -> Counts:
    """Of both views' `pixels` together: mean shift as in `mean_shift_assign`, and 2 per cluster and dimension for each
    product with centers or sums; embeddings and their gradient, z before the last iteration, assignments and their
    reads."""
    neighbours = window**2 * dim
    forward = 5 * iterations * neighbours + 6 * clusters * dim
    backward = 9 * neighbours + 8 * clusters * dim
    return counts(
        (pixels * forward, pixels * backward),
        (pixels * (2 * dim + 3 * clusters), pixels * (6 * dim + 4 * clusters)),
    )


def self_test(device: str) -> list[Tensor]:
    """Two pairs of views with masks, aligned."""
    *leaves, place = _self_test.numbers(device, (4, 5, 7, 9), (3, 5), (), (4, 7, 9))
    embeddings, centers, bandwidth = leaves
    identity = torch.tensor([0, 0, 1, 0, 0, 0, 1, 0, 0], dtype=torch.float32, device=device)
    geometry = identity.expand(2, 2, 9).contiguous()
    labels = (torch.arange(2 * 2 * 7 * 9, device=device) % 3).view(2, -1)
    valid = place.detach() > 0.1
    terms = clustering_objective(embeddings, centers, bandwidth, geometry, pseudo_labels=labels, valid=valid)
    return _self_test.with_gradients(terms[:-1], leaves)


_FORWARD, _BACKWARD = "clustering_objective forward", "clustering_objective backward"
operation = backends.declare(
    "clustering_objective",
    reference=_composed(reference.clustering_terms),
    pytorch=_composed(pytorch.clustering_terms),
    kernel=registration.clustering_objective,
    kernels={name: (all_pairs, *limits) for name, limits in _mean_shift.KERNELS.items()},
    work=work,
    self_test=self_test,
    extension_calls={
        "clustering_objective_forward": labeled(_FORWARD, _mean_shift.extension_work(work, "forward")),
        "clustering_objective_backward": labeled(_BACKWARD, _mean_shift.extension_work(work, "backward")),
    },
    triton_calls={
        "forward": labeled(_FORWARD, _mean_shift.triton_work(work, "forward", 0)),
        "backward": labeled(_BACKWARD, _mean_shift.triton_work(work, "backward", 6)),
    },
    gpu_kernels={
        "^(assign|compare)_kernel$": _FORWARD,
        # Shared with the backward pass of `mean_shift_assign`, which training does not call.
        "^(upstream|gather)_kernel$": _BACKWARD,
    },
)
