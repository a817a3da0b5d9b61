"""What a long fit, and other long work, tells its caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Progress(NamedTuple):
    """One report of a running fit.

    Attributes
    ----------
    epoch : int
        Epochs done so far.
    total_epochs : int or None
        Epochs there will be at most; None where only a stop rule ends the fit.
    values : dict of str to float
        Losses and metrics of this epoch.
    message : str
        One short line for a person.
    """

    epoch: int
    total_epochs: int | None
    values: dict[str, float]
    message: str


Callback = Callable[[Progress], None]

_LISTENER: ContextVar[Callable[[float], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[float], None]) -> Iterator[None]:
    """Have work within that knows how much there is of it tell the share that is done, from 0 to 1."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tell(done: float, whole: float) -> None:
    """Tell who listens that so much of the whole is done."""
    listener = _LISTENER.get()
    if listener is not None and whole > 0:
        listener(done / whole)


@contextmanager
def as_part(start: float, stop: float) -> Iterator[None]:
    """Work within is the part of a larger one between two shares of it."""
    outer = _LISTENER.get()
    if outer is None:
        yield
        return
    with listening(lambda share: outer(start + share * (stop - start))):
        yield


def in_parts(items: Sequence[T], stop: float = 1.0) -> Iterator[T]:
    """Items, with the work on each as one of equal parts of the first share `stop` of the whole."""
    for i, item in enumerate(items):
        with as_part(stop * i / len(items), stop * (i + 1) / len(items)):
            yield item
