"""What several test files share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_RTOL = 1e-9
GOLDEN_GRADIENT_RTOL = 1e-8
TRITON_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where tests run Triton kernels: on the GPU, or without one in the interpreter (see conftest.py)."""


def golden(name: str) -> dict[str, Any]:
    """Arrays of a golden file as tensors; scalars as Python values; `config` parsed from JSON."""
    out: dict[str, Any] = {}
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        for key in archive.files:
            value = archive[key]
            if value.dtype.kind == "U":
                out[key] = json.loads(str(value)) if key == "config" else value.tolist()
            elif value.ndim == 0:
                out[key] = value.item()
            else:
                out[key] = torch.from_numpy(value.copy())
    return out


def rows_of_program(
    monkeypatch: pytest.MonkeyPatch, program: ModuleType, output: Path, *arguments: str
) -> list[dict[str, Any]]:
    """The rows that are there after a program of benchmarks/ has run with these arguments."""
    monkeypatch.setattr(sys, "argv", [program.__name__, "--output", str(output), *arguments])
    program.main()
    return [json.loads(line) for line in (output / "runs.jsonl").read_text(encoding="utf-8").splitlines()]


def state(values: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Entries under `prefix.` of a golden file, without the prefix, as tensors."""
    return {
        key[len(prefix) + 1 :]: torch.as_tensor(value, dtype=torch.float64)
        for key, value in values.items()
        if key.startswith(prefix + ".")
    }


def assert_close_to_max(actual: Tensor, expected: Tensor | float, rtol: float) -> None:
    """The largest deviation is at most `rtol` of the expected array's largest magnitude."""
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if expected.numel() == 0:
        return
    scale = expected.abs().max().item()
    error = (actual - expected).abs().max().item()
    assert error <= rtol * scale, f"deviates by {error:.3e}, allowed {rtol * scale:.3e} ({rtol:g} of {scale:.3e})"


@contextmanager
def saved_sizes() -> Iterator[list[int]]:
    """Numbers of elements of the tensors that autograd keeps for backward inside the block."""
    sizes: list[int] = []

    def record(saved: Tensor) -> Tensor:
        sizes.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(record, lambda saved: saved):
        yield sizes


def assert_same_bits_at_any_number_of_threads(results: Callable[[], Sequence[Tensor]]) -> None:
    """Compare what `results` returns at 1, 2, 3 and 7 threads, bit by bit."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found.append(results())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))
