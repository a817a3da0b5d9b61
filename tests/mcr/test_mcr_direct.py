"""Epochs straight through the C++ kernels against the same epochs through autograd."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from spectrafuse import use_backend
from spectrafuse._runtime.cuda_graph import StaticStep
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.recipes import Recipe, corrected, published
from spectrafuse.mcr.training import cpu_epoch
from spectrafuse.mcr.training.trainer import Trainer
from spectrafuse.random import RandomStream

POOL, FEATURES, SAMPLES = 9, 13, 23
# Coefficients far above the usual ones, so that every term of the loss moves the parameters.
LOUD = {"energy_coef": 0.3, "ambiguity_coef": 0.4}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Recipe]] = {
    "dense": ({}, {}, published),
    "sparse": ({"sparse_component": True}, {}, published),
    "no noise in evaluation": ({"sparse_component": True}, {}, corrected),
    "one hidden layer": ({"hidden_layers": 1}, {}, corrected),
    "no hidden layer": ({"hidden_size_extension": None}, {}, published),
    "norm 1": ({"component_norm": 1}, {}, published),
    "no norm": ({"component_norm": None}, {}, published),
    "signed, norm 1": ({"non_negative_component": False, "component_norm": 1}, {}, published),
    "no refinement": ({"langevin_steps": 0, "sparse_component": True}, {}, corrected),
    "known components": ({"sparse_component": True}, {"fixed": [0, 3]}, published),
    "all components given": ({"learnable_component": False}, {}, published),
    "no penalty": ({}, {}, dataclasses.replace(published, ambiguity_coef=0.0, energy_coef=0.0)),
    "laplacian": ({}, {}, dataclasses.replace(published, ambiguity_kernel="laplacian")),
    "batches beyond the kernels' rows": ({}, {"batch_size": 70, "samples": 75}, published),
    "a batch of one sample": ({}, {"batch_size": 22}, published),
}


def _trainer(model_options: dict[str, Any], options: dict[str, Any], recipe: Recipe) -> Trainer:
    settings: dict[str, Any] = {
        "sparse_component": False,
        "component_norm": 2,
        "hidden_size_extension": 2,
        "hidden_layers": 2,
        "select_threshold": 0.9,
        "temperature_eval": 0.1,
        **model_options,
    }
    options = {"batch_size": 4, **options}
    spectra = options.pop("spectra", None)
    if spectra is None:
        spectra = RandomStream(2).uniform((options.pop("samples", SAMPLES), FEATURES))
    model = UnmixingModel(options.pop("pool", POOL), spectra.shape[1], stream=RandomStream(1), **settings)
    if recipe.ambiguity_coef > 0:
        recipe = dataclasses.replace(recipe, **LOUD)
    trainer = Trainer(model, spectra, recipe, NoiseLevel(0.1, 0.02, "given"), RandomStream(3), **options)
    trainer.pressure.weight = 0.2
    return trainer


@pytest.mark.parametrize("case", CASES)
def test_equals_training_through_autograd(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = _trainer(*CASES[case]), _trainer(*CASES[case])
    assert cpu_epoch.applies(ours.model, ours.recipe)
    for _ in range(9):  # 54 steps
        ours.run_epoch()
    with monkeypatch.context() as patch:
        patch.setattr(cpu_epoch, "applies", lambda model, recipe: False)
        for _ in range(9):
            theirs.run_epoch()
    assert ours.stream.state == theirs.stream.state
    for one, two in zip(ours.history, theirs.history, strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    assert ours.record.component_ids == theirs.record.component_ids
    states = ours.optimizer.state_dict()["state"], theirs.optimizer.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        assert states[0][name]["step"] == states[1][name]["step"]
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_bits_are_those_of_autograd_without_a_penalty(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dataclasses.replace(published, ambiguity_coef=0.0)
    ours, theirs = (_trainer({"sparse_component": sparse}, {}, recipe) for _ in range(2))
    for trainer in (ours, theirs):
        for _ in range(5):
            trainer.run_epoch()
        monkeypatch.setattr(cpu_epoch, "applies", lambda model, recipe: False)
    for one, two in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("case", ["dense", "sparse", "no refinement", "known components"])
def test_inputs_that_stay_in_place_change_no_bit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of a step that a CUDA graph replays: buffers for its inputs, numbers of steps on the device."""
    monkeypatch.setattr(cpu_epoch, "applies", lambda model, recipe: False)
    ordinary, static = _trainer(*CASES[case]), _trainer(*CASES[case])
    step = StaticStep(static.step_at(1.0), record=False)
    monkeypatch.setattr(static, "step_at", lambda temperature: step)
    for _ in range(4):
        ordinary.run_epoch()
        static.run_epoch()
    assert ordinary.history == static.history
    for one, two in zip(ordinary.model.parameters(), static.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_step_is_made_anew_for_every_temperature() -> None:
    trainer = _trainer(*CASES["dense"])
    step = trainer.step_at(1.0)
    assert trainer.step_at(1.0) is step
    assert trainer.step_at(0.9) is not step


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [False, True])
def test_losses_of_200_steps_are_those_of_the_reference(sparse: bool) -> None:
    losses = []
    for backend in ("auto", "reference"):
        # As many samples as a batch has: every epoch is one step, and its loss is in the history.
        options = {"batch_size": 7, "samples": 7, "learning_rate": 5e-3}
        trainer = _trainer({"sparse_component": sparse}, options, published)
        with use_backend(backend):
            assert cpu_epoch.applies(trainer.model, trainer.recipe) == (backend == "auto")
            for _ in range(200):
                trainer.run_epoch()
        losses.append([row[6] for row in trainer.history])
    assert losses[1][-1] < 0.5 * losses[1][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_threads_and_temperature_may_change_between_epochs() -> None:
    ours, theirs = _trainer(*CASES["dense"]), _trainer(*CASES["dense"])
    threads = torch.get_num_threads()
    try:
        for epoch in range(4):
            ours.model.temperature_eval = theirs.model.temperature_eval = 0.1 + 0.1 * epoch
            torch.set_num_threads(1 + epoch % 3)
            ours.run_epoch()
            torch.set_num_threads(threads)
            theirs.run_epoch()
    finally:
        torch.set_num_threads(threads)
    assert ours.history == theirs.history


HURTING = {
    "zeros": torch.zeros(6, 5),
    "constant columns": torch.ones(6, 1) * torch.arange(5.0),
    "one band": torch.arange(1.0, 7.0).unsqueeze(1),
    "one sample": torch.arange(1.0, 6.0).unsqueeze(0),
}


@pytest.mark.parametrize("pool", [1, 7])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("data", HURTING)
def test_data_and_pools_that_hurt(data: str, sparse: bool, pool: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (
        _trainer({"sparse_component": sparse}, {"spectra": HURTING[data], "pool": pool}, corrected) for _ in range(2)
    )
    for trainer in (ours, theirs):
        for _ in range(4):
            trainer.run_epoch()
        assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
        monkeypatch.setattr(cpu_epoch, "applies", lambda model, recipe: False)
    for one, two in zip(ours.history, theirs.history, strict=True):
        assert one == pytest.approx(two, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("used", [0, 1, POOL])
def test_gates_that_are_all_shut_or_open(used: int, sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (_trainer({"sparse_component": sparse}, {}, corrected) for _ in range(2))
    for trainer in (ours, theirs):
        with torch.no_grad():
            bias = trainer.model.component_parser.energy_evaluator[-1].bias.view(POOL, 2)  # type: ignore[index,operator]
            bias.copy_(torch.tensor([60.0, -60.0]))
            bias[:used] *= -1.0
        for _ in range(3):
            trainer.run_epoch()
        assert trainer.record.component_ids == list(range(used))
        monkeypatch.setattr(cpu_epoch, "applies", lambda model, recipe: False)
    for one, two in zip(ours.history, theirs.history, strict=True):
        assert one == pytest.approx(two, rel=1e-5)


def test_training_goes_on_from_either_path(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed, theirs = _trainer(*CASES["sparse"]), _trainer(*CASES["sparse"])
    for epoch in range(6):
        for trainer in (mixed, theirs):
            with monkeypatch.context() as patch:
                if trainer is theirs or epoch % 2:
                    patch.setattr(cpu_epoch, "applies", lambda model, recipe: False)
                trainer.run_epoch()
    for one, two in zip(mixed.history, theirs.history, strict=True):
        assert one == pytest.approx(two, rel=1e-5)


def test_only_the_standard_model_on_its_kernels_is_trained_so() -> None:
    def applies(recipe: Recipe = published, **options: Any) -> bool:
        return cpu_epoch.applies(UnmixingModel(3, 4, initialise=False, **options), recipe)

    assert applies()
    assert not applies(component_norm=3)
    assert not applies(component_post_processing=torch.abs)
    assert not applies(aggregate_function=lambda c, s: (c * s).sum(1))
    assert not applies(dataclasses.replace(published, ambiguity_kernel="linear"))
    hooked = UnmixingModel(3, 4, initialise=False)
    hooked.concentration_regressor.register_forward_pre_hook(lambda module, inputs: None)
    assert not cpu_epoch.applies(hooked, published)
    for backend in ("torch", "reference"):
        with use_backend(backend):
            assert not applies()
