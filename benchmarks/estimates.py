"""How long every GPU kernel and a training step should take on consumer GPUs: estimates, without a GPU.

    python benchmarks/estimates.py            write benchmarks/resources/estimates.md
    python benchmarks/estimates.py --check    fail if that file is not what the tables of resources give

From the tables beside that file (registers, shared memory), the sizes the kernels are started with, and the counts of
`spectrafuse.counts`; `gpu_model.py` says how.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu_model import GPUS, START_SECONDS, Estimate, Gpu, Launch, Library, estimate
from spectrafuse import counts
from spectrafuse.counts import BYTES, Counts, Work

FOLDER = Path(__file__).with_name("resources")
FILE = FOLDER / "estimates.md"

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


def clustering_forward(pixels: int, dim: int, clusters: int) -> Steps:
    """Assignments of both views, and their comparison."""
    work = counts.clustering_objective(pixels, dim, clusters, 5, 5).forward
    compared = Work(20 * pixels * clusters, 2 * BYTES * pixels * clusters)
    return [
        _triton("clustering_objective", "assign fp32 D=32", blocks((pixels, 128)), work, _window_bytes(pixels, dim, 5)),
        _triton("clustering_objective", "compare", blocks((pixels, 128)), compared),
    ]


def clustering_backward(pixels: int, dim: int, clusters: int) -> Steps:
    """The gradient that enters the window, and its gathering."""
    counted = counts.clustering_objective(pixels, dim, clusters, 5, 5).backward
    gathered = Work(9 * 25 * pixels * dim, 3 * BYTES * pixels * dim)
    rest = Work(counted.operations - gathered.operations, counted.bytes - gathered.bytes)
    count = blocks((pixels, 128))
    return [
        _triton("clustering_objective", "upstream fp32 D=32", count, rest),
        _triton("mean_shift_assign", "gather fp32 D=32", count, gathered, _window_bytes(pixels, dim, 1, vectors=2)),
    ]


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


def dgc_step(batch: int = 4, bands: int = 301, side: int = 64, dim: int = 32, clusters: int = 4) -> dict[str, Steps]:
    """A training step of the recipe `corrected` at the published sizes."""
    pixels = 2 * batch * side**2
    encoder = convolutions(pixels, bands, dim)
    # ReLU and normalisation of the embeddings: 15 numbers a channel and pixel forward, 35 backward.
    elementwise = Library("elementwise", 50 * pixels * dim, 50 * BYTES * pixels * dim, kernels=30)
    return {
        "extract_crop_pairs": crops(batch, bands, side),
        "convolution forward": encoder["forward"],
        "convolution backward": encoder["backward"],
        "clustering_objective forward": clustering_forward(pixels, dim, clusters),
        "clustering_objective backward": clustering_backward(pixels, dim, clusters),
        "torch's other kernels": [elementwise, Library("optimiser and centres", 0, 0, kernels=20)],
    }


def layers(components: int, bands: int) -> list[tuple[int, int]]:
    """(I, O) of both networks of EB-gMCR, the first layer of each first."""
    evaluator = [bands, 4 * components, 4 * components, 2 * components]
    regressor = [bands, 2 * components, 2 * components, components]
    return [pair for widths in (evaluator, regressor) for pair in itertools.pairwise(widths)]


def ebgmcr_step(batch: int = 16, components: int = 1024, bands: int = 512) -> dict[str, Steps]:
    """A training step with the penalty on all components, as in the first epochs."""
    sizes = layers(components, bands)
    inner = [pair for pair in sizes if pair[0] != bands]
    trained = [*((batch, *pair) for pair in sizes), *((batch, o, 1) for _, o in sizes), (1, components * bands, 1)]
    return {
        "skinny_linear forward": [launch for pair in sizes for launch in skinny_forward(batch, *pair)],
        "skinny_linear backward": [launch for pair in inner for launch in skinny_input_gradient(batch, *pair)],
        "gate forward": gate_forward(batch, components),
        "gate backward": gate_backward(batch, components),
        "gated_mixture forward": mixture_forward(batch, components, bands),
        "gated_mixture backward": mixture_backward(batch, components, bands),
        "ambiguity_penalty": penalty(components, bands),
        "adamw_outer": [launch for shape in trained for launch in adamw(*shape)],
        "torch's other kernels": [Library("elementwise and noise", 0, 0, kernels=40)],
    }


def operations() -> dict[str, Steps]:
    """Every operation with a kernel, at the size `paper` of its benchmark."""
    pixels = 4 * 64**2
    return {
        "adamw_outer": adamw(16, 4096, 4096),
        "ambiguity_penalty": penalty(1024, 512),
        "clustering_objective forward": clustering_forward(2 * pixels, 32, 4),
        "clustering_objective backward": clustering_backward(2 * pixels, 32, 4),
        "dense_mean_shift forward": dense(1, 32, 64**2, "forward"),
        "dense_mean_shift backward": dense(1, 32, 64**2, "backward"),
        "extract_crop_pairs": crops(4, 301, 64),
        "gate forward": gate_forward(16, 1024),
        "gate backward": gate_backward(16, 1024),
        "gated_mixture forward": mixture_forward(16, 1024, 512),
        "gated_mixture backward": mixture_backward(16, 1024, 512),
        "mean_shift_assign forward": mean_shift(pixels, 32, 4, "forward"),
        "mean_shift_assign labels": mean_shift(pixels, 32, 4, "labels"),
        "skinny_linear forward": skinny_forward(16, 4096, 4096),
        "skinny_linear backward": skinny_input_gradient(16, 4096, 4096),
        "spectral_compactness forward": compactness(2 * pixels, 301, 4, "forward"),
        "spectral_compactness backward": compactness(2 * pixels, 301, 4, "backward"),
    }


STEPS = {"DGC": dgc_step, "EB-gMCR, N = 1024": ebgmcr_step}


@functools.cache
def _table(name: str) -> dict[str, dict[str, dict[str, int]]]:
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return {kernel.partition("spectrafuse::")[2] or kernel: row["targets"] for kernel, row in content["rows"].items()}


def of(gpu: Gpu, work: Launch | Library) -> Estimate:
    """An estimate, with what the tables say of the kernel.

    Raises
    ------
    KeyError
        If no table has the kernel.
    """
    if isinstance(work, Library):
        return estimate(gpu, work)
    found = dict(_table(work.table)[work.kernel][gpu.target])
    if work.table == "cuda" and gpu.target in ("sm_90", "sm_120") and found["shared"]:
        # These count what the system takes of every block, where a kernel has any.
        found["shared"] -= 1024
    return estimate(gpu, work, found)


def seconds(gpu: Gpu, steps: Steps) -> float:
    """Of several kernels, one after the other."""
    return sum(of(gpu, work).seconds for work in steps)


def step_seconds(gpu: Gpu, name: str) -> float:
    """Of a whole training step, by its name in `STEPS`."""
    return sum(seconds(gpu, steps) for steps in STEPS[name]().values())


def markdown() -> str:
    """The estimates as a page."""
    header = "| | " + " | ".join(gpu.name for gpu in GPUS) + " |\n|---|" + len(GPUS) * "---|"
    lines = [
        "# Estimates for GPUs",
        "",
        "**Estimates, not measured**: from public specifications and the registers and shared memory of the compiled",
        "kernels, by `make resources` ([gpu_model.py](../gpu_model.py), [estimates.py](../estimates.py)); checked by",
        "`make resources-check`. float32, published sizes. A convolution of torch is taken to reach half of the",
        f"speed of the float32 units, a kernel to start in {1e6 * START_SECONDS:g} us from a recorded graph.",
        "",
        "## A training step, ms, estimated",
        "",
        header,
    ]
    for name in STEPS:
        cells = [f"{1e3 * step_seconds(gpu, name):.2f}" for gpu in GPUS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, parts in STEPS.items():
        lines += ["", f"### {name}, parts, us, estimated", "", header]
        for label, steps in parts().items():
            cells = [f"{1e6 * seconds(gpu, steps):.0f}" for gpu in GPUS]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Kernels at the published sizes, estimated",
        "",
        "Time in us, what it is bound by, share of the warps that can reside, and what limits these.",
        "",
        header,
    ]
    for label, steps in operations().items():
        for work in dict.fromkeys(steps):
            assert isinstance(work, Launch)
            cells = [_cell(of(gpu, work)) for gpu in GPUS]
            lines.append(f"| {label}: `{_short(work.kernel)}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _short(kernel: str) -> str:
    """Without the arguments of C++."""
    return re.split(r"[<(]", kernel)[0]


def _cell(found: Estimate) -> str:
    assert found.occupancy is not None
    return f"{1e6 * found.seconds:.1f}, {found.bound}; {100 * found.occupancy.share:.0f} % ({found.occupancy.limit})"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the page is not right")
    if not parser.parse_args().check:
        FILE.write_text(markdown(), encoding="utf-8")
        return 0
    right = FILE.exists() and FILE.read_text(encoding="utf-8") == markdown()
    print(
        "the estimates are right" if right else f"{FILE} was not written from the tables; run `make resources`",
        file=sys.stderr,
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
