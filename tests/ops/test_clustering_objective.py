"""The training objective: every term, the sums for the centers, pixels that do not count."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from helpers.clustering_inputs import aligned_by_loops, divergence, draw, draw_valid, plain_views
from spectrafuse import use_backend
from spectrafuse.benchmarks.published.encoder import encode
from spectrafuse.ops.clustering_objective import ClusteringTerms, clustering_objective
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.ops.mean_shift_assign import mean_shift_assign
from spectrafuse.ops.mean_shift_assign.reference import assign

backends = pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu", "auto"])
def test_golden_training_step(backend):
    values = golden("dgc_train_step")
    parameters = {name: value.clone().requires_grad_() for name, value in state(values, "state").items()}
    encoder = {name[8:]: value for name, value in parameters.items() if name.startswith("encoder.")}
    weights = values["config"]["loss_weights"]
    embeddings = torch.cat((encode(values["crop1"], encoder), encode(values["crop2"], encoder)))
    with use_backend(backend):
        terms = clustering_objective(
            embeddings,
            parameters["cluster.cluster_centers"],
            F.softplus(parameters["cluster.log_bandwidth"]),
            None,
            num_iters=5,
            aligned=False,
            pseudo_labels=torch.stack((values["pseudo_labels1"], values["pseudo_labels2"])),
            memory_order_sums=True,
        )
    for actual, key in zip(
        (*terms.compactness, terms.uniform, terms.orthogonality, terms.balance, terms.consistency),
        ("comp1", "comp2", "unif", "orth", "bal", "cons"),
        strict=True,
    ):
        assert_close_to_max(actual, values[f"loss.{key}"], GOLDEN_RTOL)
    assert_close_to_max(terms.probs, torch.cat((values["ema.p1"], values["ema.p2"])), GOLDEN_RTOL)
    probs = torch.cat([values[f"ema.p{view}"].reshape(-1, 5) for view in (1, 2)])
    rows = torch.cat([values[f"ema.z{view}"].reshape(-1, 16) for view in (1, 2)])
    assert_close_to_max(terms.mass, probs.sum(0), GOLDEN_RTOL)
    assert_close_to_max(terms.sums, probs.t() @ rows, GOLDEN_RTOL)

    total = (
        terms.compactness.sum()
        + weights["unif"] * terms.uniform
        + weights["orth"] * terms.orthogonality
        + weights["bal"] * terms.balance
        + weights["cons"] * terms.consistency
    )
    assert_close_to_max(total, values["total"], GOLDEN_RTOL)
    total.backward()
    for name, expected in state(values, "grad").items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert_close_to_max(gradient, expected, GOLDEN_GRADIENT_RTOL)


CASES = [
    (1, (1, 1), 1),
    (1, (1, 1), 3),
    (2, (1, 7), 2),
    (1, (5, 1), 4),
    (3, (6, 5), 3),
    (1, (11, 13), 2),
]


@pytest.mark.parametrize(
    "options", [{}, {"aligned": False}, {"dense": True}, {"memory_order_sums": True, "valid": None}]
)
@pytest.mark.parametrize(("batch", "crop", "clusters"), CASES)
def test_torch_agrees_with_reference(batch, crop, clusters, options):
    results = []
    for backend in ("reference", "torch"):
        *inputs, geometry, labels = draw(batch, crop, clusters, seed=batch + sum(crop))
        options = {"valid": draw_valid(inputs[0], seed=batch), **options}
        inputs = [t.requires_grad_() for t in inputs]
        with use_backend(backend):
            terms = clustering_objective(
                *inputs, geometry, num_iters=2, window=3, temperature=0.2, pseudo_labels=labels, **options
            )
        loss = sum((weight + 1) * term.sum() for weight, term in enumerate(terms[:5]))
        gradients = torch.autograd.grad(loss + terms.probs.square().sum(), inputs)
        results.append((*terms, *gradients))
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@backends
def test_terms_by_their_formulas(backend):
    embeddings, centers, bandwidth, geometry, labels = draw(2, (4, 3), 3, seed=1)
    embeddings.requires_grad_()
    with use_backend(backend):
        terms = clustering_objective(embeddings, 1.3 * centers, bandwidth, geometry, pseudo_labels=labels)
        without_labels = clustering_objective(embeddings, 1.3 * centers, bandwidth, geometry)
        unaligned = clustering_objective(embeddings, 1.3 * centers, bandwidth, None, aligned=False)
    assert isinstance(terms, ClusteringTerms)
    probs = terms.probs.detach()
    torch.testing.assert_close(terms.mass, probs.sum((0, 1, 2)))
    assert not terms.mass.requires_grad
    assert not terms.sums.requires_grad
    assert without_labels.uniform.item() == 0
    for view in range(2):
        q, z = probs[2 * view : 2 * view + 2], embeddings[2 * view : 2 * view + 2]
        distance = (1 - torch.einsum("bdhw,kd->bhwk", z, 1.3 * centers)).clamp(min=0)
        torch.testing.assert_close(terms.compactness[view], (q * distance).sum() / (2 * 12))
        assert (distance == 0).any(), "the clamp is not exercised"
    likelihood = probs.reshape(-1, 3)[torch.arange(48), labels.reshape(-1)]
    torch.testing.assert_close(terms.uniform.detach(), -likelihood.clamp(min=1e-6).log().mean())
    marginal = probs.reshape(2, -1, 3).mean(1) + 1e-6
    torch.testing.assert_close(terms.balance.detach(), -(marginal * marginal.log()).sum(1).mean())
    views = probs.unflatten(0, (2, 2))
    consistency, pairs = aligned_by_loops(views, views, geometry)
    torch.testing.assert_close(terms.consistency.detach(), consistency)
    assert terms.counts.tolist() == [24, 24, pairs]
    assert unaligned.counts.tolist() == [24, 24, 24]
    torch.testing.assert_close(
        unaligned.consistency.detach(), divergence(probs[:2].flatten(0, 2), probs[2:].flatten(0, 2)) / 24
    )
    gram = 1.69 * centers @ centers.t()
    torch.testing.assert_close(terms.orthogonality, (gram - torch.eye(3)).square().sum())


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_all_pixels_as_neighbours(backend):
    embeddings, centers, bandwidth, geometry, _ = draw(2, (4, 3), 3, seed=1)
    with use_backend(backend):
        shifted = dense_mean_shift(embeddings, bandwidth, num_iters=2)
        dense = clustering_objective(embeddings, centers, bandwidth, geometry, num_iters=2, dense=True)
    torch.testing.assert_close(dense.probs, assign(shifted, centers, 0.05))
    torch.testing.assert_close(dense.sums, torch.einsum("bhwk,bdhw->kd", dense.probs, shifted))


@backends
@pytest.mark.parametrize("aligned", [True, False])
def test_only_valid_pixels_count(backend, aligned):
    """Every term, mass and sum again from the assignments, pixel by pixel."""
    embeddings, centers, bandwidth, geometry, labels = draw(2, (7, 6), 3, seed=11)
    valid = draw_valid(embeddings, 12, share=0.8)
    leaf = embeddings.requires_grad_()
    options = {"num_iters": 2, "window": 3, "temperature": 0.5, "pseudo_labels": labels, "aligned": aligned}
    with use_backend(backend):
        terms = clustering_objective(leaf, centers, bandwidth, geometry, valid=valid, **options)
        everything = clustering_objective(leaf, centers, bandwidth, geometry, **options)
        all_valid = clustering_objective(leaf, centers, bandwidth, geometry, valid=valid | True, **options)
        shifted = mean_shift_assign(leaf, centers, bandwidth, num_iters=2, window=3).shifted.detach()
    for a, b in zip(all_valid, everything, strict=True):
        torch.testing.assert_close(a, b)
    # Pixels that are not valid are still neighbours, and still get an assignment.
    torch.testing.assert_close(terms.probs, everything.probs)
    probs = terms.probs.detach()
    weighted = probs * valid.unsqueeze(-1)
    torch.testing.assert_close(terms.mass, weighted.sum((0, 1, 2)))
    torch.testing.assert_close(terms.sums, torch.einsum("bhwk,bdhw->kd", weighted, shifted))
    surprise, entropy = [], []
    for view in range(2):
        span = slice(2 * view, 2 * view + 2)
        chosen, z = probs[span][valid[span]], embeddings.detach()[span].movedim(1, -1)[valid[span]]
        distance = (1 - z @ centers.t()).clamp(min=0)
        torch.testing.assert_close(terms.compactness[view], (chosen * distance).sum() / len(z))
        likelihood = chosen.gather(1, labels[view][valid[span].reshape(-1)].unsqueeze(1))
        surprise.append(-likelihood.clamp(min=1e-6).log().mean())
        marginal = chosen.mean(0) + 1e-6
        entropy.append(-(marginal * marginal.log()).sum())
    torch.testing.assert_close(terms.uniform.detach(), sum(surprise) / 2)
    torch.testing.assert_close(terms.balance.detach(), sum(entropy) / 2)
    if aligned:
        by_view = probs.unflatten(0, (2, 2))
        expected, count = aligned_by_loops(by_view, by_view, geometry, valid.unflatten(0, (2, 2)))
        assert 0 < count < aligned_by_loops(by_view, by_view, geometry)[1]
    else:
        both = valid[:2] & valid[2:]
        expected = divergence(probs[:2][both], probs[2:][both]) / both.sum()
    torch.testing.assert_close(terms.consistency.detach(), expected)
    # No gradient reaches a pixel that is not valid and has no valid one in its window.
    loss = sum(term.sum() for term in terms[:5])
    alone = F.max_pool2d(valid.double().unsqueeze(1), 3, stride=1, padding=1).squeeze(1) == 0
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert not gradient.movedim(1, -1)[alone].any()


@backends
def test_a_read_at_a_whole_pixel_touches_that_pixel_only(backend):
    """Whatever the rounding of the coordinates: the invalid neighbours of an exact read do not matter."""
    embeddings, centers, bandwidth, _, _ = draw(1, (6, 7), 2, seed=13)
    valid = torch.ones(2, 6, 7, dtype=torch.bool)
    valid[1, :, 3] = False
    with use_backend(backend):
        terms = clustering_objective(
            embeddings, centers, bandwidth, plain_views((2.0, 5.0), (4.0, 2.0)), temperature=0.5, valid=valid
        )
    first, second = terms.probs[0, 2:, :4], terms.probs[1, :4, 3:]
    # Columns 3 of the second view meet columns 0 of the first; the other three columns count, both ways.
    torch.testing.assert_close(terms.consistency, divergence(first[:, 1:], second[:, 1:]) / 12)


@backends
@pytest.mark.parametrize("aligned", [True, False])
def test_no_valid_pixel_gives_zero(backend, aligned):
    *inputs, geometry, labels = draw(2, (5, 4), 3, seed=14)
    inputs = [t.requires_grad_() for t in inputs]
    valid = torch.zeros(4, 5, 4, dtype=torch.bool)
    options = {"pseudo_labels": labels, "aligned": aligned}
    with use_backend(backend):
        nothing = clustering_objective(*inputs, geometry, valid=valid, **options)
        first_view = torch.tensor([True, True, False, False])[:, None, None].expand(4, 5, 4)
        one_view = clustering_objective(*inputs, geometry, valid=first_view, **options)
        everything = clustering_objective(*inputs, geometry, **options)
    for value in (nothing.compactness, nothing.uniform, nothing.balance, nothing.consistency, nothing.mass):
        assert not value.any()
    assert not nothing.sums.any()
    loss = nothing.compactness.sum() + nothing.uniform + nothing.balance + nothing.consistency
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, inputs))
    assert one_view.consistency == 0
    torch.testing.assert_close(one_view.compactness[0], everything.compactness[0])
    assert one_view.compactness[1] == 0
    assert 0 < one_view.balance < everything.balance


@backends
def test_terms_without_assignments(backend):
    *inputs, labels = draw(1, (5, 4), 3)
    with use_backend(backend), torch.no_grad():
        short = clustering_objective(*inputs, pseudo_labels=labels, return_probs=False)
        full = clustering_objective(*inputs, pseudo_labels=labels)
    assert short.probs.shape == (0, 5, 4, 3)
    for a, b in zip(short[:7], full[:7], strict=True):
        assert torch.equal(a, b)


@backends
@pytest.mark.parametrize("aligned", [True, False])
def test_no_pair_gives_zero(backend, aligned):
    *inputs, _, _ = draw(1, (5, 4), 3)
    inputs[0] = inputs[0][:0]
    inputs = [t.requires_grad_() for t in inputs]
    with use_backend(backend):
        terms = clustering_objective(
            *inputs,
            torch.zeros(0, 2, 9),
            pseudo_labels=torch.zeros(2, 0, dtype=torch.int64),
            aligned=aligned,
            valid=torch.ones(0, 5, 4, dtype=torch.bool) if aligned else None,
        )
    for value in (terms.compactness, terms.uniform, terms.balance, terms.consistency, terms.mass, terms.sums):
        assert not value.any()
    assert terms.probs.shape == (0, 5, 4, 3)
    loss = terms.compactness.sum() + terms.uniform + terms.balance + terms.consistency
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrower_floats(dtype):
    *inputs, geometry, labels = draw(2, (9, 8), 3, seed=2)
    rounded = [t.to(dtype) for t in inputs]
    rounded[0] = rounded[0].requires_grad_()
    with use_backend("torch"):
        actual = clustering_objective(*rounded, geometry.float(), temperature=1.0, pseudo_labels=labels)
        expected = clustering_objective(
            *(t.detach().double() for t in rounded), geometry, temperature=1.0, pseudo_labels=labels
        )
    for a, e in zip(actual, expected, strict=True):
        # The assignments are rounded to the narrow type before they enter the losses.
        assert_close_to_max(a.double(), e, 4 * torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps)
    actual.consistency.backward()
    assert rounded[0].grad is not None
    assert rounded[0].grad.dtype == dtype


@backends
def test_strided_inputs(backend):
    embeddings, centers, bandwidth, geometry, labels = draw(2, (5, 4), 3, seed=3)
    strided = embeddings.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    with use_backend(backend):
        for options in ({}, {"memory_order_sums": True}):
            expected = clustering_objective(embeddings, centers, bandwidth, geometry, pseudo_labels=labels, **options)
            actual = clustering_objective(strided, centers, bandwidth, geometry, pseudo_labels=labels, **options)
            for a, e in zip(actual, expected, strict=True):
                torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embeddings": torch.zeros(3, 2, 4, 4)}, ValueError, r"`embeddings` must be of shape \(2B, D, h, w\)"),
        ({"embeddings": torch.zeros(4, 2, 0, 4)}, ValueError, "with D, h and w at least 1"),
        ({"valid": torch.ones(4, 4, 4)}, TypeError, "`valid` must have one of the dtypes bool"),
        ({"valid": torch.ones(2, 4, 4, dtype=torch.bool)}, ValueError, r"`valid` must be of shape \(4, 4, 4\)"),
        ({"centers": torch.zeros(3, 5)}, ValueError, r"`centers` must be of shape \(K, 2\)"),
        ({"centers": torch.zeros(3, 2).double()}, TypeError, "`centers` must have dtype"),
        ({"geometry": None}, ValueError, "`geometry` must be given where aligned=True"),
        ({"geometry": torch.zeros(1, 2, 9)}, ValueError, r"`geometry` must be of shape \(2, 2, 9\)"),
        ({"pseudo_labels": torch.zeros(2, 31, dtype=torch.int64)}, ValueError, r"of shape \(2, 32\)"),
        ({"pseudo_labels": torch.zeros(2, 32)}, TypeError, "`pseudo_labels` must have one of the dtypes int64"),
        ({"temperature": 0.0}, ValueError, "`temperature`"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {
        "embeddings": torch.zeros(4, 2, 4, 4),
        "centers": torch.zeros(3, 2),
        "bandwidth": torch.tensor(1.0),
        "geometry": torch.zeros(2, 2, 9),
    }
    with pytest.raises(error, match=message):
        clustering_objective(**{**arguments, **change})
