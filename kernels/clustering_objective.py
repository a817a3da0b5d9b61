"""The training objective of both views in Triton: two kernels forward, two backward, without sums across programs.

Forward: `assign` runs the mean shift of a tile as in `mean_shift_assign`, writes the assignments and z before the last
iteration, and sums compactness, surprise at the pseudo-labels, valid pixels, mass and centers' sums of its tiles;
`compare` reads the other view's assignments at the same place. Backward: `upstream` repeats the last iteration and
takes the gradients of all terms to G = dL/dy / S, `gather` (of mean_shift_assign) collects it. Per pixel, forward reads
D + 5 K values from memory and writes D + K, backward reads 5 D + 10 K and writes 4 D; bound by the reads of the windows
from the first-level cache, window^2 D values for each iteration forward, three times that in all backward.

Sums are kept per program, in an order that depends on the sizes alone, and added in float64 by PyTorch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import CompileCase
from ._alignment import bilinear, is_valid, other_pixels
from ._clustering_upstream import PROB_EPS, upstream_kernel
from ._mean_shift import (
    PAPER_DIM,
    Launch,
    add_sums,
    compile_case,
    compile_forms,
    gather,
    inverse_norm,
    load_center,
    load_vectors,
    shift,
    softmax_terms,
    store_vectors,
    tile_constants,
    tile_pixels,
)


@triton.jit(do_not_specialize=["height", "width", "clusters", "num_iters", "window", "tiles"])
def assign_kernel(
    embeddings, stride_b, stride_d, stride_y, stride_x, centers, bandwidth, pseudo_labels, valid, probs, previous,
    shifted, view_sums, center_sums, height, width, clusters, num_iters, window, tiles, inverse_temperature,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, PIXELS: tl.constexpr,
    TILE_X: tl.constexpr, PLANE: tl.constexpr, STRIDE_D: tl.constexpr,
):  # fmt: skip
    """Program (p, v) takes every programs-th of a view's `tiles` from p on.

    `view_sums` (2, programs, 3 + K) holds compactness, surprise, pixels and mass, `center_sums` (2, programs, K, D) the
    sums for the centers; both start at zero. `previous`, `shifted`, `pseudo_labels`, `valid` may be None.
    """
    slot = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    view_sums += slot.to(tl.int64) * (3 + clusters)
    center_sums += slot.to(tl.int64) * clusters * DIM
    plane = tl.cast(height, tl.int64) * width if PLANE is None else PLANE
    step = stride_d if STRIDE_D is None else STRIDE_D
    width_of_weights = tl.load(bandwidth).to(tl.float32)
    exponent = -0.5 / (width_of_weights * width_of_weights)
    compactness = tl.zeros([PIXELS], tl.float32)
    surprise = tl.zeros([PIXELS], tl.float32)
    count = tl.zeros([PIXELS], tl.float32)
    for tile in range(tl.program_id(1) * tiles + tl.program_id(0), (tl.program_id(1) + 1) * tiles, tl.num_programs(0)):
        sample, y, x, inside = tile_pixels(tile, height, width, PIXELS, TILE_X)
        base = embeddings + sample * stride_b
        flat = y.to(tl.int64) * width + x
        pixels = sample * plane + flat
        place = y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
        z = load_vectors(base, step, place, inside, DIM, BLOCK_D)
        for iteration in range(num_iters):
            if previous is not None:  # noqa: SIM102  decided when the kernel is compiled, the other one when it runs
                if iteration == num_iters - 1:
                    store_vectors(z, previous + sample * DIM * plane, plane, flat, inside, DIM, BLOCK_D)
            z, _ = shift(z, base, step, stride_y, stride_x, y, x, inside, height, width, exponent, window, DIM, BLOCK_D)
        if shifted is not None:
            store_vectors(z, shifted + sample * DIM * plane, plane, flat, inside, DIM, BLOCK_D)
        counts = is_valid(valid, pixels, inside)
        count += counts.to(tl.float32)
        own = load_vectors(base, step, place, inside, DIM, BLOCK_D)
        label = tl.full([PIXELS], -1, tl.int64)
        if pseudo_labels is not None:
            label = tl.load(pseudo_labels + pixels, mask=counts, other=-1)
        scale = inverse_norm(z) * inverse_temperature
        largest, normaliser = softmax_terms(z, scale, centers, clusters, DIM, BLOCK_D)
        for k in range(clusters):
            center = load_center(centers, k, DIM, BLOCK_D)
            q = tl.exp(tl.sum(center * z, 0) * scale - largest) / normaliser
            tl.store(probs + pixels * clusters + k, q, mask=inside)
            counted = tl.where(counts, q, 0.0)
            compactness += counted * tl.maximum(1 - tl.sum(center * own, 0), 0.0)
            surprise -= tl.where(label == k, tl.log(tl.maximum(q, PROB_EPS)), 0.0)
            tl.store(view_sums + 3 + k, tl.load(view_sums + 3 + k) + tl.sum(counted, 0))
            add_sums(center_sums, k, counted, z, DIM, BLOCK_D)
    tl.store(view_sums, tl.sum(compactness, 0))
    tl.store(view_sums + 1, tl.sum(surprise, 0))
    tl.store(view_sums + 2, tl.sum(count, 0))


@triton.jit(do_not_specialize=["views", "height", "width", "clusters"])
def compare_kernel(
    geometry, valid, probs, divergence_sums, views, height, width, clusters,
    PIXELS: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Divergence of a tile from the other view, and how many of its pixels count: row `tile` of (tiles, 2)."""
    tile = tl.program_id(0)
    sample, y, x, inside = tile_pixels(tile, height, width, PIXELS, TILE_X)
    pixels = sample * height * width + y.to(tl.int64) * width + x
    corners, fractions, counts = other_pixels(
        geometry, valid, sample, y, x, is_valid(valid, pixels, inside), views, height, width
    )
    divergence = tl.zeros([PIXELS], tl.float32)
    for k in range(clusters):
        a = tl.load(probs + pixels * clusters + k, mask=counts, other=0.0) + PROB_EPS
        b = bilinear(probs, corners, fractions, counts, k, clusters) + PROB_EPS
        divergence += 0.5 * (a - b) * (tl.log(a) - tl.log(b))
    tl.store(divergence_sums + 2 * tile, tl.sum(tl.where(counts, divergence, 0.0), 0))
    tl.store(divergence_sums + 2 * tile + 1, tl.sum(counts.to(tl.float32), 0))


def forward(
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    num_iters: int,
    window: int,
    temperature: float,
    memory_order_sums: bool,
    keep_probs: bool,
    keep_previous: bool,
) -> tuple[Tensor, ...]:
    """The outputs of `spectrafuse::clustering_objective`."""
    views, dim, height, width = embeddings.shape
    clusters = centers.shape[0]
    launch = Launch(embeddings)
    geometry, pseudo_labels, valid = companions(embeddings, geometry, pseudo_labels, valid)

    def empty(*shape: int) -> Tensor:
        return embeddings.new_empty(shape, dtype=torch.float32)

    probs = empty(views, height, width, clusters)
    previous = empty(views if keep_previous else 0, dim, height, width)
    shifted = empty(views, dim, height, width) if memory_order_sums else None
    programs = launch.summing_programs(centers.numel(), launch.tiles // 2)
    view_sums = probs.new_zeros((2, programs, 3 + clusters))
    center_sums = probs.new_zeros((2, programs, clusters, dim))
    launch(
        assign_kernel, (programs, 2), *launch.image, centers.contiguous(), bandwidth, pseudo_labels, valid, probs,
        previous if keep_previous else None, shifted, view_sums, center_sums, height, width, clusters, num_iters,
        window, launch.tiles // 2, 1 / temperature, STRIDE_D=launch.stride_d,
    )  # fmt: skip
    # Index by index both views compare the same pairs.
    compared = launch.tiles if geometry is not None else launch.tiles // 2
    divergence_sums = empty(compared, 2)
    launch(compare_kernel, (compared,), geometry, valid, probs, divergence_sums, views, height, width, clusters)

    compactness, surprise, pixels, *_ = (of_views := view_sums.sum(1, dtype=torch.float64)).unbind(1)
    divergence, pairs = divergence_sums.sum(0, dtype=torch.float64)
    at_least_one = pixels.clamp_min(1)
    marginals = of_views[:, 3:] / at_least_one[:, None] + 1e-6
    entropy = torch.where(pixels > 0, -(marginals * marginals.log()).sum(1), 0.0)
    if shifted is None:
        sums = center_sums.sum((0, 1), dtype=torch.float64)
    else:
        counted = probs if valid is None else probs * valid[..., None]
        sums = counted.reshape(-1, clusters).double().t() @ shifted.reshape(-1, dim).double()
    terms = (
        compactness / at_least_one,
        (surprise / at_least_one).mean(),
        orthogonality(centers.double())[0],
        entropy.mean(),
        divergence / pairs.clamp_min(1),
        of_views[:, 3:].sum(0),
        sums,
    )
    counts = torch.stack((*pixels, pairs)).to(torch.int64)
    return *(x.float() for x in terms), probs if keep_probs else empty(0, *probs.shape[1:]), previous, marginals, counts


def backward(
    grad_compactness: Tensor | None,
    grad_uniform: Tensor | None,
    grad_orthogonality: Tensor | None,
    grad_balance: Tensor | None,
    grad_consistency: Tensor | None,
    grad_probs: Tensor | None,
    embeddings: Tensor,
    centers: Tensor,
    bandwidth: Tensor,
    geometry: Tensor | None,
    pseudo_labels: Tensor | None,
    valid: Tensor | None,
    probs: Tensor,
    previous: Tensor,
    marginals: Tensor,
    counts: Tensor,
    window: int,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of embeddings, centers and bandwidth."""
    views, _, height, width = embeddings.shape
    launch = Launch(embeddings)
    none = probs.new_zeros(2)
    terms = [
        none if g is None else g.contiguous() for g in (grad_compactness, grad_uniform, grad_balance, grad_consistency)
    ]
    upstream, upstream_dot, direct = (
        torch.empty_like(previous),
        torch.empty_like(probs[..., 0]),
        torch.empty_like(previous),
    )
    programs = launch.summing_programs(centers.numel(), launch.tiles)
    center_sums = probs.new_zeros((programs, *centers.shape))
    outside_sums = probs.new_empty(programs)
    launch(
        upstream_kernel, (programs,), *launch.image, centers.contiguous(), bandwidth,
        *companions(embeddings, geometry, pseudo_labels, valid), probs, previous, marginals, counts, *terms,
        None if grad_probs is None else grad_probs.contiguous(), upstream, upstream_dot, direct, center_sums,
        outside_sums, views, height, width, centers.shape[0], window, launch.tiles, 1 / temperature,
        STRIDE_D=launch.stride_d,
    )  # fmt: skip
    grad_embeddings, grad_bandwidth = gather(
        launch, bandwidth, previous, upstream, upstream_dot, direct, outside_sums, window
    )
    grad_centers = center_sums.sum(0, dtype=torch.float64)
    if grad_orthogonality is not None:
        grad_centers += grad_orthogonality * orthogonality(centers.double())[1]
    return grad_embeddings, grad_centers.to(centers.dtype), grad_bandwidth


def orthogonality(centers: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the squared entries of C C^T - I, and its gradient."""
    excess = centers @ centers.t()
    excess.diagonal().sub_(1)
    return excess.square().sum(), 4 * excess @ centers


def companions(
    embeddings: Tensor, geometry: Tensor | None, pseudo_labels: Tensor | None, valid: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The other inputs in the types and layouts the kernels take."""
    return (
        None if geometry is None else geometry.to(embeddings.device, torch.float64).contiguous(),
        None if pseudo_labels is None else pseudo_labels.contiguous(),
        None if valid is None else valid.contiguous().view(torch.uint8),
    )


def compile_cases() -> list[CompileCase]:
    """The forms in the table of resources, of the aligned objective without pseudo-labels and mask."""
    narrow = ("embeddings", "centers", "bandwidth")
    absent = dict.fromkeys(("pseudo_labels", "valid", "shifted", "grad_probs"))
    cases = []
    for name, dtype, constants, training in compile_forms():
        # Training crops are small.
        if constants["PLANE"] is None:
            continue
        form = {**constants, **absent}
        cases.append(compile_case(assign_kernel, f"assign {name}", dtype, form, training, narrow))
        cases.append(compile_case(upstream_kernel, f"upstream {name}", dtype, form, training, narrow))
    # `compare` knows nothing of dimensions and types.
    cases.append(compile_case(compare_kernel, "compare", "fp32", {**tile_constants(PAPER_DIM), **absent}, True, narrow))
    return cases
