"""AdamW on a linear layer's weight; the weight gradient is formed inside and never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import BYTES, Work
from spectrafuse.ops import _self_test
from spectrafuse.ops.adamw_outer import pytorch, reference, registration
from spectrafuse.ops.adamw_outer.registration import MOST_ROWS, AdamwOptions, Entry


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


def update(entries: Sequence[Entry], options: AdamwOptions, step: int | Tensor) -> None:
    """`adamw_outer` of several parameters of one type and device, without its checks: its caller made the arguments.

    The number of the step may be a float32 scalar on the parameters' device: a CUDA graph then finds the present one.
    """
    chosen = [operation.choose(*entry) for entry in entries]
    by_kernel = [entry for entry, name in zip(entries, chosen, strict=True) if name not in ("reference", "torch")]
    if by_kernel:
        registration.update(by_kernel, options, step)
    for entry, name in zip(entries, chosen, strict=True):
        if name in ("reference", "torch"):
            composed = operation.reference if name == "reference" else operation.pytorch
            composed(*entry, **options._asdict(), step=int(step))


def many_rows(x: Tensor, *others: Any, **options: Any) -> backends.Reason:
    """The limit of the C++ kernel: for more rows a matrix product by blocks beats forming the gradient row by row."""
    return f"it takes up to {MOST_ROWS} rows, got {len(x)}" if len(x) > MOST_ROWS else None


def work(batch: int, inputs: int, outputs: int) -> Work:
    """Two operations per weight and row for the gradient, twelve for the update; weight and both moments are read and
    written."""
    return Work((2 * batch + 12) * inputs * outputs, 6 * BYTES * inputs * outputs)


def layer_work(batch: int, inputs: int, outputs: int) -> Work:
    """The same, and the product for the input gradient, for which nothing more is read."""
    return work(batch, inputs, outputs) + Work(2 * batch * inputs * outputs, 0)


def _extension_call(entries: Sequence[Sequence[int]], *others: Any) -> tuple[str, Work]:
    works = [work(batch, columns, rows) for batch, rows, columns, *_ in entries]
    return "adamw_outer", Work(sum(w.operations for w in works), sum(w.bytes for w in works))


def self_test(device: str) -> list[Tensor]:
    """A third step."""
    shapes = ((17, 37), (17, 11), (11, 37), (11, 37), (11, 37))
    x, grad_y, weight, exp_avg, exp_avg_sq = (tensor.detach() for tensor in _self_test.numbers(device, *shapes))
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}
    adamw_outer(x, grad_y, weight, exp_avg, exp_avg_sq, **options, step=3)
    return [weight, exp_avg, exp_avg_sq]


operation = backends.declare(
    "adamw_outer",
    reference=reference.adamw_outer,
    pytorch=pytorch.adamw_outer,
    kernels={"cpu": (many_rows,), "cuda": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={
        "adamw_outer": _extension_call,
        "adamw_layer": lambda entry, *others: ("adamw_outer", layer_work(entry[0], entry[2], entry[1])),
    },
    gpu_kernels={r"adamw_outer_kernel|layer_kernel<\d+>\(.*AdamwOuter": "adamw_outer"},
)
