"""Layers of networks before they have values."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def without_values(kind: type[Layer], *arguments: Any, **options: Any) -> Layer:
    """A layer in memory of the CPU that nothing was written to.

    torch's own initial values would come from the global generator; its `skip_init` does the same as this, but imports
    half of the compiler for it.
    """
    layer = kind(*arguments, device="meta", **options)
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")))
    return layer
