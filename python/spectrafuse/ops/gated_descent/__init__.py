"""Coordinate descent on a mixture whose gates are closed for most spectra."""

from spectrafuse.ops.gated_descent.api import (
    descend_components,
    descend_open_gates,
    gated_descent,
    mixture_residual,
    residual_power,
)

__all__ = ["descend_components", "descend_open_gates", "gated_descent", "mixture_residual", "residual_power"]
