"""From the gradients of the training objective's terms to those of the moved embeddings: see `clustering_objective`."""

from __future__ import annotations

import triton
import triton.language as tl

from ._alignment import bilinear, is_valid, other_pixels
from ._mean_shift import (
    add_sums,
    inverse_norm,
    load_center,
    load_vectors,
    pass_upstream,
    shift,
    store_vectors,
    through_normalisation,
    tile_pixels,
)

PROB_EPS = tl.constexpr(1e-6)


@triton.jit
def assignment_gradient(
    q, k, own, center, label, probs, grad_probs, rows, corners, fractions, inside, pairs, marginals,
    of_compactness, of_surprise, of_entropy, of_divergence, clusters,
):  # fmt: skip
    """Gradient of the assignments to cluster k.

    The factors `of_...` (PIXELS,) are zero for pixels that do not count.
    """
    gradient = of_compactness * tl.maximum(1 - tl.sum(center * own, 0), 0.0)
    gradient -= tl.where((label == k) & (q >= PROB_EPS), of_surprise / q, 0.0)
    gradient -= of_entropy * (tl.log(tl.load(marginals + k).to(tl.float32)) + 1)
    a = q + PROB_EPS
    b = bilinear(probs, corners, fractions, pairs, k, clusters) + PROB_EPS
    gradient += of_divergence * 0.5 * (tl.log(a) - tl.log(b) + (a - b) / a)
    if grad_probs is not None:
        gradient += tl.load(grad_probs + rows + k, mask=inside, other=0.0).to(tl.float32)
    return gradient


@triton.jit(do_not_specialize=["views", "height", "width", "clusters", "window", "tiles"])
def upstream_kernel(
    embeddings, stride_b, stride_d, stride_y, stride_x, centers, bandwidth, geometry, pseudo_labels, valid, probs,
    previous, marginals, counts, grad_compactness, grad_uniform, grad_balance, grad_consistency, grad_probs,
    upstream, upstream_dot, direct, center_sums, bandwidth_sums,
    views, height, width, clusters, window, tiles, inverse_temperature,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, PIXELS: tl.constexpr,
    TILE_X: tl.constexpr, PLANE: tl.constexpr, STRIDE_D: tl.constexpr,
):  # fmt: skip
    """Every program takes the tiles program, program + programs, ...; `center_sums` (programs, K, D) start at zero.

    `direct` receives the gradient by which the compactness reaches the embeddings themselves.
    """
    program = tl.program_id(0)
    center_sums += program.to(tl.int64) * clusters * DIM
    plane = tl.cast(height, tl.int64) * width if PLANE is None else PLANE
    step = stride_d if STRIDE_D is None else STRIDE_D
    width_of_weights = tl.load(bandwidth).to(tl.float32)
    exponent = -0.5 / (width_of_weights * width_of_weights)
    of_divergence = tl.load(grad_consistency) / tl.maximum(tl.load(counts + 2), 1).to(tl.float32)
    outside = tl.zeros([PIXELS], tl.float32)
    for tile in range(program, tiles, tl.num_programs(0)):
        sample, y, x, inside = tile_pixels(tile, height, width, PIXELS, TILE_X)
        base = embeddings + sample * stride_b
        flat = y.to(tl.int64) * width + x
        vectors = sample * DIM * plane
        pixels = sample * plane + flat
        rows = pixels * clusters
        counted = is_valid(valid, pixels, inside)
        view = 2 * sample.to(tl.int32) // views
        share = tl.where(counted, 1 / tl.maximum(tl.load(counts + view), 1).to(tl.float32), 0.0)
        compactness = share * tl.load(grad_compactness + view)
        own_place = y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
        own = load_vectors(base, step, own_place, inside, DIM, BLOCK_D)
        of_own = tl.zeros_like(own)
        for k in range(clusters):
            center = load_center(centers, k, DIM, BLOCK_D)
            pull = compactness * tl.load(probs + rows + k, mask=inside, other=0.0)
            pull = tl.where(tl.sum(center * own, 0) <= 1, pull, 0.0)
            add_sums(center_sums, k, -pull, own, DIM, BLOCK_D)
            of_own -= center * pull[None, :]
        store_vectors(of_own, direct + vectors, plane, flat, inside, DIM, BLOCK_D)

        corners, fractions, pairs = other_pixels(geometry, valid, sample, y, x, counted, views, height, width)
        label = tl.full([PIXELS], -1, tl.int64)
        if pseudo_labels is not None:
            label = tl.load(pseudo_labels + pixels, mask=counted, other=-1)
        surprise = share * 0.5 * tl.load(grad_uniform)
        entropy = share * 0.5 * tl.load(grad_balance)
        divergence = tl.where(pairs, of_divergence, 0.0)
        z = load_vectors(previous + vectors, plane, flat, inside, DIM, BLOCK_D)
        moved, total = shift(
            z, base, step, stride_y, stride_x, y, x, inside, height, width, exponent, window, DIM, BLOCK_D
        )
        inverse = inverse_norm(moved)
        # Read again rather than kept in registers.
        own = load_vectors(base, step, own_place, inside, DIM, BLOCK_D)
        mean = tl.zeros_like(inverse)
        for k in range(clusters):
            q = tl.load(probs + rows + k, mask=inside, other=0.0)
            mean += q * assignment_gradient(
                q, k, own, load_center(centers, k, DIM, BLOCK_D), label, probs, grad_probs, rows, corners, fractions,
                inside, pairs, marginals + view * clusters, compactness, surprise, entropy, divergence, clusters,
            )  # fmt: skip
        grad = tl.zeros_like(moved)
        for k in range(clusters):
            q = tl.load(probs + rows + k, mask=inside, other=0.0)
            center = load_center(centers, k, DIM, BLOCK_D)
            gradient = assignment_gradient(
                q, k, own, center, label, probs, grad_probs, rows, corners, fractions,
                inside, pairs, marginals + view * clusters, compactness, surprise, entropy, divergence, clusters,
            )  # fmt: skip
            grad_logit = q * (gradient - mean) * inverse_temperature
            add_sums(center_sums, k, grad_logit * inverse, moved, DIM, BLOCK_D)
            grad += center * grad_logit[None, :]
        outside += pass_upstream(
            through_normalisation(grad, moved, inverse), moved, total, previous + vectors, upstream + vectors,
            upstream_dot + sample * plane, plane, flat, y, x, inside, height, width, exponent, window, DIM, BLOCK_D,
        )  # fmt: skip
    tl.store(bandwidth_sums + program, tl.sum(outside, 0))
