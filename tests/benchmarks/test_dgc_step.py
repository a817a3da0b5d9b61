"""The published training step: encoder, losses with gradients, center update, and all of it together."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from spectrafuse import RandomStream
from spectrafuse.benchmarks.published.dgc_step import forward, train_step
from spectrafuse.benchmarks.published.encoder import encode
from spectrafuse.dgc.training.centers import update_centers


@pytest.mark.parametrize("name", ["dgc_encoder_0", "dgc_encoder_1"])
def test_golden_encoder(name):
    values = golden(name)
    cubes = values["x"].requires_grad_()
    parameters = {name: value.requires_grad_() for name, value in state(values, "state").items()}
    out = encode(cubes, parameters)
    assert_close_to_max(out, values["out"], GOLDEN_RTOL)
    (out * values["grad_out"]).sum().backward()
    assert_close_to_max(cubes.grad, values["grad_x"], GOLDEN_GRADIENT_RTOL)
    gradients = state(values, "grad")
    assert gradients.keys() == parameters.keys()
    for key, expected in gradients.items():
        assert_close_to_max(parameters[key].grad, expected, GOLDEN_GRADIENT_RTOL)


def training_step():
    values = golden("dgc_train_step")
    parameters = {name: value.clone().requires_grad_() for name, value in state(values, "state").items()}
    labels = torch.stack((values["pseudo_labels1"], values["pseudo_labels2"]))
    return values, parameters, (values["crop1"], values["crop2"]), labels, values["config"]["loss_weights"]


def test_golden_forward_and_backward():
    values, parameters, views, labels, weights = training_step()
    total, terms, shifted, probs = forward(parameters, views, labels, weights)
    assert_close_to_max(total, values["total"], GOLDEN_RTOL)
    assert terms.keys() == {"comp1", "comp2", "unif", "orth", "bal", "cons"}
    for key, term in terms.items():
        assert_close_to_max(term, values[f"loss.{key}"], GOLDEN_RTOL)
    for view in range(2):
        assert_close_to_max(shifted[view], values[f"ema.z{view + 1}"], GOLDEN_RTOL)
        assert_close_to_max(probs[view], values[f"ema.p{view + 1}"], GOLDEN_RTOL)
    total.backward()
    for name, expected in state(values, "grad").items():
        assert_close_to_max(parameters[name].grad, expected, GOLDEN_GRADIENT_RTOL)


def published_sums(shifted, probs):
    """Mass and sums with the published pairing, from lists of both views."""
    rows = torch.cat([z.reshape(-1, z.shape[1]) for z in shifted])
    assignments = torch.cat([p.reshape(-1, p.shape[-1]) for p in probs])
    return assignments.sum(0), assignments.t() @ rows


def test_golden_center_update():
    values = golden("dgc_ema")
    mass, sums = published_sums((values["z1"], values["z2"]), (values["p1"], values["p2"]))
    before = values["centers_before"].clone()
    after = update_centers(before, mass, sums, values["decay"], values["kick"], values["kick_noise"])
    assert_close_to_max(after, values["centers_after"], GOLDEN_RTOL)
    assert torch.equal(before, values["centers_before"])


def test_centers_without_mass_are_kicked():
    stream = RandomStream(1)
    centers, sums, noise = (stream.normal((4, 3), dtype=torch.float64) for _ in range(3))
    mass = torch.tensor([5.0, 0.0, 1.0001e-3, 0.99e-3], dtype=torch.float64)
    after = update_centers(centers, mass, sums, 0.9, 0.5, noise)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(4, dtype=torch.float64))
    for index, alive in enumerate((True, False, True, False)):
        moved = 0.9 * centers[index] + 0.1 * sums[index] / (mass[index] + 1e-8 + 1e-6)
        expected = moved if alive else centers[index] + 0.5 * noise[index]
        torch.testing.assert_close(after[index], F.normalize(expected, dim=0))


def test_a_whole_step_is_its_parts():
    """AdamW applied by hand to the golden gradients, then the second forward pass and the center update."""
    values, parameters, views, labels, weights = training_step()
    stream = RandomStream(2)
    second_labels = torch.stack([labels[view][stream.permutation(labels.shape[1])] for view in range(2)])
    noise = stream.normal((5, 16), dtype=torch.float64)
    gradients = state(values, "grad")
    norm = torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt()
    assert norm > 0.5, "the clip must be exercised"
    expected = {}
    for name, value in state(values, "state").items():
        gradient = gradients[name] * (0.5 / (norm + 1e-6))
        # The first step of AdamW: both moments, corrected for their start, are the gradient and its square.
        expected[name] = value * (1 - 1e-3 * 0.01) - 1e-3 * gradient / (gradient.abs() + 1e-8)
    total, terms, shifted, probs = forward(expected, views, second_labels, weights)
    mass, sums = published_sums(shifted, probs)
    centers = update_centers(expected["cluster.cluster_centers"], mass, sums, 0.9, 0.05, noise)
    expected["cluster.cluster_centers"] = centers

    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
    logged = train_step(
        parameters,
        optimizer,
        views,
        torch.stack((labels, second_labels)),
        noise,
        weights,
        decay=0.9,
        max_norm=0.5,
    )
    # AdamW divides gradients by their own size, which magnifies what rounding leaves of the smallest of them.
    for name, value in parameters.items():
        torch.testing.assert_close(value.detach(), expected[name], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(logged["total"], total, rtol=1e-6, atol=0)
    for key, term in terms.items():
        torch.testing.assert_close(logged[key], term, rtol=1e-5, atol=1e-8)
    assert not any(value.requires_grad for value in logged.values())


def test_steps_train_and_repeat_bit_for_bit():
    runs = []
    for _ in range(2):
        _, parameters, views, labels, weights = training_step()
        optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
        noise = torch.zeros(5, 16, dtype=torch.float64)
        history = [
            train_step(parameters, optimizer, views, torch.stack((labels, labels)), noise, weights)["total"]
            for _ in range(4)
        ]
        runs.append((torch.stack(history), parameters))
    assert runs[0][0][-1] < runs[0][0][0]
    assert torch.equal(runs[0][0], runs[1][0])
    for name, value in runs[0][1].items():
        assert torch.equal(value, runs[1][1][name])
    norms = runs[0][1]["cluster.cluster_centers"].detach().norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(5, dtype=torch.float64))
