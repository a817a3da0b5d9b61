"""The emulated CUDA kernels under the address, undefined-behaviour and thread sanitizers; run by `make sanitize`.

And bugs that are planted: each barrier removed in turn must show as a race, and each overrun must be found.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from emulated_cuda.translate import translated

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
BUILD = HERE.parents[1] / "build" / "emulated_cuda_sanitized"
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in sorted((CSRC / "cuda").iterdir())}
OPERATIONS = [path.stem for path in sorted((CSRC / "cuda").glob("*.cu")) if path.stem != "device"]
FLAGS = {"address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"], "thread": ["-fsanitize=thread"]}
COMPILER = [os.environ.get("CXX", "c++"), "-std=gnu++17", "-O1", "-g1"]

USERS = {"launch.h": ("gate", "gated_mixture"), "mixture.cuh": ("gated_mixture",)}
BARRIERS = [
    (f"{name}:{number}", USERS.get(name, (name.partition(".")[0],)))
    for name, text in SOURCES.items()
    for number, line in enumerate(text.splitlines(), 1)
    if "__syncthreads()" in line
]
"""Every barrier, and operations of which one needs it."""

OVERRUNS = [
    ("adamw_outer.cu", "factors[kSamples][kRows]", "factors[kSamples - 1][kRows]"),
    ("adamw_outer.cu", "inputs[Samples][kLayerThreads]", "inputs[Samples][kLayerThreads - 1]"),
    ("adamw_outer.cu", "while (blockIdx.x >= tensors.end[i])", "while (false)"),
    ("gate.cu", "if (n < a.components)", "if (n <= a.components)"),
    ("gate.cu", "block_sums) {\n    __shared__ double shared[32]", "block_sums) {\n    __shared__ double shared[1]"),
    ("skinny_linear.cu", "    if (i >= count) return;\n", ""),
    ("gated_mixture.cu", "        if (first + b < p.batch) partials", "        partials"),
    ("sparse_gated_mixture.cu", "    if (j < p.bands) {", "    {"),
    ("random_fill.cu", "    if (i < items_of(a)) ", "    "),
    ("ambiguity_penalty.cu", "if (i < a.all.count && d < dim)", "if (d < dim)"),
    ("ambiguity_penalty.cu", "if (whole && inside >= kEach)", "if (whole)"),
    ("component_penalty.cu", "counts[kThreads]", "counts[kThreads - 1]"),
    ("unmixing_loss.cu", "        if (i >= size) continue;\n", ""),
    ("gated_mixture.cu", "shared[kMixtureThreads / 32 * kTileSamples]", "shared[kTileSamples]"),
    ("skinny_linear.cu", "a.inputs % 4 == 0 && aligned(a.x)", "aligned(a.x)"),
]
"""File, what is replaced, and by what."""


def _written(path: Path, command: list[object]) -> Path:
    """What a compiler makes; several processes may make it at once."""
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*map(str, command), "-o", str(part)], check=True)
        part.rename(path)
    return path


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def driver(sanitizer: str, file: str = "", old: str = "", new: str = "") -> Path:
    """The driver, perhaps with a change of one file; what is unchanged is compiled once."""
    texts = dict(SOURCES)
    if file:
        assert texts[file].count(old) == 1, f"{file} must have one place with {old!r}"
        texts[file] = texts[file].replace(old, new)
    texts = {name: translated(text, name) for name, text in texts.items()}
    source = BUILD / _key(*texts.values())
    (source / "cuda").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (source / "cuda" / name).write_text(text, encoding="utf-8")
    if not (source / "common").exists():
        (source / "common").symlink_to(CSRC / "common")
    shared = [text for name, text in texts.items() if not name.endswith(".cu")]
    shared += [path.read_text(encoding="utf-8") for path in (HERE / "cuda_runtime.h", *CSRC.glob("common/*.h"))]
    objects = []
    for name in (*OPERATIONS, "driver", "emulator"):
        flags = FLAGS[sanitizer]
        if name in OPERATIONS:
            path = source / "cuda" / f"{name}.cu"
            flags = [*flags, "-xc++", "-include", "cuda_runtime.h", "-D__CUDACC__", "-Wno-unknown-pragmas"]
        else:
            path = HERE / f"{name}.cpp"
        if (name, sanitizer) == ("emulator", "thread"):
            flags = ["-DEMULATED_TSAN"]  # it switches the sanitizer's threads, and is none of them
        target = BUILD / f"{name}-{_key(path.read_text(encoding='utf-8'), sanitizer, *shared)}.o"
        objects.append(_written(target, [*COMPILER, *flags, f"-I{HERE}", f"-I{source}", "-c", path]))
    return _written(BUILD / f"driver-{_key(*map(str, objects))}", [*COMPILER, *FLAGS[sanitizer], *objects])


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Without randomised addresses, which the thread sanitizer of some systems does not take."""
    return subprocess.run(
        ["setarch", "-R", program, *arguments],
        env={**os.environ, "LD_PRELOAD": "", "TSAN_OPTIONS": "report_thread_leaks=0", "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("sanitizer", "sizes"), [("address", "all"), ("thread", "few")])
def test_kernels_are_clean(sanitizer: str, sizes: str, operation: str) -> None:
    done = run(driver(sanitizer), sizes, operation)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"0 failures, [1-9]\d* launches\n", done.stdout)


@pytest.mark.parametrize(("barrier", "operations"), BARRIERS, ids=lambda value: str(value))
def test_every_barrier_is_missed(barrier: str, operations: tuple[str, ...]) -> None:
    found = [run(driver("thread"), "few", operation, barrier).stderr for operation in operations]
    assert any("WARNING: ThreadSanitizer: data race" in errors for errors in found), found


@pytest.mark.parametrize(("file", "old", "new"), OVERRUNS, ids=[f"{file}-{old.strip()}" for file, old, _ in OVERRUNS])
def test_overruns_are_found(file: str, old: str, new: str) -> None:
    done = run(driver("address", file, old, new), "all", file.partition(".")[0])
    assert re.search("AddressSanitizer: .*-buffer-overflow|use-after-poison|runtime error: ", done.stderr), done.stderr


def test_blocks_that_write_to_one_place_are_found() -> None:
    changed = ("gate.cu", "block_sums[3 * blockIdx.x] = energies", "block_sums[0] = energies")
    done = run(driver("thread", *changed), "few", "gate")
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stdout + done.stderr
