"""The sparse form of the mixture: a second, input-free gate per component and band (arXiv 2510.20364)."""

from spectrafuse.ops.sparse_gated_mixture.api import SparseMixtureResult, sparse_gated_mixture

__all__ = ["SparseMixtureResult", "sparse_gated_mixture"]
