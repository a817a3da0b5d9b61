"""Argument checks shared by the operations and the algorithms.

Every failed check is one sentence: the argument's name, what was expected, what came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def fail(name: str, expected: str, got: object) -> ValueError:
    """The error for a wrong value: `raise fail("window", "an odd integer of at least 1", window)`."""
    return ValueError(f"`{name}` must be {expected}; got {got}.")


def tensor(
    name: str,
    value: object,
    *,
    shape: str,
    ndim: int,
    dtypes: Iterable[torch.dtype] = FLOAT_DTYPES,
    like: Tensor | None = None,
) -> Tensor:
    """Check that `value` is a tensor of `ndim` dimensions; `shape` is how the message describes it.

    `like` names a tensor whose device and dtype it must share.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"`{name}` must be a tensor {shape}; got {type(value).__name__}.")
    if value.ndim != ndim:
        raise fail(name, f"a tensor {shape}", f"shape {tuple(value.shape)}")
    dtypes = tuple(dtypes)
    if value.dtype not in dtypes:
        names = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(f"`{name}` must have one of the dtypes {names}; got {value.dtype}.")
    if like is not None:
        if value.device != like.device:
            raise fail(name, f"on {like.device} like the other inputs", f"a tensor on {value.device}")
        if value.dtype != like.dtype:
            raise TypeError(f"`{name}` must have dtype {like.dtype} like the other inputs; got {value.dtype}.")
    return value


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Check an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"`{name}` must be an integer of at least {minimum}; got {value!r}.")
    if value < minimum:
        raise fail(name, f"an integer of at least {minimum}", value)
    return int(value)


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
        raise TypeError(f"`{name}` must be {expected}; got {value!r}.")
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


def device(value: str | torch.device | None) -> torch.device:
    """The device that an estimator's `device` means; None: a CUDA device if there is one, else the CPU."""
    if value is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(value)
    except (RuntimeError, TypeError):
        raise fail("device", "a device torch knows, such as 'cpu' or 'cuda:0', or None", repr(value)) from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` is {str(value)!r}, but no CUDA device can be used here.")
    return chosen
