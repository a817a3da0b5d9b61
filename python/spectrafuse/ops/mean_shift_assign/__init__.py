"""Mean shift inside a window, and the assignment of the shifted embeddings to cluster centers."""

from spectrafuse.ops._mean_shift import MOST_WINDOW
from spectrafuse.ops.mean_shift_assign.api import MeanShiftResult, assign, mean_shift_assign, mean_shift_labels

__all__ = ["MOST_WINDOW", "MeanShiftResult", "assign", "mean_shift_assign", "mean_shift_labels"]
