"""AdamW on a linear layer's weight; the weight gradient is formed inside and never stored."""

from spectrafuse.ops.adamw_outer.api import adamw_outer, update
from spectrafuse.ops.adamw_outer.registration import (
    MOST_ROWS,
    AdamwOptions,
    AddressedEntry,
    Entry,
    addressed,
    update_cpu,
    update_layer,
)

__all__ = [
    "MOST_ROWS",
    "AdamwOptions",
    "AddressedEntry",
    "Entry",
    "adamw_outer",
    "addressed",
    "update",
    "update_cpu",
    "update_layer",
]
