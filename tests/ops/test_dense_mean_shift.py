"""All-pairs mean shift."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import (
    GOLDEN_GRADIENT_RTOL,
    GOLDEN_RTOL,
    assert_close_to_max,
    assert_same_bits_at_any_number_of_threads,
    golden,
    seeds,
)
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.ops.mean_shift_assign.pytorch import assign as composed_assign
from spectrafuse.ops.mean_shift_assign.reference import assign as reference_assign

backends = pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])


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


def evaluate(backend, embeddings, bandwidth, num_iters=5):
    """The result and all gradients of sum(sin(result))."""
    embeddings, bandwidth = (x.detach().clone().requires_grad_() for x in (embeddings, bandwidth))
    with use_backend(backend):
        shifted = dense_mean_shift(embeddings, bandwidth, num_iters=num_iters)
        gradients = torch.autograd.grad(
            shifted.sin().sum(), (embeddings, bandwidth), allow_unused=True, materialize_grads=True
        )
    return [shifted.detach(), *gradients]


# Below, at and above a block of 64 pixels, odd and even numbers of blocks.
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 1, 7),
    (1, 5, 11, 1),
    (3, 4, 5, 6),
    (0, 4, 5, 6),
    (1, 17, 8, 8),
    (1, 33, 5, 13),
    (2, 2, 11, 13),
    (1, 40, 19, 17),
]


@pytest.mark.parametrize("num_iters", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["torch", pytest.param("cpu", marks=pytest.mark.instruction_sets)])
def test_agrees_with_reference(backend, shape, num_iters):
    inputs = draw(shape, seed=seeds.fresh_seed()), torch.tensor(0.7, dtype=torch.float64)
    exact = evaluate("reference", *inputs, num_iters)
    assert exact[0].shape == shape
    for actual, expected in zip(evaluate(backend, *inputs, num_iters), exact, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    narrow = [x.float() for x in inputs]
    exact = evaluate("reference", *(x.double() for x in narrow), num_iters)
    # Values of order 1; an iteration multiplies an error by at most a few. The bandwidth's gradient is a sum over
    # pixels of terms of either sign, whose errors add up like a random walk.
    allowed = 64 * torch.finfo(torch.float32).eps * num_iters
    for actual, expected in zip(evaluate(backend, *narrow, num_iters), exact, strict=True):
        assert actual.dtype == torch.float32
        terms = shape[0] * shape[2] * shape[3] if expected.ndim == 0 else 1
        torch.testing.assert_close(actual.double(), expected, rtol=allowed, atol=allowed * max(terms, 1) ** 0.5)


def test_same_bits_at_any_number_of_threads():
    inputs = draw((2, 9, 23, 31)).float(), torch.tensor(0.5)
    assert_same_bits_at_any_number_of_threads(lambda: evaluate("cpu", *inputs))


def test_more_blocks_than_teams():
    """3000 pixels are 47 blocks in 32 teams: some have one block, some two."""
    inputs = draw((1, 2, 50, 60)), torch.tensor(0.3, dtype=torch.float64)
    for actual, expected in zip(evaluate("cpu", *inputs, 1), evaluate("torch", *inputs, 1), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_workspace_grows_with_pixels_not_with_pairs():
    def size(side):
        return extensions.cpu().dense_mean_shift_workspace(0, (1, side * side, 32), True)

    assert size(256) < 16.1 * size(64)
    assert size(256) < 6.1 * 4 * 32 * 256**2


def test_far_apart_and_nan():
    """Weights that vanish leave a pixel where it is; a pixel without a number spoils the others' sums, as it must."""
    embeddings = 100 * draw((1, 3, 5, 6)).float()
    shifted, gradient, _ = evaluate("cpu", embeddings, torch.tensor(0.1))
    torch.testing.assert_close(shifted, embeddings, rtol=1e-5, atol=1e-4)
    assert gradient.isfinite().all()
    embeddings[0, 0, 2, 2] = float("nan")
    assert all(x.isnan().any() for x in evaluate("cpu", embeddings, torch.tensor(0.1)))


def test_opcheck():
    for dtype in (torch.float32, torch.float64):
        leaves = draw((2, 3, 4, 5)).to(dtype).requires_grad_(), torch.tensor(0.6, dtype=dtype, requires_grad=True)
        torch.library.opcheck(torch.ops.spectrafuse.dense_mean_shift.default, (*leaves, 3))


def test_compiles_without_graph_breaks():
    embeddings, bandwidth = draw((1, 4, 6, 7)).float(), torch.tensor(0.5)
    expected = evaluate("auto", embeddings, bandwidth)
    leaf = embeddings.clone().requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(dense_mean_shift, fullgraph=True, backend="aot_eager")
    (gradient,) = torch.autograd.grad(compiled(leaf, bandwidth).sin().sum(), leaf)
    torch.testing.assert_close(gradient, expected[1])


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


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_float32_distances_around_a_common_vector(backend):
    """Embeddings that share a long vector: around the origin their distances would drown in rounding."""
    embeddings = 1.0 + 1e-2 * draw((1, 8, 6, 6))
    bandwidth = torch.tensor(1e-2)
    with use_backend(backend):
        actual = dense_mean_shift(embeddings.float(), bandwidth, num_iters=1)
    with use_backend("reference"):
        expected = dense_mean_shift(embeddings.float().double(), bandwidth.double(), num_iters=1)
    assert_close_to_max(actual.double(), expected, 8 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(dtype, backend):
    embeddings = draw((1, 8, 5, 5)).to(dtype)
    with use_backend(backend):
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


def test_what_its_kernels_do_not_take() -> None:
    calls = {
        "many_dimensions": lambda: ops.dense_mean_shift(*tensors((1, 129, 2, 3), ())),
        "not_float64": lambda: ops.dense_mean_shift(*tensors((1, 3, 2, 3), (), **DOUBLE)),
    }
    check_limits("dense_mean_shift", calls)
