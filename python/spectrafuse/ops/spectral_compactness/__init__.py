"""Distance of spectra to the mean spectra of their clusters."""

from spectrafuse.ops.spectral_compactness.api import spectral_compactness

__all__ = ["spectral_compactness"]
