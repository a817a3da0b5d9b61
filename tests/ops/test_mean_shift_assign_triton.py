"""The Triton kernels of mean_shift_assign against the reference: on a GPU, or without one in the interpreter."""

from __future__ import annotations

import pytest
import torch

from helpers import TRITON_DEVICE, assert_close_to_max
from helpers.mean_shift_inputs import evaluate, inputs
from spectrafuse import BackendUnavailableError, backends, use_backend
from spectrafuse.kernels import _mean_shift
from spectrafuse.ops import mean_shift_assign, mean_shift_labels

# batch, dim, height, width, clusters, window, iterations. The interpreter takes milliseconds for every tile, neighbour
# and iteration, so images are of a few tiles (4 x 32 pixels, for 128 dimensions 1 x 32).
SHAPES = [
    (1, 5, 1, 1, 1, 5, 2),
    (1, 4, 1, 37, 3, 3, 1),
    pytest.param((2, 8, 7, 13, 3, 5, 2), marks=pytest.mark.slow),
    pytest.param((1, 3, 9, 2, 2, 7, 1), marks=pytest.mark.slow),
    pytest.param((2, 32, 5, 11, 4, 5, 3), marks=pytest.mark.slow),
    pytest.param((1, 17, 3, 33, 7, 11, 1), marks=pytest.mark.slow),
    (1, 6, 2, 33, 1, 1, 4),
    (1, 1, 3, 4, 2, 3, 2),
    (1, 128, 2, 35, 17, 3, 2),
    (0, 4, 5, 5, 3, 5, 5),
]


def triton_inputs(*sizes: int, dtype: torch.dtype = torch.float32):
    embeddings, centers, bandwidth, grads = inputs(*sizes, dtype)
    return (
        embeddings.to(TRITON_DEVICE),
        centers.to(TRITON_DEVICE),
        bandwidth.to(TRITON_DEVICE),
        tuple(g.to(TRITON_DEVICE) for g in grads),
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_equal_the_reference(shape):
    *sizes, window, iterations = shape
    data = triton_inputs(*sizes)
    options = {"num_iters": iterations, "window": window, "temperature": 0.2}
    exact = evaluate("reference", *(x.double() for x in data[:3]), [g.double() for g in data[3]], **options)
    actual = evaluate("triton", *data, **options)
    # As for the C++ kernel: rounded products in a value, times what the softmax multiplies errors by.
    allowed = 8 * torch.finfo(torch.float32).eps * (window * window + sizes[1]) / 0.2
    for got, want in zip(actual, exact, strict=True):
        assert got.dtype == torch.float32
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed * scale)


def test_labels_are_the_most_probable_clusters():
    embeddings, centers, bandwidth, _ = triton_inputs(1, 6, 5, 35, 6)
    centers = torch.nn.functional.normalize(centers, dim=1)
    centers[4] = centers[1]
    # Three columns of the tied clusters' own embedding, whose first one keeps its direction.
    embeddings[..., :3] = centers[1][:, None, None]
    with use_backend("triton"):
        labels = mean_shift_labels(embeddings, centers, bandwidth, num_iters=2, window=3)
        _, probs = mean_shift_assign(embeddings, centers, bandwidth, num_iters=2, window=3)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, probs.argmax(-1))
    assert (labels[..., 0] == 1).all(), "of tied clusters the first"


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_of_one_output_alone(which):
    data = triton_inputs(1, 4, 3, 7, 3)
    results = {}
    for backend in ("reference", "triton"):
        leaves = [x.detach().clone().requires_grad_() for x in data[:3]]
        with use_backend(backend):
            output = mean_shift_assign(*leaves, num_iters=2, window=3, temperature=0.2)[which]
            results[backend] = torch.autograd.grad((output * data[3][which]).sum(), leaves, allow_unused=True)
    for got, want in zip(results["triton"], results["reference"], strict=True):
        assert torch.isfinite(got).all()
        if want is None:
            assert (got == 0).all()
        else:
            assert_close_to_max(got, want, 1e-4)


@pytest.mark.slow
def test_strided_inputs():
    embeddings, centers, bandwidth, grads = triton_inputs(2, 6, 3, 5, 3)
    options = {"num_iters": 1, "window": 3}
    want = evaluate("triton", embeddings, centers, bandwidth, grads, **options)
    wide = embeddings.new_zeros(2, 6, 3, 10)[..., ::2]
    for view in (embeddings.to(memory_format=torch.channels_last), wide.copy_(embeddings)):
        assert not view.is_contiguous()
        leaf = view.detach().requires_grad_()
        with use_backend("triton"):
            shifted, probs = mean_shift_assign(leaf, centers.T.contiguous().T, bandwidth, **options)
            # A gradient that is one number everywhere comes as an expanded tensor.
            (gradient,) = torch.autograd.grad(shifted.sum() + (probs * grads[1].mT.contiguous().mT).sum(), leaf)
        assert torch.equal(shifted, want[0])
        assert torch.equal(probs, want[1])
        dense = evaluate("triton", embeddings, centers, bandwidth, (torch.ones_like(shifted), grads[1]), **options)
        assert torch.equal(gradient, dense[2])


def test_strides_beyond_2_to_the_31():
    """Rows 1.2e9 elements apart: the memory between them is reserved, never touched."""
    pitch = 1_200_000_000
    embeddings, centers, bandwidth, _ = triton_inputs(1, 4, 3, 8, 2)
    storage = torch.empty(2 * pitch + 100, dtype=torch.float16, device=TRITON_DEVICE)
    far = storage.as_strided((1, 4, 3, 8), (0, 8, pitch, 1)).copy_(embeddings)
    with use_backend("triton"):
        leaves = [x.half().requires_grad_() for x in (embeddings, centers)]
        near = mean_shift_assign(*leaves, bandwidth, num_iters=1, window=3)
        apart = mean_shift_assign(far.requires_grad_(), leaves[1], bandwidth, num_iters=1, window=3)
        want = torch.autograd.grad(near.shifted.float().sum(), leaves[0])
        got = torch.autograd.grad(apart.shifted.float().sum(), far)
    assert torch.equal(apart.shifted, near.shifted)
    assert torch.equal(got[0], want[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype):
    *leaves, grads = triton_inputs(1, 8, 3, 11, 3, dtype=dtype)
    forward, backward = torch.ops.spectrafuse.mean_shift_assign, torch.ops.spectrafuse.mean_shift_assign_backward
    with use_backend("triton"):
        narrow = forward(*leaves, 2, 3, 0.2)
        wide = forward(*(x.float() for x in leaves), 2, 3, 0.2)
        # Backward reads the rounded outputs.
        tensors = (*grads, *leaves, *narrow)
        narrow += backward(*tensors, 3, 0.2)
        wide += backward(*(x.float() for x in tensors), 3, 0.2)
    # The interpreter cuts bfloat16 off where a GPU rounds.
    unit = torch.finfo(dtype).eps if dtype == torch.bfloat16 and TRITON_DEVICE == "cpu" else 0.0
    for got, want in zip(narrow, wide, strict=True):
        torch.testing.assert_close(got, want.to(got.dtype), rtol=unit if got.dtype == dtype else 0.0, atol=0.0)
    assert [x.dtype for x in narrow] == [dtype, dtype, torch.float32, torch.float32, dtype, dtype, dtype]


@pytest.mark.slow
def test_constants_of_the_code_and_numbers_of_programs_do_not_matter(monkeypatch):
    """Large images have no constant strides, and few programs sum for the centers of many tiles."""
    data = triton_inputs(1, 6, 9, 34, 3)
    options = {"num_iters": 1, "window": 3, "temperature": 0.2}
    small = evaluate("triton", *data, **options)
    assert all(torch.equal(a, b) for a, b in zip(small, evaluate("triton", *data, **options), strict=True))
    monkeypatch.setattr(_mean_shift, "constant_stride", lambda *sizes: None)
    monkeypatch.setattr(_mean_shift.Launch, "summing_programs", lambda self, values, tiles: 4)
    large = evaluate("triton", *data, **options)
    for which in (0, 1, 2):
        assert torch.equal(large[which], small[which])
    for which in (3, 4):
        assert_close_to_max(large[which], small[which], 1e-5)


def test_zero_embeddings_and_saturated_assignments_stay_finite():
    embeddings, centers, bandwidth, grads = triton_inputs(1, 4, 2, 6, 3)
    for e, c, b in (
        (torch.zeros_like(embeddings), centers, bandwidth),
        (embeddings, 1e4 * centers, bandwidth),
        (torch.ones_like(embeddings), centers, bandwidth),
        (embeddings, centers, bandwidth * 1e-3),
    ):
        got, want = (evaluate(name, e, c, b, grads, num_iters=2, window=3) for name in ("triton", "reference"))
        assert all(torch.isfinite(x).all() for x in got)
        assert (got[1].sum(-1) - 1).abs().max() < 1e-5
        assert (got[0] - want[0]).abs().max() < 1e-5


def test_nan_in_one_pixel_reaches_its_windows_only():
    embeddings, centers, bandwidth, _ = triton_inputs(1, 4, 6, 7, 3)
    embeddings[0, 1, 4, 3] = float("nan")
    with use_backend("triton"):
        shifted, probs = mean_shift_assign(embeddings, centers, bandwidth, num_iters=1, window=3)
    expected = torch.zeros(6, 7, dtype=torch.bool, device=TRITON_DEVICE)
    expected[3:6, 2:5] = True
    assert torch.equal(shifted[0].isnan().any(0), expected)
    assert torch.equal(probs[0].isnan().any(-1), expected)


def test_opcheck():
    embeddings, centers, bandwidth, _ = triton_inputs(1, 4, 2, 3, 3)
    leaves = [x.requires_grad_() for x in (embeddings, centers, bandwidth)]
    with use_backend("triton"):
        for op in (torch.ops.spectrafuse.mean_shift_assign.default, torch.ops.spectrafuse.mean_shift_labels.default):
            torch.library.opcheck(op, (*leaves, 1, 3, 0.1), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("shape", "dtype", "window", "reason"),
    [
        ((1, 4, 3, 3), torch.float64, 5, "inputs are float64"),
        ((1, 129, 3, 3), torch.float32, 5, "up to 128 dimensions"),
        ((1, 4, 3, 3), torch.float32, 13, "windows up to 11, got 13"),
    ],
)
def test_what_the_kernels_do_not_take_says_so(shape, dtype, window, reason):
    arguments = (torch.ones(shape, dtype=dtype), torch.ones(2, shape[1], dtype=dtype), torch.ones((), dtype=dtype))
    with use_backend("triton"), pytest.raises(BackendUnavailableError, match=reason):
        mean_shift_assign(*(x.to(TRITON_DEVICE) for x in arguments), window=window)
    assert backends.choose("mean_shift_assign", "cpu") == "cpu"
