"""The training objective of both views: losses, center sums, assignments."""

from spectrafuse.ops.clustering_objective.api import ClusteringTerms, clustering_objective

__all__ = ["ClusteringTerms", "clustering_objective"]
