"""Threads of other libraries: BLAS's while several fits run at once, and OpenMP's when a process forks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import threadpoolctl
from threadpoolctl import threadpool_limits

_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0."""

_lock = threading.Lock()

Kept = TypeVar("Kept")


class WhileUsed(Generic[Kept]):
    """A setting of the whole process: the first thread that enters makes it, the last that leaves undoes it.

    Parameters
    ----------
    start : callable
        Makes the setting, and returns what `end` needs to undo it.
    end : callable
    """

    def __init__(self, start: Callable[[], Kept], end: Callable[[Kept], None]) -> None:
        self._start, self._end = start, end
        self._users = 0
        self._kept: list[Kept] = []

    def __enter__(self) -> None:
        with _lock:
            if not self._users:
                self._kept = [self._start()]
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with _lock:
            self._users -= 1
            if not self._users:
                self._end(*self._kept)


def _set_by_any_thread() -> None:
    """Newer versions of threadpoolctl let one thread alone set the number, and ignore others."""
    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


def _limit_blas() -> threadpool_limits:
    _set_by_any_thread()
    return threadpool_limits(1, user_api="blas")


def _free_blas(limits: threadpool_limits) -> None:
    _set_by_any_thread()
    limits.restore_original_limits()
    _set_by_any_thread()


single_blas_thread = WhileUsed(_limit_blas, _free_blas)
"""BLAS with one thread, so that its bits do not depend on how many there are."""


def _before_fork() -> None:
    _lock.acquire()
    if "torch" not in sys.modules and "sklearn" not in sys.modules:
        return
    for library in threadpoolctl.ThreadpoolController().select(user_api="openmp").lib_controllers:
        pause = getattr(library.dynlib, "omp_pause_resource_all", None)
        if pause is not None:
            pause(_HARD)


def make_forks_safe() -> None:
    """Let OpenMP's threads end before `os.fork` and `multiprocessing` fork this process.

    The new process does not have them, and would wait forever for what libgomp gives them to do, in this package, torch
    and scikit-learn alike. They come back when there is work, on both sides.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)
