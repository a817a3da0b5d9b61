"""What every `bench_<operation>.py` is made of: an `Operation` that says what to run, and one way to measure it."""

from __future__ import annotations

import functools
import hashlib
import math
import statistics
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import Tensor

from spectrafuse import backends, use_backend
from spectrafuse.benchmarks import measure
from spectrafuse.benchmarks.statistic import FEWEST, median_interval

IMPLEMENTATIONS = ("cpu", "torch", "reference")
BASELINES = ("reference", "torch")
COMPILED = "compiled_reference"
"""What `torch.compile` makes of the reference: a peer, since compiling takes up to a minute an operation."""

Peer = Callable[..., Any]
"""Another library's way to compute an operation; takes the inputs, raises `ImportError` where it is not installed."""

ROWS: list[dict[str, Any]] = []
"""What was measured and is not stored yet, in order."""


@dataclass
class Settings:
    """How a session measures; `conftest.py` fills them in."""

    quick: bool = False
    """Only the kernels, times for small inputs and counted quantities for those of published size."""
    peers: bool = False
    """Other libraries beside the implementations."""

    @property
    def seconds(self) -> float:
        """For the implementations of a case together."""
        return 0.15 if self.quick else 0.8


settings = Settings()


@dataclass(frozen=True, eq=False)
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
    counted : callable
        Takes a size and returns the sizes from which the operation counts its work; the size itself.
    leaves : sequence of int
        Which inputs carry gradient; none: the operation is measured forward only.
    gradient_in_forward : bool
        The kernel makes the gradient along with the result: backward alone would measure next to nothing.
    without_reference : container of str
        Sizes for which the reference needs more memory than a laptop has.
    variant : str
        Tells two uses of the same operation apart.
    tests : str
        Pattern of the files in tests/ that must pass before a speed-up counts; `ops/test_<name>*.py` where empty.
    deciding : any
        As a value of `sizes`, for whether a version is slower: work enough that the kernel decides, on inputs that
        fit into a core's own cache so that neighbours do not.
    peers : mapping of str to callable
        What other libraries make of the inputs.
    """

    name: str
    sizes: Mapping[str, Any]
    inputs: Callable[[Any], Sequence[Any]]
    call: Callable[..., Any]
    counted: Callable[[Any], Sequence[Any]] = tuple
    leaves: Sequence[int] = ()
    gradient_in_forward: bool = False
    without_reference: Container[str] = ()
    variant: str = ""
    tests: str = ""
    deciding: Any = None
    peers: Mapping[str, Peer] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.name} {self.variant}".rstrip()

    @property
    def directions(self) -> tuple[str, ...]:
        if not self.leaves:
            return ("forward",)
        return ("forward", "both") if self.gradient_in_forward else ("forward", "backward", "both")

    def size(self, name: str) -> Any:
        """What `inputs` takes for a size by name."""
        return self.deciding if name == "deciding" else self.sizes[name]

    def work(self, size: str, direction: str) -> Any:
        """Additions and multiplications, and bytes that must be read and written."""
        from spectrafuse import ops

        made = ops.operations()[self.name].work(*self.counted(self.size(size)))
        return made.of(direction) if hasattr(made, "of") else made

    def why_not(self, implementation: str, size: str) -> str | None:
        """Why an implementation does not run at a size, or None."""
        if implementation == "reference" and size in self.without_reference:
            return f"{self.label}: the reference needs too much memory at size {size}"
        return backends.why_not(self.name, implementation, "cpu")

    def prepare(self, implementation: str, size: str, direction: str) -> Callable[[], object]:
        """What is to be timed: an implementation, or a peer."""
        arguments = list(self.inputs(self.size(size)))
        peer = torch.compile(self.call) if implementation == COMPILED else self.peers.get(implementation)

        def forward() -> Any:
            with use_backend("reference" if peer else implementation):
                return (peer or self.call)(*arguments)

        if direction == "forward":
            return torch.no_grad()(forward)
        for index in self.leaves:
            arguments[index] = arguments[index].detach().requires_grad_()
        leaves = [arguments[index] for index in self.leaves]

        def differentiate(results: list[Tensor], again: bool = False) -> None:
            torch.autograd.grad(results, leaves, [torch.ones_like(x) for x in results], retain_graph=again)

        if direction == "backward":
            results = _differentiable(forward())
            return lambda: differentiate(results, again=True)
        return lambda: differentiate(_differentiable(forward()))


def _differentiable(outcome: Any) -> list[Tensor]:
    results = outcome if isinstance(outcome, tuple) else (outcome,)
    return [x for x in results if isinstance(x, Tensor) and x.requires_grad]


def over(operation: Operation) -> pytest.MarkDecorator:
    """Parametrise a test with every implementation, size and direction of an operation."""
    return pytest.mark.parametrize(
        ("implementation", "size", "direction"),
        [(i, s, d) for s in operation.sizes for d in operation.directions for i in IMPLEMENTATIONS],
    )


def run(benchmark: Any, operation: Operation, implementation: str, size: str, direction: str) -> None:
    """Measure an implementation beside the others, and record what the figures must be read with."""
    reason = operation.why_not(implementation, size)
    if reason is not None:
        pytest.skip(reason)
    call = operation.prepare(implementation, size, direction)
    found: dict[str, Any] = {"input_hash": _input_hash(operation, size), **operation.work(size, direction)._asdict()}

    def count() -> None:
        found["tensor_bytes"] = measure.tensor_bytes(call)

    def weigh() -> None:
        found["peak_memory_mb"] = measure.peak_memory(count) / 2**20

    shown = call
    if settings.quick and size != "small":
        call()
        count()
    else:
        found |= _times(operation, implementation, size, direction)
        if _is_long(found):  # one further call tells all
            shown = weigh
        else:
            found["peak_memory_mb"] = measure.peak_memory(call) / 2**20
            count()
    record(benchmark, shown, operation.label, implementation, size, direction, found)


def _is_long(found: Mapping[str, Any]) -> bool:
    return found.get("milliseconds", 0) > 1e3 * settings.seconds


def record(
    benchmark: Any,
    call: Callable[[], object],
    operation: str,
    implementation: str,
    size: str,
    direction: str,
    found: Mapping[str, Any],
) -> None:
    """Keep a row for the history; pytest-benchmark's table shows `call`, which may be more, or nothing."""
    case = {"operation": operation, "implementation": implementation, "size": size, "direction": direction}
    benchmark.group = f"{operation} {size} {direction}"
    benchmark.pedantic(call, rounds=1 if settings.quick or found.get("milliseconds", 0) > 100 else 3)
    ROWS.append({**case, **found, **measure.machine()})
    benchmark.extra_info.update(ROWS[-1])


def ratios(seconds: Mapping[str, Sequence[float]], own: str) -> dict[str, float]:
    """How many times as long every other one takes, round against round, with its interval where rounds suffice.

    Where one of the two was called less often, by the medians.
    """
    found: dict[str, float] = {}
    for name in seconds.keys() - {own}:
        if len(seconds[name]) != len(seconds[own]):
            found[f"ratio_to_{name}"] = statistics.median(seconds[name]) / statistics.median(seconds[own])
            continue
        logs = [math.log(other / mine) for other, mine in zip(seconds[name], seconds[own], strict=True)]
        low, median, high = median_interval(logs)
        found[f"ratio_to_{name}"] = math.exp(median)
        if math.isfinite(low):
            found |= {f"ratio_to_{name}_low": math.exp(low), f"ratio_to_{name}_high": math.exp(high)}
    return found


def timed(seconds: Mapping[str, Sequence[float]], own: str) -> dict[str, Any]:
    """Figures of one of several calls that took turns."""
    taken = statistics.median(seconds[own])
    return {"milliseconds": 1e3 * taken, "rounds": len(seconds[own]), **ratios(seconds, own)}


def _times(operation: Operation, implementation: str, size: str, direction: str) -> dict[str, Any]:
    seconds, missing = _side_by_side(operation, size, direction)
    found = timed(seconds, implementation)
    work = operation.work(size, direction)
    bounds, needed = measure.bounds(), (work.operations, work.bytes)
    share = 1e3 * bounds.seconds(*needed) / found["milliseconds"]
    limit = "operations" if bounds.is_arithmetic(*needed) else "bytes"
    return {**found, **missing, "share_of_bound": share, "bound": limit}


@functools.lru_cache(maxsize=1)
def _side_by_side(
    operation: Operation, size: str, direction: str
) -> tuple[dict[str, list[float]], dict[str, dict[str, str]]]:
    """Seconds of every implementation that runs, taken in turns, and why peers are missing."""
    names = [name for name in IMPLEMENTATIONS if operation.why_not(name, size) is None]
    calls = {name: operation.prepare(name, size, direction) for name in names}
    skipped: dict[str, str] = {}
    if settings.peers:
        compiled = (COMPILED,) if "reference" in calls else ()
        for name in (*operation.peers, *compiled):
            call, reason = _peer(operation, name, size, direction)
            if call is None:
                skipped[name] = reason
            else:
                calls[name] = call
    seconds = measure.within(calls, settings.seconds, long=1 if size == "large" else 3)
    if size.startswith("paper") and not settings.quick:  # what is decided on needs an interval
        compared = {name: calls[name] for name in names if name != "reference"}
        made = min(len(seconds[name]) for name in compared)
        more = measure.in_turns(compared, FEWEST - made, warm=0) if made < FEWEST else {}
        seconds |= {name: seconds[name][:made] + taken for name, taken in more.items()}
    return seconds, {"peers_skipped": skipped} if skipped else {}


def _peer(operation: Operation, name: str, size: str, direction: str) -> tuple[Callable[[], object] | None, str]:
    """Another library's call, compiled where it compiles, or what stops it."""
    # Else what was compiled cannot be differentiated twice, as measuring the backward pass alone does.
    torch._functorch.config.donated_buffer = False
    try:
        call = operation.prepare(name, size, direction)
        call()
    except Exception as error:
        return None, f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return call, ""


@functools.lru_cache(maxsize=1)
def _input_hash(operation: Operation, size: str) -> str:
    """Of the inputs' sizes, types and bytes."""
    made = hashlib.blake2b(digest_size=8)
    for given in operation.inputs(operation.size(size)):
        if isinstance(given, Tensor):
            made.update(f"{tuple(given.shape)} {given.dtype}".encode())
            made.update(given.contiguous().view(torch.uint8).numpy() if given.ndim else repr(given.item()).encode())
        else:
            made.update(repr(given).encode())
    return made.hexdigest()
