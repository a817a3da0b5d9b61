"""A layer of either network: few rows, a weight matrix that is read once, an activation as epilogue."""

from __future__ import annotations

from torch import Tensor

from spectrafuse import _checks, backends
from spectrafuse.composed.skinny_linear import skinny_linear as composed
from spectrafuse.reference.skinny_linear import skinny_linear as reference

ACTIVATIONS = ("none", "tanh", "relu", "abs")

backends.declare("skinny_linear")


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
    _checks.tensor("x", x, shape="(B, I)", ndim=2)
    _checks.tensor("weight", weight, shape="(O, I)", ndim=2, like=x)
    if weight.shape[1] != x.shape[1]:
        raise _checks.fail(
            "weight", f"a tensor (O, {x.shape[1]}) for x {tuple(x.shape)}", f"shape {tuple(weight.shape)}"
        )
    if bias is not None:
        _checks.tensor("bias", bias, shape="(O,)", ndim=1, like=x)
        if bias.shape[0] != weight.shape[0]:
            raise _checks.fail("bias", f"a tensor ({weight.shape[0]},)", f"shape {tuple(bias.shape)}")
    _checks.choice("activation", activation, ACTIVATIONS)
    chosen = backends.choose("skinny_linear", x.device.type)
    implementation = reference if chosen == "reference" else composed
    return implementation(x, weight, bias, activation)
