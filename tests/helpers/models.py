"""Estimators that are fitted in a fraction of a second, and their data."""

from __future__ import annotations

from typing import Any

import numpy as np

from spectrafuse import DeepGlobalClustering, EBgMCR


def spectra() -> np.ndarray:
    """Twelve mixtures (12, 20) of two components."""
    draw = np.random.default_rng(0)
    return (draw.random((12, 2)) @ draw.random((2, 20))).astype(np.float32)


def cube() -> np.ndarray:
    """A scene (5, 24, 24) of noise about two spectra."""
    draw = np.random.default_rng(0)
    scene = 0.1 * draw.random((5, 24, 24)) + draw.random((5, 1, 1))
    scene[:, :, 12:] += draw.random((5, 1, 1))
    return scene.astype(np.float32)


def unmixing(**options: Any) -> EBgMCR:
    return EBgMCR(**{"pool_size": 8, **options})


def segmentation(**options: Any) -> DeepGlobalClustering:
    quick = {"embed_dim": 4, "crop_size": 8, "batch_size": 2, "max_epoch": 1, "reuse_iter": 1}
    return DeepGlobalClustering(2, **{**quick, **options})
