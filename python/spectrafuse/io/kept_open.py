"""Files that stay open between reads, the latest used: a fit over many scenes has few of them open at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

MOST_OPEN = 8
"""Files that stay open at a time; each may keep decoded chunks in memory."""
_used: WeakKeyDictionary[KeptOpen, None] = WeakKeyDictionary()
_turn = threading.Lock()


class KeptOpen:
    """A file that is opened when it is first read, and stays so until it is closed or many others have been read since.

    May be read from several threads (which take turns), after a fork, and when unpickled.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._process, self._own_turn, self._handle = os.getpid(), threading.Lock(), None

    def _open(self) -> Any:
        """What is kept open; it has a method `close`."""
        raise NotImplementedError

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """What `_open` gave; no other thread has it meanwhile."""
        if self._process != os.getpid():
            # Not shared with the parent: neither what is open nor a turn that one of its threads may have.
            self._reset()
        with self._own_turn:
            if self._handle is None:
                self._handle = self._open()
            self._close_others()
            yield self._handle

    def _close_others(self) -> None:
        with _turn:
            _used.pop(self, None)
            _used[self] = None
            for other in list(_used)[:-MOST_OPEN]:
                # One that is being read is closed by a later read.
                if other._own_turn.acquire(blocking=False):
                    try:
                        del _used[other]
                        other._release()
                    finally:
                        other._own_turn.release()

    def _release(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None and self._process == os.getpid():
            handle.close()

    def close(self) -> None:
        """Close the file; the next read opens it anew."""
        with _turn:
            _used.pop(self, None)
        self._release()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_process", "_own_turn", "_handle")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._reset()
