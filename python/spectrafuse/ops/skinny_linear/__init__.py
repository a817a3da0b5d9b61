"""A layer of either network: few rows, a weight matrix that is read once, an activation as epilogue."""

from spectrafuse.ops.skinny_linear.api import input_gradient, layer, skinny_linear
from spectrafuse.ops.skinny_linear.api import work as skinny_linear_work
from spectrafuse.ops.skinny_linear.registration import (
    ACTIVATIONS,
    MOST_ROWS,
    before_activation,
    input_gradient_call,
    layer_call,
)

__all__ = [
    "ACTIVATIONS",
    "MOST_ROWS",
    "before_activation",
    "input_gradient",
    "input_gradient_call",
    "layer",
    "layer_call",
    "skinny_linear",
    "skinny_linear_work",
]
