"""Named tensors in safetensors files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, tensor by tensor: its own library first copies all of them.

    Parameters
    ----------
    path : path
    tensors : mapping of str to Tensor
        On any device, in any memory layout.

    Raises
    ------
    ValueError
        If a tensor has a type that such a file cannot hold.
    """
    header: dict[str, object] = {}
    # Wider types first, as readers expect: every tensor then starts at a multiple of its entries' size.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    offset = 0
    for name, value in ordered:
        if value.dtype not in _NAMES:
            raise InvalidValueError(f"'{name}' is of type {value.dtype}, which a safetensors file cannot hold here.")
        ends = [offset, offset + value.nbytes]
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": ends}
        offset = ends[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, value in ordered:
            value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tofile(file)


def read_tensors(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise FileNotFoundError(f"'{path}' does not exist.")
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidValueError(f"'{path}' is not a safetensors file, or is cut short ({error}).") from error
