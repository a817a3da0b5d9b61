"""Lengths of rows."""

from spectrafuse.ops.row_norms.api import row_norms

__all__ = ["row_norms"]
