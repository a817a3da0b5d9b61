"""One training epoch of EB-gMCR: time of the solver and of the published one's stand-in, each beside plain PyTorch and
the published code, and the share of the bound.

`python -m pytest benchmarks/bench_ebgmcr_epoch.py`: 64 spectra of 512 channels in batches of 16, with the evaluation
and the ambiguity penalty. "early": nearly all of the pool is used; "late": 22 components are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from spectrafuse import RandomStream, use_backend
from spectrafuse.benchmarks import harness, measure
from spectrafuse.benchmarks.published import ebgmcr_epoch
from spectrafuse.benchmarks.statistic import FEWEST
from spectrafuse.compat.ebgmcr import DenseEBgMCR
from spectrafuse.compat.ebgmcr.fitting import FitOptions, Fitting
from spectrafuse.mcr.model import ModelNoise, UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.recipes import published
from spectrafuse.mcr.training.step import penalty
from spectrafuse.mcr.training.trainer import Trainer

SAMPLES, BANDS, BATCH, LATE = 64, 512, 16, 22
EPOCHS_A_TURN = {64: 8, 256: 2, 1024: 1}
"""By the size of the pool: the published epoch leaves nothing of a small pool in the caches, the epoch before does."""
RECIPE = dataclasses.replace(published, unit_scale=False)


def spectra() -> Tensor:
    return torch.rand(SAMPLES, BANDS, generator=torch.Generator().manual_seed(0))


def new_model(pool: int, late: bool) -> UnmixingModel:
    """The published solver's model; late in a run the gates of all but a few components are shut."""
    model = UnmixingModel(
        pool,
        BANDS,
        sparse_component=False,
        component_norm=2,
        hidden_size_extension=RECIPE.hidden_size_extension,
        hidden_layers=RECIPE.hidden_layers,
        temperature_eval=RECIPE.temperature_eval,
        select_threshold=RECIPE.select_threshold,
        stream=RandomStream(1),
    )
    if late:
        with torch.no_grad():
            bias = model.component_parser.energy_evaluator[-1].bias.view(pool, 2)
            bias[:, 0], bias[:, 1] = 40.0, -40.0
            bias[:LATE] *= -1.0
    return model


def trainer(pool: int, late: bool, device: str = "cpu") -> Trainer:
    model, data, noise = new_model(pool, late).to(device), spectra().to(device), NoiseLevel(0.1, 1e-9, "given")
    return Trainer(model, data, RECIPE, noise, RandomStream(2), batch_size=BATCH, max_epoch=10**9)


def of_solver(pool: int, late: bool) -> Callable[[], object]:
    return trainer(pool, late).run_epoch


def of_drop_in(pool: int, late: bool) -> Callable[[], object]:
    """The stand-in for the published solver, as a script that imports the published package runs it."""
    solver = DenseEBgMCR(pool, BANDS, mini_batch_size=BATCH, checkpoint_criterion=None)
    solver._init_mcrs(pool, BANDS)
    solver.stored_mcrs[0].load_state_dict(new_model(pool, late).state_dict())
    quiet = FitOptions(False, False, 1, 10**9, None, 1, None, None)
    return Fitting(solver, spectra(), spectra(), quiet).run_epoch


def torch_steps(plain: Trainer, *, compiled: bool = False) -> Callable[[], None]:
    """An epoch's steps as a good user would write them: plain PyTorch and torch's fused AdamW."""
    model, data, stream = plain.model, plain.spectra, plain.stream
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=5e-4, betas=(0.9, 0.995), weight_decay=1e-3, fused=True
    )

    def loss_of(x: Tensor, noise: ModelNoise) -> Tensor:
        out = model(x, noise)
        loss = torch.nn.functional.mse_loss(out.mixture, x) + RECIPE.energy_coef * out.energy_square
        return loss + RECIPE.ambiguity_coef * penalty(model, RECIPE, out.used)

    loss = torch.compile(loss_of) if compiled else loss_of

    def steps() -> None:
        model.train()
        with use_backend("torch"):
            for x in data[stream.permutation(SAMPLES).to(data.device)].split(BATCH):
                made = loss(x, model.draw_noise(len(x), stream))
                optimizer.zero_grad()
                made.backward()
                optimizer.step()

    return steps


def of_torch(pool: int, late: bool) -> Callable[[], object]:
    """The same algebra in plain PyTorch, with the solver's evaluation."""
    plain = trainer(pool, late)
    steps = torch_steps(plain)

    def epoch() -> None:
        steps()
        with use_backend("torch"):
            plain.evaluate()

    return epoch


def of_reference(pool: int, late: bool) -> Callable[[], object]:
    """The published code, with the same parameters."""
    state = new_model(pool, late).state_dict()
    parameters = {name: value.clone().requires_grad_(True) for name, value in state.items()}
    optimizer = ebgmcr_epoch.published_optimizer(parameters)
    options = ebgmcr_epoch.EpochOptions(batch_size=BATCH)
    data, generator = spectra(), torch.Generator().manual_seed(3)
    return lambda: ebgmcr_epoch.training_epoch(parameters, optimizer, data, options, generator=generator)


BASELINES = {"torch": of_torch, "reference": of_reference}
MAKERS = {"solver": of_solver, "drop_in": of_drop_in}


def stream(pool: int) -> Callable[[], object]:
    """An epoch's traffic and nothing else: a step reads and writes three tensors, and reads one twice more."""
    elements = sum(p.numel() for p in new_model(pool, False).parameters() if p.requires_grad)
    weight, first, second = (torch.ones(elements) for _ in range(3))
    total = torch.zeros(())

    def epoch() -> None:
        for _ in range(math.ceil(SAMPLES / BATCH)):
            total.copy_(weight.sum() + weight.sum())
            torch._foreach_mul_([weight, first, second], 1.0)

    return epoch


def epoch_seconds(calls: measure.Calls, epochs: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of one epoch of `epochs` in a row, round by round."""

    def turn(epoch: Callable[[], object]) -> None:
        for _ in range(epochs):
            epoch()

    taken = measure.in_turns({name: partial(turn, epoch) for name, epoch in calls.items()}, rounds)
    return {name: [seconds / epochs for seconds in column] for name, column in taken.items()}


def run(pool: int, stage: str, own: str) -> dict[str, Any]:
    """A process of its own, as a training is: large arrays are mapped anew or not by what a process freed before.

    The published epoch of the largest pool takes too long for the rounds that an interval needs.
    """
    makers = {own: MAKERS[own], **BASELINES}
    calls = {name: make(pool, stage == "late") for name, make in makers.items()}
    found = harness.timed(epoch_seconds(calls, EPOCHS_A_TURN[pool], rounds=3 if pool == 1024 else FEWEST), own)
    alone = {own: calls[own], "stream": stream(pool)}
    beside = harness.ratios(epoch_seconds(alone, EPOCHS_A_TURN[pool], rounds=9), own)
    peak = measure.peak_memory(calls[own]) / 2**20
    return {**found, "peak_memory_mb": peak, "share_of_bound": beside["ratio_to_stream"]}


@pytest.mark.parametrize("stage", ["early", "late"])
@pytest.mark.parametrize("pool", EPOCHS_A_TURN)
@pytest.mark.parametrize("own", MAKERS)
def test_ebgmcr_epoch(benchmark, own, pool, stage):
    found = measure.in_a_fresh_process(__file__, f"run({pool}, {stage!r}, {own!r})")
    harness.record(benchmark, lambda: None, "EB-gMCR epoch", own, str(pool), stage, found)
