"""Checks of numbers and names, which need no torch.

Every failed check is one sentence: the argument's name, what was expected, what came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

from spectrafuse._runtime.errors import InvalidTypeError, fail


def integer(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Check an integer of at least `minimum`, and of at most `maximum` where larger ones make no sense."""
    expected = f"an integer of at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidTypeError(f"`{name}` must be {expected}; got {value!r}.")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise fail(name, expected, value)
    return number


def number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    """Check a finite real number, `above` (exclusive) or at least `minimum`, at most `maximum`."""
    bounds = []
    if above is not None:
        bounds.append(f"above {above:g}")
    if minimum is not None:
        bounds.append(f"of at least {minimum:g}")
    if maximum is not None:
        bounds.append(f"of at most {maximum:g}")
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidTypeError(f"`{name}` must be {expected}; got {value!r}.")
    x = float(value)
    if (
        not math.isfinite(x)
        or (above is not None and x <= above)
        or (minimum is not None and x < minimum)
        or (maximum is not None and x > maximum)
    ):
        raise fail(name, expected, value)
    return x


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """Check that `value` is one of a few names."""
    options = list(options)
    if value not in options:
        raise fail(name, "one of " + ", ".join(repr(o) for o in options), repr(value))
    return str(value)


def size(name: str, value: object) -> tuple[int, int]:
    """Check a height and width, two integers of at least 1."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise fail(name, "two integers (height, width)", repr(value))
    return integer(f"{name}[0]", value[0]), integer(f"{name}[1]", value[1])
