"""AdamW on a linear layer's weight; the weight gradient is formed inside and never stored."""

from spectrafuse.ops.adamw_outer.api import adamw_outer

__all__ = ["adamw_outer"]
