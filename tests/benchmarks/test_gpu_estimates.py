"""Estimates for GPUs: occupancy, times that follow the specification, and a page that follows the tables."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import estimates
import gpu_launches as launches
from gpu_model import GPUS, LIMITS, START_SECONDS, Gpu, Launch, Library, estimate, occupancy

ROOT = Path(__file__).parents[2]
GPU = Gpu("made up", "sm_86", 10, 1.0, 100, 4)


@pytest.mark.parametrize(
    ("target", "threads", "registers", "shared", "expected"),
    [
        # By NVIDIA's occupancy calculator.
        ("sm_86", 128, 32, 0, (12, 48, "warps")),
        ("sm_86", 128, 128, 0, (4, 16, "registers")),
        ("sm_86", 128, 255, 0, (2, 8, "registers")),
        ("sm_86", 256, 40, 48 * 1024, (2, 16, "shared memory")),
        ("sm_86", 32, 16, 0, (16, 16, "blocks")),
        ("sm_75", 256, 64, 16 * 1024, (4, 32, "warps")),
        ("sm_80", 128, 168, 32 * 1024, (3, 12, "registers")),
    ],
)
def test_occupancy(target, threads, registers, shared, expected):
    found = occupancy(target, threads, registers, shared)
    assert (found.blocks, found.warps, found.limit) == expected
    assert found.share == found.warps / LIMITS[target].warps


def test_a_block_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="does not fit on sm_75: too much of its shared memory"):
        occupancy("sm_75", 128, 32, 65 * 1024)
    with pytest.raises(ValueError, match="too much of its registers"):
        occupancy("sm_86", 1024, 128, 0)


def launch(**changes):
    return replace(Launch("cuda", "kernel", 256, 10_000, operations=10**6, bytes=10**9), **changes)


def test_the_longest_of_three_times_counts():
    resources = {"registers": 32, "shared": 0}

    def found(work, gpu=GPU):
        return estimate(gpu, work, resources)

    memory = found(launch())
    assert memory.bound == "memory"
    assert memory.seconds == pytest.approx(1e9 / 85e9, rel=1e-3)
    assert found(launch(), replace(GPU, bandwidth=200)).seconds == pytest.approx(memory.seconds / 2, rel=1e-2)
    assert found(launch(bytes=10**6)).bound == "L2 cache"
    arithmetic = found(launch(operations=10**11))
    assert arithmetic.bound == "arithmetic"
    assert arithmetic.seconds == pytest.approx(1e11 / (0.6 * 2.56e12), rel=1e-3)
    assert found(launch(near=10**11)).bound == "L1 cache"
    assert found(launch(bytes=8)).bound == "start"
    assert found(launch(bytes=8)).seconds >= START_SECONDS


def test_few_blocks_and_few_warps_take_longer():
    work, resources = launch(bytes=8, operations=10**10), {"registers": 32, "shared": 0}
    full = estimate(GPU, work, resources).seconds
    assert estimate(GPU, replace(work, blocks=11), resources).seconds > 1.5 * full
    assert estimate(GPU, replace(work, blocks=1), resources).seconds > 9 * full
    assert estimate(GPU, replace(work, threads=128), {"registers": 255, "shared": 0}).seconds > 1.4 * full
    assert estimate(GPU, Library("convolution", 10**10, 8)).bound == "arithmetic"


def test_every_launch_has_a_row_in_the_tables_for_every_gpu():
    seen = set()
    for steps in (*estimates.operations().values(), *(s for make in estimates.STEPS.values() for s in make().values())):
        for work in steps:
            assert all(estimates.of(gpu, work).seconds >= START_SECONDS for gpu in GPUS)
            seen.add(getattr(work, "kernel", ""))
    # Every CUDA kernel of the operations is there.
    named = [re.split("[<(]", kernel)[0] for kernel in estimates._table("cuda")]
    unseen = set(named) - {re.split("[<(]", kernel)[0] for kernel in seen}
    assert unseen == {"self_test_kernel"}


def constant(file: str, name: str) -> int:
    """A `constexpr` number of a CUDA source."""
    text = (ROOT / "csrc" / "cuda" / file).read_text(encoding="utf-8")
    (found,) = re.findall(rf"constexpr [^;]*\b{name} = (\d+)", text)
    return int(found)


def test_sizes_of_blocks_and_tiles_are_those_of_the_sources():
    from spectrafuse.kernels import dense_mean_shift as kernels

    assert launches.THREADS["adamw_outer"] == constant("adamw_outer.cu", "kThreads")
    assert launches.THREADS["gate"] == constant("gate.cu", "kThreads")
    assert launches.THREADS["mixture"] == constant("mixture.cuh", "kMixtureThreads")
    warps = constant("skinny_linear.cu", "kWarps")
    assert launches.THREADS["skinny_linear"] == constant("skinny_linear.cu", "kWarp") * warps
    assert launches.THREADS["ambiguity_penalty"] == constant("ambiguity_penalty.cu", "kSide") ** 2
    assert constant("adamw_outer.cu", "kRows") == launches.ADAMW_ROWS
    assert constant("ambiguity_penalty.cu", "kTile") == launches.PAIR_TILE
    assert constant("mixture.cuh", "kPartRows") == launches.MIXTURE_ROWS
    assert constant("mixture.cuh", "kTileSamples") == launches.SAMPLES
    assert constant("skinny_linear.cu", "kSamples") == launches.SAMPLES
    assert warps * constant("skinny_linear.cu", "kOutputs") == launches.LINEAR_OUTPUTS
    assert constant("skinny_linear.h", "kLinearPart") == launches.LINEAR_PART
    options = {case.name: case.options for case in kernels.compile_cases()}
    assert 32 * options["forward D=32"]["num_warps"] == launches.DENSE_FORWARD_THREADS
    assert 32 * options["backward D=32"]["num_warps"] == launches.TRITON_THREADS


def test_the_networks_are_those_of_the_model():
    from spectrafuse.mcr.model import UnmixingModel
    from spectrafuse.mcr.passes import linear_layers
    from spectrafuse.mcr.recipes import published

    model = UnmixingModel(
        4, 10, hidden_size_extension=published.hidden_size_extension, hidden_layers=published.hidden_layers
    )
    networks = model.component_parser.energy_evaluator, model.concentration_regressor
    found = [(layer.in_features, layer.out_features) for network in networks for layer in linear_layers(network)]
    assert estimates.layers(4, 10) == found


def test_a_step_is_the_sum_of_its_parts_and_faster_memory_makes_it_faster():
    gpu = GPUS[0]
    for name, parts in estimates.STEPS.items():
        total = sum(estimates.seconds(gpu, steps) for steps in parts().values())
        assert estimates.step_seconds(gpu, name) == pytest.approx(total)
        assert estimates.step_seconds(replace(gpu, bandwidth=2 * gpu.bandwidth), name) < total


def test_the_page_is_the_one_the_tables_give_and_says_what_it_is(monkeypatch, tmp_path, capsys):
    text = estimates.FILE.read_text(encoding="utf-8")
    assert text == estimates.markdown()
    assert "Estimates, not measured" in text
    for gpu in GPUS:
        assert gpu.name in text
    monkeypatch.setattr(sys, "argv", ["estimates.py", "--check"])
    assert estimates.main() == 0
    (tmp_path / "estimates.md").write_text(text.replace("memory", "thought"), encoding="utf-8")
    monkeypatch.setattr(estimates, "FILE", tmp_path / "estimates.md")
    assert estimates.main() == 1
    assert "make resources" in capsys.readouterr().err
