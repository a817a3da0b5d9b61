"""The error of everything that reads data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spectrafuse._runtime.errors import InvalidValueError

_CALLER: ContextVar[str] = ContextVar("caller", default="")
_COMMAND = "command "
# Of a scene in a file; estimators do not have them.
_OPENING = ("key", "rows", "columns")


class DataError(InvalidValueError):
    """Data that cannot be used as they are.

    The message is one sentence for the person who owns the data: which file or argument, what is wrong with
    it (with the position, where there is one) and, where there is a way out, what to do.
    """


@contextmanager
def asked_by_command(name: str = "") -> Iterator[None]:
    """Let messages name options of the command line, not arguments; `name` is the command."""
    yield from _asked_by(f"{_COMMAND}{name}")


@contextmanager
def asked_by_estimator() -> Iterator[None]:
    """Let messages about scenes say how options that an estimator does not have are set."""
    yield from _asked_by(_CALLER.get() or "estimator")


def _asked_by(caller: str) -> Iterator[None]:
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


def by_command() -> bool:
    """Whether messages go to a person at the command line."""
    return _CALLER.get().startswith(_COMMAND)


def option(name: str, value: str | None = None, *, function: str = "read_spectra") -> str:
    """How the caller sets an option: `--key x` in a command, `read_spectra(..., key='x')` in Python."""
    if by_command():
        return f"--{name.replace('_', '-')}" + ("" if value is None else f" {value}")
    given = f"{name}={'...' if value is None else repr(value)}"
    return f"{function}(..., {given})" if function else given


def scene_option(name: str, value: str | None = None) -> str:
    """How the caller sets an option of a scene: `--layout hwc`, `layout='hwc'`, `open_cube(..., key=...)`."""
    if name == "bands" and value == "all" and by_command():
        return "--all-bands"
    if name == "bands" and value is None and by_command():
        return "--bands or --drop"
    if name == "nodata" and not by_command():
        return f"nodata={value}"
    return option(name, value, function="open_cube" if name in _OPENING and _CALLER.get() == "estimator" else "")


def size_options() -> str:
    """How the caller says how many rows and columns a scene has."""
    if by_command():
        return "--rows and --columns" if _CALLER.get() == f"{_COMMAND}segment" else "--scene-size ROWS COLUMNS"
    return f"{scene_option('rows')} and {option('columns', function='')}"


class ReadingNote(UserWarning):
    """How data were read, such as bands that were left out; `Cube.description` and `Spectra.reading` say it too."""
