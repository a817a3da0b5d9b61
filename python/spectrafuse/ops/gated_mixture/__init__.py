"""Mixture spectra from gated concentrations and a pool of components (arXiv 2507.23600)."""

from spectrafuse.ops.gated_mixture.api import gated_mixture
from spectrafuse.ops.gated_mixture.registration import backward_kernel as gated_mixture_gradients
from spectrafuse.ops.gated_mixture.registration import shared_arguments as mixture_arguments

__all__ = ["gated_mixture", "gated_mixture_gradients", "mixture_arguments"]
