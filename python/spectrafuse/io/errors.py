"""The error of everything that reads data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spectrafuse._runtime.errors import InvalidValueError

_COMMAND: ContextVar[bool] = ContextVar("from_command", default=False)


class DataError(InvalidValueError):
    """Data that cannot be used as they are.

    The message is one sentence for the person who owns the data: which file or argument, what is wrong with
    it (with the position, where there is one) and, where there is a way out, what to do.
    """


@contextmanager
def asked_by_command() -> Iterator[None]:
    """Let messages name options of the command line, not arguments."""
    token = _COMMAND.set(True)
    try:
        yield
    finally:
        _COMMAND.reset(token)


def option(name: str, value: str | None = None, *, function: str = "read_spectra") -> str:
    """How the caller sets an option: `--key x` in a command, `read_spectra(..., key='x')` in Python."""
    if _COMMAND.get():
        return f"--{name.replace('_', '-')}" + ("" if value is None else f" {value}")
    given = f"{name}={'...' if value is None else repr(value)}"
    return f"{function}(..., {given})" if function else given


class ReadingNote(UserWarning):
    """How data were read, such as bands that were left out; `Cube.description` and `Spectra.reading` say it too."""
