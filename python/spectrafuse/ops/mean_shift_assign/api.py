"""Mean shift inside a window, and the assignment of the shifted embeddings to cluster centres."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.mean_shift_assign.pytorch import mean_shift_assign as composed
from spectrafuse.ops.mean_shift_assign.reference import mean_shift_assign as reference

_LARGEST_WINDOW = 11
_LARGEST_DIM = 128
_KERNELS = ("cpu", "triton")


class MeanShiftResult(NamedTuple):
    """What `mean_shift_assign` returns."""

    shifted: Tensor
    """(B, D, H, W): the embeddings after all iterations, not normalised."""
    probs: Tensor
    """(B, H, W, K): soft assignments, each pixel sums to 1."""


backends.declare(
    "mean_shift_assign",
    {"cpu": extensions.cpu_kernel_reason, "triton": triton.kernel_reason},
    trial=_trials.mean_shift_assign,
)


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
    """
    chosen = _check(embeddings, centers, bandwidth, num_iters, window, temperature)
    if chosen in _KERNELS:
        outputs = torch.ops.spectrafuse.mean_shift_assign(
            embeddings, centers, bandwidth, num_iters, window, temperature
        )
        return MeanShiftResult(outputs[0], outputs[1])
    implementation = reference if chosen == "reference" else composed
    shifted, probs = implementation(
        embeddings, centers, bandwidth, num_iters=num_iters, window=window, temperature=temperature
    )
    return MeanShiftResult(shifted, probs)


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
    chosen = _check(embeddings, centers, bandwidth, num_iters, window, temperature)
    if chosen in _KERNELS:
        return torch.ops.spectrafuse.mean_shift_labels(embeddings, centers, bandwidth, num_iters, window, temperature)
    implementation = reference if chosen == "reference" else composed
    with torch.no_grad():
        _, probs = implementation(
            embeddings, centers, bandwidth, num_iters=num_iters, window=window, temperature=temperature
        )
    return probs.argmax(-1)


def _check(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> str:
    """Check the arguments of both operations and choose the implementation."""
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
    return choose_local("mean_shift_assign", embeddings, bandwidth, num_iters, window, temperature)


def choose_local(
    op: str, embeddings: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> str:
    """Check what every operation with a mean shift inside a window takes, and choose the implementation of `op`."""
    checks.tensor("bandwidth", bandwidth, shape="()", ndim=0)
    if bandwidth.device != embeddings.device:
        raise checks.fail("bandwidth", f"on {embeddings.device} like `embeddings`", f"a tensor on {bandwidth.device}")
    checks.integer("num_iters", num_iters)
    if checks.integer("window", window) % 2 == 0:
        raise checks.fail("window", "an odd integer", window)
    checks.number("temperature", temperature, above=0.0)
    return backends.choose(op, embeddings.device.type, _limits(embeddings, window))


def _limits(embeddings: Tensor, window: int) -> dict[str, str | None]:
    """Why kernels cannot take these arguments."""
    large = f"it takes windows up to {_LARGEST_WINDOW}, got {window}" if window > _LARGEST_WINDOW else None
    wide = f"it takes up to {_LARGEST_DIM} dimensions" if embeddings.shape[1] > _LARGEST_DIM else None
    return {"cpu": large, "triton": large or wide or triton.dtype_reason(embeddings.dtype)}


# Registration. `previous` (z before the last iteration) and `weight_sum` are what the backward needs.

_ARGUMENTS = "Tensor embeddings, Tensor centers, Tensor bandwidth, int num_iters, int window, float temperature"
torch.library.define(
    "spectrafuse::mean_shift_assign",
    f"({_ARGUMENTS}) -> (Tensor shifted, Tensor probs, Tensor previous, Tensor weight_sum)",
)
torch.library.define("spectrafuse::mean_shift_labels", f"({_ARGUMENTS}) -> Tensor")
torch.library.define(
    "spectrafuse::mean_shift_assign_backward",
    "(Tensor? grad_shifted, Tensor? grad_probs, Tensor embeddings, Tensor centers, Tensor bandwidth, Tensor shifted, "
    "Tensor probs, Tensor previous, Tensor weight_sum, int window, float temperature) -> (Tensor, Tensor, Tensor)",
)


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
    extensions.cpu().mean_shift_forward(
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
    labels = torch.empty((batch, height, width), dtype=torch.int64)
    extensions.cpu().mean_shift_forward(
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
    grad_centers = torch.empty(c.shape, dtype=torch.float64)
    grad_bandwidth = extensions.cpu().mean_shift_backward(
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


triton.implement("mean_shift_assign", _forward_cpu, "mean_shift_assign.forward")
triton.implement("mean_shift_labels", _labels_cpu, "mean_shift_assign.labels")
triton.implement("mean_shift_assign_backward", _backward_cpu, "mean_shift_assign.backward")


@torch.library.register_fake("spectrafuse::mean_shift_assign")
def _forward_fake(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, dim, height, width = embeddings.shape
    working = extensions.working_dtype(embeddings.dtype)
    return (
        embeddings.new_empty((batch, dim, height, width)),
        embeddings.new_empty((batch, height, width, centers.shape[0])),
        embeddings.new_empty((batch, dim, height, width), dtype=working),
        embeddings.new_empty((batch, height, width), dtype=working),
    )


@torch.library.register_fake("spectrafuse::mean_shift_labels")
def _labels_fake(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> Tensor:
    batch, _, height, width = embeddings.shape
    return embeddings.new_empty((batch, height, width), dtype=torch.int64)


@torch.library.register_fake("spectrafuse::mean_shift_assign_backward")
def _backward_fake(
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
    grads = torch.ops.spectrafuse.mean_shift_assign_backward(
        grad_shifted, grad_probs, *ctx.saved_tensors, ctx.window, ctx.temperature
    )
    return (*grads, None, None, None)


torch.library.register_autograd("spectrafuse::mean_shift_assign", _backward, setup_context=_setup_context)
