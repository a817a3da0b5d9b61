"""Memory that torch hands out uninitialized holds NaN, or the largest integer, so that unwritten output shows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _device
from torch.utils._python_dispatch import _disable_current_modes

MAKERS = [
    *((torch, name) for name in ("empty", "empty_like", "empty_strided", "empty_permuted")),
    *((Tensor, name) for name in ("new_empty", "new_empty_strided")),
]
# More is memory that a test reserves and never touches.
LARGEST_BYTES = 2**28


def _fits(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and 0 < tensor.numel() * tensor.element_size() <= LARGEST_BYTES


def _fill(tensor: Tensor) -> None:
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        tensor.fill_(torch.nan)
    else:
        tensor.fill_(True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max)


def _filling(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(make)
    def made(*arguments: Any, **options: Any) -> Tensor:
        tensor = make(*arguments, **options)
        # What is traced (torch.compile, fake tensors) stays as it is.
        if not torch.compiler.is_compiling() and type(tensor) in (Tensor, nn.Parameter) and _fits(tensor):
            with torch.no_grad(), _disable_current_modes():  # none that counts operations sees this one
                _fill(tensor)
        return tensor

    return made


@contextmanager
def filled() -> Iterator[None]:
    """Replace what makes uninitialized tensors from Python, in torch itself too, until the block ends."""
    # `with torch.device(...)` knows its functions by identity; it takes them up at its first use.
    _device._device_constructors()
    before = [getattr(owner, name) for owner, name in MAKERS]
    try:
        for (owner, name), make in zip(MAKERS, before, strict=True):
            setattr(owner, name, _filling(make))
        yield
    finally:
        for (owner, name), make in zip(MAKERS, before, strict=True):
            setattr(owner, name, make)
