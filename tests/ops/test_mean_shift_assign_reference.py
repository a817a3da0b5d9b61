"""The local mean shift in plain PyTorch, twice: against the goldens, each other and finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden
from spectrafuse.ops.mean_shift_assign import pytorch as composed
from spectrafuse.ops.mean_shift_assign import reference

LOCAL_GOLDENS = [f"dgc_mean_shift_{i}" for i in (0, 1, 2, 3, 7)]
implementations = pytest.mark.parametrize("module", [reference, composed], ids=["reference", "composed"])


@implementations
@pytest.mark.parametrize("name", LOCAL_GOLDENS)
def test_golden(module, name):
    values = golden(name)
    assert values["local"] is True
    embeddings = values["embeddings"].requires_grad_()
    centers = values["centers"].requires_grad_()
    log_bandwidth = torch.tensor(values["log_bandwidth"], dtype=torch.float64, requires_grad=True)
    shifted, probs = module.mean_shift_assign(
        embeddings,
        centers,
        F.softplus(log_bandwidth),
        num_iters=values["num_iters"],
        window=values["window"],
        temperature=values["temperature"],
    )
    assert_close_to_max(shifted, values["shifted"], GOLDEN_RTOL)
    assert_close_to_max(probs, values["probs"], GOLDEN_RTOL)
    assert torch.equal(probs.argmax(-1), values["labels"])
    objective = (shifted * values["grad_shifted"]).sum() + (probs * values["grad_probs"]).sum()
    gradients = torch.autograd.grad(objective, (embeddings, centers, log_bandwidth))
    for gradient, key in zip(gradients, ("embeddings", "centers", "log_bandwidth"), strict=True):
        assert_close_to_max(gradient, values[f"grad_{key}"], GOLDEN_GRADIENT_RTOL)


def draw(shape, clusters, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(shape, generator=generator, dtype=dtype), dim=1)
    centers = F.normalize(torch.randn(clusters, shape[1], generator=generator, dtype=dtype), dim=1)
    return embeddings, centers, torch.tensor(0.6, dtype=dtype)


SHAPES = [
    ((1, 1, 1, 1), 1, 1, 3),
    ((1, 8, 1, 1), 3, 5, 5),
    ((2, 5, 1, 17), 4, 5, 3),
    ((2, 5, 17, 1), 4, 3, 2),
    ((1, 7, 13, 11), 2, 7, 4),
    ((1, 3, 4, 3), 5, 11, 2),
    ((2, 4, 5, 6), 3, 9, 1),
    ((0, 4, 5, 6), 3, 3, 2),
    ((1, 4, 5, 6), 3, 3, 0),
]


@pytest.mark.parametrize(("shape", "clusters", "window", "num_iters"), SHAPES)
def test_composed_agrees_with_reference(shape, clusters, window, num_iters):
    results = []
    for module in (reference, composed):
        inputs = [t.requires_grad_() for t in draw(shape, clusters, seed=sum(shape) + window)]
        shifted, probs = module.mean_shift_assign(*inputs, num_iters=num_iters, window=window, temperature=0.1)
        assert shifted.shape == shape
        assert probs.shape == (shape[0], *shape[2:], clusters)
        objective = (shifted.sin()).sum() + (probs.cos() * torch.arange(clusters)).sum()
        gradients = torch.autograd.grad(objective, inputs, allow_unused=True, materialize_grads=True)
        results.append((shifted, probs, *gradients))
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@implementations
def test_gradient_of_the_last_iteration(module):
    """The start point is a constant of the last iteration, so an independent formula keeps it fixed."""
    embeddings, centers, bandwidth = (t.requires_grad_() for t in draw((1, 3, 3, 4), 2, seed=5))
    start = embeddings.detach().clone()

    def literal(embeddings, bandwidth):
        padded = F.pad(embeddings, (1, 1, 1, 1))
        windows = torch.stack([padded[:, :, y : y + 3, x : x + 4] for y in range(3) for x in range(3)])
        weights = torch.exp(-(windows - start).square().sum(2, keepdim=True) / (2 * bandwidth**2))
        return (weights * windows).sum(0) / (weights.sum(0) + 1e-6)

    assert torch.autograd.gradcheck(literal, (embeddings, bandwidth))
    weight = torch.randn_like(start)
    expected = torch.autograd.grad((literal(embeddings, bandwidth) * weight).sum(), (embeddings, bandwidth))
    shifted, _ = module.mean_shift_assign(embeddings, centers, bandwidth, num_iters=1, window=3, temperature=0.1)
    actual = torch.autograd.grad((shifted * weight).sum(), (embeddings, bandwidth))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-12)


@implementations
def test_gradcheck_of_the_assignment(module):
    shifted, centers, _ = draw((2, 3, 2, 3), 4, seed=8)
    inputs = (shifted.requires_grad_(), centers.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, c: module.assign(s, c, 0.3), inputs)


def test_gradcheck_of_the_hand_written_backward():
    embeddings, _, _ = draw((1, 2, 3, 3), 1, seed=9)
    point = draw((1, 2, 3, 3), 1, seed=10)[0]
    inverse = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda e, s: composed._LastShift.apply(e, point, s, 5), (embeddings.requires_grad_(), inverse)
    )


@implementations
def test_zero_vectors_outside_the_image_are_neighbours(module):
    embeddings = torch.tensor([[[[1.0]], [[0.0]]]], dtype=torch.float64)
    bandwidth = torch.tensor(1.0, dtype=torch.float64)
    shifted, _ = module.mean_shift_assign(
        embeddings, torch.eye(2, dtype=torch.float64), bandwidth, num_iters=1, window=3, temperature=1.0
    )
    outside = torch.exp(torch.tensor(-0.5, dtype=torch.float64))
    torch.testing.assert_close(shifted[0, 0, 0, 0], 1 / (1 + 8 * outside + 1e-6))


@implementations
def test_inputs_that_are_not_contiguous(module):
    embeddings, centers, bandwidth = draw((2, 6, 5, 7), 3, seed=3)
    options = {"num_iters": 2, "window": 3, "temperature": 0.1}
    expected = module.mean_shift_assign(embeddings, centers, bandwidth, **options)
    strided = embeddings.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    actual = module.mean_shift_assign(strided, centers.t().contiguous().t(), bandwidth, **options)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_composed_in_narrower_floats(dtype):
    embeddings, centers, bandwidth = draw((2, 16, 9, 8), 3, seed=4)
    rounded = [t.to(dtype) for t in (embeddings, centers, bandwidth)]
    options = {"num_iters": 3, "window": 5, "temperature": 0.1}
    actual = composed.mean_shift_assign(*rounded, **options)
    expected = reference.mean_shift_assign(*(t.double() for t in rounded), **options)
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype
        # Computed in float32, rounded once at the end.
        assert_close_to_max(a.double(), e, 32 * torch.finfo(torch.float32).eps + torch.finfo(dtype).eps)


def test_float32_distances_do_not_cancel():
    """Embeddings that differ in the last digits: |p|^2 + |z|^2 - 2 p z would lose the distance altogether."""
    generator = torch.Generator().manual_seed(1)
    base = F.normalize(torch.randn(1, 16, 1, 1, generator=generator, dtype=torch.float64), dim=1)
    embeddings = (base + 1e-3 * torch.randn(1, 16, 6, 6, generator=generator, dtype=torch.float64)).float()
    centers, bandwidth = torch.eye(16)[:2], torch.tensor(2e-3)
    options = {"num_iters": 2, "window": 3, "temperature": 0.1}
    actual, _ = composed.mean_shift_assign(embeddings, centers, bandwidth, **options)
    expected, _ = reference.mean_shift_assign(embeddings.double(), centers.double(), bandwidth.double(), **options)
    assert_close_to_max(actual.double(), expected, 20 * torch.finfo(torch.float32).eps)


def test_composed_keeps_no_window_sized_tensors():
    embeddings, centers, bandwidth = draw((1, 8, 12, 12), 2, seed=6)
    saved = 0

    def pack(tensor):
        nonlocal saved
        saved += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        composed.mean_shift_assign(
            embeddings.requires_grad_(), centers, bandwidth, num_iters=5, window=7, temperature=0.1
        )
    assert saved < 8 * embeddings.numel()


@implementations
def test_zero_embeddings_belong_to_all_clusters_alike(module):
    _, centers, bandwidth = draw((1, 4, 3, 3), 5, seed=7)
    embeddings = torch.zeros(1, 4, 3, 3, dtype=torch.float64)
    shifted, probs = module.mean_shift_assign(embeddings, centers, bandwidth, num_iters=2, window=3, temperature=0.05)
    assert not shifted.any()
    torch.testing.assert_close(probs, torch.full_like(probs, 0.2))
