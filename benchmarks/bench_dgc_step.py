"""The whole training step of DGC without the crops, and its encoder in the layouts crops could have.

Batch 4, 301 bands, 64 x 64 pixels, 32 dimensions, 4 clusters, 5 iterations, window 5, float32. The published step is
the reference of both recipes: `corrected` does without its second forward pass. `drop_in` is the step of the published
trainer's stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from tempfile import TemporaryDirectory
from unittest import mock

import pytest
import torch

from spectrafuse import RandomStream, use_backend
from spectrafuse.benchmarks import harness, measure
from spectrafuse.benchmarks.published import dgc_step
from spectrafuse.benchmarks.statistic import FEWEST
from spectrafuse.compat.hsi_global_clustering import HSIClusteringTrainer, HyperspectralClusteringModel
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import RECIPES, Recipe, published
from spectrafuse.dgc.training import objective
from spectrafuse.dgc.training.batches import CropBatches
from spectrafuse.dgc.training.initialise import new_model
from spectrafuse.dgc.training.objective import random_labels
from spectrafuse.dgc.training.step import StepInputs, training_step

BATCH, BANDS, CROP, DIM, CLUSTERS = 4, 301, 64, 32, 4
WEIGHTS = {f"lambda_{name}": weight for name, weight in published.loss_weights.items()}
WITHOUT_KERNEL = "objective_in_torch"


def model_and_inputs(recipe: Recipe = published) -> tuple[SegmentationModel, StepInputs]:
    stream = RandomStream(0)
    model = new_model(recipe, BANDS, CLUSTERS, stream, embed_dim=DIM)
    batches = CropBatches([stream.normal((BANDS, 128, 128))] * BATCH, published, CROP, BATCH, 0)
    labels = torch.stack([random_labels(BATCH * CROP * CROP, CLUSTERS, stream) for _ in range(2)])
    noise = stream.normal((CLUSTERS, DIM))
    return model, StepInputs(next(batches.epoch(1)), labels, noise, torch.tensor(2.0), torch.tensor(0.05))


def optimizer_of(model: SegmentationModel, *, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)


@contextmanager
def objective_in_torch() -> Iterator[None]:
    original = objective.clustering_objective

    def in_torch(*args: object, **kwargs: object) -> object:
        with use_backend("torch"):
            return original(*args, **kwargs)

    with mock.patch.object(objective, "clustering_objective", in_torch):
        yield


def own_step(implementation: str, recipe: str) -> Callable[[], object]:
    model, inputs = model_and_inputs(RECIPES[recipe])
    if not RECIPES[recipe].uniform:
        inputs = inputs._replace(labels=None)
    step = partial(training_step, model, optimizer_of(model, fused=True), RECIPES[recipe], inputs)

    def run() -> object:
        with objective_in_torch() if implementation == WITHOUT_KERNEL else use_backend(implementation):
            return step()

    return run


def drop_in_step() -> Callable[[], object]:
    """The stand-in for the published trainer, as a script that imports the published package runs it."""
    model, inputs = model_and_inputs()
    encoder = {"embed_dim": DIM, "spectral_kernel_size": 9, "bias": False}
    own = HyperspectralClusteringModel(BANDS, encoder, {"embed_dim": DIM, "n_clusters": CLUSTERS})
    own.load_state_dict(model.state_dict())
    views = torch.stack(inputs.batch.views.contiguous().chunk(2), dim=1)
    with TemporaryDirectory() as folder:
        trainer = HSIClusteringTrainer(
            None, augmentor=lambda cubes: views, model=own, precision="fp32", log_dir=folder, ckpt_dir=folder
        )
    return partial(trainer._step, views, dict(WEIGHTS), 0.05)


def published_step(*, compiled: bool, device: str = "cpu") -> Callable[[], object]:
    model, inputs = model_and_inputs()
    model, inputs = model.to(device), inputs.mapped(lambda tensor: tensor.to(device))
    views = tuple(inputs.batch.views.contiguous().chunk(2))
    optimizer = optimizer_of(model, fused=False)
    forward = torch.compile(dgc_step.forward) if compiled else dgc_step.forward

    def run() -> object:
        with mock.patch.object(dgc_step, "forward", forward):
            return dgc_step.train_step(
                dict(model.named_parameters()), optimizer, views, inputs.labels, inputs.noise, published.loss_weights
            )

    return run


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_step(benchmark, recipe):
    steps = {name: own_step(name, recipe) for name in ("auto", WITHOUT_KERNEL, "torch")}
    steps["reference"] = published_step(compiled=False)
    if harness.settings.peers:
        steps[harness.COMPILED] = published_step(compiled=True)
    found = harness.timed(measure.in_turns(steps, rounds=3), "auto")
    found |= {
        "peak_memory_mb": measure.peak_memory(steps["auto"]) / 2**20,
        "share_of_bound": 1e3 * _operations(recipe) / measure.bounds().arithmetic_rate / found["milliseconds"],
    }
    harness.record(benchmark, steps["auto"], f"training step {recipe}", "auto", "paper", "both", found)


def test_drop_in_step(benchmark):
    steps = {"drop_in": drop_in_step(), "torch": own_step("torch", "published")}
    steps["reference"] = published_step(compiled=False)
    found = harness.timed(measure.in_turns(steps, rounds=FEWEST), "drop_in")
    found |= {
        "peak_memory_mb": measure.peak_memory(steps["drop_in"]) / 2**20,
        "share_of_bound": 1e3 * _operations("published") / measure.bounds().arithmetic_rate / found["milliseconds"],
    }
    harness.record(benchmark, steps["drop_in"], "training step published", "drop_in", "paper", "both", found)


def _operations(recipe: str) -> int:
    """Of the convolutions: forward, and backward for the weights of all and the inputs of all but the first."""
    first, others = 9 * BANDS * DIM, 2 * 9 * DIM * DIM + 2 * 9 * DIM * DIM
    forwards = 2 if RECIPES[recipe].second_forward else 1
    return 2 * 2 * BATCH * CROP * CROP * ((forwards + 1) * first + (forwards + 2) * others)


@pytest.mark.parametrize("direction", ["forward", "both"])
def test_encoder_layouts(benchmark, direction):
    model, inputs = model_and_inputs()
    padded, views = inputs.batch.padded, inputs.batch.views
    layouts = {
        "planes": views.contiguous(),
        "bands_side_by_side": views.contiguous(memory_format=torch.channels_last),
        "filled_up": padded,
    }
    upstream = RandomStream(1).normal((2 * BATCH, DIM, CROP, CROP))

    def both(given: torch.Tensor) -> None:
        model.encoder(given).backward(upstream)

    run = torch.no_grad()(model.encoder.forward) if direction == "forward" else both
    calls = {name: partial(run, given) for name, given in layouts.items()}
    found = harness.timed(measure.in_turns(calls), "filled_up")
    harness.record(benchmark, calls["filled_up"], "encoder", "filled_up", "paper", direction, found)
