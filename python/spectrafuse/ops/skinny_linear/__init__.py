"""A layer of either network: few rows, a weight matrix that is read once, an activation as epilogue."""

from spectrafuse.ops.skinny_linear.api import hidden_gradient, input_gradient, layer, skinny_linear
from spectrafuse.ops.skinny_linear.api import work as skinny_linear_work
from spectrafuse.ops.skinny_linear.registration import (
    ACTIVATIONS,
    MOST_ROWS,
    input_gradient_call,
    layer_and_before,
    layer_call,
)

__all__ = [
    "ACTIVATIONS",
    "MOST_ROWS",
    "hidden_gradient",
    "input_gradient",
    "input_gradient_call",
    "layer",
    "layer_and_before",
    "layer_call",
    "skinny_linear",
    "skinny_linear_work",
]
