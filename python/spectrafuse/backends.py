"""Which implementation of an operation runs, and why the others cannot.

Every operation has up to five implementations: `reference` (the published formulation, literal), `torch` (the same
algebra in good plain PyTorch), `cpu` (C++), `triton` and `cuda` (C++/CUDA). `auto`, the default, takes the fastest
that can run and never `reference`. A forced implementation that cannot run raises and says why; it never falls back.

A kernel for a GPU is tried before it is first taken in a process: a small call, forward and backward, is compared with
plain PyTorch on the CPU. A kernel that gives other numbers there, or fails, counts as one that cannot run.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Reason = str | None
"""Why an implementation cannot run, or None where it can."""

Implementation = Literal["reference", "torch", "cpu", "triton", "cuda"]
IMPLEMENTATIONS: tuple[str, ...] = ("reference", "torch", "cpu", "triton", "cuda")

_AUTO_ORDER = ("cuda", "triton", "cpu", "torch")
_declared: dict[str, dict[str, Callable[[str], Reason]]] = {}

Trial = Callable[[str], Sequence[Tensor]]
"""A call of an operation's public function on a device: its outputs and gradients, the same numbers every time."""

_TRIED = ("cuda", "triton")
_TRIAL_RTOL, _TRIAL_ATOL = 1e-4, 1e-6
"""float32 rounding through some hundred operations, against a tensor's largest element; a wrong kernel is far off."""
_trials: dict[str, Trial] = {}
_verdicts: dict[tuple[str, str, str], Reason] = {}


class BackendUnavailableError(RuntimeError):
    """A forced implementation cannot run here; the message says why."""


def _check_name(name: str, source: str) -> str:
    if name != "auto" and name not in IMPLEMENTATIONS:
        known = ", ".join(("auto", *IMPLEMENTATIONS))
        raise ValueError(f"{source} must be one of {known}; got {name!r}.")
    return name


# A plain module variable, not a context variable: torch.compile guards on it, so a change recompiles.
_forced = _check_name(os.environ.get("SPECTRAFUSE_BACKEND", "auto") or "auto", "SPECTRAFUSE_BACKEND")


def always(device: str) -> Reason:
    """The predicate of an implementation that runs everywhere."""
    return None


def declare(
    op: str, kernels: Mapping[str, Callable[[str], Reason]] | None = None, *, trial: Trial | None = None
) -> None:
    """Declare an operation: `reference` and `torch` always, and kernels with their predicates.

    A predicate takes a device type ("cpu", "cuda") and returns why the kernel cannot run there, or None. Kernels for
    CUDA tensors are tried by `trial` before they are first taken.
    """
    _declared[op] = {"reference": always, "torch": always, **(kernels or {})}
    if trial is not None:
        _trials[op] = trial


def why_not(op: str, implementation: str, device: str) -> Reason:
    """Why `implementation` of `op` cannot run on tensors of this device type, or None where it can."""
    predicate = _declared[op].get(implementation)
    if predicate is None:
        return f"{op} has no {implementation} kernel"
    reason = predicate(device)
    if reason is None and device == "cuda" and implementation in _TRIED and op in _trials:
        reason = _verdict(op, implementation)
    return reason


def _verdict(op: str, implementation: str) -> Reason:
    """What the trial of a kernel on the current CUDA device showed; the first call runs it."""
    started = torch.cuda.is_initialized()
    device = f"cuda:{torch.cuda.current_device()}" if started else "cuda"
    key = (op, implementation, device)
    if key not in _verdicts:
        if started and torch.cuda.is_current_stream_capturing():
            return "it was never tried on this device, and not while a CUDA graph is being captured"
        _verdicts[key] = None  # while the trial itself runs
        _verdicts[key] = reason = _try(*key)
        if reason is not None:
            warnings.warn(f"{op}: the {implementation} kernel is not used: {reason}.", RuntimeWarning, stacklevel=2)
    return _verdicts[key]


# torch.compile takes the answer and does not trace the trial (see `extensions.cpu_reason`).
_verdict._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _try(op: str, implementation: str, device: str) -> Reason:
    """Run a trial and compare it with plain PyTorch on the CPU, where no setting of a GPU makes products coarser."""
    answer: list[Reason] = []

    def work() -> None:
        try:
            if ":" in device:
                torch.cuda.set_device(device)  # of this thread
            with use_backend(implementation):
                found = [tensor.detach().cpu() for tensor in _trials[op](device)]
            with use_backend("torch"):
                expected = [tensor.detach() for tensor in _trials[op]("cpu")]
        except Exception as error:
            first_line = next(iter(str(error).splitlines()), "")
            answer.append(f"its trial on {device} raised {type(error).__name__}: {first_line}")
        else:
            answer.append(_difference(found, expected, device))

    # A thread of its own has none of the caller's modes: no autocast, inference mode, fake tensors or function
    # transforms.
    thread = threading.Thread(target=work, name=f"trial of {op}")
    thread.start()
    thread.join()
    return answer[0]


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor], device: str) -> Reason:
    if [t.shape for t in found] != [t.shape for t in expected]:
        return f"its trial on {device} gave other shapes than plain PyTorch"
    for a, b in zip(found, expected, strict=True):
        error, scale = float((a.double() - b.double()).abs().max()), float(b.double().abs().max())
        if not error <= _TRIAL_RTOL * scale + _TRIAL_ATOL:  # not a number counts as a difference
            return f"its trial on {device} differs from plain PyTorch by {error:.1e} where numbers reach {scale:.1e}"
    return None


def choose(op: str, device: str, limits: Mapping[str, Reason] | None = None) -> str:
    """The implementation of `op` that runs for tensors of this device type.

    Parameters
    ----------
    limits : mapping of str to (str or None), optional
        For an implementation, why it cannot take the arguments of this call, or None where it can.

    Raises
    ------
    BackendUnavailableError
        If an implementation is forced that cannot run.
    """
    limits = limits or {}
    if _forced != "auto":
        reason = why_not(op, _forced, device) or limits.get(_forced)
        if reason is not None:
            raise BackendUnavailableError(f"{op}: the forced implementation {_forced!r} cannot run: {reason}.")
        return _forced
    for implementation in _AUTO_ORDER:
        # Triton kernels take CPU tensors in an interpreter only, which is there to check them.
        if implementation not in _declared[op] or (implementation == "triton" and device == "cpu"):
            continue
        if (limits.get(implementation) or why_not(op, implementation, device)) is None:
            return implementation
    return "torch"


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force an implementation of every operation inside a `with` block, in the whole process.

    Parameters
    ----------
    name : {"auto", "reference", "torch", "cpu", "triton", "cuda"}
        An operation that lacks the forced implementation raises `BackendUnavailableError` when it is called.
    """
    global _forced
    before = _forced
    _forced = _check_name(name, "`name`")
    try:
        yield
    finally:
        _forced = before


def forced() -> str:
    """The implementation in force: "auto", or the name given to `use_backend` or SPECTRAFUSE_BACKEND."""
    return _forced


def operations() -> list[str]:
    """Names of all operations, in alphabetical order."""
    import spectrafuse.ops  # noqa: F401  declares them

    return sorted(_declared)
