"""The sparse form of the mixture: a second, input-free gate per component and band (arXiv 2510.20364)."""

from spectrafuse.ops.sparse_gated_mixture.api import SparseMixtureResult, draw_sparsity_noise, sparse_gated_mixture
from spectrafuse.ops.sparse_gated_mixture.registration import backward_kernel as sparse_gated_mixture_gradients
from spectrafuse.ops.sparse_gated_mixture.registration import shared_arguments as mixture_arguments

__all__ = [
    "SparseMixtureResult",
    "draw_sparsity_noise",
    "mixture_arguments",
    "sparse_gated_mixture",
    "sparse_gated_mixture_gradients",
]
