"""AdamW on a linear layer's weight; the weight gradient is formed inside and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions
from spectrafuse.ops import _trials
from spectrafuse.ops.adamw_outer.pytorch import adamw_outer as composed
from spectrafuse.ops.adamw_outer.reference import adamw_outer as reference

MOST_ROWS = 256
"""Beyond these a matrix product by blocks is faster than forming the gradient row by row."""

backends.declare(
    "adamw_outer",
    {"cpu": extensions.cpu_kernel_reason, "cuda": extensions.cuda_kernel_reason},
    trial=_trials.adamw_outer,
)


def adamw_outer(
    x: Tensor,
    grad_y: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One AdamW step with gradient `grad_y.T @ x`, in place on `weight`, `exp_avg` and `exp_avg_sq`.

    Parameters
    ----------
    x : Tensor (B, I)
        The layer's input.
    grad_y : Tensor (B, O)
        Gradient of the loss with respect to the layer's output, before its activation.
    weight, exp_avg, exp_avg_sq : Tensor (O, I)
        Parameter and its two moments; before the first step the moments are zero.
    lr : float
        Learning rate, at least 0.
    beta1, beta2 : float in [0, 1]
        Decay of the moments; below 1.
    eps : float
        Added to the root of the second moment, at least 0.
    weight_decay : float
        Decoupled decay, at least 0.
    step : int
        Number of this step, counted from 1.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or number is wrong.

    Notes
    -----
    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019; equals `torch.optim.AdamW` (no
    amsgrad) up to rounding. Nothing is recorded for autograd.
    """
    checks.tensor("weight", weight, shape="(O, I)", ndim=2)
    rows, columns = weight.shape
    checks.tensor("x", x, shape=f"(B, {columns})", ndim=2, like=weight)
    checks.tensor("grad_y", grad_y, shape=f"(B, {rows})", ndim=2, like=weight)
    if x.shape[1] != columns:
        raise checks.fail("x", f"a tensor (B, {columns}) for weight {(rows, columns)}", f"shape {tuple(x.shape)}")
    if tuple(grad_y.shape) != (x.shape[0], rows):
        raise checks.fail("grad_y", f"a tensor {(x.shape[0], rows)}", f"shape {tuple(grad_y.shape)}")
    for name, value in (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        checks.tensor(name, value, shape=f"{(rows, columns)}", ndim=2, like=weight)
        if value.shape != weight.shape:
            raise checks.fail(name, f"a tensor {(rows, columns)}", f"shape {tuple(value.shape)}")
    checks.number("lr", lr, minimum=0.0)
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if checks.number(name, beta, minimum=0.0) >= 1.0:
            raise checks.fail(name, "a finite number of at least 0 and below 1", beta)
    checks.number("eps", eps, minimum=0.0)
    checks.number("weight_decay", weight_decay, minimum=0.0)
    checks.integer("step", step, minimum=1)
    update([(x, grad_y, weight, exp_avg, exp_avg_sq)], AdamwOptions(lr, beta1, beta2, eps, weight_decay), step)


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
    """`adamw_outer` of several parameters of one type and device, without its checks: its caller made the arguments.

    The number of the step may be a float32 scalar on the parameters' device: a CUDA graph then finds the present one.
    """
    weight = entries[0][2]
    chosen = backends.choose("adamw_outer", weight.device.type)
    if chosen == "cuda" and weight.dtype == torch.float64:
        chosen = "torch"
    if chosen in ("cpu", "cuda") and not torch.compiler.is_compiling():
        _update_natively(entries, options, step, chosen)
        return
    number = int(step)
    if chosen in ("cpu", "cuda"):
        # The step is no part of any graph, and the parameter may be a leaf that requires a gradient.
        for x, grad_y, weight, exp_avg, exp_avg_sq in entries:
            torch.ops.spectrafuse.adamw_outer(x, grad_y, weight.detach(), exp_avg, exp_avg_sq, *options, number)
        return
    implementation = reference if chosen == "reference" else composed
    for entry in entries:
        implementation(*entry, **options._asdict(), step=number)


def _update_natively(entries: Sequence[Entry], options: AdamwOptions, step: int | Tensor, chosen: str) -> None:
    """One call of a kernel; tensors that are narrow or strided pass through dense copies of its type."""
    working = extensions.working_dtype(entries[0][2].dtype)
    addresses, all_dense = [], []
    for entry in entries:
        if chosen == "cpu" and entry[0].shape[0] > MOST_ROWS:
            composed(*entry, **options._asdict(), step=int(step))
            continue
        dense = [t if t.dtype is working and t.is_contiguous() else t.to(working).contiguous() for t in entry]
        addresses.append(addressed(tuple(dense)))  # type: ignore[arg-type]
        all_dense.append((entry, dense))
    if chosen == "cpu":
        update_cpu(working, addresses, options, int(step))
    else:
        on_device = isinstance(step, Tensor) and step.is_cuda
        number, address = (0, step.data_ptr()) if on_device else (int(step), 0)  # type: ignore[union-attr]
        with torch.cuda.device(entries[0][2].device):
            stream = torch.cuda.current_stream().cuda_stream
            extensions.cuda().adamw_outer(addresses, *options, number, address, stream)
    for entry, dense in all_dense:
        for tensor, copy in zip(entry[2:], dense[2:], strict=True):
            if copy is not tensor:
                tensor.detach().copy_(copy)


AddressedEntry = tuple[int, int, int, int, int, int, int, int]
"""B, O and I of a parameter's step, and where its five tensors lie."""


def addressed(entry: Entry) -> AddressedEntry:
    """What `update_cpu` takes, of dense CPU tensors of one type a kernel computes in."""
    rows, columns = entry[2].shape
    return (len(entry[0]), rows, columns, *(t.data_ptr() for t in entry))  # type: ignore[return-value]


def update_cpu(dtype: torch.dtype, entries: Sequence[AddressedEntry], options: AdamwOptions, step: int) -> None:
    """`update` by the C++ kernel of tensors whose addresses are known, with at most `MOST_ROWS` rows."""
    extensions.cpu().adamw_outer(extensions.DTYPE_CODE[dtype], entries, *options, step, torch.get_num_threads())


torch.library.define(
    "spectrafuse::adamw_outer",
    "(Tensor x, Tensor grad_y, Tensor(a!) weight, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, float lr, float beta1, "
    "float beta2, float eps, float weight_decay, int step) -> ()",
)


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
    _update_natively([(x, grad_y, weight, exp_avg, exp_avg_sq)], options, step, weight.device.type)


torch.library.impl("spectrafuse::adamw_outer", "CPU", _step)
torch.library.impl("spectrafuse::adamw_outer", "CUDA", _step)


@torch.library.register_fake("spectrafuse::adamw_outer")
def _step_fake(
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
    return None
