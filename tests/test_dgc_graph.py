"""The step on inputs that stay in place, as a CUDA graph replays it: the bits of the ordinary step."""

from __future__ import annotations

import dataclasses
import warnings
from contextlib import nullcontext

import pytest
import torch

from spectrafuse.dgc.graph import StaticStep
from spectrafuse.dgc.recipes import Recipe, corrected, published
from test_dgc_batches import trainer as trainer_with_gaps
from test_dgc_trainer import assert_same_bits, make_trainer

# Two scenes and a batch of three: one scene's pair is a smaller last batch.
RECIPES = [corrected, published, dataclasses.replace(published, fade_uniform=True)]


@pytest.mark.parametrize("recipe", RECIPES, ids=["corrected", "published", "faded"])
@pytest.mark.parametrize("make", [make_trainer, trainer_with_gaps], ids=["held", "gaps"])
def test_inputs_that_stay_in_place_change_no_bit(make: object, recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, max_epoch=3, reuse_iter=2)
    ordinary, static = (make(recipe) for _ in range(2))  # type: ignore[operator]
    static._step = StaticStep(static._step, record=False)
    ordinary.run()
    static.run()
    assert_same_bits(static, ordinary)


def test_a_smaller_last_batch_is_stepped_as_it_is() -> None:
    calls: list[int] = []
    static = make_trainer(dataclasses.replace(published, max_epoch=2, reuse_iter=1))
    static.batches.batch_size = 1
    ordinary_step = static._step
    held = StaticStep(
        lambda inputs: calls.append(inputs.batch.padded.data_ptr()) or ordinary_step(inputs), record=False
    )
    static._step = held
    static.run()
    assert held._inputs is not None
    assert set(calls) == {held._inputs.batch.padded.data_ptr()}
    calls.clear()
    inputs = held._inputs
    smaller = inputs._replace(
        batch=inputs.batch._replace(padded=inputs.batch.padded[:, :, :8], geometry=inputs.batch.geometry.clone()),
        labels=None,
    )
    static.recipe = corrected
    held._step = lambda inputs: calls.append(tuple(inputs.batch.padded.shape)) or torch.zeros(7)
    held(smaller)
    assert calls == [tuple(smaller.batch.padded.shape)]


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
    static._step = StaticStep(static._step, record=True)
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
