"""A layer of either network: few rows, a weight matrix that is read once, an activation as epilogue."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, Work, counts, labeled
from spectrafuse.ops import _self_test
from spectrafuse.ops.skinny_linear import pytorch, reference, registration
from spectrafuse.ops.skinny_linear.registration import ACTIVATIONS, MOST_ROWS


def skinny_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """`activation(x @ weight.T + bias)`.

    Parameters
    ----------
    x : Tensor (B, I)
        A batch; the operation is meant for 1 to 64 rows.
    weight : Tensor (O, I)
    bias : Tensor (O,) or None
    activation : {"none", "tanh", "relu", "abs"}

    Returns
    -------
    Tensor (B, O)

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or name is wrong.

    Notes
    -----
    arXiv 2507.23600: tanh in the energy evaluator, ReLU and a final absolute value in the concentration
    regressor.
    """
    checks.tensor("x", x, shape="(B, I)", ndim=2)
    checks.tensor("weight", weight, shape="(O, I)", ndim=2, like=x)
    if weight.shape[1] != x.shape[1]:
        raise checks.fail(
            "weight", f"a tensor (O, {x.shape[1]}) for x {tuple(x.shape)}", f"shape {tuple(weight.shape)}"
        )
    if bias is not None:
        checks.tensor("bias", bias, shape="(O,)", ndim=1, like=x)
        if bias.shape[0] != weight.shape[0]:
            raise checks.fail("bias", f"a tensor ({weight.shape[0]},)", f"shape {tuple(bias.shape)}")
    checks.choice("activation", activation, ACTIVATIONS)
    return operation(x, weight, bias, activation)


def many_rows(x: Tensor, *others: Any) -> backends.Reason:
    """The limit of the kernels: for more rows a matrix product by blocks beats reading every weight once."""
    return f"it takes up to {MOST_ROWS} rows, got {len(x)}" if len(x) > MOST_ROWS else None


def work(batch: int, inputs: int, outputs: int) -> Counts:
    """Two per weight and row for each product: the layer, and the gradients of its input and its weight; the weights
    are read once in each direction, and their gradient is written."""
    weights = inputs * outputs
    return counts((2 * batch * weights, 4 * batch * weights), (weights, 2 * weights))


def _one_product(batch: int, inputs: int, outputs: int, *others: Any) -> Work:
    """The layer, and the gradient of its input, are one product each."""
    return work(batch, inputs, outputs).forward


def self_test(device: str) -> list[Tensor]:
    """Every activation, values of both signs."""
    x, weight, bias = leaves = _self_test.numbers(device, (17, 37), (11, 37), (11,))
    signed = weight - 0.5
    return _self_test.with_gradients([skinny_linear(x, signed, bias, name) for name in ACTIVATIONS], leaves)


_FORWARD, _BACKWARD = "skinny_linear forward", "skinny_linear backward"
operation = backends.declare(
    "skinny_linear",
    reference=reference.skinny_linear,
    pytorch=pytorch.skinny_linear,
    kernel=registration.skinny_linear,
    kernels={"cpu": (many_rows,), "cuda": (many_rows, backends.not_float64)},
    work=work,
    self_test=self_test,
    extension_calls={
        "skinny_linear_forward": labeled(_FORWARD, _one_product),
        "skinny_linear_backward": labeled(_BACKWARD, _one_product),
    },
    gpu_kernels={
        r"\bforward_kernel<\d>\(.*SkinnyLinear": _FORWARD,
        r"\bbackward_kernel<\d>\(.*SkinnyLinear|add_parts_kernel\(float const\*, float": _BACKWARD,
    },
)
layer = operation
"""`skinny_linear` without its checks, for callers that made the arguments themselves."""
input_gradient = operation.variant(
    reference=torch.matmul, pytorch=torch.matmul, kernel=registration.skinny_linear_input_gradient
)
"""`grad_y @ weight`: from the gradient before a layer's activation (B, O) to that of its input (B, I)."""


def _hidden_gradient(grad_y: Tensor, weight: Tensor, values: Tensor, activation: str) -> Tensor:
    return registration.before_activation(grad_y @ weight, values, None, activation)


hidden_gradient = operation.variant(
    reference=_hidden_gradient, pytorch=_hidden_gradient, kernel=registration.hidden_gradient
)
"""The same, and back through the activation whose values (B, I) the layer's input is."""
