"""A layer of either network: few rows, a weight matrix that is read once, an activation as epilogue."""

from spectrafuse.ops.skinny_linear.api import skinny_linear

__all__ = ["skinny_linear"]
