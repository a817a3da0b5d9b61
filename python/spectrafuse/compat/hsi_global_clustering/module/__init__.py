"""The two halves of the model: encoder and mean shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectrafuse._runtime.lazy_names import names_of

if TYPE_CHECKING:
    from spectrafuse.compat.hsi_global_clustering.module.clustering import UnrolledMeanShift
    from spectrafuse.compat.hsi_global_clustering.module.encoder import HyperspectralEncoder

__all__ = ["HyperspectralEncoder", "UnrolledMeanShift"]
__getattr__, __dir__ = names_of(__name__, {"HyperspectralEncoder": "encoder", "UnrolledMeanShift": "clustering"})
