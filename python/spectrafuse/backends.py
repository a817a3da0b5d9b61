"""Which implementation of an operation runs, and why the others cannot.

Every operation has up to five implementations: `reference` (the published formulation, literal), `torch` (the same
algebra in good plain PyTorch), `cpu` (C++), `triton` and `cuda` (C++/CUDA). `auto`, the default, takes the fastest
that can run and never `reference`. A forced implementation that cannot run raises and says why; it never falls back.

An operation is declared once, beside its public function (`declare`); the choice, `spectrafuse doctor`, profiles,
benchmarks and the tests all read that declaration.

A kernel for a GPU is tried before it is first taken in a process: a small call, forward and backward, is compared with
plain PyTorch on the CPU. A kernel that gives other numbers there, or fails, counts as one that cannot run.
"""

from __future__ import annotations

import contextvars
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from spectrafuse._runtime import extensions, triton
from spectrafuse._runtime.counts import Counts, KernelCall, Work
from spectrafuse._runtime.errors import InvalidValueError, SpectrafuseError

Reason = str | None
"""Why an implementation cannot run, or None where it can."""

Limit = Callable[..., Reason]
"""Takes the arguments of a call and says why a kernel cannot take them, or None."""

SelfTest = Callable[[str], Sequence[Tensor]]
"""A small call on a device: outputs and gradients of an operation, from the same numbers every time."""

Implementation = Literal["reference", "torch", "cpu", "triton", "cuda"]
IMPLEMENTATIONS: tuple[str, ...] = ("reference", "torch", "cpu", "triton", "cuda")

_AUTO_ORDER = ("cuda", "triton", "cpu", "torch")
_TESTED = ("cuda", "triton")
_TEST_RTOL, _TEST_ATOL = 1e-4, 1e-6
"""float32 rounding through some hundred operations, against a tensor's largest element; a wrong kernel is far off."""


class BackendUnavailableError(SpectrafuseError, RuntimeError):
    """A forced implementation cannot run here; the message says why."""


def _check_name(name: str, source: str) -> str:
    if name != "auto" and name not in IMPLEMENTATIONS:
        known = ", ".join(("auto", *IMPLEMENTATIONS))
        raise InvalidValueError(f"{source} must be one of {known}; got {name!r}.")
    return name


_DEFAULT = _check_name(os.environ.get("SPECTRAFUSE_BACKEND", "auto") or "auto", "SPECTRAFUSE_BACKEND")
_forced: contextvars.ContextVar[str] = contextvars.ContextVar("spectrafuse_backend", default=_DEFAULT)
_forced_in_graphs = _DEFAULT
"""torch.compile cannot trace a context variable; it guards on this module variable, so a change recompiles."""


def forced() -> str:
    """The implementation in force: "auto", or the name given to `use_backend` or SPECTRAFUSE_BACKEND."""
    return _forced_in_graphs if torch.compiler.is_dynamo_compiling() else _forced.get()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force an implementation of every operation inside a `with` block.

    It holds for the thread or task that enters the block; a thread that is started inside has its own, unless it runs
    in a copy of the context (`contextvars.copy_context().run`). Functions compiled by `torch.compile` follow the block
    that was entered last in the process.

    Parameters
    ----------
    name : {"auto", "reference", "torch", "cpu", "triton", "cuda"}
        An operation that lacks the forced implementation, or whose kernel cannot take a call's arguments, raises
        `BackendUnavailableError` when it is called.

    Examples
    --------
    >>> import torch
    >>> import spectrafuse as sf
    >>> embeddings = torch.rand(1, 4, 6, 6)
    >>> with sf.use_backend("reference"):
    ...     literal = sf.ops.dense_mean_shift(embeddings, torch.tensor(0.5))
    >>> torch.allclose(literal, sf.ops.dense_mean_shift(embeddings, torch.tensor(0.5)), atol=1e-5)
    True
    """
    global _forced_in_graphs
    token, before = _forced.set(_check_name(name, "`name`")), _forced_in_graphs
    _forced_in_graphs = name
    try:
        yield
    finally:
        _forced.reset(token)
        _forced_in_graphs = before


def _kernel_reason(implementation: str, device: str) -> Reason:
    """Why kernels of an implementation cannot take tensors of this device type, whatever the operation."""
    if implementation == "cpu":
        return extensions.cpu_kernel_reason(device)
    return triton.kernel_reason(device) if implementation == "triton" else extensions.cuda_kernel_reason(device)


def not_float64(first: Tensor, *arguments: Any, **options: Any) -> Reason:
    """The limit of kernels that compute in float32."""
    return "it computes in float32, the inputs are float64" if first.dtype == torch.float64 else None


def _device_of_first(first: Tensor, *arguments: Any, **options: Any) -> str:
    return first.device.type


@dataclass(frozen=True, eq=False)
class Operation:
    """What there is to know of an operation; calling it runs the implementation that is chosen for the arguments.

    Attributes
    ----------
    name : str
    reference, pytorch : callable
        The published formulation, and good plain PyTorch, with the same arguments and results.
    kernel : callable or None
        What the compiled implementations run: the operation that is registered with torch picks the kernel of the
        tensors' device.
    kernels : mapping of str to sequence of `Limit`
        The compiled implementations ("cpu", "triton", "cuda") and the limits of each.
    work : callable
        Takes the sizes of a call, returns `Counts`, or a `Work` where there is one direction only.
    self_test : callable or None
        What kernels for a GPU are tried by.
    extension_calls : mapping of str to KernelCall
        How a profile reads the calls of the C++ and CUDA kernels, by their bound names, from the arguments behind the
        number of the type.
    triton_calls : mapping of str to KernelCall
        The same of the functions in `spectrafuse.kernels.<name>`.
    gpu_kernels : mapping of str to str
        Label in a profile of every kernel whose name on a GPU matches a pattern.
    device_of : callable
        The device type that decides, from the arguments; that of the first tensor.
    """

    name: str
    reference: Callable[..., Any]
    pytorch: Callable[..., Any]
    work: Callable[..., Counts | Work]
    kernel: Callable[..., Any] | None = None
    kernels: Mapping[str, Sequence[Limit]] = field(default_factory=dict)
    self_test: SelfTest | None = None
    extension_calls: Mapping[str, KernelCall] = field(default_factory=dict)
    triton_calls: Mapping[str, KernelCall] = field(default_factory=dict)
    gpu_kernels: Mapping[str, str] = field(default_factory=dict)
    device_of: Callable[..., str] = _device_of_first

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        chosen = self.choose(*arguments, **options)
        if chosen == "reference":
            return self.reference(*arguments, **options)
        if chosen == "torch":
            return self.pytorch(*arguments, **options)
        assert self.kernel is not None
        return self.kernel(*arguments, **options)

    def variant(self, **changes: Any) -> Operation:
        """The same choice among other implementations: another result of the same operation."""
        return replace(self, **changes)

    def choose(self, *arguments: Any, **options: Any) -> str:
        """The implementation that runs for these arguments.

        Raises
        ------
        BackendUnavailableError
            If an implementation is forced that cannot run.
        """
        device = self.device_of(*arguments, **options)
        return choose(self.name, device, lambda implementation: self._limit(implementation, arguments, options))

    def _limit(self, implementation: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Reason:
        for limit in self.kernels.get(implementation, ()):
            reason = limit(*arguments, **options)
            if reason is not None:
                return reason
        return None


_declared: dict[str, Operation] = {}
_verdicts: dict[tuple[str, str, str], Reason] = {}


def declare(name: str, **facts: Any) -> Operation:
    """Make an operation known, with what `Operation` holds of it."""
    _declared[name] = operation = Operation(name, **facts)
    return operation


def declared() -> Mapping[str, Operation]:
    """The operations that are declared so far, by name; `spectrafuse.ops.operations` declares all."""
    return dict(sorted(_declared.items()))


def choose(op: str, device: str, limit: Callable[[str], Reason] = lambda implementation: None) -> str:
    """The implementation of an operation that runs on a device type; `limit` says what arguments rule out.

    Raises
    ------
    BackendUnavailableError
        If an implementation is forced that cannot run.
    """
    name = forced()
    if name != "auto":
        reason = why_not(op, name, device) or limit(name)
        if reason is not None:
            raise BackendUnavailableError(f"{op}: the forced implementation {name!r} cannot run: {reason}.")
        return name
    for implementation in _AUTO_ORDER:
        # Triton kernels take CPU tensors in an interpreter only, which is there to check them.
        if implementation not in _declared[op].kernels or (implementation == "triton" and device == "cpu"):
            continue
        if (limit(implementation) or why_not(op, implementation, device)) is None:
            return implementation
    return "torch"


def why_not(op: str, implementation: str, device: str) -> Reason:
    """Why `implementation` of `op` cannot run on tensors of this device type, or None where it can."""
    if implementation in ("reference", "torch"):
        return None
    operation = _declared[op]
    if implementation not in operation.kernels:
        return f"{op} has no {implementation} kernel"
    reason = _kernel_reason(implementation, device)
    if reason is None and device == "cuda" and implementation in _TESTED and operation.self_test is not None:
        reason = _verdict(op, implementation)
    return reason


def _verdict(op: str, implementation: str) -> Reason:
    """What the self-test of a kernel on the current CUDA device showed; the first call runs it."""
    started = torch.cuda.is_initialized()
    device = f"cuda:{torch.cuda.current_device()}" if started else "cuda"
    key = (op, implementation, device)
    if key not in _verdicts:
        if started and torch.cuda.is_current_stream_capturing():
            return "it was never tried on this device, and not while a CUDA graph is being captured"
        _verdicts[key] = None  # while the self-test itself runs
        _verdicts[key] = reason = _run_self_test(*key)
        if reason is not None:
            warnings.warn(f"{op}: the {implementation} kernel is not used: {reason}.", RuntimeWarning, stacklevel=2)
    return _verdicts[key]


# torch.compile takes the answer and does not trace the self-test (see `extensions.cpu_reason`).
_verdict._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _run_self_test(op: str, implementation: str, device: str) -> Reason:
    """Compare a kernel with plain PyTorch on the CPU, where no setting of a GPU makes products coarser."""
    answer: list[Reason] = []
    self_test = _declared[op].self_test
    assert self_test is not None

    def work() -> None:
        try:
            if ":" in device:
                torch.cuda.set_device(device)  # of this thread
            _forced.set(implementation)  # of this thread too: no other thread and no compiled function sees it
            found = [tensor.detach().cpu() for tensor in self_test(device)]
            _forced.set("torch")
            expected = [tensor.detach() for tensor in self_test("cpu")]
        except Exception as error:
            first_line = next(iter(str(error).splitlines()), "")
            answer.append(f"its self-test on {device} raised {type(error).__name__}: {first_line}")
        else:
            answer.append(_difference(found, expected, device))

    # A thread of its own has none of the caller's modes: no autocast, inference mode, fake tensors or function
    # transforms.
    thread = threading.Thread(target=work, name=f"self-test of {op}")
    thread.start()
    thread.join()
    return answer[0]


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor], device: str) -> Reason:
    if [t.shape for t in found] != [t.shape for t in expected]:
        return f"its self-test on {device} gave other shapes than plain PyTorch"
    for a, b in zip(found, expected, strict=True):
        error, scale = float((a.double() - b.double()).abs().max()), float(b.double().abs().max())
        if not error <= _TEST_RTOL * scale + _TEST_ATOL:  # not a number counts as a difference
            return (
                f"its self-test on {device} differs from plain PyTorch by {error:.1e} where numbers reach {scale:.1e}"
            )
    return None
