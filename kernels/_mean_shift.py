"""Device functions of the windowed mean shift, shared by `mean_shift_assign` and `clustering_objective`.

A program holds a tile of `PIXELS` pixels, `TILE_X` columns wide, as blocks (BLOCK_D, PIXELS) in registers, in float32.
Neighbours are read again in every iteration, from the first-level cache: nothing of the window's size is stored.
Addresses are 64-bit. Pixels behind the edges of the image and dimensions from DIM to BLOCK_D are zero everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import LAUNCH, CompileCase

WEIGHT_EPS = tl.constexpr(1e-6)
NORM_EPS = tl.constexpr(1e-12)
NUM_WARPS = 4
SUMMING_PROGRAMS = 512
"""Programs that keep sums of their own for the centers, at least, if there are as many tiles."""
PAPER_DIM = 32
"""Dimensions of the published embeddings."""


@triton.jit
def tile_pixels(tile, height, width, PIXELS: tl.constexpr, TILE_X: tl.constexpr):
    """Sample (int64), rows, columns of a tile, and which of its pixels lie inside the image."""
    TILE_Y: tl.constexpr = PIXELS // TILE_X
    across = tl.cdiv(width, TILE_X)
    down = tl.cdiv(height, TILE_Y)
    sample = (tile // (across * down)).to(tl.int64)
    pixel = tl.arange(0, PIXELS)
    y = tile // across % down * TILE_Y + pixel // TILE_X
    # Neighbours start at any column. Were the tile's own columns known to be aligned, the compiler would give every
    # thread four of them, for all loads, and a load of the neighbours would touch four times the cache lines.
    x = tl.multiple_of(tile % across * TILE_X + pixel % TILE_X, 1)
    return sample, y, x, (y < height) & (x < width)


@triton.jit
def block(base, stride_d, place, inside, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Pointers (BLOCK_D, PIXELS) to the vectors at int64 offsets `place`, and the mask of those that exist."""
    d = tl.arange(0, BLOCK_D)
    return base + (d.to(tl.int64) * stride_d)[:, None] + place[None, :], (d < DIM)[:, None] & inside[None, :]


@triton.jit
def load_vectors(base, stride_d, place, inside, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    pointers, mask = block(base, stride_d, place, inside, DIM, BLOCK_D)
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store_vectors(values, base, stride_d, place, inside, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    pointers, mask = block(base, stride_d, place, inside, DIM, BLOCK_D)
    tl.store(pointers, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def load_center(centers, k, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Center k (BLOCK_D, 1) of contiguous centers (K, DIM)."""
    d = tl.arange(0, BLOCK_D)
    return tl.load(centers + k * DIM + d, mask=d < DIM, other=0.0).to(tl.float32)[:, None]


@triton.jit
def inside_image(row, column, inside, height, width):
    return inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)


@triton.jit
def shift(
    z, base, stride_d, stride_y, stride_x, y, x, inside, height, width, exponent,
    window, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One iteration from z: the weighted mean of the windows, and the sum of the weights.

    `base` is the sample's first embedding. Neighbours outside the image are zero vectors and count.
    """
    weighted = tl.zeros_like(z)
    total = tl.zeros_like(tl.sum(z, 0)) + WEIGHT_EPS
    half = window // 2
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            row, column = y + dy, x + dx
            exists = inside_image(row, column, inside, height, width)
            place = row.to(tl.int64) * stride_y + column.to(tl.int64) * stride_x
            p = load_vectors(base, stride_d, place, exists, DIM, BLOCK_D)
            difference = p - z
            weight = tl.exp(tl.sum(difference * difference, 0) * exponent)
            weighted += weight[None, :] * p
            total += weight
    return weighted * (1 / total)[None, :], total


@triton.jit
def outside_window(y, x, height, width, window):
    """How many pixels of each window lie outside the image."""
    half = window // 2
    rows = tl.minimum(y + half, height - 1) - tl.maximum(y - half, 0) + 1
    columns = tl.minimum(x + half, width - 1) - tl.maximum(x - half, 0) + 1
    return window * window - rows * columns


@triton.jit
def inverse_norm(z):
    """1 / max(|z|, 1e-12) for every pixel."""
    return 1 / tl.maximum(tl.sqrt(tl.sum(z * z, 0)), NORM_EPS)


@triton.jit
def softmax_terms(z, scale, centers, clusters, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Largest logit (z . c_k) scale of every pixel, and the sum of exp(logit - largest)."""
    largest = tl.full(scale.shape, float("-inf"), tl.float32)
    total = tl.zeros_like(scale)
    for k in range(clusters):
        logit = tl.sum(load_center(centers, k, DIM, BLOCK_D) * z, 0) * scale
        larger = tl.maximum(largest, logit)
        total = total * tl.exp(largest - larger) + tl.exp(logit - larger)
        largest = larger
    return largest, total


@triton.jit
def add_sums(sums, k, weights, vectors, DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Add sum_i weights_i vectors_i over a tile to row k of the program's own sums (K, DIM)."""
    d = tl.arange(0, BLOCK_D)
    pointers = sums + k * DIM + d
    old = tl.load(pointers, mask=d < DIM, other=0.0)
    tl.store(pointers, old + tl.sum(weights[None, :] * vectors, 1), mask=d < DIM)
    # The program's other threads may read them next.
    tl.debug_barrier()


@triton.jit
def through_normalisation(grad_unit, y, inverse):
    """Gradient of y from that of y / max(|y|, 1e-12): the part along y goes, except where the norm is clamped."""
    unit = y * inverse[None, :]
    along = tl.where(inverse < 1 / NORM_EPS, tl.sum(unit * grad_unit, 0), 0.0)
    return (grad_unit - unit * along[None, :]) * inverse[None, :]


@triton.jit
def pass_upstream(
    grad, moved, total, previous, upstream, upstream_dot, plane, flat, y, x, inside, height, width, exponent,
    window, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write G = grad / total and G . (moved - z), z = `previous`, for gradients of the moved embeddings.

    Returns the part of the sum of w t |p - z|^2 (see `gather_gradient`) that neighbours outside the image have: they
    are zero vectors, with weights and without a gradient of their own.
    """
    grad *= (1 / total)[None, :]
    store_vectors(grad, upstream, plane, flat, inside, DIM, BLOCK_D)
    z = load_vectors(previous, plane, flat, inside, DIM, BLOCK_D)
    tl.store(upstream_dot + flat, tl.sum(grad * (moved - z), 0), mask=inside)
    distance = tl.sum(z * z, 0)
    pull = tl.exp(distance * exponent) * tl.sum(grad * moved, 0)
    return -outside_window(y, x, height, width, window) * pull * distance


@triton.jit
def gather_gradient(
    p, previous, upstream, upstream_dot, plane, y, x, inside, height, width, exponent,
    window, DIM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradient of the embeddings p from all pixels whose windows hold them.

    With z = `previous`, G = `upstream`, w = exp(exponent |p - z|^2), s = -2 exponent and t = G . (p - z) - G . (y - z),
    whose last term is `upstream_dot`: sum of w (G - s t (p - z)). Also returns, for every p, the sum of w t |p - z|^2.
    `previous`, `upstream` and `upstream_dot` point to the sample's contiguous (D, H, W) and (H, W).
    """
    gradient = tl.zeros_like(p)
    along_bandwidth = tl.zeros_like(tl.sum(p, 0))
    half = window // 2
    for dy in range(-half, half + 1):
        for dx in range(-half, half + 1):
            row, column = y + dy, x + dx
            exists = inside_image(row, column, inside, height, width)
            place = row.to(tl.int64) * width + column
            difference = p - load_vectors(previous, plane, place, exists, DIM, BLOCK_D)
            g = load_vectors(upstream, plane, place, exists, DIM, BLOCK_D)
            dot = tl.load(upstream_dot + place, mask=exists, other=0.0)
            distance = tl.sum(difference * difference, 0)
            weight = tl.exp(distance * exponent)
            pull = weight * (tl.sum(difference * g, 0) - dot)
            along_bandwidth += pull * distance
            gradient += weight[None, :] * g + (2 * exponent * pull)[None, :] * difference
    return gradient, along_bandwidth


@triton.jit(do_not_specialize=["height", "width", "window"])
def gather_kernel(
    embeddings, stride_b, stride_d, stride_y, stride_x, bandwidth, previous, upstream, upstream_dot, direct,
    grad_embeddings, bandwidth_sums, height, width, window,
    DIM: tl.constexpr, BLOCK_D: tl.constexpr, PIXELS: tl.constexpr, TILE_X: tl.constexpr,
    PLANE: tl.constexpr, STRIDE_D: tl.constexpr,
):  # fmt: skip
    """One program a tile; `bandwidth_sums` has one entry a program; `direct` is a gradient to be added, or None."""
    tile = tl.program_id(0)
    sample, y, x, inside = tile_pixels(tile, height, width, PIXELS, TILE_X)
    width_of_weights = tl.load(bandwidth).to(tl.float32)
    exponent = -0.5 / (width_of_weights * width_of_weights)
    plane = tl.cast(height, tl.int64) * width if PLANE is None else PLANE
    step = stride_d if STRIDE_D is None else STRIDE_D
    place = y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x
    p = load_vectors(embeddings + sample * stride_b, step, place, inside, DIM, BLOCK_D)
    gradient, along_bandwidth = gather_gradient(
        p, previous + sample * DIM * plane, upstream + sample * DIM * plane, upstream_dot + sample * plane,
        plane, y, x, inside, height, width, exponent, window, DIM, BLOCK_D,
    )  # fmt: skip
    flat = y.to(tl.int64) * width + x
    if direct is not None:
        gradient += load_vectors(direct + sample * DIM * plane, plane, flat, inside, DIM, BLOCK_D)
    store_vectors(gradient, grad_embeddings + sample * DIM * plane, plane, flat, inside, DIM, BLOCK_D)
    tl.store(bandwidth_sums + tile, tl.sum(along_bandwidth, 0))


def constant_stride(stride: int, dim: int, item_size: int) -> int | None:
    """The distance of two dimensions as a constant of the code, or None where it should be an argument.

    All dimensions of a pixel are then read at one address plus constants, a third of the instructions of the inner loop
    fewer and half the registers, if the constants fit the 24 bits instructions have for them. Larger images share code.
    """
    return stride if dim * stride * item_size < 2**23 else None


class Launch:
    """How kernels are launched for embeddings (B, D, H, W) of any strides."""

    def __init__(self, embeddings: Tensor) -> None:
        batch, dim, height, width = embeddings.shape
        self.image = (embeddings, *embeddings.stride())
        self.constants = tile_constants(dim)
        self.constants["PLANE"] = constant_stride(height * width, dim, 4)
        self.stride_d = constant_stride(embeddings.stride(1), dim, embeddings.element_size())
        down = triton.cdiv(height, self.constants["PIXELS"] // self.constants["TILE_X"])
        self.tiles = batch * down * triton.cdiv(width, self.constants["TILE_X"])

    def summing_programs(self, values: int, tiles: int) -> int:
        """As many programs as tiles, or fewer where their sums of so many values each would take more than 4 MB."""
        return min(tiles, max(SUMMING_PROGRAMS, 2**20 // values))

    def __call__(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        if 0 not in grid:
            known = {name: value for name, value in self.constants.items() if name in kernel.arg_names}
            with torch.cuda.device_of(self.image[0]):
                kernel[grid](*arguments, **known, **constants, **LAUNCH, num_warps=NUM_WARPS)


def gather(
    launch: Launch,
    bandwidth: Tensor,
    previous: Tensor,
    upstream: Tensor,
    upstream_dot: Tensor,
    direct: Tensor | None,
    outside_sums: Tensor,
    window: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of the launch's embeddings and of the bandwidth, from what an upstream kernel wrote."""
    grad_embeddings = torch.empty_like(previous, dtype=launch.image[0].dtype)
    pair_sums = previous.new_empty(launch.tiles)
    launch(
        gather_kernel, (launch.tiles,), *launch.image, bandwidth, previous, upstream, upstream_dot, direct,
        grad_embeddings, pair_sums, *previous.shape[2:], window, STRIDE_D=launch.stride_d,
    )  # fmt: skip
    along_bandwidth = outside_sums.sum(dtype=torch.float64) + pair_sums.sum(dtype=torch.float64)
    return grad_embeddings, (along_bandwidth / bandwidth.double() ** 3).to(bandwidth.dtype)


def tile_constants(dim: int) -> dict[str, Any]:
    """The kernels' constants for a number of dimensions: 4096 values a block, 32 for each thread."""
    block = triton.next_power_of_2(dim)
    return {"DIM": dim, "BLOCK_D": block, "PIXELS": 4096 // max(block, 32), "TILE_X": 32}


def compile_forms() -> Iterator[tuple[str, str, dict[str, Any], bool]]:
    """Name, dtype, constants of what is compiled ahead of time, and whether published training has this form.

    The numbers of clusters and iterations, the window and the image's size are no constants: one form serves all.
    """
    for dim, dtype, plane in product((PAPER_DIM, 128), ("fp32", "bf16"), (64 * 64, None)):
        constants = {**tile_constants(dim), "PLANE": plane, "STRIDE_D": plane, "stride_x": 1}
        yield f"{dtype} D={dim}{'' if plane else ' large image'}", dtype, constants, dim == PAPER_DIM and bool(plane)


def compile_case(
    kernel: Any, name: str, dtype: str, constants: dict[str, Any], paper: bool, narrow: tuple[str, ...]
) -> CompileCase:
    """One kernel in one form; arguments named in `narrow` point to the inputs' type."""
    known = {
        **dict.fromkeys(("height", "width", "views", "tiles", "clusters", "num_iters", "window"), "i32"),
        **dict.fromkeys(("stride_b", "stride_d", "stride_y"), "i32:16"),
        **dict.fromkeys(("labels", "counts"), "*i64:16"),
        **dict.fromkeys(("geometry", "marginals"), "*fp64:16"),
        "inverse_temperature": "fp32",
    }
    signature = {
        argument: known.get(argument, f"*{dtype if argument in narrow else 'fp32'}:16")
        for argument in kernel.arg_names
        if argument.islower() and argument not in constants
    }
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    return CompileCase(name, kernel, signature, constants, {"num_warps": NUM_WARPS}, paper)
