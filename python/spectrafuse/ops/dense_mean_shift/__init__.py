"""All-pairs mean shift."""

from spectrafuse.ops.dense_mean_shift.api import dense_mean_shift

__all__ = ["dense_mean_shift"]
