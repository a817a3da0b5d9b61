"""Components that leave the pool in training: the model keeps its form, and what is left trains as before."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from helpers import seeds
from spectrafuse import EBgMCR, RandomStream, use_backend
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.recipes import corrected, trained
from spectrafuse.mcr.training.compaction import Pool
from spectrafuse.mcr.training.optimizer import OuterAdamW
from spectrafuse.mcr.training.trainer import Trainer

RECIPE = dataclasses.replace(corrected, compact_epochs=3, refine=False)


def spectra(count: int = 12, bands: int = 20) -> torch.Tensor:
    return torch.rand(count, bands, generator=torch.Generator().manual_seed(seeds.fresh_seed()))


def new_model(pool: int = 9, bands: int = 20, sparse: bool = False) -> UnmixingModel:
    stream = RandomStream(seeds.fresh_seed())
    return UnmixingModel(pool, bands, sparse_component=sparse, hidden_size_extension=2, component_norm=2, stream=stream)


def shut(model: UnmixingModel, ids: list[int]) -> None:
    """Shut gates of a model for good."""
    with torch.no_grad():
        last = model.component_parser.energy_evaluator[-1]
        last.weight.view(model.num_components, 2, -1)[ids] = 0.0
        last.bias.view(model.num_components, 2)[ids] = torch.tensor([60.0, -60.0])
        open_ids = [i for i in range(model.num_components) if i not in ids]
        last.bias.view(model.num_components, 2)[open_ids] = torch.tensor([-60.0, 60.0])


def new_trainer(model: UnmixingModel, data: torch.Tensor, fixed: tuple[int, ...] = (), **changes: object) -> Trainer:
    recipe = dataclasses.replace(RECIPE, **changes)
    return Trainer(model, data, recipe, NoiseLevel(0.1, 1e-9, "given"), RandomStream(2), batch_size=4, fixed=fixed)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_part_of_the_pool_is_the_model_without_the_rest(sparse):
    data, model = spectra(), new_model(sparse=sparse).eval()
    shut(model, [0, 3, 8])
    whole = model(data)
    pool = Pool(model, OuterAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0), [], 3)
    pool.reduce_to([1, 2, 4, 5, 6, 7])
    part = pool.part.eval()(data)
    assert part.select_prob.shape == (12, 6)
    torch.testing.assert_close(part.mixture, whole.mixture)
    torch.testing.assert_close(part.concentration, whole.concentration[:, pool.ids])
    torch.testing.assert_close(model(data).mixture, whole.mixture)
    assert not model(data).used[[0, 3, 8]].any()


def test_what_the_part_learns_is_the_models():
    data, model = spectra(), new_model()
    pool = Pool(model, OuterAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0), [], 3)
    pool.reduce_to([7, 2])
    with torch.no_grad():
        for parameter in pool.part.parameters():
            parameter += 0.25
    pool.write_back()
    torch.testing.assert_close(model.eval()(data).mixture, pool.part.eval()(data).mixture)
    learned = pool.part.vanilla_components.detach() + 0.5
    with torch.no_grad():
        pool.part.vanilla_components.copy_(learned)
    pool.reduce_to([2])
    assert torch.equal(model.vanilla_components[[7, 2]], learned)


def test_sums_over_energies_are_divided_by_the_whole_pool_in_both_ways_to_train():
    data, start, losses = spectra(), new_model(), []
    shut(start, [0, 3, 8])
    for backend in ("auto", "torch"):
        model = new_model()
        model.load_state_dict(start.state_dict())
        trainer = new_trainer(model, data, energy_coef=1.0)
        with use_backend(backend):
            for _ in range(5):
                trainer.run_epoch()
        assert len(trainer.pool.ids) == 6
        losses.append([row[6] for row in trainer.history])
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("sparse", [False, True])
def test_idle_components_leave_and_training_goes_on_as_it_would(sparse):
    data = spectra()
    model = new_model(sparse=sparse)
    shut(model, [0, 3, 8])
    trainer = new_trainer(model, data)
    losses = []
    for _ in range(6):
        trainer.run_epoch()
        losses.append(trainer.history[-1][6])
    assert trainer.pool.ids == [1, 2, 4, 5, 6, 7]
    (done,) = trainer.pool.done
    assert (done.epoch, done.components_before, done.components_after) == (3, 9, 6)
    assert done.parameters_after < done.parameters_before
    assert done.error < 1e-6
    assert trainer.record.component_ids == [1, 2, 4, 5, 6, 7]
    assert model.num_components == 9
    assert all(torch.isfinite(torch.tensor(losses)))
    # The moments of what is left go on, with as many steps.
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {18}


def test_a_step_after_compaction_is_that_of_the_whole_pool():
    """With gates shut for good and no noise in them, losses agree, also where sums run over the pool."""
    data, results = spectra(), []
    start = new_model()
    shut(start, [0, 3, 8])
    for patience in (None, 1):
        model = new_model()
        model.load_state_dict(start.state_dict())
        recipe = {"compact_epochs": patience, "langevin_noise": 0.0, "energy_coef": 0.0, "sparsity_margin": 1e9}
        trainer = new_trainer(model, data, **recipe)
        for _ in range(3):
            trainer.run_epoch()
        results.append([row[6] for row in trainer.history])
        assert len(trainer.pool.ids) == (9 if patience is None else 6)
    torch.testing.assert_close(torch.tensor(results[0]), torch.tensor(results[1]), rtol=1e-2, atol=1e-4)


def test_fixed_components_stay():
    model = new_model()
    shut(model, [0, 3, 8])
    before = model.vanilla_components.detach().clone()
    trainer = new_trainer(model, spectra(), fixed=(3,))
    for _ in range(5):
        trainer.run_epoch()
    assert trainer.pool.ids == [1, 2, 3, 4, 5, 6, 7]
    assert torch.equal(model.vanilla_components[3], before[3])


def test_interrupted_and_resumed_after_compaction(tmp_path):
    data, start = spectra(), new_model()
    shut(start, [0, 3, 8])

    def run(folder, epochs):
        model = new_model()
        model.load_state_dict(start.state_dict())
        noise, stream = NoiseLevel(0.1, 1e-9, "given"), RandomStream(2)
        trainer = Trainer(model, data, RECIPE, noise, stream, batch_size=4, max_epoch=8, folder=folder)
        trainer.resume()
        for _ in range(epochs):
            trainer.run_epoch()
        if folder is not None:
            trainer.save()
        return trainer

    straight = run(None, 7)
    run(tmp_path, 5)
    resumed = run(tmp_path, 2)
    assert resumed.pool.ids == straight.pool.ids == [1, 2, 4, 5, 6, 7]
    assert resumed.history == straight.history
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_off_by_default_and_on_by_a_recipe(tmp_path):
    assert corrected.compact_epochs is None
    generator = torch.Generator().manual_seed(3)
    pure = torch.rand(2, 30, generator=generator)
    data = (torch.rand(16, 2, generator=generator) @ pure).numpy()
    recipe = dataclasses.replace(trained, compact_epochs=20, max_epoch=100)
    mcr = EBgMCR(pool_size=16, recipe=recipe, noise=0.3, random_state=0).fit(data)
    assert mcr.compactions_
    assert mcr.compactions_[-1].components_after < 16
    assert mcr.model_.num_components == 16
    assert mcr.components_.shape == (mcr.n_components_, 30)
    mcr.save(tmp_path / "model")
    loaded = EBgMCR.load(tmp_path / "model")
    assert loaded.compactions_ == mcr.compactions_
    assert (loaded.transform(data) == mcr.transform(data)).all()
    assert EBgMCR(pool_size=4, max_epoch=2, random_state=0).fit(data).compactions_ == ()


def test_a_plug_in_may_count_on_the_whole_pool():
    model = new_model()
    model.component_post_processing = torch.nn.Identity()
    optimizer = OuterAdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    with pytest.raises(ValueError, match="`compact_epochs` must be None for a model with `post_processing`"):
        Pool(model, optimizer, [], 3)
