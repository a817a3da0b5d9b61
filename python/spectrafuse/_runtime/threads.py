"""Threads of other libraries: BLAS's while several fits run at once, and OpenMP's when a process forks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0."""

_lock = threading.Lock()
_holders = 0
_limits: Any = None


def _set_by_any_thread() -> None:
    """Newer versions of threadpoolctl let one thread alone set the number, and ignore others."""
    import threadpoolctl

    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """BLAS with one thread, so that its bits do not depend on how many there are.

    The number is the process's: it comes back when the last fit that runs at the same time leaves.
    """
    global _holders, _limits
    from threadpoolctl import threadpool_limits

    with _lock:
        if not _holders:
            _set_by_any_thread()
            _limits = threadpool_limits(1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _set_by_any_thread()
                _limits.restore_original_limits()
                _set_by_any_thread()


def _before_fork() -> None:
    _lock.acquire()
    if "torch" not in sys.modules and "sklearn" not in sys.modules:
        return
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().select(user_api="openmp").lib_controllers:
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
