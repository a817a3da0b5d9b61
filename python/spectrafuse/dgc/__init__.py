"""Deep Global Clustering: label-free segmentation of hyperspectral scenes (arXiv 2512.24172).

`spectrafuse.DeepGlobalClustering` is the estimator; the modules here are its parts. Nothing heavy is imported until
a part is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrafuse.dgc.estimator import DeepGlobalClustering
    from spectrafuse.dgc.model import SegmentationModel
    from spectrafuse.dgc.normalise import Normalization
    from spectrafuse.dgc.recipes import Recipe

_HOME = {
    "DeepGlobalClustering": "spectrafuse.dgc.estimator",
    "Normalization": "spectrafuse.dgc.normalise",
    "Recipe": "spectrafuse.dgc.recipes",
    "SegmentationModel": "spectrafuse.dgc.model",
}

__all__ = ["DeepGlobalClustering", "Normalization", "Recipe", "SegmentationModel"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'spectrafuse.dgc' has no attribute {name!r}")
