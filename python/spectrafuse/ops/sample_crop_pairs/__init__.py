"""Draw the geometry of two views of every cube, on the host."""

from spectrafuse.ops.sample_crop_pairs.api import sample_crop_pairs

__all__ = ["sample_crop_pairs"]
