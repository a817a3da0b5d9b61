"""The kernels of `gated_descent`, registered with torch."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register

_FLOAT64 = extensions.DTYPE_CODE[torch.float64]


def _concentrations(
    along: Tensor, overlap: Tensor, concentrations: Tensor, smallest: Tensor, sweeps: int, tolerance: float
) -> None:
    extensions.cpu().descend_concentrations(
        _FLOAT64, *along.shape, along.data_ptr(), overlap.data_ptr(), concentrations.data_ptr(), smallest.data_ptr(),
        sweeps, tolerance, torch.get_num_threads(),
    )  # fmt: skip


def _open_gates(spectra: Tensor, concentrations: Tensor, components: Tensor, smallest: Tensor, sweeps: int) -> None:
    extensions.cpu().descend_open_gates(
        *_mixture(spectra, concentrations, components), smallest.data_ptr(), sweeps, torch.get_num_threads()
    )


def _components(
    spectra: Tensor, concentrations: Tensor, components: Tensor, held: Tensor, non_negative: bool, price: float
) -> None:
    extensions.cpu().descend_components(
        *_mixture(spectra, concentrations, components), held.data_ptr(), non_negative, price, torch.get_num_threads()
    )


def _residual(spectra: Tensor, concentrations: Tensor, components: Tensor, whole: bool) -> Tensor:
    left = _residual_fake(spectra, concentrations, components, whole)
    residual, power = (left.data_ptr(), 0) if whole else (0, left.data_ptr())
    extensions.cpu().mixture_residual(
        *_mixture(spectra, concentrations, components), residual, power, torch.get_num_threads()
    )
    return left


def _mixture(
    spectra: Tensor, concentrations: Tensor, components: Tensor
) -> tuple[int, tuple[int, int, int], int, int, int]:
    sizes = (spectra.shape[0], spectra.shape[1], components.shape[0])
    return _FLOAT64, sizes, spectra.data_ptr(), concentrations.data_ptr(), components.data_ptr()


def _residual_fake(spectra: Tensor, concentrations: Tensor, components: Tensor, whole: bool) -> Tensor:
    return torch.empty_like(spectra) if whole else spectra.new_empty(spectra.shape[0])


def _nothing(*arguments: object) -> None:
    return None


descend_concentrations = register("gated_descent", _concentrations, _nothing, mutates=["concentrations"])
descend_open_gates = register("descend_open_gates", _open_gates, _nothing, mutates=["concentrations"])
descend_components = register("descend_components", _components, _nothing, mutates=["components"])
mixture_residual = register("mixture_residual", _residual, _residual_fake)
