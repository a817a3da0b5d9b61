"""The Triton kernels of the distance of spectra to their cluster's mean, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from helpers import TRITON_DEVICE
from spectrafuse import BackendUnavailableError, RandomStream, use_backend
from spectrafuse.ops import spectral_compactness

RTOL = 32 * torch.finfo(torch.float32).eps


def draw(shape, clusters, kept=None, dtype=torch.float32, offset=5.0):
    """Spectra (B, C, h, w) around a common vector, assignments, and which pixels take part."""
    batch, _, height, width = shape
    stream = RandomStream(sum(shape))
    spectra = stream.normal(shape, dtype=torch.float64) + offset
    stream.step += 1
    probs = torch.softmax(3 * stream.normal((batch, height, width, clusters), dtype=torch.float64), -1)
    stream.step += 1
    valid = None if kept is None else stream.uniform((batch, height, width), dtype=torch.float64) < kept
    return tuple(t if t is None else t.to(TRITON_DEVICE) for t in (spectra.to(dtype), probs.to(dtype), valid))


def both_ways(backend, spectra, probs, valid):
    spectra, probs = spectra.detach().requires_grad_(), probs.detach().requires_grad_()
    with use_backend(backend):
        value = spectral_compactness(spectra, probs, valid)
        gradients = torch.autograd.grad(1.7 * value, (spectra, probs))
    return [value.detach(), *gradients]


def assert_agrees(spectra, probs, valid, rtol=RTOL):
    actual = both_ways("triton", spectra, probs, valid)
    expected = both_ways("reference", spectra.double(), probs.double(), valid)
    for ours, reference in zip(actual, expected, strict=True):
        assert ours.dtype == spectra.dtype
        # Where all is zero, rounding is measured against a distance of one.
        scale = max(reference.abs().max().item(), 1 / reference.numel())
        torch.testing.assert_close(ours.double(), reference, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize(
    ("shape", "clusters", "kept"),
    [
        ((1, 1, 1, 1), 1, None),  # one pixel: its distance to itself
        ((2, 7, 5, 13), 3, 0.6),
        ((2, 33, 1, 70), 17, None),  # more than a tile of pixels, one band and one cluster more than a block
        ((1, 64, 9, 9), 4, 0.5),
        ((3, 5, 4, 4), 80, 0.9),  # the form for many clusters
        ((1, 5, 4, 4), 2, 0.0),  # no pixel takes part
    ],
)
def test_agrees_with_reference(shape, clusters, kept):
    assert_agrees(*draw(shape, clusters, kept))


def test_a_large_common_vector_costs_no_digits():
    spectra, probs, valid = draw((2, 6, 5, 7), 3, offset=0.0)
    assert_agrees(spectra + 1000.0, probs, valid)


def test_pixels_that_take_no_part_may_hold_anything():
    spectra, probs, valid = draw((2, 6, 5, 7), 3, 0.5)
    expected = both_ways("triton", spectra, probs, valid)
    spectra.permute(0, 2, 3, 1)[~valid] = float("nan")
    probs[~valid] = float("inf")
    for actual, wanted in zip(both_ways("triton", spectra, probs, valid), expected, strict=True):
        assert torch.equal(actual, wanted)


def test_bands_side_by_side_and_other_strides():
    spectra, probs, _ = draw((2, 6, 5, 7), 3)
    expected = both_ways("triton", spectra, probs, None)
    by_pixel = spectra.to(memory_format=torch.channels_last)
    turned = spectra.transpose(2, 3).contiguous().transpose(2, 3)
    for strided in (by_pixel, turned):
        assert not strided.is_contiguous()
        for actual, wanted in zip(both_ways("triton", strided, probs, None), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(dtype):
    assert_agrees(*draw((1, 6, 5, 7), 3, dtype=dtype), rtol=torch.finfo(dtype).eps)


def test_the_same_bits_twice_and_no_float64():
    arguments = draw((2, 6, 5, 7), 3)
    for first, second in zip(both_ways("triton", *arguments), both_ways("triton", *arguments), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(BackendUnavailableError, match="float64"):
        both_ways("triton", *draw((1, 2, 2, 2), 2, dtype=torch.float64))


@pytest.mark.slow
def test_registration_and_compile():
    spectra, probs, valid = draw((1, 3, 4, 5), 2, 0.7)
    arguments = (spectra.requires_grad_(), probs.requires_grad_(), valid)
    with use_backend("triton"):
        torch.library.opcheck(torch.ops.spectrafuse.spectral_compactness, arguments)
        compiled = torch.compile(lambda *a: 2 * spectral_compactness(*a), fullgraph=True)
        torch.testing.assert_close(compiled(*arguments), 2 * spectral_compactness(*arguments))
