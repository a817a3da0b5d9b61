"""Files of torch tensors, read for callers that do without torch themselves."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np
import torch

from spectrafuse._runtime.errors import InvalidValueError


def load_tensors(path: str | os.PathLike[str]) -> Any:
    """What a `.pth` file holds: tensors and plain containers; nothing is unpickled that could run code."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `torch.save` wrote of a training run: its check sums are looked at, which torch leaves out.

    Raises
    ------
    ValueError
        If the file is damaged or holds something else than a dictionary.
    """
    reason = "it holds no state"
    # What cannot be opened is not damaged, and raises what the system says.
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                reason = f"the check sum of its part {damaged!r} is wrong"
            elif isinstance(content := load_tensors(path), dict):
                return content
        except Exception as error:  # neither library documents what it raises for damaged files
            reason = str(error).partition("\n")[0] or type(error).__name__
    raise InvalidValueError(f"'{path}' is damaged ({reason}); delete it to start again.")


def as_array(value: Any) -> np.ndarray | None:
    """A dense tensor of plain numbers as an array; None for anything else."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return None
    values = value.detach()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
