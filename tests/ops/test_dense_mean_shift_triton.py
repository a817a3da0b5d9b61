"""The Triton kernels of all-pairs mean shift against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from helpers import TRITON_DEVICE, assert_close_to_max, saved_sizes
from spectrafuse import BackendUnavailableError, RandomStream, use_backend
from spectrafuse.ops.dense_mean_shift import dense_mean_shift

RTOL = 16 * torch.finfo(torch.float32).eps
"""Weights are exponentials of differences; a few roundings of their exponents remain."""


def draw(shape, dtype=torch.float32, offset=0.0):
    embeddings = RandomStream(sum(shape)).normal(shape, dtype=torch.float64) / max(shape[1], 1) ** 0.5 + offset
    return embeddings.to(dtype).to(TRITON_DEVICE)


def both_ways(backend, embeddings, bandwidth, num_iters):
    """Shifted embeddings, and the gradients of a function that weighs each of them differently."""
    embeddings, bandwidth = embeddings.detach().requires_grad_(), torch.tensor(bandwidth, device=embeddings.device)
    bandwidth = bandwidth.to(torch.float64 if embeddings.dtype == torch.float64 else torch.float32).requires_grad_()
    with use_backend(backend):
        shifted = dense_mean_shift(embeddings, bandwidth, num_iters=num_iters)
        weights = torch.linspace(-1, 2, shifted.numel(), device=shifted.device).reshape(shifted.shape)
        gradients = torch.autograd.grad((shifted * weights).sum(), (embeddings, bandwidth))
    return [shifted.detach(), *gradients]


def assert_agrees(embeddings, bandwidth=0.7, num_iters=3, rtol=RTOL):
    actual = both_ways("triton", embeddings, bandwidth, num_iters)
    expected = both_ways("reference", embeddings.double(), float(torch.tensor(bandwidth)), num_iters)
    # The bandwidth's gradient is a sum over pixels whose roundings are independent and whose values may cancel.
    scales = (expected[0].abs().max(), expected[1].abs().max(), expected[1].norm())
    for ours, reference, scale in zip(actual, expected, scales, strict=True):
        # Gradients pass through every iteration and lose digits in each.
        torch.testing.assert_close(ours.double(), reference, rtol=0, atol=num_iters * rtol * scale.item())


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 1),  # one pixel
        (2, 3, 1, 7),  # one row
        (1, 32, 13, 17),  # prime sizes, more than three tiles
        (3, 17, 5, 13),  # one pixel more than a tile
        (1, 16, 8, 8),  # exactly one tile
        (2, 33, 5, 7),  # dimensions one above a power of two
        (1, 128, 7, 11),  # the most dimensions
    ],
)
def test_agrees_with_reference(shape):
    assert_agrees(draw(shape))


@pytest.mark.parametrize("num_iters", [1, 5])
def test_iterations(num_iters):
    assert_agrees(draw((2, 8, 5, 7)), num_iters=num_iters)


@pytest.mark.parametrize("bandwidth", [0.01, 30.0])
def test_weights_that_all_vanish_or_are_all_one(bandwidth):
    assert_agrees(draw((2, 8, 6, 11)), bandwidth, num_iters=2)


def test_identical_pixels_do_not_move_and_have_finite_gradients():
    assert_agrees(draw((1, 4, 1, 1)).expand(1, 4, 9, 9), num_iters=2)


def test_a_common_vector_costs_no_digits():
    embeddings = 1.0 + 1e-2 * draw((1, 8, 6, 6))
    with use_backend("triton"):
        actual = dense_mean_shift(embeddings, torch.tensor(1e-2, device=TRITON_DEVICE), num_iters=2)
    with use_backend("reference"):
        expected = dense_mean_shift(embeddings.double(), torch.tensor(1e-2).double().to(TRITON_DEVICE), num_iters=2)
    assert_close_to_max(actual.double(), expected, RTOL)


def test_strides_do_not_matter():
    embeddings = draw((2, 5, 6, 7))
    buffer = torch.full((2, 7, 20, 9), float("nan"), device=TRITON_DEVICE)
    strided = buffer.permute(0, 3, 2, 1)[:, 2:7, 3:15:2, :]
    strided.copy_(embeddings)
    for actual, expected in zip(
        both_ways("triton", strided, 0.7, 2), both_ways("triton", embeddings, 0.7, 2), strict=True
    ):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(dtype):
    embeddings = draw((1, 8, 5, 13), dtype)
    assert_agrees(embeddings, rtol=torch.finfo(dtype).eps)
    with use_backend("triton"):
        assert dense_mean_shift(embeddings, torch.tensor(0.7, device=TRITON_DEVICE)).dtype == dtype


@pytest.mark.parametrize("shape", [(0, 4, 3, 3), (2, 4, 0, 3)])
def test_nothing_in_nothing_out(shape):
    shifted, gradient, gradient_bandwidth = both_ways("triton", draw(shape), 0.7, 2)
    assert shifted.shape == gradient.shape == shape
    assert gradient_bandwidth == 0


def test_the_same_bits_twice():
    embeddings = draw((2, 8, 9, 9))
    for first, second in zip(
        both_ways("triton", embeddings, 0.7, 3), both_ways("triton", embeddings, 0.7, 3), strict=True
    ):
        assert torch.equal(first, second)


def test_nothing_the_size_of_all_pairs_is_kept():
    embeddings = draw((1, 4, 16, 16)).requires_grad_()
    with use_backend("triton"), saved_sizes() as sizes:
        dense_mean_shift(embeddings, torch.tensor(0.5, device=TRITON_DEVICE), num_iters=3)
    assert max(sizes) == 4 * embeddings.numel()  # states before, between and after


def test_what_the_kernel_does_not_take_is_refused_when_forced():
    bandwidth = torch.tensor(0.5, device=TRITON_DEVICE)
    with use_backend("triton"):
        with pytest.raises(BackendUnavailableError, match="float64"):
            dense_mean_shift(draw((1, 2, 3, 3), torch.float64), bandwidth)
        with pytest.raises(BackendUnavailableError, match="up to 128 dimensions, got 129"):
            dense_mean_shift(draw((1, 129, 1, 2)), bandwidth)


def test_registration():
    embeddings, bandwidth = draw((1, 3, 4, 5)).requires_grad_(), torch.tensor(0.7, device=TRITON_DEVICE)
    with use_backend("triton"):
        torch.library.opcheck(
            torch.ops.spectrafuse.dense_mean_shift, (embeddings, bandwidth.requires_grad_(), 2), rtol=RTOL, atol=RTOL
        )


@pytest.mark.slow
def test_compiles_into_one_graph():
    embeddings, bandwidth = draw((1, 3, 4, 5)), torch.tensor(0.7, device=TRITON_DEVICE)

    def shift(e, b):
        return dense_mean_shift(e, b, num_iters=2).sin()

    with use_backend("triton"):
        expected = shift(embeddings, bandwidth)
        actual = torch.compile(shift, fullgraph=True)(embeddings, bandwidth)
    torch.testing.assert_close(actual, expected)
