"""A training step on emulated CUDA kernels: the CPU's numbers, and nothing that waits for a GPU or copies to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.emulated_cuda import DEVICES, ORDERS, emulated, same_bits
from helpers.fake_driver import FakeDriver
from spectrafuse import RandomStream, use_backend
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.recipes import Recipe, corrected
from spectrafuse.mcr.training import gpu_step
from spectrafuse.mcr.training.gpu_step import GpuStep, step_of, why_not
from spectrafuse.mcr.training.optimizer import OuterAdamW
from spectrafuse.mcr.training.step import StepInputs, training_step
from spectrafuse.ops.skinny_linear import MOST_ROWS

LAUNCHES = {(False, 1): 24, (True, 1): 25, (False, 2): 30, (True, 2): 31}
"""In a step, by whether components are sparse, and the hidden layers of either network."""
EVERY_TERM = dataclasses.replace(corrected, energy_coef=1e-3, ambiguity_coef=0.3, used_threshold=0.45)
"""Terms that are tiny in the recipe weigh as much as the others, and some components are not used."""


def stepper(
    sparse: bool,
    *,
    recipe: Recipe = corrected,
    fused: bool = True,
    shape: tuple[int, int, int] = (5, 40, 65),
    device: str = "cpu",
    **form: Any,
) -> tuple[UnmixingModel, StepInputs, Callable[[], Tensor]]:
    """A model that begins the same every time, the inputs of a step, and the step; the first one makes moments."""
    rows, components, bands = shape
    stream = RandomStream(3)
    form = {"component_norm": 2, "hidden_size_extension": 2, **form}
    model = UnmixingModel(components, bands, sparse_component=sparse, stream=stream, **form).train()
    x, noise = stream.uniform((rows, bands)), model.draw_noise(rows, stream)
    model.to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OuterAdamW(trained, lr=1e-3, betas=(0.9, 0.995), weight_decay=1e-3)
    inputs = StepInputs(x, noise, torch.tensor(0.1), torch.ones(())).mapped(lambda tensor: tensor.to(device))
    train = step_of(model, optimizer, recipe) if fused else partial(training_step, model, optimizer, recipe)
    return model, inputs, lambda: train(inputs)


@pytest.mark.parametrize(("sparse", "layers"), LAUNCHES)
def test_a_step_neither_waits_nor_copies(sparse: bool, layers: int) -> None:
    with emulated():
        _, inputs, step = stepper(sparse, hidden_layers=layers)
        step()
        inputs.number.add_(1)
        with FakeDriver() as driver:
            step()
    assert driver.waits == []
    assert driver.copies == []
    assert driver.launches == LAUNCHES[sparse, layers]


FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"component_norm": 1, "hidden_layers": 2}, {"ambiguity_kernel": "laplacian"}),
    ({"component_norm": None, "non_negative_component": False}, {"ambiguity_kernel": "poly"}),
    ({"hidden_size_extension": None}, {"ambiguity_kernel": "matern"}),
    ({"learnable_component": False}, {}),
    ({}, {"ambiguity_coef": 0.0, "langevin_steps": 0}),
]


@pytest.mark.parametrize("place", DEVICES[1:])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("form", "terms"), FORMS, ids=lambda given: "-".join(map(str, given)) or "plain")
def test_steps_train_as_autograd_does(form: dict[str, Any], terms: dict[str, Any], sparse: bool, place: str) -> None:
    """Losses, and every parameter after three steps, in several orders of threads, against the reference."""
    recipe = dataclasses.replace(EVERY_TERM, **terms)
    if recipe.langevin_steps == 0:
        form = {**form, "langevin_steps": 0}

    def trained(fused: bool) -> list[Tensor]:
        device = "cuda" if fused and place == "cuda" else "cpu"
        model, inputs, step = stepper(sparse, recipe=recipe, shape=(4, 7, 9), fused=fused, device=device, **form)
        losses = []
        for _ in range(3):
            losses.append(step().clone())
            inputs.number.add_(1)
        return [t.detach().cpu() for t in (torch.stack(losses), *model.parameters())]

    found = []
    for order in ORDERS if place == "emulated" else ["as it comes"]:
        with emulated(order) if place == "emulated" else use_backend("cuda"):
            found.append(trained(fused=True))
    with use_backend("reference"):
        wanted = trained(fused=False)
    for other in found[1:]:
        assert all(same_bits(a, b) for a, b in zip(found[0], other, strict=True))
    for a, b in zip(found[0], wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


def test_what_the_kernels_do_not_know_goes_through_autograd() -> None:
    def chosen(recipe: Recipe = corrected, **form: Any) -> str:
        model = UnmixingModel(3, 4, **form).train()
        optimizer = OuterAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.995), weight_decay=1e-3)
        step = step_of(model, optimizer, recipe)
        assert isinstance(step, GpuStep) == (why_not(model, recipe) is None)
        return why_not(model, recipe) or ""

    assert "NVIDIA GPU" in chosen()
    with emulated():
        assert chosen() == ""
        assert "function of the caller" in chosen(component_post_processing=torch.relu)
        assert "linear" in chosen(dataclasses.replace(corrected, ambiguity_kernel="linear"))


def test_a_batch_of_more_rows_than_the_kernels_take_goes_through_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    result = torch.ones(2)
    monkeypatch.setattr(gpu_step, "training_step", lambda *arguments: result)
    with emulated():
        steps = [stepper(False, shape=(rows, 3, 4))[2] for rows in (MOST_ROWS, MOST_ROWS + 1)]
        assert [step() is result for step in steps] == [False, True]


@pytest.mark.parametrize("distribution", ["uniform", "normal", "logistic", "gumbel"])
def test_a_draw_is_one_launch(distribution: str) -> None:
    with emulated():
        stream, out = RandomStream(1), torch.zeros(5, 40)
        stream.fill(out, distribution)  # the first numbers are compared with torch's
        with FakeDriver() as driver:
            stream.fill(out, distribution, low=1.0, scale=2.0)
    assert driver.waits == []
    assert driver.copies == []
    assert driver.launches == 1


def test_the_driver_notices_what_waits_and_what_copies() -> None:
    x = torch.ones(3)
    with emulated(), FakeDriver() as driver:
        x.sum().item()
        x[x > 0]
        torch.tensor([1.0, 2.0])
    assert driver.waits == ["_local_scalar_dense", "index"]
    assert driver.copies == ["lift_fresh"]
    assert driver.launches == 2  # the sum and the comparison
