"""`ambiguity_penalty`: goldens, both implementations, coinciding rows, masks, memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, saved_sizes
from spectrafuse import RandomStream, use_backend
from spectrafuse.ops.ambiguity_penalty import ambiguity_penalty

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"kernel": "linear"},
    "poly": {"kernel": "poly"},
    "poly3": {"kernel": "poly", "power": 3},
    "laplacian": {"kernel": "laplacian"},
    "rbf": {"kernel": "rbf"},
    "matern05": {"kernel": "matern", "nu": 0.5},
    "matern15": {"kernel": "matern", "nu": 1.5},
    "matern25": {"kernel": "matern", "nu": 2.5},
    "matern35": {"kernel": "matern", "nu": 3.5},
}
DISTANCE_KINDS = [k for k in KINDS if k not in ("linear", "poly", "poly3")]


def spectra(shape: tuple[int, int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Non-negative rows of norm 1."""
    rows = RandomStream(seed).normal(shape, dtype=dtype).abs()
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_golden(kind: str, backend: str) -> None:
    expected = golden("ebgmcr_ambiguity")
    components = expected["components"].requires_grad_(True)
    with use_backend(backend):
        penalty = ambiguity_penalty(components, **KINDS[kind], published_coefficients=True)
    (gradient,) = torch.autograd.grad(penalty, components)
    assert_close_to_max(penalty.detach(), expected[kind], GOLDEN_RTOL)
    assert_close_to_max(gradient, expected[f"grad.{kind}"], GOLDEN_GRADIENT_RTOL)


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 1), (2, 7), (13, 5), (31, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_both_implementations_agree(kind: str, shape: tuple[int, int], scale: float) -> None:
    components = RandomStream(61).normal(shape[::-1], dtype=torch.float64).T.requires_grad_(True)
    results = []
    for backend in ("reference", "torch"):
        with use_backend(backend):
            penalty = ambiguity_penalty(components, **KINDS[kind], scale=scale, offset=0.5)
            results.append((penalty, *torch.autograd.grad(penalty, components)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient(kind: str) -> None:
    components = spectra((5, 4), seed=62).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda c: ambiguity_penalty(c, **KINDS[kind]), (components,))


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, 3.5])
def test_matern_is_the_bessel_form(nu: float) -> None:
    from scipy.special import gamma, kv

    r = 0.37
    a = math.sqrt(2 * nu) * r
    expected = 2 ** (1 - nu) / gamma(nu) * a**nu * kv(nu, a)
    pair = torch.tensor([[0.0, 0.0], [r, 0.0]], dtype=torch.float64)
    for backend in ("reference", "torch"):
        with use_backend(backend):
            actual = ambiguity_penalty(pair, "matern", nu=nu).item()
            assert actual == pytest.approx(expected, rel=1e-12)
            published = ambiguity_penalty(pair, "matern", nu=nu, published_coefficients=True).item()
            assert (published == actual) == (nu != 3.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_coinciding_rows_have_a_finite_gradient_and_similarity_one(kind: str, dtype: torch.dtype) -> None:
    row = spectra((1, 50), seed=63, dtype=dtype)
    components = row.expand(4, 50).clone().requires_grad_(True)
    penalty = ambiguity_penalty(components, **KINDS[kind])
    (gradient,) = torch.autograd.grad(penalty, components)
    assert gradient.isfinite().all()
    if kind in DISTANCE_KINDS:
        torch.testing.assert_close(penalty.detach(), torch.ones((), dtype=dtype), rtol=1e-6, atol=0)
        assert gradient.abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_near_float64(kind: str) -> None:
    components = spectra((40, 64), seed=64)
    components[1] = components[0] + 1e-3 * components[2]
    wide = components.clone().requires_grad_(True)
    narrow = components.float().requires_grad_(True)
    with use_backend("reference"):
        exact = ambiguity_penalty(wide, **KINDS[kind])
    actual = ambiguity_penalty(narrow, **KINDS[kind])
    assert_close_to_max(actual.detach().double(), exact.item(), 1e-6)
    (gradient,) = torch.autograd.grad(actual, narrow)
    assert_close_to_max(gradient.double(), torch.autograd.grad(exact, wide)[0], 2e-5)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_mask_picks_rows(kind: str, backend: str) -> None:
    components = spectra((9, 5), seed=65)
    components[3] = math.nan
    components.requires_grad_(True)
    mask = torch.tensor([True, False, True, False, True, True, False, False, True])
    with use_backend(backend):
        penalty = ambiguity_penalty(components, mask=mask, **KINDS[kind])
        expected = ambiguity_penalty(components.detach()[mask], **KINDS[kind])
    torch.testing.assert_close(penalty.detach(), expected)
    (gradient,) = torch.autograd.grad(penalty, components)
    assert torch.equal(gradient.ne(0).any(dim=1), mask)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_than_two_components_give_zero(kind: str, backend: str) -> None:
    components = spectra((3, 5), seed=66).requires_grad_(True)
    one = torch.tensor([False, True, False])
    with use_backend(backend):
        for penalty in (
            ambiguity_penalty(components, mask=one, **KINDS[kind]),
            ambiguity_penalty(components, mask=one & False, **KINDS[kind]),
            ambiguity_penalty(components[:1], **KINDS[kind]),
            ambiguity_penalty(components[:0], **KINDS[kind]),
        ):
            assert penalty.shape == ()
            assert penalty == 0
            (gradient,) = torch.autograd.grad(penalty, components)
            assert torch.equal(gradient, torch.zeros_like(components))


@pytest.mark.parametrize("kind", KINDS)
def test_no_differences_are_stored(kind: str) -> None:
    count, bands = 12, 40
    components = spectra((count, bands), seed=67).requires_grad_(True)
    with saved_sizes() as sizes:
        ambiguity_penalty(components, **KINDS[kind])
    assert max(sizes) <= count * bands


def test_narrow_floats_are_computed_in_float32() -> None:
    components = spectra((20, 30), seed=68).bfloat16()
    for kind, options in KINDS.items():
        penalty = ambiguity_penalty(components, **options)
        assert penalty.dtype == torch.bfloat16
        wide = ambiguity_penalty(components.float(), **options)
        assert torch.equal(penalty, wide.bfloat16()), kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": torch.zeros(3)}, r"`components` must be a tensor \(n, d\)"),
        ({"kernel": "cosine"}, "`kernel` must be one of"),
        ({"mask": torch.zeros(4, dtype=torch.bool)}, r"`mask` must be a tensor \(3,\)"),
        ({"mask": torch.zeros(3)}, "`mask` must have one of the dtypes bool"),
        ({"power": 0}, "`power` must be an integer of at least 1"),
        ({"scale": 0.0}, "`scale` must be a finite number above 0"),
        ({"nu": 1.0}, "`nu` must be one of 0.5, 1.5, 2.5, 3.5; got 1.0"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"components": torch.zeros(3, 4)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        ambiguity_penalty(**arguments)
