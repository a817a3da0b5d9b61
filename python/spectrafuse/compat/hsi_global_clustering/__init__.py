"""Stand-in for the published package `hsi_global_clustering` (Deep Global Clustering, arXiv 2512.24172).

The same names, arguments, attributes and files, with the published behavior as default, on `spectrafuse.ops`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectrafuse._runtime.lazy_names import names_of

if TYPE_CHECKING:
    from spectrafuse.compat.hsi_global_clustering.async_trainer import AsyncHSIClusteringTrainer
    from spectrafuse.compat.hsi_global_clustering.data_server import DataServer
    from spectrafuse.compat.hsi_global_clustering.dataset import JSONMATDataset
    from spectrafuse.compat.hsi_global_clustering.default_argument import (
        DEFAULT_EMA_DECAY,
        DEFAULT_EMA_KICK,
        DEFAULT_EMA_KICK_SCHEDULING,
        DEFAULT_LOSS_WEIGHT_SCHEDULING,
        DEFAULT_MODEL_KWARGS,
        DEFAULT_OPTIMIZER_KWARGS,
    )
    from spectrafuse.compat.hsi_global_clustering.hsi_clustering import HyperspectralClusteringModel
    from spectrafuse.compat.hsi_global_clustering.hsi_processing import AugmentationPipeline
    from spectrafuse.compat.hsi_global_clustering.trainer import HSIClusteringTrainer

__all__ = [
    "DEFAULT_EMA_DECAY",
    "DEFAULT_EMA_KICK",
    "DEFAULT_EMA_KICK_SCHEDULING",
    "DEFAULT_LOSS_WEIGHT_SCHEDULING",
    "DEFAULT_MODEL_KWARGS",
    "DEFAULT_OPTIMIZER_KWARGS",
    "AsyncHSIClusteringTrainer",
    "AugmentationPipeline",
    "DataServer",
    "HSIClusteringTrainer",
    "HyperspectralClusteringModel",
    "JSONMATDataset",
]
__getattr__, __dir__ = names_of(
    __name__,
    {
        "AsyncHSIClusteringTrainer": "async_trainer",
        "AugmentationPipeline": "hsi_processing",
        "DEFAULT_EMA_DECAY": "default_argument",
        "DEFAULT_EMA_KICK": "default_argument",
        "DEFAULT_EMA_KICK_SCHEDULING": "default_argument",
        "DEFAULT_LOSS_WEIGHT_SCHEDULING": "default_argument",
        "DEFAULT_MODEL_KWARGS": "default_argument",
        "DEFAULT_OPTIMIZER_KWARGS": "default_argument",
        "DataServer": "data_server",
        "HSIClusteringTrainer": "trainer",
        "HyperspectralClusteringModel": "hsi_clustering",
        "JSONMATDataset": "dataset",
    },
)
