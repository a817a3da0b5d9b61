"""The two halves of the model: encoder and mean shift."""

from __future__ import annotations

from spectrafuse.compat.hsi_global_clustering.module.clustering import UnrolledMeanShift
from spectrafuse.compat.hsi_global_clustering.module.encoder import HyperspectralEncoder

__all__ = ["HyperspectralEncoder", "UnrolledMeanShift"]
