"""The training objective of both views: losses, center sums, assignments."""

from spectrafuse.ops.clustering_objective.api import ClusteringTerms, clustering_objective
from spectrafuse.ops.clustering_objective.reference import (
    balance,
    compactness,
    consistency,
    orthogonality,
    uniform_assignment,
)

__all__ = [
    "ClusteringTerms",
    "balance",
    "clustering_objective",
    "compactness",
    "consistency",
    "orthogonality",
    "uniform_assignment",
]
