"""The operations both algorithms are built from: checked, differentiable, pure.

An operation takes tensors and returns tensors; `spectrafuse.use_backend` chooses its implementation.
"""

from __future__ import annotations

from spectrafuse.ops.mean_shift_assign import MeanShiftResult, mean_shift_assign, mean_shift_labels

__all__ = ["MeanShiftResult", "mean_shift_assign", "mean_shift_labels"]
