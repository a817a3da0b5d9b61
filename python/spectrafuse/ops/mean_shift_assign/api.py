"""Mean shift inside a window, and the assignment of the shifted embeddings to cluster centres."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, counts, labeled
from spectrafuse.ops import _mean_shift, _self_test
from spectrafuse.ops.mean_shift_assign import pytorch, reference, registration


class MeanShiftResult(NamedTuple):
    """What `mean_shift_assign` returns.

    Attributes
    ----------
    shifted : Tensor (B, D, H, W)
        The embeddings after all iterations, not normalised.
    probs : Tensor (B, H, W, K)
        Soft assignments, each pixel sums to 1.
    """

    shifted: Tensor
    probs: Tensor


def mean_shift_assign(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    *,
    num_iters: int = 5,
    window: int = 5,
    temperature: float = 0.05,
) -> MeanShiftResult:
    """Shift every embedding to the weighted mean of its window, several times, and assign it to clusters.

    From ``z = e_i`` repeat ``w_j = exp(-|p_j - z|^2 / (2 bandwidth^2))``, ``z = sum w_j p_j / (sum w_j + 1e-6)`` over
    the embeddings ``p_j`` in the window around pixel i; outside the image they are zero vectors and count. Then
    ``probs = softmax((z / |z|) centers^T / temperature)``. As published, z enters the weights without gradient, so
    gradients reach embeddings and bandwidth through the last iteration only.

    Parameters
    ----------
    embeddings : Tensor
        (B, D, H, W), any strides; float32, float64, bfloat16 or float16. Narrow types are computed in float32.
    centers : Tensor
        (K, D), K >= 1, used as they are (not normalised).
    bandwidth : Tensor
        () positive; the width of the weights in units of the embeddings.
    num_iters : int
        Iterations, at least 1.
    window : int
        Odd side length of the neighbourhood in pixels.
    temperature : float
        Positive; smaller is harder.

    Returns
    -------
    MeanShiftResult
        `shifted` (B, D, H, W) and `probs` (B, H, W, K), of the embeddings' dtype.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, shape or range.

    Notes
    -----
    Source: arXiv 2512.24172, the unrolled mean-shift module. The kernels store nothing of size window^2 and take
    windows up to 11, `triton` up to 128 dimensions and no float64; the rest runs in PyTorch.

    Examples
    --------
    >>> import torch
    >>> import spectrafuse as sf
    >>> embeddings = torch.nn.functional.normalize(torch.randn(1, 8, 20, 30), dim=1).requires_grad_()
    >>> centers = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    >>> shifted, probs = sf.ops.mean_shift_assign(embeddings, centers, torch.tensor(0.5))
    >>> shifted.shape, probs.shape
    (torch.Size([1, 8, 20, 30]), torch.Size([1, 20, 30, 3]))
    >>> probs.amax(-1).sum().backward()
    """
    _check(embeddings, centers, bandwidth, num_iters, window, temperature)
    options = {"num_iters": num_iters, "window": window, "temperature": temperature}
    return MeanShiftResult(*operation(embeddings, centers, bandwidth, **options))


def mean_shift_labels(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    *,
    num_iters: int = 5,
    window: int = 5,
    temperature: float = 0.05,
) -> Tensor:
    """The most probable cluster of every pixel, without storing embeddings or probabilities.

    Takes the arguments of `mean_shift_assign` and returns its ``probs.argmax(-1)``: (B, H, W) int64, the lowest index
    where clusters tie. No gradient.
    """
    _check(embeddings, centers, bandwidth, num_iters, window, temperature)
    with torch.no_grad():
        return labels(embeddings, centers, bandwidth, num_iters=num_iters, window=window, temperature=temperature)


def assign(shifted: Tensor, centers: Tensor, temperature: float) -> Tensor:
    """Soft assignment alone, of embeddings that were shifted otherwise; there is no kernel for it.

    Parameters
    ----------
    shifted : Tensor
        (B, D, H, W), normalised here, over D.
    centers : Tensor
        (K, D), used as they are.
    temperature : float
        Divides the similarities before the softmax.

    Returns
    -------
    Tensor
        (B, H, W, K), each pixel sums to 1.
    """
    return (reference.assign if backends.forced() == "reference" else pytorch.assign)(shifted, centers, temperature)


def _check(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> None:
    checks.tensor("embeddings", embeddings, shape="(batch, dim, height, width)", ndim=4)
    checks.tensor("centers", centers, shape="(clusters, dim)", ndim=2, like=embeddings)
    dim = embeddings.shape[1]
    if centers.shape[0] < 1 or centers.shape[1] != dim:
        raise checks.fail(
            "centers",
            f"of shape (K, {dim}) with K >= 1 to match `embeddings`",
            f"shape {tuple(centers.shape)}",
        )
    if dim < 1:
        raise checks.fail("embeddings", "of at least one dimension", f"shape {tuple(embeddings.shape)}")
    _mean_shift.check_window(embeddings, bandwidth, num_iters, window, temperature)


def work(pixels: int, dim: int, clusters: int, iterations: int, window: int) -> Counts:
    """5 per neighbour, dimension and iteration forward, 9 for the one iteration that is differentiated."""
    neighbours = pixels * window**2 * dim
    return counts(
        (5 * iterations * neighbours, 9 * neighbours),
        (pixels * (3 * dim + clusters + 1), pixels * (5 * dim + 2 * clusters)),
    )


def self_test(device: str) -> list[Tensor]:
    """Two images, all iterations."""
    embeddings, centers, bandwidth = leaves = _self_test.numbers(device, (2, 5, 7, 9), (3, 5), ())
    found = mean_shift_labels(embeddings, centers, bandwidth)
    return [found, *_self_test.with_gradients(mean_shift_assign(embeddings, centers, bandwidth), leaves)]


_FORWARD, _BACKWARD = "mean_shift_assign forward", "mean_shift_assign backward"
operation = backends.declare(
    "mean_shift_assign",
    reference=reference.mean_shift_assign,
    pytorch=pytorch.mean_shift_assign,
    kernel=registration.mean_shift_assign,
    kernels=_mean_shift.KERNELS,
    work=work,
    self_test=self_test,
    extension_calls={
        "mean_shift_assign_forward": labeled(_FORWARD, _mean_shift.extension_work(work, "forward")),
        "mean_shift_assign_backward": labeled(_BACKWARD, _mean_shift.extension_work(work, "backward")),
    },
    triton_calls={
        "forward": labeled(_FORWARD, _mean_shift.triton_work(work, "forward", 0)),
        "labels": labeled(_FORWARD, _mean_shift.triton_work(work, "forward", 0)),
        "backward": labeled(_BACKWARD, _mean_shift.triton_work(work, "backward", 2)),
    },
    gpu_kernels={"^forward_kernel$": _FORWARD},
)
labels = operation.variant(
    reference=lambda *inputs, **options: reference.mean_shift_assign(*inputs, **options)[1].argmax(-1),
    pytorch=lambda *inputs, **options: pytorch.mean_shift_assign(*inputs, **options)[1].argmax(-1),
    kernel=registration.mean_shift_labels,
)
