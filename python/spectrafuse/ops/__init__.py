"""The operations both algorithms are built from: checked, differentiable, pure.

An operation takes tensors and returns tensors; `spectrafuse.use_backend` chooses its implementation. Each is imported
when it is first used. Under `torch.autocast`, implementations that call torch's products are narrowed as torch does.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from spectrafuse.backends import Operation, declared

if TYPE_CHECKING:
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

_OF = {
    "ClusteringTerms": "clustering_objective",
    "GateNoise": "gate",
    "GateResult": "gate",
    "Langevin": "gate",
    "MeanShiftResult": "mean_shift_assign",
    "SparseMixtureResult": "sparse_gated_mixture",
    "mean_shift_labels": "mean_shift_assign",
}
"""The folder of every name that is not its folder's own."""
_HOME = {name: _OF.get(name, name) for name in __all__ if name != "operations"}


class _Package(ModuleType):
    """Where an operation has the name of its folder, the name means the operation.

    Were all folders imported here instead, two threads that begin with different ones would wait for each other.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spectrafuse.ops' has no attribute {name!r}")
    value = getattr(import_module(f"spectrafuse.ops.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def operations() -> Mapping[str, Operation]:
    """What is declared of every operation, by name, in alphabetical order."""
    for folder in _HOME.values():
        import_module(f"spectrafuse.ops.{folder}")
    return declared()
