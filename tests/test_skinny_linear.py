"""`skinny_linear`: both implementations, every activation, gradients, checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spectrafuse import RandomStream, use_backend
from spectrafuse.ops.skinny_linear import ACTIVATIONS, skinny_linear

FUNCTIONS = {"none": lambda y: y, "tanh": torch.tanh, "relu": lambda y: y.clamp_min(0.0), "abs": torch.abs}


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (4, 1, 3), (16, 13, 11), (0, 3, 2), (65, 2, 3)])
def test_formula_and_gradients(shape: tuple[int, int, int], activation: str, with_bias: bool, backend: str) -> None:
    batch, width, outputs = shape
    stream = RandomStream(31)
    x = stream.normal((width, batch), dtype=torch.float64).T.requires_grad_(True)
    weight = stream.normal((outputs, width), dtype=torch.float64).requires_grad_(True)
    bias = stream.normal((outputs,), dtype=torch.float64).requires_grad_(True) if with_bias else None
    y = x @ weight.T if bias is None else x @ weight.T + bias
    inputs = [t for t in (x, weight, bias) if t is not None]

    def layer(*tensors: Tensor) -> Tensor:
        return skinny_linear(tensors[0], tensors[1], tensors[2] if with_bias else None, activation)

    with use_backend(backend):
        torch.testing.assert_close(layer(*inputs), FUNCTIONS[activation](y), rtol=1e-12, atol=1e-12)
        if 0 < batch <= 16:
            assert torch.autograd.gradcheck(layer, inputs, fast_mode=True)


def test_inputs_are_not_changed_by_the_activation() -> None:
    stream = RandomStream(32)
    x, weight, bias = stream.normal((3, 4)), stream.normal((5, 4)), stream.normal((5,))
    before = [t.clone() for t in (x, weight, bias)]
    for activation in ACTIVATIONS:
        skinny_linear(x, weight, bias, activation)
    assert all(torch.equal(a, b) for a, b in zip((x, weight, bias), before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, r"`x` must be a tensor \(B, I\); got shape \(3,\)"),
        ({"weight": torch.zeros(5, 4)}, r"`weight` must be a tensor \(O, 3\)"),
        ({"weight": torch.zeros(5, 3).double()}, "`weight` must have dtype"),
        ({"bias": torch.zeros(4)}, r"`bias` must be a tensor \(5,\)"),
        ({"activation": "gelu"}, "`activation` must be one of 'none', 'tanh', 'relu', 'abs'; got 'gelu'"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"x": torch.zeros(2, 3), "weight": torch.zeros(5, 3), "bias": torch.zeros(5)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        skinny_linear(**arguments)
