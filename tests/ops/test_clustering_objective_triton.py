"""The Triton kernels of the training objective against the reference: on a GPU, or without one in the interpreter."""

from __future__ import annotations

import pytest
import torch

from helpers import TRITON_DEVICE
from helpers.clustering_inputs import TEMPERATURE, VARIANTS, evaluate, inputs
from spectrafuse import use_backend
from spectrafuse.kernels import _mean_shift
from spectrafuse.ops.clustering_objective import clustering_objective

# pairs, dim, height, width, clusters, window, iterations: few tiles, the interpreter takes milliseconds for each, its
# neighbours and iterations.
SHAPES = [
    (1, 5, 1, 1, 1, 5, 1, "corrected"),
    (2, 4, 1, 7, 3, 3, 2, "masked"),
    pytest.param((1, 3, 5, 2, 2, 7, 1, "published, masked"), marks=pytest.mark.slow),
    pytest.param((1, 32, 3, 11, 4, 5, 1, "corrected"), marks=pytest.mark.slow),
    (1, 6, 5, 33, 3, 1, 1, "masked"),
    pytest.param((1, 7, 5, 7, 3, 3, 1, "published"), marks=pytest.mark.slow),
    (1, 65, 1, 3, 5, 3, 1, "corrected"),
    (0, 4, 5, 5, 3, 5, 5, "masked"),
]


def triton_inputs(*sizes: int):
    leaves, keywords, valid, upstream = inputs(*sizes, torch.float32)
    keywords = {name: value.to(TRITON_DEVICE) for name, value in keywords.items()}
    return [x.to(TRITON_DEVICE) for x in leaves], keywords, valid.to(TRITON_DEVICE), upstream.to(TRITON_DEVICE)


@pytest.mark.parametrize("case", SHAPES)
def test_kernels_equal_the_reference(case):
    *sizes, window, iterations, variant = case
    leaves, keywords, valid, upstream = triton_inputs(*sizes)
    options = {"num_iters": iterations, "window": window, **VARIANTS[variant]}
    actual = evaluate("triton", leaves, keywords, valid, upstream, **options)
    exact = evaluate("reference", [x.double() for x in leaves], keywords, valid, upstream.double(), **options)
    # As for the C++ kernel.
    allowed = 8 * torch.finfo(torch.float32).eps * (window * window + sizes[1]) / TEMPERATURE
    for got, want in zip(actual, exact, strict=True):
        assert got.dtype == torch.float32
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed * scale)


@pytest.mark.slow
def test_strides_constants_and_numbers_of_programs_do_not_matter(monkeypatch):
    leaves, keywords, valid, upstream = triton_inputs(1, 4, 5, 9, 3)
    options = {"num_iters": 1, "window": 3, "masked": True}
    want = evaluate("triton", leaves, keywords, valid, upstream, **options)
    again = evaluate("triton", leaves, keywords, valid, upstream, **options)
    assert all(torch.equal(a, b) for a, b in zip(want, again, strict=True))
    monkeypatch.setattr(_mean_shift, "constant_stride", lambda *sizes: None)
    monkeypatch.setattr(_mean_shift.Launch, "summing_programs", lambda self, values, tiles: 1)
    leaves[0] = leaves[0].to(memory_format=torch.channels_last)
    got = evaluate("triton", leaves, keywords, valid, upstream, **options)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype):
    leaves, keywords, valid, upstream = triton_inputs(1, 4, 5, 9, 3)
    narrow = [leaf.to(dtype) for leaf in leaves]
    options = {"num_iters": 2, "window": 3}
    got = evaluate("triton", narrow, keywords, valid, upstream, **options)
    want = evaluate("triton", [leaf.float() for leaf in narrow], keywords, valid, upstream, **options)
    for i, (actual, expected) in enumerate(zip(got, want, strict=True)):
        assert actual.dtype == (torch.float32 if i < 7 else dtype)
        # The gradient of the narrow assignments arrives rounded.
        allowed = 1e-6 if i < 7 else 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(actual.float(), expected, rtol=allowed, atol=allowed)


def test_without_gradient_nothing_is_kept_and_without_valid_pixels_all_is_zero():
    leaves, keywords, valid, _ = triton_inputs(1, 4, 2, 3, 3)
    options = {"num_iters": 1, "window": 3, **keywords}
    with use_backend("triton"), torch.no_grad():
        terms = clustering_objective(*leaves, **options, return_probs=False)
    assert terms.probs.shape == (0, 2, 3, 3)
    leaves = [x.requires_grad_() for x in leaves]
    with use_backend("triton"):
        empty = clustering_objective(*leaves, **options, valid=torch.zeros_like(valid))
        pixel_terms = [empty.compactness.sum(), empty.uniform, empty.balance, empty.consistency]
        gradients = torch.autograd.grad(sum(pixel_terms), leaves)
    assert all(term == 0 for term in (*pixel_terms, empty.mass.sum(), empty.sums.abs().sum()))
    assert all((gradient == 0).all() for gradient in gradients)


def test_opcheck():
    leaves, keywords, valid, _ = triton_inputs(1, 4, 2, 3, 3)
    arguments = (*(x.requires_grad_() for x in leaves), *keywords.values(), valid, 1, 3, 0.1, False, True, True)
    with use_backend("triton"):
        torch.library.opcheck(
            torch.ops.spectrafuse.clustering_objective.default, arguments, test_utils=("test_schema", "test_faketensor")
        )
