"""Errors whose message is for the person who called: what was wrong, and what to do about it.

The command line shows them as one sentence. Every other exception, also a `ValueError` of NumPy or torch, is a mistake
in this package, and shows its traceback.
"""

from __future__ import annotations

from spectrafuse._runtime.text import message


class SpectrafuseError(Exception):
    """Base of all errors that a caller can mend; the message is one sentence of at most 500 characters."""

    def __str__(self) -> str:
        return message(super().__str__())


class InvalidValueError(SpectrafuseError, ValueError):
    """An argument, or the contents of a file, that cannot be used."""


class InvalidTypeError(SpectrafuseError, TypeError):
    """An argument of the wrong type."""


class OutOfMemoryError(SpectrafuseError, MemoryError):
    """More memory was asked for than there is."""


class DivergedError(SpectrafuseError, FloatingPointError):
    """A training whose numbers are no longer finite."""


def fail(name: str, expected: str, got: object) -> InvalidValueError:
    """The error for a wrong value: `raise fail("window", "an odd integer of at least 1", window)`.

    Parameters
    ----------
    name : str
        The argument.
    expected : str
        What it must be.
    got : object
        What it is, as the message shows it.

    Returns
    -------
    InvalidValueError
        To be raised.
    """
    return InvalidValueError(f"`{name}` must be {expected}; got {got}.")
