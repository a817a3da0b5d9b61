"""One measurement of one operation beside its other implementations, with memory, counts and the bound."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

import measure
from spectrafuse import backends

BASELINES = ("reference", "torch")
COMPILED = "compiled_reference"
"""What `torch.compile` makes of the reference: beside the others where SPECTRAFUSE_BENCH_COMPILE is 1, since compiling
takes up to a minute an operation."""


def run(
    benchmark: Any,
    op: str,
    backend: str,
    group: str,
    make_call: Callable[[str], Callable[[], object] | None],
    *,
    operations: int,
    bytes_moved: int,
    rounds: int = 5,
) -> None:
    """Measure `backend` of `op` beside the baselines, and record what the figures must be read with.

    Parameters
    ----------
    benchmark : pytest-benchmark's fixture
    op, backend : str
        Names as in `spectrafuse.backends`; skipped with the reason where the implementation cannot run.
    group : str
        Size and direction, such as "paper forward".
    make_call : callable
        Takes the name of an implementation and returns what is to be timed, always on the same inputs; None where
        that implementation cannot take this size.
    operations, bytes_moved : int
        Additions and multiplications, and bytes that must be read and written, by count.
    """
    reason = backends.why_not(op, backend, "cpu")
    if reason is not None:
        pytest.skip(reason)
    calls = {name: made for name in {backend: None, **dict.fromkeys(BASELINES)} if (made := make_call(name))}
    if backend not in calls:
        pytest.skip(f"{op}: {backend} cannot take this size")
    if "reference" in calls and os.environ.get("SPECTRAFUSE_BENCH_COMPILE") == "1":
        calls[COMPILED] = torch.compile(calls["reference"])
    seconds = measure.interleaved(calls, rounds=rounds)
    bound = max(operations / measure.product_rate(), bytes_moved / measure.copy_bandwidth(64))
    benchmark.group = f"{op} {group}"
    benchmark.extra_info.update(
        measure.machine(),
        milliseconds=1e3 * seconds[backend],
        peak_memory_mb=measure.peak_memory(calls[backend]) / 2**20,
        share_of_bound=bound / seconds[backend],
        operations=operations,
        bytes=bytes_moved,
        **{f"ratio_to_{name}": seconds[name] / seconds[backend] for name in (*BASELINES, COMPILED) if name in calls},
    )
    benchmark(calls[backend])
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in benchmark.extra_info.items()})
