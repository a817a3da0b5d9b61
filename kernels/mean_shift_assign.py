"""Windowed mean shift and assignment in Triton: one kernel forward, two backward.

Forward: a program runs all iterations for its tile of pixels in registers, then the softmax over the centers twice
(normaliser, then values). Per pixel it reads D values from memory and writes 2 D + K + 1; per pixel and iteration it
reads window^2 D values from the first-level cache and does 3 multiply-adds with each: bound by those reads, one cache
line a clock and multiprocessor (window^2 D / 32 clocks a pixel and iteration), before arithmetic.

Backward: `upstream` takes the gradients of both outputs to G = dL/dy / S (y the shifted embedding, S the sum of its
weights) and writes each program's part of the gradient of the centers; `gather` sums for every embedding what all the
pixels whose windows hold it send back, so no two programs write one place. Reads 5 D + 2 K, writes 2 D values a pixel;
`gather` reads 2 window^2 D values a pixel from the cache with 5 multiply-adds for each pair: bound by those reads.
Only the last iteration carries gradient, and z enters its weights detached.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import CompileCase
from ._mean_shift import (
    PAPER_DIM,
    Launch,
    add_sums,
    compile_case,
    compile_forms,
    gather,
    gather_kernel,
    inverse_norm,
    load_center,
    load_vectors,
    pass_upstream,
    shift,
    softmax_terms,
    store_vectors,
    through_normalisation,
    tile_pixels,
)


@triton.jit(do_not_specialize=["height", "width", "clusters", "num_iters", "window"])
def forward_kernel(
    embeddings, stride_b, stride_d, stride_y, stride_x, centers, bandwidth, shifted, probs, previous, weight_sum,
    labels, height, width, clusters, num_iters, window, inverse_temperature,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, PIXELS: tl.constexpr,
    TILE_X: tl.constexpr, PLANE: tl.constexpr, STRIDE_D: tl.constexpr,
):  # fmt: skip
    """Writes `labels` where it is not None, else the other four outputs."""
    sample, y, x, inside = tile_pixels(tl.program_id(0), height, width, PIXELS, TILE_X)
    base = embeddings + sample * stride_b
    plane = tl.cast(height, tl.int64) * width if PLANE is None else PLANE
    step = stride_d if STRIDE_D is None else STRIDE_D
    flat = y.to(tl.int64) * width + x
    width_of_weights = tl.load(bandwidth).to(tl.float32)
    exponent = -0.5 / (width_of_weights * width_of_weights)
    place = y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
    z = load_vectors(base, step, place, inside, DIM, BLOCK_D)
    total = tl.sum(z, 0)
    for iteration in range(num_iters):
        if labels is None:  # noqa: SIM102  decided when the kernel is compiled, the other one when it runs
            if iteration == num_iters - 1:
                store_vectors(z, previous + sample * DIM * plane, plane, flat, inside, DIM, BLOCK_D)
        z, total = shift(z, base, step, stride_y, stride_x, y, x, inside, height, width, exponent, window, DIM, BLOCK_D)
    scale = inverse_norm(z) * inverse_temperature
    if labels is None:
        store_vectors(z, shifted + sample * DIM * plane, plane, flat, inside, DIM, BLOCK_D)
        tl.store(weight_sum + sample * plane + flat, total, mask=inside)
        largest, normaliser = softmax_terms(z, scale, centers, clusters, DIM, BLOCK_D)
        rows = probs + (sample * plane + flat) * clusters
        for k in range(clusters):
            logit = tl.sum(load_center(centers, k, DIM, BLOCK_D) * z, 0) * scale
            probability = tl.exp(logit - largest) / normaliser
            tl.store(rows + k, probability.to(probs.dtype.element_ty), mask=inside)
    else:
        best = tl.full(scale.shape, float("-inf"), tl.float32)
        label = tl.zeros(scale.shape, tl.int64)
        for k in range(clusters):
            logit = tl.sum(load_center(centers, k, DIM, BLOCK_D) * z, 0) * scale
            label = tl.where(logit > best, k, label)
            best = tl.maximum(logit, best)
        tl.store(labels + sample * plane + flat, label, mask=inside)


@triton.jit(do_not_specialize=["height", "width", "clusters", "window", "tiles"])
def upstream_kernel(
    centers, bandwidth, shifted, probs, previous, weight_sum, grad_shifted, grad_probs,
    upstream, upstream_dot, center_sums, bandwidth_sums, height, width, clusters, window, tiles, inverse_temperature,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, PIXELS: tl.constexpr,
    TILE_X: tl.constexpr, PLANE: tl.constexpr,
):  # fmt: skip
    """Every program takes the tiles program, program + programs, ...; its sums start at zero.

    All tensors are contiguous: shifted, previous, upstream (B, D, H, W), probs (B, H, W, K), center_sums (programs, K,
    D), bandwidth_sums (programs,).
    """
    program = tl.program_id(0)
    width_of_weights = tl.load(bandwidth).to(tl.float32)
    exponent = -0.5 / (width_of_weights * width_of_weights)
    plane = tl.cast(height, tl.int64) * width if PLANE is None else PLANE
    center_sums += program.to(tl.int64) * clusters * DIM
    outside = tl.zeros([PIXELS], tl.float32)
    for tile in range(program, tiles, tl.num_programs(0)):
        sample, y, x, inside = tile_pixels(tile, height, width, PIXELS, TILE_X)
        flat = y.to(tl.int64) * width + x
        vectors = sample * DIM * plane
        pixels = sample * plane + flat
        shifted_z = load_vectors(shifted + vectors, plane, flat, inside, DIM, BLOCK_D)
        grad = tl.zeros_like(shifted_z)
        if grad_probs is not None:
            inverse = inverse_norm(shifted_z)
            mean = tl.zeros_like(inverse)
            for k in range(clusters):
                q = tl.load(probs + pixels * clusters + k, mask=inside, other=0.0).to(tl.float32)
                mean += q * tl.load(grad_probs + pixels * clusters + k, mask=inside, other=0.0).to(tl.float32)
            for k in range(clusters):
                q = tl.load(probs + pixels * clusters + k, mask=inside, other=0.0).to(tl.float32)
                g = tl.load(grad_probs + pixels * clusters + k, mask=inside, other=0.0).to(tl.float32)
                grad_logit = q * (g - mean) * inverse_temperature
                add_sums(center_sums, k, grad_logit * inverse, shifted_z, DIM, BLOCK_D)
                grad += load_center(centers, k, DIM, BLOCK_D) * grad_logit[None, :]
            grad = through_normalisation(grad, shifted_z, inverse)
        if grad_shifted is not None:
            grad += load_vectors(grad_shifted + vectors, plane, flat, inside, DIM, BLOCK_D)
        total = tl.load(weight_sum + pixels, mask=inside, other=1.0)
        outside += pass_upstream(
            grad, shifted_z, total, previous + vectors, upstream + vectors, upstream_dot + sample * plane, plane, flat,
            y, x, inside, height, width, exponent, window, DIM, BLOCK_D,
        )  # fmt: skip
    tl.store(bandwidth_sums + program, tl.sum(outside, 0))


def forward(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`shifted`, `probs`, z before the last iteration, and the sum of the last weights."""
    batch, dim, height, width = embeddings.shape
    shifted = embeddings.new_empty((batch, dim, height, width))
    probs = embeddings.new_empty((batch, height, width, centers.shape[0]))
    previous = torch.empty_like(shifted, dtype=torch.float32)
    weight_sum = torch.empty_like(previous[:, 0], memory_format=torch.contiguous_format)
    launch = Launch(embeddings)
    launch(
        forward_kernel, (launch.tiles,), *launch.image, centers.contiguous(), bandwidth, shifted, probs, previous,
        weight_sum, None, height, width, centers.shape[0], num_iters, window, 1 / temperature,
        STRIDE_D=launch.stride_d,
    )  # fmt: skip
    return shifted, probs, previous, weight_sum


def labels(
    embeddings: Tensor, centers: Tensor, bandwidth: Tensor, num_iters: int, window: int, temperature: float
) -> Tensor:
    """The index of the largest probability of every pixel, int64."""
    batch, _, height, width = embeddings.shape
    out = embeddings.new_empty((batch, height, width), dtype=torch.int64)
    launch = Launch(embeddings)
    launch(
        forward_kernel, (launch.tiles,), *launch.image, centers.contiguous(), bandwidth, None, None, None, None, out,
        height, width, centers.shape[0], num_iters, window, 1 / temperature,
        STRIDE_D=launch.stride_d,
    )  # fmt: skip
    return out


def backward(
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
    """Gradients of embeddings, centers and bandwidth."""
    height, width = embeddings.shape[2:]
    launch = Launch(embeddings)
    upstream, upstream_dot = torch.empty_like(previous), torch.empty_like(weight_sum)
    programs = launch.summing_programs(centers.numel(), launch.tiles)
    center_sums = previous.new_zeros((programs, *centers.shape))
    outside_sums = previous.new_empty(programs)

    def dense(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.contiguous()

    launch(
        upstream_kernel, (programs,), centers.contiguous(), bandwidth, dense(shifted), dense(probs), previous,
        weight_sum, dense(grad_shifted), dense(grad_probs), upstream, upstream_dot, center_sums, outside_sums,
        height, width, centers.shape[0], window, launch.tiles, 1 / temperature,
    )  # fmt: skip
    grad_embeddings, grad_bandwidth = gather(
        launch, bandwidth, previous, upstream, upstream_dot, None, outside_sums, window
    )
    return grad_embeddings, center_sums.sum(0, dtype=torch.float64).to(centers.dtype), grad_bandwidth


def compile_cases() -> list[CompileCase]:
    """The forms in the table of resources."""
    narrow = ("embeddings", "centers", "bandwidth", "shifted", "probs", "grad_shifted", "grad_probs", "grad_embeddings")
    no_tensors = dict.fromkeys(("shifted", "probs", "previous", "weight_sum"))
    cases = []
    for name, dtype, constants, training in compile_forms():
        # Inference runs on images of any size, and needs no gradient.
        published = constants["DIM"] == PAPER_DIM
        for kernel_name, kernel, extra, paper in (
            ("forward", forward_kernel, {"labels": None}, published),
            ("labels", forward_kernel, no_tensors, published),
            ("upstream", upstream_kernel, {}, training),
            ("gather", gather_kernel, {"direct": None}, training),
        ):
            form = {**constants, **extra}
            cases.append(compile_case(kernel, f"{kernel_name} {name}", dtype, form, paper, narrow))
    return cases
