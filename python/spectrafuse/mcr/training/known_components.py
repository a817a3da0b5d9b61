"""Components that are known before a fit: they start in the first places of the pool, and may stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.mcr import inputs
from spectrafuse.mcr.model import UnmixingModel

_USUAL_RMS = 0.1
"""Size of a pool's random components: AdamW's steps are as large for known ones."""

FAR_ENERGY = 50.0
"""Energy far beyond any gate noise, with opposite signs for the two classes, so that the sum of energies is kept."""


class KnownComponents(NamedTuple):
    """What is known before a fit.

    Attributes
    ----------
    spectra : ndarray of float32, (m, d)
    fixed : ndarray of int64
        Rows of `spectra` that must not change, ascending.
    """

    spectra: NDArray[np.float32]
    fixed: NDArray[np.int64]


def check(components: Any, fixed: Any, pool: tuple[int, int], non_negative: bool) -> KnownComponents | None:
    """Known components from the arguments of `fit`; None where there are none.

    Parameters
    ----------
    components : path, array_like or None, (m, d)
    fixed : array_like of bool, (m,), or of int, or None
        Mask of rows, or row numbers.
    pool : (int, int)
        Shape of the pool.
    non_negative : bool
        Negative values are refused.

    Raises
    ------
    ValueError, TypeError
        If they do not fit the pool, the spectra, or each other.
    """
    if components is None:
        if fixed is not None:
            raise InvalidValueError(
                "`fixed` says which rows of `components` must not change, so it needs `components`."
            )
        return None
    spectra = inputs.read(components, zeros="accept", name="components")
    if len(spectra) > pool[0] or spectra.shape[1] != pool[1]:
        expected = f"of at most {pool[0]} rows (`pool_size`) and {pool[1]} columns, as X has"
        raise checks.fail("components", expected, f"shape {spectra.shape}")
    empty = np.flatnonzero(~spectra.any(axis=1))
    if len(empty):
        raise checks.fail("components", "other than zero in every row", f"zeros only in row {empty[0]}")
    if non_negative and (spectra < 0).any():
        row, column = np.argwhere(spectra < 0)[0]
        got = f"{spectra[row, column]:g} in row {row}, column {column}"
        raise checks.fail("components", "non-negative, as `non_negative` is True", got)
    return KnownComponents(spectra, _rows(fixed, len(spectra)))


def _rows(fixed: Any, count: int) -> NDArray[np.int64]:
    expected = f"a mask of {count} booleans or a list of row numbers of `components` from 0 to {count - 1}"
    try:
        rows = np.asarray([] if fixed is None else fixed)
    except ValueError:
        raise checks.fail("fixed", expected, repr(fixed)) from None
    if rows.ndim == 1 and rows.size == 0:
        return np.empty(0, np.int64)
    if rows.dtype == bool and rows.shape == (count,):
        return np.flatnonzero(rows)
    whole = rows.ndim == 1 and rows.dtype.kind in "iu"
    if not whole or rows.min() < 0 or rows.max() >= count:
        raise checks.fail("fixed", expected, repr(fixed))
    return np.unique(rows).astype(np.int64)


@torch.no_grad()
def place(model: UnmixingModel, known: KnownComponents) -> None:
    """Let the model's first components be the known ones."""
    values = known.spectra.copy()
    if model.component_norm is not None:
        # Only their direction counts then; powers of two keep it exactly.
        rms = np.sqrt(np.mean(np.square(values, dtype=np.float64), axis=1, keepdims=True))
        values = np.ldexp(values, np.rint(np.log2(_USUAL_RMS / rms)).astype(np.int32))
    if model.non_negative_component:
        # The absolute value has no gradient at 0, so a band that starts there would never leave it.
        learned = np.setdiff1d(np.arange(len(values)), known.fixed)
        smallest = values.max(axis=1, keepdims=True) * np.float32(2.0**-24)
        values[learned] = np.maximum(values, smallest)[learned]
    model.vanilla_components[: len(values)] = torch.from_numpy(values)
    _open_bands(model, torch.from_numpy(known.fixed))
    if len(known.fixed) == model.num_components:
        model.vanilla_components.requires_grad_(False)


@torch.no_grad()
def place_background(model: UnmixingModel) -> None:
    """Let the model's last component be the same in all bands."""
    last = model.num_components - 1
    model.vanilla_components[last] = 1.0
    _open_bands(model, torch.tensor([last]))


def _open_bands(model: UnmixingModel, rows: torch.Tensor) -> None:
    if model.sparse_component and len(rows):
        energy = model.component_sparsity.energy
        assert isinstance(energy, torch.Tensor)
        energy.view(model.num_components, model.dim_components, 2)[rows] = torch.tensor((-FAR_ENERGY, FAR_ENERGY))


class HeldRows:
    """Rows of a model's components, and of their sparsity gates, that a step of the optimizer must not change.

    Momentum and weight decay move a row without a gradient too, so its bits are put back.

    Parameters
    ----------
    model : UnmixingModel
        With the values to hold.
    rows : sequence of int
    """

    def __init__(self, model: UnmixingModel, rows: Sequence[int]) -> None:
        self._held: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._count = model.num_components
        energy = model.component_sparsity.energy
        assert isinstance(energy, torch.Tensor)
        for values in (model.vanilla_components, energy) if len(rows) else ():
            index = torch.as_tensor(rows, dtype=torch.int64, device=values.device)
            self._held.append((values, index, self._table(values)[index]))

    def _table(self, values: torch.Tensor) -> torch.Tensor:
        """Looked up each time: the values of a parameter may move to another place."""
        return values.detach().view(self._count, -1)

    def put_back(self) -> None:
        """Give the rows the bits they had."""
        for values, index, kept in self._held:
            self._table(values).index_copy_(0, index, kept)
