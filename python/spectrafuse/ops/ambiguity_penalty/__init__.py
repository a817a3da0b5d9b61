"""Mean similarity of the components in use, so that no two of them tell the same story (arXiv 2507.23600)."""

from spectrafuse.ops.ambiguity_penalty.api import KERNELS, MATERN_ORDERS, ambiguity_penalty
from spectrafuse.ops.ambiguity_penalty.registration import add_component_penalty, component_penalty_call, kernel_options

__all__ = [
    "KERNELS",
    "MATERN_ORDERS",
    "add_component_penalty",
    "ambiguity_penalty",
    "component_penalty_call",
    "kernel_options",
]
