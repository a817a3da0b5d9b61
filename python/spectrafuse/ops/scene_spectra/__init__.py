"""Spectra of a scene with their bands side by side, normalised."""

from spectrafuse.ops.scene_spectra.api import BAND_MULTIPLE, METHODS, filled_bands, scene_spectra

__all__ = ["BAND_MULTIPLE", "METHODS", "filled_bands", "scene_spectra"]
