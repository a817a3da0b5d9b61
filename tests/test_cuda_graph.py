"""The step on inputs that stay in place, as a CUDA graph replays it: the bits of the ordinary step."""

from __future__ import annotations

import dataclasses
import warnings
from contextlib import nullcontext

import pytest
import torch

from helpers.dgc_training import assert_same_bits, make_trainer, trainer_with_gaps
from spectrafuse._runtime.cuda_graph import StaticStep
from spectrafuse.dgc.recipes import Recipe, corrected, published
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.dgc.training.step import StepInputs
from spectrafuse.random import RandomStream

RECIPES = [corrected, published, dataclasses.replace(published, fade_uniform=True)]


@pytest.mark.parametrize("recipe", RECIPES, ids=["corrected", "published", "faded"])
@pytest.mark.parametrize("make", [make_trainer, trainer_with_gaps], ids=["held", "gaps"])
def test_inputs_that_stay_in_place_change_no_bit(make: object, recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, max_epoch=3, reuse_iter=2)
    ordinary, static = (make(recipe) for _ in range(2))  # type: ignore[operator]
    static.step = StaticStep(static.step, record=False)
    ordinary.run()
    static.run()
    assert_same_bits(static, ordinary)


def inputs_of(pairs: int) -> StepInputs:
    stream = RandomStream(pairs)
    batch = CropBatch(stream.normal((2 * pairs, 3, 4, 4)), stream.normal((pairs, 2, 9)), None, 3)
    return StepInputs(batch, None, stream.normal((2, 5)), torch.tensor(0.0), torch.tensor(0.1))


def test_inputs_are_copied_to_one_place_and_a_smaller_last_batch_is_stepped_as_it_is() -> None:
    seen: list[StepInputs] = []

    def step(inputs: StepInputs) -> torch.Tensor:
        seen.append(inputs)
        return inputs.batch.padded.sum()

    static = StaticStep(step, record=False)
    first, second, last = inputs_of(2), inputs_of(2)._replace(noise=torch.ones(2, 5)), inputs_of(1)
    results = [static(inputs) for inputs in (first, second, last)]
    assert seen[1] is seen[0]
    assert seen[0].noise.data_ptr() not in (first.noise.data_ptr(), second.noise.data_ptr())
    assert torch.equal(seen[1].noise, second.noise)
    assert seen[2] is last
    assert [x.item() for x in results] == [x.batch.padded.sum().item() for x in (first, second, last)]


def test_a_step_that_cannot_be_recorded_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoStream:
        def wait_stream(self, other: object) -> None:
            pass

    class NoGraph:
        def __init__(self) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "Stream", NoStream)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", NoGraph)
    ordinary, static = make_trainer(), make_trainer()
    static.step = StaticStep(static.step, record=True)
    ordinary.run()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        static.run()
    messages = [str(w.message) for w in caught if "CUDA graph" in str(w.message)]
    assert messages == [
        "The training step could not be recorded as a CUDA graph (operation not permitted when stream is capturing); "
        "it runs without one."
    ]
    assert_same_bits(static, ordinary)
