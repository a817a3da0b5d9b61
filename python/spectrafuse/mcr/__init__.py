"""EB-gMCR: spectral unmixing that finds the number of components by itself (arXiv 2507.23600).

`spectrafuse.EBgMCR` is the estimator; beside it stand what it returns, what a comparison with known spectra needs, and
mixtures to try things on. What may be known of concentrations and spectra is in `spectrafuse.mcr.constraints`. Nothing
heavy is imported until a part is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrafuse.mcr.estimator import EBgMCR
    from spectrafuse.mcr.feasible_bands import FeasibleBands
    from spectrafuse.mcr.matching import (
        ConcentrationScores,
        Match,
        cosine_matrix,
        match_components,
        score_concentrations,
    )
    from spectrafuse.mcr.noise import NoiseLevel
    from spectrafuse.mcr.recipes import Recipe
    from spectrafuse.mcr.seed_stability import Stability, count_stability
    from spectrafuse.mcr.synthesize import Mixtures, MixtureSynthesizer

_HOME = {
    "ConcentrationScores": "matching",
    "EBgMCR": "estimator",
    "FeasibleBands": "feasible_bands",
    "Match": "matching",
    "MixtureSynthesizer": "synthesize",
    "Mixtures": "synthesize",
    "NoiseLevel": "noise",
    "Recipe": "recipes",
    "Stability": "seed_stability",
    "cosine_matrix": "matching",
    "count_stability": "seed_stability",
    "match_components": "matching",
    "score_concentrations": "matching",
}

__all__ = [
    "ConcentrationScores",
    "EBgMCR",
    "FeasibleBands",
    "Match",
    "MixtureSynthesizer",
    "Mixtures",
    "NoiseLevel",
    "Recipe",
    "Stability",
    "constraints",
    "cosine_matrix",
    "count_stability",
    "match_components",
    "score_concentrations",
]


def __getattr__(name: str) -> Any:
    if name == "constraints":
        return import_module("spectrafuse.mcr.constraints")
    if name in _HOME:
        return getattr(import_module(f"spectrafuse.mcr.{_HOME[name]}"), name)
    raise AttributeError(f"module 'spectrafuse.mcr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
