"""What the sources of kernels for a GPU leave to one place: the launch, and the question whether a GPU is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "spectrafuse"
LAUNCH = re.compile(r"<<<|\bcu(da)?Launch\w*\(")
ASKS = re.compile(r"""\.is_cuda\b|\.type [!=]= ["']cuda["']""")


def places(files: Iterable[Path], wanted: re.Pattern[str]) -> list[str]:
    """Files with what is wanted outside of comments, once for every line that has it."""
    lines = ((file, line) for file in sorted(files) for line in file.read_text(encoding="utf-8").splitlines())
    return [str(file.relative_to(ROOT)) for file, line in lines if wanted.search(re.sub(r"//.*|#.*", "", line))]


def test_every_launch_goes_through_one_helper() -> None:
    sources = [file for file in (ROOT / "csrc").rglob("*.*") if file.suffix in (".cu", ".cuh", ".cpp", ".h")]
    assert places(sources, LAUNCH) == ["csrc/cuda/launch.h"]
    # The helper without an exception is for the self-test of a device alone.
    outside = [place for place in places(sources, re.compile(r"\btry_launch\(")) if not place.endswith("launch.h")]
    assert outside == ["csrc/cuda/device.cu"]


def test_one_predicate_says_whether_kernels_for_a_gpu_are_meant() -> None:
    """`extensions.on_gpu`, which the emulation of CUDA answers too; other questions are about torch's own devices."""
    sources = [*(PACKAGE / "ops").rglob("*.py"), PACKAGE / "mcr" / "training" / "gpu_step.py"]
    assert places(sources, ASKS) == []
    assert places([PACKAGE / "_runtime" / "extensions.py"], ASKS) == ["python/spectrafuse/_runtime/extensions.py"]
