"""Coordinate descent on a gated mixture: every implementation against the reference, at any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrafuse import use_backend
from spectrafuse.ops.gated_descent import (
    descend_components,
    descend_open_gates,
    gated_descent,
    mixture_residual,
    residual_power,
)

SHAPES = [(1, 1, 1), (5, 3, 7), (12, 33, 9), (7, 130, 40), (0, 4, 2), (3, 5, 0)]
"""Spectra, channels, components."""
DOUBLE = {"rtol": 1e-11, "atol": 1e-11}
"""float64 rounding through some thousand operations on numbers of about 1 to 10."""


def _mixture(shape: tuple[int, int, int], seed: int = 0) -> dict[str, Tensor]:
    samples, channels, count = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.rand(*size, dtype=torch.float64, generator=generator)

    components = draw(count, channels)
    components[count // 2 : count // 2 + 1] = 0  # a component without signal stays out
    concentrations = 5 * draw(samples, count) * (draw(samples, count) < 0.3)
    spectra = concentrations @ components + 0.3 * draw(samples, channels)
    return {"spectra": spectra, "concentrations": concentrations, "components": components}


def _products(parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    # Summed one after another: bits of a product depend on the number of threads.
    spectra, components = parts["spectra"].numpy(), parts["components"].numpy()
    along = np.einsum("nd,kd->nk", spectra, components)
    return torch.from_numpy(along), torch.from_numpy(np.einsum("jd,kd->jk", components, components))


def _concentrations(parts: dict[str, Tensor]) -> Tensor:
    along, overlap = _products(parts)
    along[:1, :1] = -torch.inf
    smallest = torch.full((len(overlap),), 0.4, dtype=torch.float64)
    return gated_descent(along, overlap, parts["concentrations"].clone(), smallest, sweeps=7)


def _open(parts: dict[str, Tensor]) -> Tensor:
    smallest = torch.full((len(parts["components"]),), 0.4, dtype=torch.float64)
    return descend_open_gates(
        parts["spectra"], parts["concentrations"].clone(), parts["components"], smallest, sweeps=3
    )


def _components(parts: dict[str, Tensor]) -> Tensor:
    held = torch.arange(len(parts["components"])) == 1
    found = [
        descend_components(parts["spectra"], parts["concentrations"], parts["components"].clone(), held=held, **options)
        for options in ({"non_negative": True}, {"non_negative": False}, {"non_negative": True, "price": 0.5})
    ]
    return torch.stack(found)


def _residual(parts: dict[str, Tensor]) -> Tensor:
    return mixture_residual(**parts)


def _power(parts: dict[str, Tensor]) -> Tensor:
    return residual_power(**parts)


CALLS: list[Callable[[dict[str, Tensor]], Tensor]] = [_concentrations, _open, _components, _residual, _power]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_agrees_with_the_reference(backend: str, call: Any, shape: tuple[int, int, int]) -> None:
    parts = _mixture(shape)
    with use_backend("reference"):
        expected = call(parts)
    with use_backend(backend):
        torch.testing.assert_close(call(parts), expected, **DOUBLE)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_the_same_bits_at_any_number_of_threads(call: Any) -> None:
    # Large enough for seven threads to have work.
    parts, before, found = _mixture((10500, 700, 30)), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            with use_backend("cpu"):
                found.append(call(parts).numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_a_settled_spectrum_ends_the_descent(backend: str) -> None:
    parts = _mixture((9, 40, 6))
    along, overlap = _products(parts)
    smallest = torch.zeros(6, dtype=torch.float64)
    with use_backend(backend):
        # More sweeps than any machine has time for.
        found = gated_descent(along, overlap, torch.zeros_like(along), smallest, sweeps=10**9, tolerance=1e-10)
    gradient = along - found @ overlap
    assert (found >= 0).all()
    assert gradient[found > 0].abs().max() < 1e-8
    assert gradient[found == 0].max() < 1e-8


def test_closed_gates_stay_closed_and_weak_ones_close() -> None:
    parts = _mixture((12, 33, 9))
    closed = parts["concentrations"] == 0
    found = _open(parts)
    assert (found[closed] == 0).all()
    assert ((found == 0) | (found >= 0.4)).all()
    assert (found[~closed] == 0).any()


def test_wrong_arguments_are_named() -> None:
    parts = _mixture((5, 7, 3))
    with pytest.raises(ValueError, match=r"`components` must be of shape \(3, 7\)"):
        mixture_residual(parts["spectra"], parts["concentrations"], parts["components"][:, :4])
    with pytest.raises(ValueError, match="`spectra` must be contiguous"):
        residual_power(parts["spectra"].T.contiguous().T, parts["concentrations"], parts["components"])
    with pytest.raises(TypeError, match="spectra"):
        residual_power(parts["spectra"].float(), parts["concentrations"], parts["components"])
    with pytest.raises(ValueError, match="held"):
        descend_components(**parts, non_negative=True, held=torch.zeros(2, dtype=torch.bool))


def test_the_registered_functions_say_what_they_change() -> None:
    parts = _mixture((6, 10, 4))
    along, overlap = _products(parts)
    smallest, held = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.bool)
    operations = torch.ops.spectrafuse
    for operation, arguments in (
        (operations.gated_descent, (along, overlap, parts["concentrations"].clone(), smallest, 2, 0.0)),
        (operations.descend_open_gates, (*parts.values(), smallest, 2)),
        (operations.descend_components, (*parts.values(), held, True, 0.0)),
        (operations.mixture_residual, (*parts.values(), True)),
    ):
        torch.library.opcheck(operation, arguments, test_utils=("test_schema", "test_faketensor"))
