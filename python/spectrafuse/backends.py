"""Which implementation of an operation runs, and why the others cannot.

Every operation has up to five implementations: `reference` (the published formulation, literal), `torch` (the same
algebra in good plain PyTorch), `cpu` (C++), `triton` and `cuda` (C++/CUDA). `auto`, the default, takes the fastest
that can run and never `reference`. A forced implementation that cannot run raises and says why; it never falls back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

Reason = str | None
"""Why an implementation cannot run, or None where it can."""

Implementation = Literal["reference", "torch", "cpu", "triton", "cuda"]
IMPLEMENTATIONS: tuple[str, ...] = ("reference", "torch", "cpu", "triton", "cuda")

_AUTO_ORDER = ("cuda", "triton", "cpu", "torch")
_declared: dict[str, dict[str, Callable[[str], Reason]]] = {}


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


def declare(op: str, kernels: Mapping[str, Callable[[str], Reason]] | None = None) -> None:
    """Declare an operation: `reference` and `torch` always, and kernels with their predicates.

    A predicate takes a device type ("cpu", "cuda") and returns why the kernel cannot run there, or None.
    """
    _declared[op] = {"reference": always, "torch": always, **(kernels or {})}


def why_not(op: str, implementation: str, device: str) -> Reason:
    """Why `implementation` of `op` cannot run on tensors of this device type, or None where it can."""
    predicate = _declared[op].get(implementation)
    if predicate is None:
        return f"{op} has no {implementation} kernel"
    return predicate(device)


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
        if (why_not(op, implementation, device) or limits.get(implementation)) is None:
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
