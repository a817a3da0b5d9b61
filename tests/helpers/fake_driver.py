"""A driver of a GPU that is not there: counts what a training step would ask of one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.emulated_cuda import module

WAIT = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
"""What cannot go on before the host knows a number of the device."""
NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}
"""What only makes room or a name."""


class FakeDriver(TorchDispatchMode):
    """Inside, every operation of torch counts as one launch, and each of the emulation's by itself.

    Attributes
    ----------
    launches : int
    waits, copies : list of str
        Operations that wait for the device, and those that move numbers between it and the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self._torch_launches, self._before = 0, module().launches()
        self.waits: list[str] = []
        self.copies: list[str] = []

    @property
    def launches(self) -> int:
        return self._torch_launches + module().launches() - self._before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "spectrafuse":
            with self:  # its kernels count themselves, what it does with torch besides counts too
                return func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
        name = func._schema.name.partition("::")[2]
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if name in WAIT or by_mask:
            self.waits.append(name)
        elif name == "lift_fresh" or (name == "_to_copy" and kwargs.get("device") is not None):
            self.copies.append(name)
        elif not is_view and name not in NOTHING:
            self._torch_launches += 1
        return func(*args, **kwargs)
