"""Files of torch tensors, read for callers that do without torch themselves."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """What a `.pth` file holds: tensors and plain containers; nothing is unpickled that could run code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def as_array(value: Any) -> np.ndarray | None:
    """A dense tensor of plain numbers as an array; None for anything else."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return None
    values = value.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
