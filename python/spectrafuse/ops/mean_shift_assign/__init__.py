"""Mean shift inside a window, and the assignment of the shifted embeddings to cluster centres."""

from spectrafuse.ops.mean_shift_assign.api import MeanShiftResult, mean_shift_assign, mean_shift_labels

__all__ = ["MeanShiftResult", "mean_shift_assign", "mean_shift_labels"]
