"""What every `bench_<operation>.py` is made of: an `Operation` that says what to run, and one way to measure it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import measure
from spectrafuse import backends, use_backend

IMPLEMENTATIONS = ("cpu", "torch", "reference")
BASELINES = ("reference", "torch")
COMPILED = "compiled_reference"
"""What `torch.compile` makes of the reference: beside the others where SPECTRAFUSE_BENCH_COMPILE is 1, since compiling
takes up to a minute an operation."""


def _of_this_checkout(name: str) -> ModuleType:
    """A module of the package that imports nothing of it, as it is here: the version that is measured may lack it."""
    file = Path(__file__).parents[1] / "python" / "spectrafuse" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"this_checkout.{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


counts = _of_this_checkout("counts")


@dataclass(frozen=True)
class Operation:
    """One operation as it is measured.

    Attributes
    ----------
    name : str
        As in `spectrafuse.backends`.
    sizes : mapping of str to any
        What `inputs` makes the inputs from; "small", "paper" and "large".
    inputs : callable
        Takes a size and returns the arguments of `call`, always the same numbers.
    call : callable
        Runs the operation once; returns a tensor, or a tuple of tensors and other values.
    counts : callable
        Takes a size and returns a `Counts`, or a `Work` where there is one direction only, of `spectrafuse.counts`.
    leaves : sequence of int
        Which inputs carry gradient; none: the operation is measured forward only.
    without_reference : container of str
        Sizes for which the reference needs more memory than a laptop has.
    variant : str
        Tells two uses of the same operation apart.
    """

    name: str
    sizes: Mapping[str, Any]
    inputs: Callable[[Any], Sequence[Any]]
    call: Callable[..., Any]
    counts: Callable[[Any], Any]
    leaves: Sequence[int] = ()
    without_reference: Container[str] = ()
    variant: str = ""

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.name} {self.variant}".rstrip()

    @property
    def directions(self) -> tuple[str, ...]:
        return ("forward", "backward", "both") if self.leaves else ("forward",)

    def work(self, size: str, direction: str) -> tuple[int, int]:
        """Additions and multiplications, and bytes that must be read and written."""
        counted = self.counts(self.sizes[size])
        return counted.of(direction) if isinstance(counted, counts.Counts) else counted

    def prepare(self, implementation: str, size: str, direction: str) -> Callable[[], object] | None:
        """What is to be timed, or None where the implementation cannot take this size."""
        if implementation == "reference" and size in self.without_reference:
            return None
        arguments = list(self.inputs(self.sizes[size]))

        def forward() -> Any:
            with use_backend(implementation):
                return self.call(*arguments)

        if direction == "forward":
            return torch.no_grad()(forward)
        for index in self.leaves:
            arguments[index] = arguments[index].detach().requires_grad_()
        leaves = [arguments[index] for index in self.leaves]

        def differentiate(results: list[Tensor]) -> None:
            torch.autograd.grad(results, leaves, [torch.ones_like(x) for x in results], retain_graph=True)

        if direction == "backward":
            results = _differentiable(forward())
            return lambda: differentiate(results)
        return lambda: differentiate(_differentiable(forward()))


def _differentiable(outcome: Any) -> list[Tensor]:
    results = outcome if isinstance(outcome, tuple) else (outcome,)
    return [x for x in results if isinstance(x, Tensor) and x.requires_grad]


def over(operation: Operation) -> pytest.MarkDecorator:
    """Parametrise a test with every implementation, size and direction of an operation."""
    return pytest.mark.parametrize(
        ("implementation", "size", "direction"),
        [(i, s, d) for d in operation.directions for s in operation.sizes for i in IMPLEMENTATIONS],
    )


def run(benchmark: Any, operation: Operation, implementation: str, size: str, direction: str, rounds: int = 5) -> None:
    """Measure an implementation beside the baselines, and record what the figures must be read with."""
    reason = backends.why_not(operation.name, implementation, "cpu")
    if reason is not None:
        pytest.skip(reason)
    names = dict.fromkeys((implementation, *BASELINES))
    calls = {name: made for name in names if (made := operation.prepare(name, size, direction)) is not None}
    if implementation not in calls:
        pytest.skip(f"{operation.name}: {implementation} needs too much memory at this size")
    if "reference" in calls and os.environ.get("SPECTRAFUSE_BENCH_COMPILE") == "1":
        calls[COMPILED] = torch.compile(calls["reference"])
    seconds = measure.interleaved(calls, rounds=rounds)
    operations, moved = operation.work(size, direction)
    bound = max(operations / measure.product_rate(), moved / measure.copy_bandwidth(64))
    benchmark.group = f"{operation.label} {size} {direction}"
    benchmark.extra_info.update(
        measure.machine(),
        milliseconds=1e3 * seconds[implementation],
        peak_memory_mb=measure.peak_memory(calls[implementation]) / 2**20,
        share_of_bound=bound / seconds[implementation],
        operations=operations,
        bytes=moved,
        **{
            f"ratio_to_{name}": seconds[name] / seconds[implementation]
            for name in (*BASELINES, COMPILED)
            if name in calls
        },
    )
    benchmark(calls[implementation])
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in benchmark.extra_info.items()})
