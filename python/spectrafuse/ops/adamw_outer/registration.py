"""The kernels of `adamw_outer`: called directly, and registered with torch for what `torch.compile` traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register

MOST_ROWS = 256
"""Beyond these a matrix product by blocks is faster than forming the gradient row by row."""


class AdamwOptions(NamedTuple):
    """Options of a step, in the order of the kernel's arguments."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


Entry = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""What one parameter's step takes: x, grad_y, weight and both moments."""


def update(entries: Sequence[Entry], options: AdamwOptions, step: int | Tensor) -> None:
    """A step of several parameters by the kernel of their device."""
    if torch.compiler.is_compiling():
        # The step is no part of any graph, and the parameter may be a leaf that requires a gradient.
        for x, grad_y, weight, exp_avg, exp_avg_sq in entries:
            _registered(x, grad_y, weight.detach(), exp_avg, exp_avg_sq, *options, int(step))
    else:
        _update_natively(entries, options, step)


def _update_natively(entries: Sequence[Entry], options: AdamwOptions, step: int | Tensor) -> None:
    """One call of a kernel; tensors that are narrow or strided pass through dense copies of its type."""
    working = extensions.working_dtype(entries[0][2].dtype)
    addresses, all_dense = [], []
    for entry in entries:
        dense = [t if t.dtype is working and t.is_contiguous() else t.to(working).contiguous() for t in entry]
        addresses.append(addressed(tuple(dense)))  # type: ignore[arg-type]
        all_dense.append((entry, dense))
    device = entries[0][2].device
    if not extensions.on_gpu(device):
        update_cpu(working, addresses, options, int(step))
    else:
        on_device = isinstance(step, Tensor) and extensions.on_gpu(step.device)
        number, address = (0, step.data_ptr()) if on_device else (int(step), 0)  # type: ignore[union-attr]
        extensions.run_on_gpu("adamw_outer", device, addresses, *options, number, address)
    for entry, dense in all_dense:
        for tensor, copy in zip(entry[2:], dense[2:], strict=True):
            if copy is not tensor:
                tensor.detach().copy_(copy)


def update_layer(entry: Entry, options: AdamwOptions, step: Tensor, values: Tensor, activation: int) -> Tensor:
    """A step of a layer's weight on a GPU, dense and in float32, and the gradient (B, I) of what its input is made of.

    The input is `values` of an activation, of which the gradient is taken before it; by the weight before the step.
    """
    batch, (outputs, inputs) = len(entry[0]), entry[2].shape
    grad_x = values.new_empty((batch, inputs))
    workspace = values.new_empty((-(-outputs // extensions.cuda().linear_part), batch, inputs))
    extensions.run_on_gpu(
        "adamw_layer", values.device, addressed(entry), *options, 0, step.data_ptr(), values.data_ptr(), activation,
        grad_x.data_ptr(), workspace.data_ptr(),
    )  # fmt: skip
    return grad_x


AddressedEntry = tuple[int, int, int, int, int, int, int, int]
"""B, O and I of a parameter's step, and where its five tensors lie."""


def addressed(entry: Entry) -> AddressedEntry:
    """What `update_cpu` takes, of dense CPU tensors of one type a kernel computes in."""
    rows, columns = entry[2].shape
    return (len(entry[0]), rows, columns, *(t.data_ptr() for t in entry))  # type: ignore[return-value]


def update_cpu(dtype: torch.dtype, entries: Sequence[AddressedEntry], options: AdamwOptions, step: int) -> None:
    """`update` by the C++ kernel of tensors whose addresses are known, with at most `MOST_ROWS` rows."""
    extensions.cpu().adamw_outer(extensions.DTYPE_CODE[dtype], entries, *options, step, torch.get_num_threads())


def _step(
    x: Tensor,
    grad_y: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    options = AdamwOptions(lr, beta1, beta2, eps, weight_decay)
    _update_natively([(x, grad_y, weight, exp_avg, exp_avg_sq)], options, step)


def _step_fake(*arguments: Any) -> None:
    return None


_registered = register("adamw_outer", _step, _step_fake, cuda=_step, mutates=["weight", "exp_avg", "exp_avg_sq"])
