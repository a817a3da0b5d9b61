"""`gated_mixture`: both implementations, zero rows, gradients, checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import saved_sizes
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse.ops.gated_mixture import gated_mixture

SHAPES = [(1, 1, 1), (1, 5, 7), (4, 1, 3), (3, 11, 1), (5, 13, 17), (0, 3, 4)]


def draw(shape: tuple[int, int, int], seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Concentrations, gates, components."""
    batch, count, bands = shape
    stream = RandomStream(seed)
    concentration = stream.uniform((batch, count), 0.0, 10.0, dtype=dtype)
    gates = stream.uniform((count, batch), dtype=dtype).T
    return concentration, gates, stream.normal((count, bands), dtype=dtype)


def by_hand(c: Tensor, s: Tensor, v: Tensor, non_negative: bool, norm: int | None) -> Tensor:
    """The formula of the specification."""
    v = v.abs() if non_negative else v
    if norm is not None:
        v = v / (v.abs() ** norm).sum(dim=1, keepdim=True) ** (1.0 / norm)
    return torch.einsum("bn,bn,bn,nj->bj", c, s, s, v)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("norm", [None, 1, 2])
@pytest.mark.parametrize("non_negative", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_formula_and_gradients(shape: tuple[int, int, int], non_negative: bool, norm: int | None, backend: str) -> None:
    inputs = [t.requires_grad_(True) for t in draw(shape, seed=21)]
    expected = by_hand(*inputs, non_negative, norm)

    def outputs(*tensors: Tensor) -> Tensor:
        return gated_mixture(*tensors, non_negative=non_negative, norm=norm)

    with use_backend(backend):
        torch.testing.assert_close(outputs(*inputs), expected, rtol=1e-12, atol=1e-12)
        if shape[0]:
            assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_all_gates_off_and_all_on(level: float, backend: str) -> None:
    concentration, _, components = draw((3, 6, 5), seed=22)
    gates = torch.full_like(concentration, level)
    with use_backend(backend):
        mixture = gated_mixture(concentration, gates, components, norm=1)
    spectra = components.abs() / components.abs().sum(dim=1, keepdim=True)
    torch.testing.assert_close(mixture, level * concentration @ spectra)


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("non_negative", [False, True])
def test_a_zero_row_stays_zero_with_a_finite_gradient(non_negative: bool, norm: int) -> None:
    concentration, gates, components = draw((3, 6, 5), seed=23)
    components[2] = 0.0
    components.requires_grad_(True)
    mixture = gated_mixture(concentration, gates, components, non_negative=non_negative, norm=norm)
    others = [0, 1, 3, 4, 5]
    without = gated_mixture(
        concentration[:, others], gates[:, others], components[others], non_negative=non_negative, norm=norm
    )
    torch.testing.assert_close(mixture, without)
    (gradient,) = torch.autograd.grad(mixture.square().sum(), components)
    assert gradient.isfinite().all()
    with use_backend("reference"):
        published = gated_mixture(concentration, gates, components, non_negative=non_negative, norm=norm)
    assert published.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_floats_stay_near_float64(dtype: torch.dtype) -> None:
    inputs = draw((4, 30, 50), seed=24, dtype=dtype)
    with use_backend("reference"):
        exact = gated_mixture(*(t.double() for t in inputs))
    actual = gated_mixture(*inputs)
    assert actual.dtype == dtype
    # Three roundings of the factor and one of the result, each half an epsilon, over positive terms.
    bound = 4 * torch.finfo(dtype).eps * exact.abs().max()
    assert (actual.double() - exact).abs().max() < bound


def test_nothing_of_batch_components_bands_is_allocated() -> None:
    shape = (8, 32, 64)
    inputs = [t.requires_grad_(True) for t in draw(shape, seed=25)]
    largest = max(t.numel() for t in inputs)
    with saved_sizes() as sizes:
        gated_mixture(*inputs)
    assert max(sizes) <= largest < shape[0] * shape[1] * shape[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": torch.zeros(3)}, r"`components` must be a tensor \(N, d\)"),
        ({"concentration": torch.zeros(2, 4)}, r"`concentration` must be a tensor \(B, 3\)"),
        ({"select_prob": torch.zeros(5, 3)}, "`select_prob` must be of the shape of `concentration`"),
        ({"select_prob": torch.zeros(2, 3).double()}, "`select_prob` must have dtype"),
        ({"norm": 3}, "`norm` must be 1, 2 or None; got 3"),
        ({"norm": True}, "`norm` must be 1, 2 or None; got True"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "concentration": torch.zeros(2, 3),
        "select_prob": torch.zeros(2, 3),
        "components": torch.zeros(3, 4),
    } | change
    with pytest.raises((ValueError, TypeError), match=message):
        gated_mixture(**arguments)


def test_what_its_kernels_do_not_take() -> None:
    calls = {"not_float64": lambda: ops.gated_mixture(*tensors((2, 3), (2, 3), (3, 5), **DOUBLE))}
    check_limits("gated_mixture", calls)
