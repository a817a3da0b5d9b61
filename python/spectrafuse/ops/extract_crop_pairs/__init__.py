"""Two augmented crops of every cube."""

from spectrafuse.ops.extract_crop_pairs.api import extract_crop_pairs

__all__ = ["extract_crop_pairs"]
