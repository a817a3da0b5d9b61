"""Spectra of a scene with their bands side by side, normalized."""

from spectrafuse.ops.scene_spectra.api import METHODS, scene_spectra
from spectrafuse.ops.scene_spectra.pytorch import normalized
from spectrafuse.ops.scene_spectra.registration import BAND_MULTIPLE, filled_bands

__all__ = ["BAND_MULTIPLE", "METHODS", "filled_bands", "normalized", "scene_spectra"]
