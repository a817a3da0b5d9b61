"""What the operations with a mean shift inside a window share: checks, limits of their kernels, counted work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, Work
from spectrafuse.backends import Reason, not_float64

MOST_WINDOW = 101
"""Larger windows take hours, and more memory than there is; a mean shift over all pixels is another operation."""
LARGEST_WINDOW = 11
LARGEST_DIM = 128


def check_window(embeddings: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float) -> None:
    """Check what comes with a window."""
    checks.tensor("bandwidth", bandwidth, shape="()", ndim=0)
    if bandwidth.device != embeddings.device:
        raise checks.fail("bandwidth", f"on {embeddings.device} like `embeddings`", f"a tensor on {bandwidth.device}")
    checks.integer("num_iters", num_iters)
    if checks.integer("window", window, maximum=MOST_WINDOW) % 2 == 0:
        raise checks.fail("window", "an odd integer", window)
    checks.number("temperature", temperature, above=0.0)


def large_window(*inputs: Any, window: int, **options: Any) -> Reason:
    """The limit of the kernels' unrolled windows."""
    return f"it takes windows up to {LARGEST_WINDOW}, got {window}" if window > LARGEST_WINDOW else None


def many_dimensions(embeddings: Tensor, *others: Any, **options: Any) -> Reason:
    """The limit of what the Triton kernels keep in registers."""
    dim = embeddings.shape[1]
    return f"it takes up to {LARGEST_DIM} dimensions, got {dim}" if dim > LARGEST_DIM else None


KERNELS = {"cpu": (large_window,), "triton": (large_window, many_dimensions, not_float64)}


def extension_work(work: Callable[..., Counts], direction: str) -> Callable[..., Work]:
    """Of a C++ kernel; backward goes through one iteration."""

    def of_call(sizes: Sequence[int], strides: Sequence[int], *numbers: Any) -> Work:
        batch, dim, height, width, clusters = sizes
        iterations, window = numbers[:2] if direction == "forward" else (1, numbers[0])
        return work(batch * height * width, dim, clusters, iterations, window).of(direction)

    return of_call


def triton_work(work: Callable[..., Counts], direction: str, first: int) -> Callable[..., Work]:
    """From the embeddings (B, D, H, W) and centers (K, D) at `first`, iterations and window behind the tensors."""

    def of_call(*arguments: Any) -> Work:
        embeddings, centers = arguments[first], arguments[first + 1]
        numbers = [value for value in arguments[first + 2 :] if type(value) is int]
        iterations, window = numbers[:2] if direction == "forward" else (1, numbers[0])
        pixels = embeddings.numel() // embeddings.shape[1]
        return work(pixels, embeddings.shape[1], centers.shape[0], iterations, window).of(direction)

    return of_call
