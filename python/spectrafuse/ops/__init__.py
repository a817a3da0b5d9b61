"""The operations both algorithms are built from: checked, differentiable, pure.

An operation takes tensors and returns tensors; `spectrafuse.use_backend` chooses its implementation.
"""

from __future__ import annotations

from collections.abc import Mapping

from spectrafuse.backends import Operation, declared
from spectrafuse.ops.adamw_outer import adamw_outer
from spectrafuse.ops.ambiguity_penalty import ambiguity_penalty
from spectrafuse.ops.clustering_objective import ClusteringTerms, clustering_objective
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.ops.energy_gate import energy_gate
from spectrafuse.ops.extract_crop_pairs import extract_crop_pairs
from spectrafuse.ops.gate import GateNoise, GateResult, Langevin, gate
from spectrafuse.ops.gated_descent import gated_descent
from spectrafuse.ops.gated_mixture import gated_mixture
from spectrafuse.ops.mean_shift_assign import MeanShiftResult, mean_shift_assign, mean_shift_labels
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs
from spectrafuse.ops.scene_spectra import scene_spectra
from spectrafuse.ops.skinny_linear import skinny_linear
from spectrafuse.ops.sparse_gated_mixture import SparseMixtureResult, sparse_gated_mixture
from spectrafuse.ops.spectral_compactness import spectral_compactness

__all__ = [
    "ClusteringTerms",
    "GateNoise",
    "GateResult",
    "Langevin",
    "MeanShiftResult",
    "SparseMixtureResult",
    "adamw_outer",
    "ambiguity_penalty",
    "clustering_objective",
    "dense_mean_shift",
    "energy_gate",
    "extract_crop_pairs",
    "gate",
    "gated_descent",
    "gated_mixture",
    "mean_shift_assign",
    "mean_shift_labels",
    "operations",
    "sample_crop_pairs",
    "scene_spectra",
    "skinny_linear",
    "sparse_gated_mixture",
    "spectral_compactness",
]


def operations() -> Mapping[str, Operation]:
    """What is declared of every operation, by name, in alphabetical order."""
    return declared()
