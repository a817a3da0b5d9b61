"""How long every GPU kernel and a training step should take on consumer GPUs: estimates, without a GPU.

    python benchmarks/estimates.py            write benchmarks/resources/estimates.md
    python benchmarks/estimates.py --check    fail if that file is not what the tables of resources give

From the tables beside that file (registers, shared memory), the sizes the kernels are started with, and the counts of
`spectrafuse.counts`; `gpu_launches.py` and `gpu_model.py` say how.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import re
import sys
from pathlib import Path

from gpu_launches import (
    Steps,
    adamw,
    clustering_backward,
    clustering_forward,
    compactness,
    convolutions,
    crops,
    dense,
    gate_backward,
    gate_forward,
    mean_shift,
    mean_shift_backward,
    mixture_backward,
    mixture_forward,
    penalty,
    skinny_forward,
    skinny_input_gradient,
    sparse_backward,
    sparse_forward,
)
from gpu_model import GPUS, START_SECONDS, Estimate, Gpu, Launch, Library, estimate
from spectrafuse.counts import BYTES

FOLDER = Path(__file__).with_name("resources")
FILE = FOLDER / "estimates.md"


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
        "mean_shift_assign backward": mean_shift_backward(pixels, 32, 4),
        "mean_shift_assign labels": mean_shift(pixels, 32, 4, "labels"),
        "skinny_linear forward": skinny_forward(16, 4096, 4096),
        "skinny_linear backward": skinny_input_gradient(16, 4096, 4096),
        "sparse_gated_mixture forward": sparse_forward(16, 256, 512),
        "sparse_gated_mixture backward": sparse_backward(16, 256, 512),
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
