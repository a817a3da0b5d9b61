"""Training: what is optimised, what is kept, and that an interrupted run ends like a whole one."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from spectrafuse._runtime.progress import Progress
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.model_io import read_state
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.recipes import Recipe, corrected, published
from spectrafuse.mcr.synthesize import MixtureSynthesizer
from spectrafuse.mcr.training import checkpoint
from spectrafuse.mcr.training.trainer import CHOSEN, Trainer, TrainingResult, default_batch_size, unit_scale
from spectrafuse.random import RandomStream

POOL, FEATURES, SAMPLES = 8, 12, 11
NOISE = NoiseLevel(0.1, 0.02, "given")


def _spectra(seed: int = 0) -> Tensor:
    return MixtureSynthesizer(3, FEATURES, snr_db=20.0, random_state=seed).generate(SAMPLES).spectra


def _trainer(
    recipe: Recipe = corrected, *, sparse: bool = False, spectra: Tensor | None = None, **options: Any
) -> Trainer:
    stream = RandomStream(1)
    model = UnmixingModel(
        POOL,
        FEATURES,
        sparse_component=sparse,
        component_norm=2,
        hidden_size_extension=1,
        select_threshold=0.9,
        temperature_eval=0.1,
        stream=stream,
    )
    settings = {"max_epoch": 6, "learning_rate": 2e-2, "batch_size": 4, **options}
    return Trainer(model, _spectra() if spectra is None else spectra, recipe, NOISE, stream, **settings)


def _bits(result: TrainingResult) -> list[Any]:
    return [
        result.history,
        result.record,
        result.stop_reason,
        result.chosen_reason,
        {name: slot.record for name, slot in result.keeper.slots.items()},
        {name: value.numpy().tobytes() for name, value in result.state.items()},
    ]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("recipe", [corrected, published], ids=["corrected", "published"])
def test_training_fits_better_and_repeats_bit_for_bit(recipe: Recipe, sparse: bool) -> None:
    first = _trainer(recipe, sparse=sparse, max_epoch=12).run()
    assert first.history[-1]["nmse"] < 0.9 * first.history[0]["nmse"]
    assert [entry["epoch"] for entry in first.history] == list(range(1, 13))
    assert _bits(_trainer(recipe, sparse=sparse, max_epoch=12).run()) == _bits(first)


def test_one_step_minimises_the_loss_of_the_paper() -> None:
    recipe = dataclasses.replace(
        published, energy_coef=0.3, ambiguity_coef=0.2, ambiguity_kernel="linear", weight_decay=0.0
    )
    trainer = _trainer(recipe, batch_size=SAMPLES)
    trainer.pressure.weight = 0.7
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    replay = RandomStream(**trainer.stream.state)
    x = trainer.spectra[replay.permutation(SAMPLES)]
    twin = UnmixingModel(
        POOL, FEATURES, sparse_component=False, component_norm=2, hidden_size_extension=1, temperature_eval=0.1
    )
    twin.load_state_dict(start)
    out = twin(x, twin.draw_noise(SAMPLES, replay))
    used = (out.select_prob > 0.5).any(0)
    components = twin.components()[used]
    pairs = (components @ components.T)[torch.triu(torch.ones(len(components), len(components)), 1) > 0]
    loss = (out.mixture - x).square().mean() + 0.7 * out.select_prob.sum(1).mean() / POOL
    loss = loss + 0.3 * out.select_energy.square().mean() + 0.2 * (pairs.mean() if len(pairs) else 0.0)
    loss.backward()
    optimizer = torch.optim.AdamW(
        [p for p in twin.parameters() if p.requires_grad], lr=2e-2, betas=(0.9, 0.995), weight_decay=0.0
    )
    optimizer.step()
    mean_loss, mean_energy = trainer.train_epoch()
    assert mean_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert mean_energy.item() == pytest.approx(out.select_energy.mean().item(), rel=1e-5)
    for name, value in trainer.model.state_dict().items():
        # The first step of AdamW is the gradient's sign times the learning rate: tiny gradients may differ in sign.
        assert torch.isclose(value, twin.state_dict()[name], atol=4e-4).float().mean() > 0.97, name


def test_every_sample_is_seen_once_an_epoch() -> None:
    trainer = _trainer(batch_size=4)
    seen: list[Tensor] = []
    trainer.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]) if module.training else None)
    trainer.run_epoch()
    assert [len(batch) for batch in seen] == [4, 4, 3]
    rows = torch.cat(seen)
    assert torch.equal(rows[rows[:, 0].argsort()], trainer.spectra[trainer.spectra[:, 0].argsort()])


def test_corrected_evaluation_is_deterministic_and_published_is_not() -> None:
    noisy, quiet = _trainer(published), _trainer(corrected)
    quiet_step, noisy_step = quiet.stream.step, noisy.stream.step
    first = quiet.evaluate()[0].compute()
    assert quiet.evaluate()[0].compute() == first
    assert quiet.stream.step == quiet_step
    first = noisy.evaluate()[0].compute()
    assert noisy.evaluate()[0].compute() != first
    assert noisy.stream.step > noisy_step


def test_one_evaluation_an_epoch() -> None:
    trainer = _trainer(dataclasses.replace(corrected, evaluation_batch=SAMPLES))
    passes: list[bool] = []
    trainer.model.register_forward_pre_hook(lambda module, args: passes.append(module.training))
    trainer.run_epoch()
    assert passes == [True, True, True, False]


def test_pressure_serves_the_next_epoch_and_divides_by_what_the_recipe_says() -> None:
    easy = {"sparsity_margin": 10.0}
    by_count = _trainer(dataclasses.replace(corrected, **easy), max_epoch=2).run().history
    assert by_count[0]["sparsity_weight"] == 0.0
    expected = 0.05 * by_count[0]["mse"] * 10.0 / (by_count[0]["count"] / POOL)
    assert by_count[0]["count"] > 0
    assert by_count[1]["sparsity_weight"] == pytest.approx(expected)
    by_energy = _trainer(dataclasses.replace(published, **easy), max_epoch=2).run().history
    expected = 0.05 * max(0.0, by_energy[0]["mse"] * 1.0 / (by_energy[0]["mean_energy"] / POOL))
    assert by_energy[1]["sparsity_weight"] == pytest.approx(expected)


def test_the_fewest_components_at_the_noise_level_are_chosen() -> None:
    recipe = dataclasses.replace(corrected, noise_factor=10.0)
    result = _trainer(recipe, max_epoch=40).run()
    fitting = [entry for entry in result.history if entry["nmse"] <= 10.0 * NOISE.nmse]
    assert fitting, "the example must reach the noise level"
    fewest = min(entry["count"] for entry in fitting)
    best = min(entry["nmse"] for entry in fitting if entry["count"] == fewest)
    assert (result.record.size, result.record.nmse) == (fewest, best)
    assert f"The fewest components, {fewest}," in result.chosen_reason
    assert CHOSEN in result.keeper.slots


def test_without_a_state_at_the_noise_level_the_last_is_taken_and_it_says_so() -> None:
    result = _trainer(dataclasses.replace(corrected, noise_factor=1e-6, noise_floor=0.0), max_epoch=3).run()
    assert result.record.epoch == 3
    assert "none fitted to the noise level" in result.chosen_reason
    result = _trainer(published, max_epoch=3).run()
    assert "as the published recipe asks" in result.chosen_reason


def test_each_band_keeps_the_state_with_the_fewest_components() -> None:
    recipe = dataclasses.replace(
        corrected, adaptive_bands=False, checkpoint_threshold=0.1, checkpoint_interval=0.2, choose="last"
    )
    result = _trainer(recipe, max_epoch=30).run()
    assert len(result.keeper.slots) > 1
    for band in result.bands:
        inside = [entry for entry in result.history if band.start <= entry["r2"] < band.end]
        assert bool(inside) == (band.name in result.keeper.slots)
        if inside:
            record = result.keeper.slots[band.name].record
            assert record.size == min(entry["count"] for entry in inside)
            assert record.r2 == max(entry["r2"] for entry in inside if entry["count"] == record.size)


def test_a_measurements_unit_does_not_matter() -> None:
    spectra = _spectra()
    first = _trainer(spectra=spectra).run()
    second = _trainer(spectra=spectra * 2.0**30).run()
    assert first.history == second.history
    weight = "component_parser.energy_evaluator.0.weight"
    assert torch.equal(first.state[weight], second.state[weight] * 2.0**30)
    assert unit_scale(torch.zeros(2, 2)) == 1.0
    assert unit_scale(torch.full((2, 2), 1000.0)) == 1024.0


def test_stop_rules_end_the_run_and_say_why() -> None:
    result = _trainer(dataclasses.replace(corrected, fit_patience=2), learning_rate=1e-12, max_epoch=50).run()
    assert len(result.history) < 50
    assert "never reached" in result.stop_reason
    assert "The largest number of epochs, 6" in _trainer().run().stop_reason
    broken = _trainer(learning_rate=1e30, max_epoch=200).run()
    assert len(broken.history) < 200
    assert "diverged" in broken.stop_reason


@pytest.mark.parametrize(("samples", "expected"), [(1, 1), (3, 1), (4, 1), (21, 5), (64, 16), (255, 63), (256, 64)])
def test_default_batch_size(samples: int, expected: int) -> None:
    assert default_batch_size(samples) == expected


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("recipe", [corrected, published], ids=["corrected", "published"])
def test_an_interrupted_run_ends_with_the_bits_of_a_whole_one(recipe: Recipe, sparse: bool, tmp_path: Path) -> None:
    # Bands low enough that states are kept, replaced and read back from the folder.
    recipe = dataclasses.replace(
        recipe, checkpoint_threshold=0.01, checkpoint_interval=0.3, adaptive_bands=False, noise_factor=30.0
    )
    whole = _bits(_trainer(recipe, sparse=sparse, max_epoch=9).run())
    for stop_at in (2, 5, 9):
        folder = tmp_path / str(stop_at)

        def interrupt(progress: Progress, stop_at: int = stop_at) -> None:
            if progress.epoch == stop_at:
                raise KeyboardInterrupt

        options: dict[str, Any] = {"sparse": sparse, "max_epoch": 9, "folder": folder, "fingerprint": {"run": "1"}}
        with pytest.raises(KeyboardInterrupt):
            _trainer(recipe, **options).run(interrupt)
        assert (folder / "training.pt").is_file()
        epochs: list[int] = []
        resumed = _trainer(recipe, **options).run(lambda progress, epochs=epochs: epochs.append(progress.epoch))
        assert epochs == list(range(stop_at + 1, 10))
        assert _bits(resumed) == whole
        # A finished run is not trained again.
        again = _trainer(recipe, **options).run(lambda progress: pytest.fail("trained again"))
        assert _bits(again) == whole


def test_a_killed_run_leaves_the_best_state_of_every_band(tmp_path: Path) -> None:
    recipe = dataclasses.replace(corrected, checkpoint_threshold=0.01, checkpoint_interval=0.3, adaptive_bands=False)

    def kill(progress: Progress) -> None:
        trainer.keeper._next_write = 0.0  # as if time had passed: writing is a large share of so short a run
        if progress.epoch == 7:
            raise SystemExit

    trainer = _trainer(recipe, max_epoch=9, folder=tmp_path, save_seconds=1e9)
    with pytest.raises(SystemExit):
        trainer.run(kill)
    assert not (tmp_path / "training.pt").exists()
    assert trainer.keeper.slots
    other = _trainer(recipe, max_epoch=7)
    other.run()
    for name, slot in trainer.keeper.slots.items():
        written, kept = read_state(tmp_path / name), other.keeper.state(name)
        assert slot.record == other.keeper.slots[name].record
        assert all(torch.equal(written[key], value) for key, value in kept.items())


def test_writing_states_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = _trainer(dataclasses.replace(corrected, noise_factor=1e3), max_epoch=60, folder=tmp_path)
    clock, written = [0.0], []

    def flush() -> None:
        written.append(trainer.epoch)
        clock[0] += 0.3  # seconds

    monkeypatch.setattr(trainer.keeper, "flush", flush)
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def second(progress: Progress) -> None:
        clock[0] += 1.0

    trainer.run(second)
    steps = [later - sooner for sooner, later in itertools.pairwise(written[:-1])]
    assert len(steps) > 5
    assert all(6 <= step <= 7 for step in steps)  # 20 times 0.3 seconds


def test_states_from_after_the_last_save_do_no_harm(tmp_path: Path) -> None:
    """A kill may leave band folders that are newer than the saved run."""
    recipe = dataclasses.replace(corrected, checkpoint_threshold=0.01, checkpoint_interval=0.3, adaptive_bands=False)
    whole = _bits(_trainer(recipe, max_epoch=9).run())
    options: dict[str, Any] = {"max_epoch": 9, "folder": tmp_path, "save_seconds": 1e9}

    def crash(progress: Progress) -> None:
        if progress.epoch == 3:
            trainer.save()
        if progress.epoch == 7:
            trainer.keeper.flush()
            raise RuntimeError("killed")

    trainer = _trainer(recipe, **options)
    with pytest.raises(RuntimeError, match="killed"):
        trainer.run(crash)
    assert _bits(_trainer(recipe, **options).run()) == whole
