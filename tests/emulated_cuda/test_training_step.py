"""A training step on emulated CUDA kernels: the CPU's numbers, and nothing that waits for a GPU or copies to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from helpers.emulated_cuda import emulated
from helpers.fake_driver import FakeDriver
from spectrafuse import RandomStream, use_backend
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.recipes import corrected
from spectrafuse.mcr.training.optimizer import OuterAdamW
from spectrafuse.mcr.training.gpu_step import step_of
from spectrafuse.mcr.training.step import StepInputs

MOST_LAUNCHES = {False: 116, True: 124}
"""In a step, by whether components are sparse; they may only become fewer."""


def stepper(sparse: bool) -> Callable[[], Tensor]:
    """A step of a model that begins the same every time; the first one makes moments."""
    stream = RandomStream(3)
    model = UnmixingModel(
        40, 65, sparse_component=sparse, component_norm=2, hidden_size_extension=2, stream=stream
    ).train()
    optimizer = OuterAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.995), weight_decay=1e-3)
    x, number = stream.uniform((5, 65)), torch.ones(())
    inputs = StepInputs(x, model.draw_noise(5, stream), torch.tensor(0.1), number)

    train = step_of(model, optimizer, corrected)

    def step() -> Tensor:
        result = train(inputs)
        number.add_(1)
        return result

    return step


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_neither_waits_nor_copies(sparse: bool) -> None:
    with emulated():
        step = stepper(sparse)
        step()
        with FakeDriver() as driver:
            step()
    assert driver.waits == []
    assert driver.copies == []
    assert 20 < driver.launches <= MOST_LAUNCHES[sparse], f"{driver.launches} launches in a step"


@pytest.mark.parametrize("sparse", [False, True])
def test_steps_train_as_on_the_cpu(sparse: bool) -> None:
    results = []
    with emulated("random:2"):
        step = stepper(sparse)
        results.append(torch.stack([step() for _ in range(3)]))
    with use_backend("torch"):
        step = stepper(sparse)
        results.append(torch.stack([step() for _ in range(3)]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


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
