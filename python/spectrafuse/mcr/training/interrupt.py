"""Ctrl-C that waits for the end of an epoch."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class DeferredInterrupt:
    """While active, the first Ctrl-C sets `pending`; the second interrupts at once.

    Between two epochs a run's state is whole and can be saved. Works in the main thread; elsewhere it does nothing.
    """

    def __init__(self, active: bool = True) -> None:
        self.pending = False
        self._active = active and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> DeferredInterrupt:
        # A caller's own handler stays in place: only Python's default one is replaced.
        self._active = self._active and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._active:
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def check(self) -> None:
        """Raise the interrupt that came meanwhile."""
        if self.pending:
            raise KeyboardInterrupt
