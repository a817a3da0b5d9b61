"""`ambiguity_penalty`: goldens, both implementations, coinciding rows, masks, memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import (
    GOLDEN_GRADIENT_RTOL,
    GOLDEN_RTOL,
    assert_close_to_max,
    assert_same_bits_at_any_number_of_threads,
    golden,
    saved_sizes,
    seeds,
)
from helpers.limits import check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.ops.ambiguity_penalty import ambiguity_penalty, component_penalty_call, kernel_options
from spectrafuse.ops.ambiguity_penalty.registration import selection

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
ONES = [(b, k) for b in ("reference", "torch", "cpu") for k in KINDS if (b, k) != ("cpu", "linear")]
"""Implementations and the kinds they take."""
DISTANCE_KINDS = [k for k in KINDS if k not in ("linear", "poly", "poly3")]


def spectra(shape: tuple[int, int], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Non-negative rows of norm 1."""
    rows = RandomStream(seed).normal(shape, dtype=dtype).abs()
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("backend", "kind"), ONES)
def test_golden(kind: str, backend: str) -> None:
    expected = golden("ebgmcr_ambiguity")
    components = expected["components"].requires_grad_(True)
    with use_backend(backend):
        penalty = ambiguity_penalty(components, **KINDS[kind], published_coefficients=True)
    (gradient,) = torch.autograd.grad(penalty, components)
    assert_close_to_max(penalty.detach(), expected[kind], GOLDEN_RTOL)
    assert_close_to_max(gradient, expected[f"grad.{kind}"], GOLDEN_GRADIENT_RTOL)


def evaluate(backend: str, components: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The penalty and its gradient."""
    components = components.detach().requires_grad_(True)
    with use_backend(backend):
        penalty = ambiguity_penalty(components, **options)
    return penalty.detach(), torch.autograd.grad(penalty, components)[0]


# Below, at and above a block of 64 components; dimensions that fill no vector.
SHAPES = [(2, 1), (2, 7), (13, 5), (31, 3), (64, 17), (67, 33), (150, 100)]


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        pytest.param(*one, marks=pytest.mark.instruction_sets if one[0] == "cpu" else ())
        for one in ONES
        if one[0] != "reference"
    ],
)
def test_agrees_with_the_reference(backend: str, kind: str, shape: tuple[int, int], scale: float) -> None:
    components = RandomStream(seeds.fresh_seed()).normal(shape[::-1], dtype=torch.float64).T / shape[1] ** 0.5
    options = KINDS[kind] | {"scale": scale, "offset": 0.5}
    exact = evaluate("reference", components, **options)
    torch.testing.assert_close(evaluate(backend, components, **options), exact, rtol=1e-9, atol=1e-11)
    narrow = evaluate(backend, components.float(), **options)
    # Rows of norm about 1: a distance is a sum of `shape[1]` rounded terms, whose relative error the exponential turns
    # into an absolute one. Two rows have the largest gradient, which the mean over pairs makes smaller for more.
    allowed = 16 * torch.finfo(torch.float32).eps * (4 + shape[1] ** 0.5) / scale**2
    for actual, expected in zip(narrow, exact, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.double(), expected, rtol=allowed, atol=allowed / shape[0])


@pytest.mark.parametrize("kind", ["poly", "laplacian", "rbf"])
def test_same_bits_at_any_number_of_threads(kind: str) -> None:
    components = spectra((300, 40), seed=69).float()
    assert_same_bits_at_any_number_of_threads(lambda: evaluate("cpu", components, **KINDS[kind]))


@pytest.mark.instruction_sets
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", [(True, 2), (True, 1), (True, 0), (False, 2), (False, 1), (False, 0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_pools_penalty_is_that_of_its_used_components(
    shape: tuple[int, int], form: tuple[bool, int], dtype: torch.dtype
) -> None:
    """The call of an epoch: from raw values, through absolute value and norm, to their gradient."""
    stream = RandomStream(seeds.fresh_seed())
    raw = stream.normal(shape, dtype=dtype).requires_grad_(True)
    with torch.no_grad():
        raw[shape[0] // 2] = 0.0  # which has no length
    used = stream.uniform((shape[0],)) < 0.7
    absolute, norm = form
    components = raw.abs() if absolute else raw
    if norm:
        length = torch.linalg.vector_norm(components, ord=norm, dim=1, keepdim=True)
        components = components / torch.where(length > 0, length, 1.0)
    expected = ambiguity_penalty(components, mask=used)
    (slope,) = torch.autograd.grad(0.3 * expected, raw)
    before = stream.normal(shape, dtype=dtype)
    gradient = before.clone()
    call = component_penalty_call(raw.detach(), used, form, kernel_options("rbf"), 0.3, gradient)
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
    assert call() == pytest.approx(float(expected.detach()), rel=10 * tolerance)
    largest = float(slope.abs().max()) + float(before.abs().max())
    torch.testing.assert_close(gradient, before + slope, rtol=0, atol=tolerance * largest)
    assert torch.equal(gradient[~used], before[~used])
    value_only = component_penalty_call(raw.detach(), used, form, kernel_options("rbf"), 0.3, None)
    assert value_only() == pytest.approx(call(), rel=10 * tolerance)


@pytest.mark.slow
def test_opcheck() -> None:
    mask = torch.tensor([True, False, True, True, False])
    op = torch.ops.spectrafuse.ambiguity_penalty.default
    for dtype, chosen in ((torch.float32, None), (torch.float64, mask)):
        leaf = spectra((5, 4), seed=70).to(dtype).requires_grad_(True)
        torch.library.opcheck(op, (leaf, chosen, "rbf", 2, 1.0, 1.0, 2.8, True))
        without = (leaf.detach(), chosen, "rbf", 2, 1.0, 1.0, 2.8, False)
        torch.library.opcheck(op, without, test_utils=("test_schema", "test_faketensor"))


# The kernels of pairs are one operation to a compiler, whatever the kind.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "poly3", "matern15"])
def test_compiles_without_graph_breaks(kind: str) -> None:
    components = spectra((9, 6), seed=71)
    expected = evaluate("auto", components, **KINDS[kind])
    leaf = components.clone().requires_grad_(True)
    torch._dynamo.reset()
    compiled = torch.compile(lambda c: ambiguity_penalty(c, **KINDS[kind]), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(leaf), leaf)[0], expected[1])


def test_without_a_gradient_none_is_computed() -> None:
    components = spectra((9, 6), seed=72)
    with saved_sizes() as sizes, torch.no_grad():
        value = ambiguity_penalty(components.clone().requires_grad_(True))
    assert not sizes
    torch.testing.assert_close(value, evaluate("cpu", components)[0], rtol=0, atol=0)


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
    for backend in ("reference", "torch", "cpu"):
        with use_backend(backend):
            actual = ambiguity_penalty(pair, "matern", nu=nu).item()
            assert actual == pytest.approx(expected, rel=1e-12)
            published = ambiguity_penalty(pair, "matern", nu=nu, published_coefficients=True).item()
            assert (published == actual) == (nu != 3.5)


@pytest.mark.instruction_sets
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "linear"])
def test_a_numbers_arithmetic_agrees_with_the_reference(kind: str, dtype: torch.dtype) -> None:
    """What a CUDA thread computes of one pair, run on the host: two components of one dimension, 0.8 and another."""
    options = {"power": 2} | KINDS[kind]
    name = f"matern {options['nu']}" if options["kernel"] == "matern" else options["kernel"]
    term = extensions.cpu().pair_term_float32 if dtype == torch.float32 else extensions.cpu().pair_term_float64
    for other in (0.8 + 1e-3, -0.5, 3.0, 1e3):
        pair = torch.tensor([[0.8], [other]], dtype=torch.float64)
        # A distance is what is left of a difference; the kernels of products take the product.
        distance = abs(other - 0.8)
        from_pair = {"poly": 0.8 * other, "laplacian": distance}.get(options["kernel"], distance**2)
        value, slope = term(name, options["power"], 0.5, 0.7, 2.8, from_pair)
        direction = {"poly": other, "laplacian": math.copysign(1.0, other - 0.8)}
        gradient = slope * direction.get(options["kernel"], other - 0.8)
        expected = evaluate("reference", pair, **KINDS[kind], scale=0.7, offset=0.5)
        allowed = 64 * torch.finfo(dtype).eps
        assert value == pytest.approx(expected[0].item(), rel=allowed, abs=1e-30)
        # The reference's gradient is what is left of terms of order 1, in float64.
        rest = 64 * torch.finfo(torch.float64).eps
        assert gradient == pytest.approx(expected[1][0, 0].item(), rel=allowed, abs=rest)


def test_selection_puts_rows_under_the_mask_first() -> None:
    for mask in ([], [False], [True], [True, False, True, True, False], [False] * 40, [True] * 40):
        order, count = selection(torch.tensor(mask, dtype=torch.bool))
        chosen = [i for i, used in enumerate(mask) if used]
        assert (order.dtype, count.dtype, count.shape) == (torch.int64, torch.int64, ())
        assert order[:count].tolist() == chosen
        assert sorted(order.tolist()) == list(range(len(mask)))


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


@pytest.mark.parametrize(("backend", "kind"), ONES)
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


@pytest.mark.parametrize(("backend", "kind"), ONES)
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


def test_what_its_kernels_do_not_take() -> None:
    check_limits("ambiguity_penalty", {"no_pairs": lambda: ops.ambiguity_penalty(*tensors((4, 5)), "linear")})
