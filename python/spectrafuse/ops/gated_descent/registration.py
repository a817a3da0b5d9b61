"""What the registered functions of gated_descent run: the C++ kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse._runtime import extensions

for _schema in (
    "descend_concentrations(Tensor along, Tensor overlap, Tensor(a!) concentrations, Tensor smallest, int sweeps, "
    "float tolerance) -> ()",
    "descend_open_concentrations(Tensor spectra, Tensor(a!) concentrations, Tensor components, Tensor smallest, "
    "int sweeps) -> ()",
    "descend_components(Tensor spectra, Tensor concentrations, Tensor(a!) components, Tensor held, bool non_negative, "
    "float price) -> ()",
    "mixture_residual(Tensor spectra, Tensor concentrations, Tensor components, bool whole) -> Tensor",
):
    torch.library.define(f"spectrafuse::{_schema.split('(')[0]}", _schema[_schema.index("(") :])


@torch.library.impl("spectrafuse::descend_concentrations", "CPU")
def _concentrations(
    along: Tensor, overlap: Tensor, concentrations: Tensor, smallest: Tensor, sweeps: int, tolerance: float
) -> None:
    extensions.cpu().descend_concentrations(
        *along.shape, along.data_ptr(), overlap.data_ptr(), concentrations.data_ptr(), smallest.data_ptr(), sweeps,
        tolerance, torch.get_num_threads(),
    )  # fmt: skip


@torch.library.impl("spectrafuse::descend_open_concentrations", "CPU")
def _open(spectra: Tensor, concentrations: Tensor, components: Tensor, smallest: Tensor, sweeps: int) -> None:
    extensions.cpu().descend_open_concentrations(
        *_mixture(spectra, concentrations, components), smallest.data_ptr(), sweeps, torch.get_num_threads()
    )


@torch.library.impl("spectrafuse::descend_components", "CPU")
def _components(
    spectra: Tensor, concentrations: Tensor, components: Tensor, held: Tensor, non_negative: bool, price: float
) -> None:
    extensions.cpu().descend_components(
        *_mixture(spectra, concentrations, components), held.data_ptr(), non_negative, price, torch.get_num_threads()
    )


@torch.library.impl("spectrafuse::mixture_residual", "CPU")
def _residual(spectra: Tensor, concentrations: Tensor, components: Tensor, whole: bool) -> Tensor:
    left = torch.empty_like(spectra) if whole else spectra.new_empty(len(spectra))
    residual, power = (left.data_ptr(), 0) if whole else (0, left.data_ptr())
    extensions.cpu().mixture_residual(
        *_mixture(spectra, concentrations, components), residual, power, torch.get_num_threads()
    )
    return left


def _mixture(spectra: Tensor, concentrations: Tensor, components: Tensor) -> tuple[tuple[int, int, int], int, int, int]:
    sizes = (*spectra.shape, len(components))
    return sizes, spectra.data_ptr(), concentrations.data_ptr(), components.data_ptr()


@torch.library.register_fake("spectrafuse::descend_concentrations")
def _fake_concentrations(
    along: Tensor, overlap: Tensor, concentrations: Tensor, smallest: Tensor, sweeps: int, tolerance: float
) -> None:
    return None


@torch.library.register_fake("spectrafuse::descend_open_concentrations")
def _fake_open(spectra: Tensor, concentrations: Tensor, components: Tensor, smallest: Tensor, sweeps: int) -> None:
    return None


@torch.library.register_fake("spectrafuse::descend_components")
def _fake_components(
    spectra: Tensor, concentrations: Tensor, components: Tensor, held: Tensor, non_negative: bool, price: float
) -> None:
    return None


@torch.library.register_fake("spectrafuse::mixture_residual")
def _fake_residual(spectra: Tensor, concentrations: Tensor, components: Tensor, whole: bool) -> Tensor:
    return torch.empty_like(spectra) if whole else spectra.new_empty(len(spectra))
