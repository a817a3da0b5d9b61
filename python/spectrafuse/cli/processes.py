"""A command that `torchrun` has started several times: the processes work together, the first one speaks for all."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from spectrafuse._runtime.errors import SpectrafuseError
from spectrafuse.cli.terminal import USER_ERROR, CommandError

Result = TypeVar("Result")


def several() -> bool:
    """Whether `torchrun` has started more than one process."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ


@contextmanager
def working_together() -> Iterator[bool]:
    """Join the processes that `torchrun` has started, if it has; whether this is the first one, or the only one.

    The others show nothing, and end without a word where the first one says why.
    """
    if not several():
        yield True
        return
    import torch

    from spectrafuse._runtime import ranks

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)
    first = ranks.number() == 0
    if not first:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        warnings.simplefilter("ignore")
    try:
        yield first
    except ranks.LostProcessError as error:
        # The group is left as it is: with a process gone, taking it apart could wait for ever.
        if error.told:
            raise SystemExit(USER_ERROR) from error
        raise
    except BaseException:
        torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()


def agreed(action: Callable[[], Result]) -> Result:
    """What an action gives in this process, once it has succeeded in all; an error in one is told by the first."""
    from spectrafuse._runtime import ranks

    if not ranks.together():
        return action()
    mine: SpectrafuseError | OSError | None = None
    try:
        result = action()
    except (SpectrafuseError, OSError) as error:
        mine = error
    problems = ranks.gathered("" if mine is None else str(mine) or type(mine).__name__)
    failed = [number for number, problem in enumerate(problems) if problem]
    if not failed:
        return result
    if ranks.number() > 0:
        raise SystemExit(USER_ERROR) from mine
    raise mine or CommandError(f"In process {failed[0]}: {problems[failed[0]]}")
