"""All-pairs mean shift."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden
from spectrafuse import RandomStream, use_backend
from spectrafuse.composed.mean_shift_assign import assign as composed_assign
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.reference.mean_shift_assign import assign as reference_assign

backends = pytest.mark.parametrize("backend", ["reference", "torch"])


@backends
@pytest.mark.parametrize("name", [f"dgc_mean_shift_{i}" for i in (4, 5, 6)])
def test_golden(name, backend):
    values = golden(name)
    assert values["local"] is False
    embeddings, centers = values["embeddings"].requires_grad_(), values["centers"].requires_grad_()
    log_bandwidth = torch.tensor(values["log_bandwidth"], dtype=torch.float64, requires_grad=True)
    assign = reference_assign if backend == "reference" else composed_assign
    with use_backend(backend):
        shifted = dense_mean_shift(embeddings, F.softplus(log_bandwidth), num_iters=values["num_iters"])
    probs = assign(shifted, centers, values["temperature"])
    assert_close_to_max(shifted, values["shifted"], GOLDEN_RTOL)
    assert_close_to_max(probs, values["probs"], GOLDEN_RTOL)
    assert torch.equal(probs.argmax(-1), values["labels"])
    objective = (shifted * values["grad_shifted"]).sum() + (probs * values["grad_probs"]).sum()
    gradients = torch.autograd.grad(objective, (embeddings, centers, log_bandwidth))
    for gradient, key in zip(gradients, ("embeddings", "centers", "log_bandwidth"), strict=True):
        assert_close_to_max(gradient, values[f"grad_{key}"], GOLDEN_GRADIENT_RTOL)


def draw(shape, seed=0):
    return F.normalize(RandomStream(seed).normal(shape, dtype=torch.float64), dim=1)


@pytest.mark.parametrize("num_iters", [1, 4])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 7), (1, 5, 11, 1), (3, 4, 5, 6), (0, 4, 5, 6)])
def test_torch_agrees_with_reference(shape, num_iters):
    results = []
    for backend in ("reference", "torch"):
        embeddings = draw(shape, seed=sum(shape)).requires_grad_()
        bandwidth = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        with use_backend(backend):
            shifted = dense_mean_shift(embeddings, bandwidth, num_iters=num_iters)
            assert shifted.shape == shape
            gradients = torch.autograd.grad(
                shifted.sin().sum(), (embeddings, bandwidth), allow_unused=True, materialize_grads=True
            )
        results.append((shifted, *gradients))
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@backends
def test_gradcheck_through_all_iterations(backend):
    inputs = (draw((2, 2, 2, 3)).requires_grad_(), torch.tensor(0.8, dtype=torch.float64, requires_grad=True))
    with use_backend(backend):
        assert torch.autograd.gradcheck(lambda e, b: dense_mean_shift(e, b, num_iters=3), inputs)


@backends
def test_strided_input(backend):
    embeddings = draw((2, 3, 4, 5))
    bandwidth = torch.tensor(0.5, dtype=torch.float64)
    strided = embeddings.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    with use_backend(backend):
        expected = dense_mean_shift(embeddings, bandwidth)
        torch.testing.assert_close(dense_mean_shift(strided, bandwidth), expected, rtol=1e-12, atol=1e-13)


def test_float32_distances_around_a_common_vector():
    """Embeddings that share a long vector: around the origin their distances would drown in rounding."""
    embeddings = 1.0 + 1e-2 * draw((1, 8, 6, 6))
    bandwidth = torch.tensor(1e-2)
    with use_backend("torch"):
        actual = dense_mean_shift(embeddings.float(), bandwidth, num_iters=1)
    with use_backend("reference"):
        expected = dense_mean_shift(embeddings.float().double(), bandwidth.double(), num_iters=1)
    assert_close_to_max(actual.double(), expected, 8 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(dtype):
    embeddings = draw((1, 8, 5, 5)).to(dtype)
    with use_backend("torch"):
        actual = dense_mean_shift(embeddings, torch.tensor(0.5))
        expected = dense_mean_shift(embeddings.double(), torch.tensor(0.5, dtype=torch.float64))
    assert actual.dtype == dtype
    assert_close_to_max(actual.double(), expected, torch.finfo(dtype).eps)


def test_torch_keeps_no_pairs_for_the_backward_pass():
    embeddings = draw((2, 3, 12, 12)).requires_grad_()
    largest = 0

    def pack(tensor):
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with use_backend("torch"), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        dense_mean_shift(embeddings, torch.tensor(0.5, dtype=torch.float64))
    assert largest <= embeddings.numel()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embeddings": torch.zeros(3, 4)}, ValueError, "`embeddings` must be a tensor"),
        ({"bandwidth": torch.ones(1)}, ValueError, "`bandwidth` must be a tensor"),
        ({"bandwidth": 1.0}, TypeError, "`bandwidth` must be a tensor"),
        ({"num_iters": 0}, ValueError, "`num_iters` must be an integer of at least 1"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {"embeddings": torch.zeros(1, 2, 3, 3), "bandwidth": torch.tensor(1.0), "num_iters": 2}
    with pytest.raises(error, match=message):
        dense_mean_shift(**{**arguments, **change})
