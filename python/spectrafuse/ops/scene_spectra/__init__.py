"""Spectra of a scene with their bands side by side, normalised."""

from spectrafuse.ops.scene_spectra.api import scene_spectra

__all__ = ["scene_spectra"]
