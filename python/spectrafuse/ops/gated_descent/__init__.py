"""Coordinate descent on a mixture whose gates are closed for most spectra."""

from spectrafuse.ops.gated_descent.api import (
    descend_components,
    descend_concentrations,
    descend_open_concentrations,
    mixture_residual,
    residual_power,
)

__all__ = [
    "descend_components",
    "descend_concentrations",
    "descend_open_concentrations",
    "mixture_residual",
    "residual_power",
]
