"""AdamW on a linear layer's weight; the weight gradient is formed inside and never stored."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse import _checks, _native, backends
from spectrafuse.composed.adamw_outer import adamw_outer as composed
from spectrafuse.reference.adamw_outer import adamw_outer as reference

backends.declare("adamw_outer", {"cpu": _native.cpu_kernel_reason})


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
    _checks.tensor("weight", weight, shape="(O, I)", ndim=2)
    rows, columns = weight.shape
    _checks.tensor("x", x, shape=f"(B, {columns})", ndim=2, like=weight)
    _checks.tensor("grad_y", grad_y, shape=f"(B, {rows})", ndim=2, like=weight)
    if x.shape[1] != columns:
        raise _checks.fail("x", f"a tensor (B, {columns}) for weight {(rows, columns)}", f"shape {tuple(x.shape)}")
    if tuple(grad_y.shape) != (x.shape[0], rows):
        raise _checks.fail("grad_y", f"a tensor {(x.shape[0], rows)}", f"shape {tuple(grad_y.shape)}")
    for name, value in (("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        _checks.tensor(name, value, shape=f"{(rows, columns)}", ndim=2, like=weight)
        if value.shape != weight.shape:
            raise _checks.fail(name, f"a tensor {(rows, columns)}", f"shape {tuple(value.shape)}")
    _checks.number("lr", lr, minimum=0.0)
    for name, beta in (("beta1", beta1), ("beta2", beta2)):
        if _checks.number(name, beta, minimum=0.0) >= 1.0:
            raise _checks.fail(name, "a finite number of at least 0 and below 1", beta)
    _checks.number("eps", eps, minimum=0.0)
    _checks.number("weight_decay", weight_decay, minimum=0.0)
    _checks.integer("step", step, minimum=1)
    update(
        x,
        grad_y,
        weight,
        exp_avg,
        exp_avg_sq,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        step=step,
    )


def update(
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
    """`adamw_outer` without its checks, for callers that made the arguments themselves."""
    chosen = backends.choose("adamw_outer", weight.device.type)
    if chosen == "cpu":
        # The step is no part of any graph, and the parameter may be a leaf that requires a gradient.
        torch.ops.spectrafuse.adamw_outer(
            x, grad_y, weight.detach(), exp_avg, exp_avg_sq, lr, beta1, beta2, eps, weight_decay, step
        )
        return
    implementation = reference if chosen == "reference" else composed
    implementation(
        x,
        grad_y,
        weight,
        exp_avg,
        exp_avg_sq,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        weight_decay=weight_decay,
        step=step,
    )


torch.library.define(
    "spectrafuse::adamw_outer",
    "(Tensor x, Tensor grad_y, Tensor(a!) weight, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, float lr, float beta1, "
    "float beta2, float eps, float weight_decay, int step) -> ()",
)


@torch.library.impl("spectrafuse::adamw_outer", "CPU")
def step_cpu(
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
    """The kernel; narrow and strided parameters pass through dense copies of the type it computes in."""
    working = _native.working_dtype(weight.dtype)
    x, grad_y = x.to(working).contiguous(), grad_y.to(working).contiguous()
    changed = [weight, exp_avg, exp_avg_sq]
    dense = [t.to(working).contiguous() for t in changed]
    _native.cpu().adamw_outer(
        _native.DTYPE_CODE[working], x.shape[0], *weight.shape, x.data_ptr(), grad_y.data_ptr(),
        *[t.data_ptr() for t in dense], lr, beta1, beta2, eps, weight_decay, step, torch.get_num_threads(),
    )  # fmt: skip
    for tensor, copy in zip(changed, dense, strict=True):
        if copy is not tensor:
            tensor.copy_(copy)


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
