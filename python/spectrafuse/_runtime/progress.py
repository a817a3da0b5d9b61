"""What a long fit tells its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


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
