"""The processes that work on one thing together: those of `torch.distributed`'s group, or this one alone.

Without an initialized group every function here is the identity, and nothing of torch.distributed is touched. In a
group all processes must make the same calls in the same order.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError, SpectrafuseError

Result = TypeVar("Result")
Item = TypeVar("Item")
# How long a process that noticed that another one is gone looks for which it was.
_LOOKING = 2.0
_peers: list[tuple[str, int]] = []
_sent = 0


class LostProcessError(SpectrafuseError, RuntimeError):
    """Another process of the group has ended, or stopped with an error.

    Attributes
    ----------
    told : bool
        Whether the first process says so too.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


def count() -> int:
    """Processes in the group; 1 without one."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def number() -> int:
    """Which one this is, from 0."""
    return torch.distributed.get_rank() if count() > 1 else 0


def together() -> bool:
    """Whether there are others."""
    return count() > 1


def share(total: int) -> range:
    """Of `total` things those that are this process's: as many as anyone's, or one less."""
    return range(total * number() // count(), total * (number() + 1) // count())


def sent() -> int:
    """Bytes that this process has sent to others for sums so far, as a ring of processes sends them."""
    return _sent


def meet(what: Mapping[str, Any]) -> None:
    """Refuse to work together with processes that were started otherwise.

    Parameters
    ----------
    what : mapping
        Plain values that must be the same everywhere.

    Raises
    ------
    InvalidValueError
        In every process, with the first difference.
    """
    if not together():
        return
    told = gathered(((socket.gethostname(), os.getpid()), dict(what)))
    _peers[:] = [peer for peer, _ in told]
    first = told[0][1]
    for other, (_, own) in enumerate(told):
        for name in dict.fromkeys([*first, *own]):
            if first.get(name) != own.get(name):
                values = f": {first.get(name)} and {own.get(name)}" if len(str(first.get(name))) < 40 else ""
                raise InvalidValueError(
                    f"Processes 0 and {other} must be started alike, but their {name} differ{values}; give all the "
                    "same version, files and parameters."
                )


def gathered(value: Result) -> list[Result]:
    """What every process has, in their order; picklable."""
    if not together():
        return [value]
    found: list[Any] = [None] * count()
    with _talking():
        torch.distributed.all_gather_object(found, value)
    return found


def each(items: Sequence[Item], make: Callable[[Item], Result]) -> list[Result]:
    """`make` of every item; each process makes its share."""
    if not together():
        return [make(item) for item in items]
    parts = gathered([make(items[i]) for i in share(len(items))])
    return [made for part in parts for made in part]


def from_first(make: Callable[[], Result]) -> Result:
    """What the first process makes, for all; if it fails the others stop too.

    Raises
    ------
    LostProcessError
        In the others, with what went wrong in the first.
    """
    if not together():
        return make()
    told: list[Any] = [None, None]
    if number() == 0:
        try:
            told = [make(), None]
        except BaseException as error:
            with suppress(LostProcessError), _talking():
                torch.distributed.broadcast_object_list([None, str(error) or type(error).__name__], 0)
            raise
    with _talking():
        torch.distributed.broadcast_object_list(told, 0)
    if told[1] is not None:
        raise LostProcessError(f"Process 0 of {count()} stopped, and this one with it: {told[1]}", told=True)
    made: Result = told[0]
    return made


def add(tensors: Sequence[Tensor]) -> None:
    """Put the sum over all processes into tensors, in place; those of a type go together."""
    global _sent
    if not together():
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        with _talking():
            torch.distributed.all_reduce(flat)
        _sent += 2 * (count() - 1) * flat.numel() * flat.element_size() // count()
        for tensor, found in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(found.view(tensor.shape))


def copy_first(tensors: Sequence[Tensor]) -> None:
    """Put what the first process has into tensors, in place."""
    if together():
        with _talking():
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


@contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, SpectrafuseError):
            raise
        reason = str(error)
        if "no backend type associated with device type" in reason.lower() or "No backend type" in reason:
            raise InvalidValueError(
                "The process group cannot exchange what lies on this device; start it with "
                "init_process_group('cpu:gloo,cuda:nccl')."
            ) from error
        gone, sentence = _who_ended()
        raise LostProcessError(sentence, told=number() > 0 and bool(gone) and 0 not in gone) from error


def _who_ended() -> tuple[list[int], str]:
    """Processes of this machine that are gone, and the sentence about them."""
    host, until = socket.gethostname(), time.monotonic() + _LOOKING
    while True:
        gone = [i for i, (where, process) in enumerate(_peers) if where == host and not _runs(process)]
        if gone or time.monotonic() > until:
            break
        time.sleep(0.05)
    who = f"Process {gone[0]} of {count()} has" if gone else f"Another of the {count()} processes has"
    if len(gone) > 1:
        who = f"Processes {' and '.join(map(str, gone))} of {count()} have"
    return gone, (
        f"{who} ended, so this one stops too; the same command, with any number of processes, goes on from the last "
        "epoch that was saved."
    )


def _runs(process: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        with open(f"/proc/{process}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    except OSError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
