"""Groups of real processes (gloo, on this machine) that run a function together, forked: nothing is imported anew.

The processes of the tests have one thread, so that there is none that a fork would lose.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

SECONDS = 120.0


def _work(rank: int, count: int, folder: Path, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
    found: tuple[Any, str] = (None, "")
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count, timeout=timedelta(seconds=60)
        )
        found = (work(*arguments), "")
    except BaseException as error:
        traceback.print_exc()
        found = (None, f"{type(error).__name__}: {error}")
    torch.save(found, folder / f"{rank}.pt")
    # Nothing of the test session that was forked is ended here.
    os._exit(0)


def start(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The processes, which have begun."""
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_work, args=(rank, count, folder, work, arguments), daemon=True) for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def results(processes: Sequence[Any], folder: Path) -> list[tuple[Any, str]]:
    """Of every process what the function gave, and the error that it raised, by its type and text; or ("", "")."""
    for process in processes:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
    found = []
    for rank in range(len(processes)):
        path = folder / f"{rank}.pt"
        found.append(torch.load(path, weights_only=False) if path.exists() else (None, ""))
    return found


def together(count: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What every process of a group gives, none of which may fail."""
    found = results(start(count, folder, work, *arguments), folder)
    assert all(value is not None and not error for value, error in found), [error for _, error in found]
    return [value for value, _ in found]
