"""Argument checks shared by the operations and the algorithms.

Every failed check is one sentence: the argument's name, what was expected, what came. Those that need no torch are in
`spectrafuse._runtime.arguments`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from spectrafuse._runtime.arguments import choice, integer, number, size
from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError, fail

__all__ = ["FLOAT_DTYPES", "choice", "device", "fail", "integer", "number", "size", "tensor"]

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


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
        raise InvalidTypeError(f"`{name}` must be a tensor {shape}; got {type(value).__name__}.")
    if value.ndim != ndim:
        raise fail(name, f"a tensor {shape}", f"shape {tuple(value.shape)}")
    dtypes = tuple(dtypes)
    if value.dtype not in dtypes:
        names = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise InvalidTypeError(f"`{name}` must have one of the dtypes {names}; got {value.dtype}.")
    if like is not None:
        if value.device != like.device:
            raise fail(name, f"on {like.device} like the other inputs", f"a tensor on {value.device}")
        if value.dtype != like.dtype:
            raise InvalidTypeError(f"`{name}` must have dtype {like.dtype} like the other inputs; got {value.dtype}.")
    return value


def device(value: str | torch.device | None) -> torch.device:
    """The device that an estimator's `device` means; None: a CUDA device if there is one, else the CPU."""
    if value is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(value)
    except (RuntimeError, TypeError):
        raise fail("device", "a device torch knows, such as 'cpu' or 'cuda:0', or None", repr(value)) from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InvalidValueError(f"`device` is {str(value)!r}, but no CUDA device can be used here.")
    return chosen
