"""The solver's optimiser: equal to torch's AdamW, whatever way a gradient reaches it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spectrafuse import use_backend
from spectrafuse.mcr.model import UnmixingModel, linear_layers, network
from spectrafuse.mcr.training.optimizer import OuterAdamW, stashing_network
from spectrafuse.random import RandomStream

OPTIONS: dict[str, Any] = {"lr": 5e-3, "betas": (0.9, 0.995), "weight_decay": 1e-3}
INPUTS, OUTPUTS = 6, 5


def _pair(hidden: int | None = 9, layers: int = 2) -> tuple[nn.Module, nn.Module]:
    """The same small network twice, in float64."""
    first = network(INPUTS, hidden, layers, OUTPUTS, nn.Tanh).double()
    stream = RandomStream(1)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.copy_(stream.normal(parameter.shape, 0.5, dtype=torch.float64))
    return first, copy.deepcopy(first)


def _batches(count: int) -> list[Tensor]:
    stream = RandomStream(2)
    return [stream.normal((4, INPUTS), dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize(("hidden", "layers"), [(None, 1), (9, 1), (9, 3)])
def test_equals_torch_with_ordinary_gradients(hidden: int | None, layers: int, backend: str) -> None:
    stashed, ordinary = _pair(hidden, layers)
    ours, theirs = OuterAdamW(stashed.parameters(), **OPTIONS), torch.optim.AdamW(ordinary.parameters(), **OPTIONS)
    with use_backend(backend):
        for x in _batches(12):
            leaves = [x.clone().requires_grad_(True) for _ in range(2)]
            # Used twice in one step: its gradients add up.
            once = stashing_network(linear_layers(stashed), "tanh", leaves[0], ours.stash)
            twice = stashing_network(linear_layers(stashed), "tanh", 0.5 * leaves[0], ours.stash)
            (once.square().sum() + (once * twice).sum()).backward()
            assert all(p.grad is None for p in stashed.parameters())
            ours.step()
            y, z = ordinary(leaves[1]), ordinary(0.5 * leaves[1])
            theirs.zero_grad()
            (y.square().sum() + (y * z).sum()).backward()
            theirs.step()
            torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-11, atol=1e-13)
    for one, two in zip(stashed.parameters(), ordinary.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_gradients_of_both_kinds_add_up_and_zero_grad_forgets_both() -> None:
    mixed, ordinary = _pair()
    ours, theirs = OuterAdamW(mixed.parameters(), **OPTIONS), torch.optim.AdamW(ordinary.parameters(), **OPTIONS)
    for x in _batches(4):
        stashing_network(linear_layers(mixed), "tanh", 3.0 * x, ours.stash).sum().backward()
        mixed(x).sum().backward()
        ours.zero_grad()
        stashing_network(linear_layers(mixed), "tanh", x, ours.stash).square().sum().backward()
        mixed(2.0 * x).sum().backward()
        ours.step()
        theirs.zero_grad()
        (ordinary(x).square().sum() + ordinary(2.0 * x).sum()).backward()
        theirs.step()
    for one, two in zip(mixed.parameters(), ordinary.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_states_are_exchanged_with_torch_in_both_directions() -> None:
    first, second = _pair()
    ours, theirs = OuterAdamW(first.parameters(), **OPTIONS), torch.optim.AdamW(second.parameters(), **OPTIONS)

    def both(x: Tensor) -> None:
        stashing_network(linear_layers(first), "tanh", x, ours.stash).square().sum().backward()
        ours.step()
        theirs.zero_grad()
        second(x).square().sum().backward()
        theirs.step()

    *before, last = _batches(5)
    for x in before:
        both(x)
    mine, other = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
    assert mine["state"].keys() == other["state"].keys()
    assert mine["state"][0].keys() == other["state"][0].keys()
    ours.load_state_dict(other)
    theirs.load_state_dict(mine)
    both(last)
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True])
def test_training_follows_the_reference_for_200_steps(sparse: bool) -> None:
    """Same start and noise: losses of the fused path against autograd, torch's AdamW and the reference operations."""
    options: dict[str, Any] = {"component_norm": 2, "hidden_size_extension": 2, "hidden_layers": 2}
    models = [UnmixingModel(7, 11, sparse_component=sparse, stream=RandomStream(3), **options) for _ in range(2)]
    parameters = [[p for p in model.parameters() if p.requires_grad] for model in models]
    settings: dict[str, Any] = {**OPTIONS, "lr": 5e-4}
    ours, theirs = OuterAdamW(parameters[0], **settings), torch.optim.AdamW(parameters[1], **settings)
    streams = RandomStream(4), RandomStream(4)
    data = RandomStream(5).uniform((12, 11))
    losses: list[list[float]] = [[], []]
    for step in range(200):
        x = data[step % 3 * 4 :][:4]
        for i, (model, optimizer, stream) in enumerate(zip(models, (ours, theirs), streams, strict=True)):
            with use_backend("reference" if i else "auto"):
                out = model.train()(x, model.draw_noise(4, stream), stash=None if i else ours.stash)
                loss = (out.mixture - x).square().mean() + 0.1 * out.select_prob.mean() + 0.1 * out.energy_square
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses[i].append(loss.item())
    assert losses[0][-1] < 0.5 * losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_callers_optimiser_finds_gradients() -> None:
    model = UnmixingModel(3, 4, sparse_component=False)
    model(torch.rand(2, 4), model.draw_noise(2, RandomStream(0))).mixture.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    stash = OuterAdamW([model.vanilla_components], **OPTIONS).stash
    model.zero_grad()
    model(torch.rand(2, 4), model.draw_noise(2, RandomStream(0)), stash=stash).mixture.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["vanilla_components"]


def test_a_closure_is_called_with_gradients() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = OuterAdamW([parameter], **OPTIONS)

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3.0
    assert (parameter < 1.0).all()


def test_a_step_under_a_number_that_a_tensor_holds_is_the_same_step() -> None:
    counted, numbered = _pair()
    ours, theirs = OuterAdamW(counted.parameters(), **OPTIONS), OuterAdamW(numbered.parameters(), **OPTIONS)
    number = torch.zeros(())
    for x in _batches(5):
        for module, optimizer in ((counted, ours), (numbered, theirs)):
            optimizer.zero_grad()
            stashing_network(linear_layers(module), "tanh", x, optimizer.stash).square().sum().backward()
        ours.step()
        theirs.step_as(number.add_(1.0))
    assert (ours.steps_done, theirs.steps_done) == (5, 0)
    theirs.advance(5)
    for one, two in zip(counted.parameters(), numbered.parameters(), strict=True):
        assert torch.equal(one, two)
        assert ours.state[one].keys() == theirs.state[two].keys()
        assert all(torch.equal(ours.state[one][name], theirs.state[two][name]) for name in ours.state[one])
    empty = OuterAdamW(_pair()[0].parameters(), **OPTIONS)
    empty.step_as(number)
    assert empty.steps_done == 0
