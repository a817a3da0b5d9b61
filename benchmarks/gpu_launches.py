"""How the kernels for a GPU are launched: blocks, threads, work by count; and the work that is left to torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpu_model import Launch, Library
from spectrafuse import counts
from spectrafuse.counts import BYTES, Counts, Work

# Threads of a block; those of the CUDA kernels are `constexpr` numbers in csrc/cuda, Triton's are warps of LAUNCH.
THREADS = {"adamw_outer": 256, "ambiguity_penalty": 256, "gate": 64, "mixture": 128, "skinny_linear": 128}
TRITON_THREADS, DENSE_FORWARD_THREADS = 128, 256
# Rows of the gradient and columns of four a block of adamw_outer has; tiles of the other kernels.
ADAMW_ROWS, PAIR_TILE, LINEAR_OUTPUTS, LINEAR_PART, SAMPLES, MIXTURE_ROWS = 8, 64, 8, 256, 16, 32

Steps = Sequence[Launch | Library]


def blocks(*sizes_and_tiles: tuple[int, int]) -> int:
    """Of a grid: how often each tile is needed to cover its size."""
    return math.prod(math.ceil(size / tile) for size, tile in sizes_and_tiles)


def _cuda(kernel: str, threads: int, count: int, work: Work, near: int = 0) -> Launch:
    return Launch("cuda", kernel, threads, count, *work, near)


def _sum_of_parts(kernel: str, threads: int, size: int, parts: int) -> Launch:
    return _cuda(kernel, threads, blocks((size, threads)), Work(size * parts, BYTES * size * (parts + 1)))


def skinny_forward(batch: int, inputs: int, outputs: int) -> Steps:
    """A layer."""
    count = blocks((outputs, LINEAR_OUTPUTS), (batch, SAMPLES))
    # Every pair of outputs of a warp reads all samples' inputs.
    near = BYTES * inputs * outputs * (1 + batch) // 2
    work = counts.skinny_linear(batch, inputs, outputs).forward
    return [_cuda("forward_kernel(spectrafuse::SkinnyLinear)", THREADS["skinny_linear"], count, work, near)]


def skinny_input_gradient(batch: int, inputs: int, outputs: int) -> Steps:
    """The gradient of a layer's input."""
    threads, size = THREADS["skinny_linear"], batch * inputs
    count = blocks((inputs, threads), (outputs, LINEAR_PART), (batch, SAMPLES))
    work = counts.skinny_linear(batch, inputs, outputs).forward
    name = "backward_kernel(spectrafuse::SkinnyLinearBackward, float*)"
    parts = _sum_of_parts(
        "add_parts_kernel(float const*, float*, long, long)", threads, size, -(-outputs // LINEAR_PART)
    )
    return [_cuda(name, threads, count, work), parts]


def adamw(batch: int, inputs: int, outputs: int) -> Steps:
    """A step of one parameter (O, I)."""
    threads, work = THREADS["adamw_outer"], counts.adamw_outer(batch, inputs, outputs)
    width = 4 if inputs % 4 == 0 else 1
    count = blocks((inputs, threads * width), (outputs, ADAMW_ROWS))
    name = f"adamw_outer_kernel<{width}>(spectrafuse::AdamwOuter, spectrafuse::AdamwOptions, long, float const*)"
    # x is read again for every eight rows.
    return [_cuda(name, threads, count, work, BYTES * batch * inputs * outputs // ADAMW_ROWS)]


def gate_forward(batch: int, components: int) -> Steps:
    """Gates, energies and their sums."""
    count = blocks((components, THREADS["gate"]))
    return [
        _cuda(
            "gate_kernel(spectrafuse::Gate, double*)", THREADS["gate"], count, counts.gate(batch, components).forward
        ),
        _cuda("add_blocks_kernel(double const*, long, float*, float*, float*)", 32, 1, Work(3 * count, 24 * count)),
    ]


def gate_backward(batch: int, components: int) -> Steps:
    count = blocks((batch * components, 256))
    work = counts.gate(batch, components).backward
    return [_cuda("gate_backward_kernel(spectrafuse::GateBackward)", 256, count, work)]


def _mixture_weights(batch: int, components: int, bands: int) -> Launch:
    work = Work(2 * components * bands, BYTES * components * (bands + 3 * batch))
    name = "mixture_weights_kernel(spectrafuse::MixturePool, float*, float*)"
    return _cuda(name, THREADS["mixture"], components, work)


def mixture_forward(batch: int, components: int, bands: int) -> Steps:
    """Weights, partial mixtures, their sum."""
    threads, parts = THREADS["mixture"], -(-components // MIXTURE_ROWS)
    count = blocks((bands, threads), (components, MIXTURE_ROWS), (batch, SAMPLES))
    work = counts.gated_mixture(batch, components, bands).forward
    return [
        _mixture_weights(batch, components, bands),
        _cuda("mixture_kernel(spectrafuse::MixturePool, float const*, float*)", threads, count, work),
        _sum_of_parts("add_parts_kernel(float const*, long, long, float*)", 256, batch * bands, parts),
    ]


def mixture_backward(batch: int, components: int, bands: int) -> Steps:
    name = "mixture_backward_kernel(spectrafuse::GatedMixtureBackward, float const*, float const*)"
    work = counts.gated_mixture(batch, components, bands).backward
    # Every component reads the mixture's gradient twice.
    near = 2 * BYTES * batch * bands * components
    return [_mixture_weights(batch, components, bands), _cuda(name, THREADS["mixture"], components, work, near)]


def sparse_forward(batch: int, components: int, bands: int) -> Steps:
    """The mixture with gates of single channels, and the sums of their energies."""
    threads, parts = THREADS["mixture"], -(-components // MIXTURE_ROWS)
    count = blocks((bands, threads), (components, MIXTURE_ROWS))
    name = "sparse_kernel(spectrafuse::SparseGatedMixture, float const*, float*, double*)"
    sums = Work(2 * count, 16 * count)
    return [
        _mixture_weights(batch, components, bands),
        _cuda(name, threads, count, counts.sparse_gated_mixture(batch, components, bands).forward),
        _sum_of_parts("add_parts_kernel(float const*, long, long, float*)", 256, batch * bands, parts),
        _cuda("add_part_sums_kernel(double const*, long, float*, float*)", 32, 1, sums),
    ]


def sparse_backward(batch: int, components: int, bands: int) -> Steps:
    name = "sparse_backward_kernel(spectrafuse::SparseGatedMixtureBackward, float const*, float const*)"
    work = counts.sparse_gated_mixture(batch, components, bands).backward
    near = 2 * BYTES * batch * bands * components
    return [_mixture_weights(batch, components, bands), _cuda(name, THREADS["mixture"], components, work, near)]


def penalty(count: int, dim: int) -> Steps:
    """The rbf penalty of `count` components, with its gradient."""
    threads, counted = THREADS["ambiguity_penalty"], counts.ambiguity_penalty(count, dim)
    tiles, strips = blocks((count, PAIR_TILE)), blocks((dim, PAIR_TILE))
    pairs, gradient = counted.forward, counted.backward
    form = "(spectrafuse::Form)1>(spectrafuse::CudaAmbiguityPenalty)"
    # A thread has four rows and four columns of a tile: it reads eight numbers for sixteen sums of two operations.
    return [
        _cuda(f"pair_kernel<float, {form}", threads, tiles * (tiles + 1) // 2, pairs, BYTES * pairs.operations // 4),
        _cuda("mean_kernel<float>(spectrafuse::CudaAmbiguityPenalty)", threads, 1, Work(tiles**2, BYTES * tiles**2)),
        _cuda(f"gradient_kernel<float, {form}", threads, tiles * strips, gradient, BYTES * gradient.operations // 4),
    ]


def _triton(table: str, kernel: str, count: int, work: Work, near: int = 0, threads: int = TRITON_THREADS) -> Launch:
    return Launch(table, kernel, threads, count, *work, near)


def _window_bytes(pixels: int, dim: int, iterations: int, vectors: int = 1) -> int:
    """What mean shift in windows of 5 x 5 reads of its neighbours."""
    return BYTES * pixels * 25 * dim * iterations * vectors


def mean_shift(pixels: int, dim: int, clusters: int, what: str) -> Steps:
    """The forward pass, or labels alone."""
    work = counts.mean_shift_assign(pixels, dim, clusters, 5, 5).forward
    near = _window_bytes(pixels, dim, 5)
    return [_triton("mean_shift_assign", f"{what} fp32 D=32", blocks((pixels, 128)), work, near)]


def _gathering(pixels: int, dim: int, whole: Work, table: str) -> Steps:
    """The gradient that enters the window, and its gathering."""
    gathered = Work(9 * 25 * pixels * dim, 3 * BYTES * pixels * dim)
    rest = Work(whole.operations - gathered.operations, whole.bytes - gathered.bytes)
    count = blocks((pixels, 128))
    return [
        _triton(table, "upstream fp32 D=32", count, rest),
        _triton("mean_shift_assign", "gather fp32 D=32", count, gathered, _window_bytes(pixels, dim, 1, vectors=2)),
    ]


def mean_shift_backward(pixels: int, dim: int, clusters: int) -> Steps:
    """The pass through the last iteration."""
    whole = counts.mean_shift_assign(pixels, dim, clusters, 5, 5).backward
    # The counts leave out the assignments, which are few.
    return _gathering(
        pixels, dim, Work(whole.operations + 8 * pixels * clusters * dim, whole.bytes), "mean_shift_assign"
    )


def clustering_forward(pixels: int, dim: int, clusters: int) -> Steps:
    """Assignments of both views, and their comparison."""
    work = counts.clustering_objective(pixels, dim, clusters, 5, 5).forward
    compared = Work(20 * pixels * clusters, 2 * BYTES * pixels * clusters)
    return [
        _triton("clustering_objective", "assign fp32 D=32", blocks((pixels, 128)), work, _window_bytes(pixels, dim, 5)),
        _triton("clustering_objective", "compare", blocks((pixels, 128)), compared),
    ]


def clustering_backward(pixels: int, dim: int, clusters: int) -> Steps:
    """Of both views."""
    whole = counts.clustering_objective(pixels, dim, clusters, 5, 5).backward
    return _gathering(pixels, dim, whole, "clustering_objective")


def crops(batch: int, bands: int, side: int) -> Steps:
    count = blocks((side**2, 64), (bands, 16), (2 * batch, 1))
    work = counts.extract_crop_pairs(batch, bands, side**2)
    return [_triton("extract_crop_pairs", "fp32, channels-last", count, work)]


def compactness(pixels: int, bands: int, clusters: int, direction: str) -> Steps:
    """Of `pixels` in both views."""
    count = min(64, blocks((pixels, 32))) * blocks((bands, 32)) if direction == "forward" else blocks((pixels, 32))
    work = counts.spectral_compactness(pixels, bands, clusters).of(direction)
    return [_triton("spectral_compactness", f"{direction} fp32 K=4, by band", count, work)]


def dense(batch: int, dim: int, pixels: int, direction: str) -> Steps:
    """Five iterations."""
    work = counts.dense_mean_shift(batch, dim, pixels, 1).of(direction)
    threads = DENSE_FORWARD_THREADS if direction == "forward" else TRITON_THREADS
    one = _triton("dense_mean_shift", f"{direction} D={dim}", blocks((pixels, 64), (batch, 1)), work, 0, threads)
    return 5 * [one]


def convolutions(pixels: int, bands: int, dim: int) -> dict[str, Steps]:
    """Of the encoder: along the pixels with 9 taps, three of them, then two of 3 x 3."""
    convolved: list[Counts] = [counts.convolution(pixels, n, dim, 9) for n in (-(-bands // 16) * 16, *4 * [dim])]
    backward = [layer.backward for layer in convolved[1:]]
    # The first needs no gradient of its input.
    backward.append(convolved[0].forward)
    return {
        "forward": [Library("convolution", *c.forward) for c in convolved],
        "backward": [Library("convolution", *work, kernels=2) for work in backward],
    }
