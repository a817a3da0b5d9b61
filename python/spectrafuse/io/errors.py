"""The error of everything that reads data."""

from __future__ import annotations

from spectrafuse._runtime.errors import InvalidValueError


class DataError(InvalidValueError):
    """Data that cannot be used as they are.

    The message is one sentence for the person who owns the data: which file or argument, what is wrong with
    it (with the position, where there is one) and, where there is a way out, what to do.
    """


class ReadingNote(UserWarning):
    """What was decided when data were read, such as bands that were left out; `Cube.description` says it too."""
