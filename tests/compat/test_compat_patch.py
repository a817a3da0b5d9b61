"""`spectrafuse.patch` under stand-ins for the published packages, as a tool would carry them along."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spectrafuse
from spectrafuse.compat.ebgmcr.lazy import LazyTensor
from spectrafuse.compat.ebgmcr.mcr import LINEAR_AGGREGATES
from spectrafuse.compat.hsi_global_clustering import step_terms
from spectrafuse.compat.hsi_global_clustering.hsi_processing import (
    batch_random_affine,
    batch_random_crop_pair,
    batch_wavelength_shift,
)
from spectrafuse.compat.patch import Patch
from spectrafuse.mcr.training.cpu_epoch import DirectEpochs
from spectrafuse.ops.clustering_objective import reference
from spectrafuse.ops.dense_mean_shift.reference import dense_mean_shift
from spectrafuse.ops.mean_shift_assign.reference import assign, mean_shift_assign


class Refinement(nn.Module):
    step_size, noise_scale, num_steps = 0.05, 0.1, 32

    def forward(self, energy: Tensor) -> Tensor:
        if not self.training:
            return energy
        noise = self.noise_scale * torch.randn_like(energy) * self.num_steps**0.5
        slope = torch.autograd.grad(energy.sum(), energy, create_graph=True)[0]
        return energy - self.step_size * self.num_steps * slope + noise


class Selection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tau = 0.7
        self.langevin_dynamics = Refinement()

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        refined = -self.langevin_dynamics(energy)
        return F.gumbel_softmax(refined, tau=self.tau)[..., 0], refined


class FixedSelection(Selection):
    def __init__(self, components: int, bands: int) -> None:
        super().__init__()
        self.output_shape = (components, bands)
        self.energy = nn.Parameter(0.05 * torch.randn(components * bands, 2))

    def forward(self, batch_size: int = 1) -> tuple[Tensor, Tensor]:
        energy = self.energy.view(*self.output_shape, 2)
        return super().forward(energy.unsqueeze(0).repeat(batch_size, 1, 1, 1))


class DynamicSelection(Selection):
    def __init__(self, components: int, bands: int) -> None:
        super().__init__()
        self.gate_number, self.output_shape = components, (components,)
        self.energy_evaluator = nn.Sequential(nn.Linear(bands, 8), nn.Tanh(), nn.Linear(8, 2 * components))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(self.energy_evaluator(x).view(len(x), self.gate_number, 2))


def linear_mixing(concentration: Tensor, components: Tensor) -> Tensor:
    return (concentration * components).sum(1)


class Unmixing(nn.Module):
    """The published model in a few lines: every tensor (B, N, d) is built."""

    temperature_train = temperature_eval = 0.7

    def __init__(self, components: int, bands: int, sparse: bool = False) -> None:
        super().__init__()
        self.num_components, self.dim_components, self.sparse_component = components, bands, sparse
        self.non_negative_component, self.component_norm, self.tau, self.select_prob_threshld = True, 2, 0.7, 0.5
        self.vanilla_components = nn.Parameter(torch.rand(components, bands))
        self.component_sparsity = FixedSelection(components, bands)
        self.component_parser = DynamicSelection(components, bands)
        self.concentration_regressor = nn.Linear(bands, components)
        self.component_post_processing = nn.Identity()
        self.aggregate_function = linear_mixing

    def components(self, indices: Any = None) -> Tensor:
        spectra = F.normalize(self.vanilla_components.abs(), dim=1)
        return spectra if indices is None else spectra[indices]

    def parse_pattern(self, pattern: Tensor) -> tuple[Tensor, ...]:
        components = F.normalize(self.vanilla_components.abs(), dim=1).expand(len(pattern), -1, -1)
        energy = torch.tensor(0.0)
        if self.sparse_component:
            sparsity, energy = self.component_sparsity(batch_size=len(pattern))
            components = components * sparsity
        gates, selected = self.component_parser(pattern)
        return self.concentration_regressor(pattern).abs().unsqueeze(-1), components, gates, energy, selected

    def forward(self, pattern: Tensor, select_prob_threshld: float | None = None) -> dict[str, Tensor]:
        concentration, components, gates, energy, selected = self.parse_pattern(pattern)
        if not self.training:
            gates = (gates > (select_prob_threshld or self.select_prob_threshld)).float()
        concentration, components = concentration * gates.unsqueeze(-1), components * gates.unsqueeze(-1)
        return {
            "synthesized_pattern": self.aggregate_function(concentration, components),
            "concentration": concentration, "components": components, "effective_indices": gates,
            "sparsity_energy": energy, "select_energy": selected,
        }  # fmt: skip


def rbf_penalty(all_components: Tensor, sigma: float = 1.0) -> Tensor:
    distance = (all_components.unsqueeze(1) - all_components.unsqueeze(0)).square().sum(-1)
    count = len(all_components)
    return torch.exp(-distance / (2 * sigma**2)).triu(1).sum() / (count * (count - 1) / 2)


class Solver:
    """With the options that a training needs, and the published defaults of what the others do."""

    device, optimizer_class, optimizer_args = "cpu", torch.optim.AdamW, {"lr": 1e-3}
    num_components, mini_batch_size, max_epoch, sparse_component, checkpoint_criterion = (6,), 4, 3, False, None
    ambiguity_penalty, poly_dim, matern_nu, ambiguity_coef, ambiguity_prob_threshold = "rbf", 2, 1.5, 1e-3, 0.5
    energy_coef, min_component_coef, select_prob_threshld = 1e-10, 0.01, 0.9
    temperature_max, temperature_min, temperature_drop_value, temperature_drop_epochs = 1.0, 0.1, 0.1, 10
    tol_pattern_nmse, tol_energy_ratio = 0.01, 1.0

    def __init__(self, penalties: ModuleType, *models: nn.Module) -> None:
        self.ambiguity_penalty_func = penalties.rbf_penalty  # type: ignore[attr-defined]
        self.stored_mcrs = nn.ModuleList(models)

    def fit(self, data: Tensor) -> None:
        raise NotImplementedError


class Encoding(nn.Module):
    def __init__(self, bands: int, dim: int) -> None:
        super().__init__()
        layers = [nn.Conv1d(bands, dim, 3, padding=1), nn.ReLU(), nn.Conv1d(dim, dim, 3, padding=1), nn.ReLU()]
        self.spectral_net = nn.Sequential(*layers)
        layers = [nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU()]
        self.spatial_net = nn.Sequential(*layers)
        self.embed_dim = dim

    def forward(self, x: Tensor) -> Tensor:
        count, bands, height, width = x.shape
        y = self.spectral_net(x.reshape(count, bands, -1)).reshape(count, -1, height, width)
        return F.normalize(self.spatial_net(y), dim=1)


class MeanShift(nn.Module):
    def __init__(self, use_approx: bool, iterations: int = 3) -> None:
        super().__init__()
        self.num_iters, self.temp, self.use_approx, self.kernel_size, self.n_clusters = (
            iterations,
            0.05,
            use_approx,
            3,
            4,
        )
        self.log_bandwidth = nn.Parameter(torch.tensor(0.3))
        self.cluster_centers = nn.Parameter(F.normalize(torch.randn(4, 6), dim=1))

    @property
    def bandwidth(self) -> Tensor:
        return F.softplus(self.log_bandwidth)

    def forward(
        self, embeddings: Tensor, eps: float = 1e-6, return_probs: bool = False, return_labels: bool = False
    ) -> Any:
        if self.use_approx:
            shifted, probs = mean_shift_assign(
                embeddings, self.cluster_centers, self.bandwidth, num_iters=self.num_iters, window=3, temperature=0.05
            )
        else:
            shifted = dense_mean_shift(embeddings, self.bandwidth, num_iters=self.num_iters)
            probs = assign(shifted, self.cluster_centers, 0.05)
        extra = ((probs,) if return_probs else ()) + ((probs.argmax(-1),) if return_labels else ())
        return (shifted, *extra) if extra else shifted

    def compute_compactness_loss(self, z_normed: Tensor, probs: Tensor) -> Tensor:
        return reference.compactness(z_normed, probs, self.cluster_centers)

    def compute_orthogonality_loss(self) -> Tensor:
        return reference.orthogonality(self.cluster_centers)

    def compute_balance_loss(self, probs: Tensor) -> Tensor:
        return reference.balance(probs)

    def compute_uniform_assignment_loss(self, probs: Tensor) -> Tensor:
        pixels = probs[..., 0].numel()
        return reference.uniform_assignment(probs, (torch.arange(pixels) % 4).sort().values[torch.randperm(pixels)])

    def compute_consistency_loss(self, p1: Tensor, p2: Tensor) -> Tensor:
        return reference.consistency(p1, p2)


class Clustering(nn.Module):
    """A model whose training step calls everything one by one."""

    lambda_unif, lambda_orth, lambda_bal, lambda_cons = 2.0, 0.3, 0.1, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.cluster = Encoding(5, 6), MeanShift(use_approx=True)

    def train_step(self, crop1: Tensor, crop2: Tensor, lambda_unif: float | None = None) -> tuple[Any, ...]:
        views = [self.encoder(crop) for crop in (crop1, crop2)]
        (z1, p1), (z2, p2) = (self.cluster(view, return_probs=True) for view in views)
        flat = [p.flatten(1, 2) for p in (p1, p2)]
        rows = [view.flatten(2).transpose(1, 2) for view in views]
        comp1, comp2 = (self.cluster.compute_compactness_loss(*pair) for pair in zip(rows, flat, strict=True))
        unif = sum(self.cluster.compute_uniform_assignment_loss(p) for p in flat) / 2
        bal = sum(self.cluster.compute_balance_loss(p) for p in flat) / 2
        orth, cons = self.cluster.compute_orthogonality_loss(), self.cluster.compute_consistency_loss(*flat)
        total = comp1 + comp2 + self.lambda_unif * unif + self.lambda_orth * orth + self.lambda_bal * bal
        return total + self.lambda_cons * cons, {}, {"z1": z1, "p1": p1, "z2": z2, "p2": p2}


class Augmentation:
    def __init__(self, crop_size: tuple[int, int]) -> None:
        self.crop_size, self.min_overlap, self.max_overlap = crop_size, 0.2, 0.8
        self.degrees, self.translate, self.scale_range, self.max_shift_bands = 10.0, 0.1, (0.9, 1.1), 2

    def __call__(self, batch: Tensor) -> Tensor:
        views = torch.cat(batch_random_crop_pair(batch, self.crop_size, self.min_overlap, self.max_overlap))
        views = batch_random_affine(views, self.degrees, self.translate, self.scale_range)
        views = batch_wavelength_shift(views, self.max_shift_bands)
        return views.reshape(2, len(batch), *views.shape[1:]).transpose(0, 1)


def package(name: str, **submodules: dict[str, Any]) -> dict[str, ModuleType]:
    """A package whose classes carry the published names; classes are made anew, so that tests cannot meet."""
    made = {name: ModuleType(name)}
    for part, contents in submodules.items():
        module = made[f"{name}.{part}"] = ModuleType(f"{name}.{part}")
        for key, value in contents.items():
            setattr(module, key, value)
    return made


@pytest.fixture
def unmixing() -> Iterator[ModuleType]:
    core = {
        "LangevinRefinedEnergyModule": Refinement, "EBSelectiveModule": Selection,
        "FixedEBSelectiveModule": FixedSelection, "DynamicEBSelectiveModule": DynamicSelection,
    }  # fmt: skip
    modules = package(
        "tool._vendor.unmix",
        core=core,
        mcr={"EBSelectiveMCR": Unmixing, "default_aggreate_function": linear_mixing},
        ambiguity_penalty={"rbf_penalty": rbf_penalty},
        analyzer={"BaseEBgMCR": Solver, "rbf_penalty": rbf_penalty},
    )
    for kind, name in ((Refinement, "LangevinRefinedEnergyModule"), (Unmixing, "EBSelectiveMCR")):
        assert kind in [getattr(module, name, None) for module in modules.values()]
    sys.modules.update(modules)
    yield modules["tool._vendor.unmix"]
    for name in modules:
        del sys.modules[name]


@pytest.fixture
def clustering() -> Iterator[ModuleType]:
    modules = package(
        "tool.dgc",
        clustering={"UnrolledMeanShift": MeanShift, "HyperspectralEncoder": Encoding},
        model={"HyperspectralClusteringModel": Clustering},
        processing={"AugmentationPipeline": Augmentation},
    )
    sys.modules.update(modules)
    yield modules["tool.dgc"]
    for name in modules:
        del sys.modules[name]


OWNERS = (
    Refinement, Selection, FixedSelection, DynamicSelection, Unmixing, Solver, MeanShift, Encoding, Clustering,
    Augmentation,
)  # fmt: skip


def contents() -> list[dict[str, Any]]:
    """Everything that a patch may change."""
    modules = [module for name, module in sys.modules.items() if name.startswith("tool.")]
    return [*(dict(vars(owner)) for owner in (*OWNERS, *modules)), {"linear": list(LINEAR_AGGREGATES)}]


def forward_and_backward(model: Unmixing, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
    torch.manual_seed(11)
    model.zero_grad()
    out = model(x)
    (out["synthesized_pattern"].square().sum() + out["select_energy"].sum() + out["components"].sum()).backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    return {key: value.detach() for key, value in out.items()}, gradients


@pytest.mark.parametrize("training", [True, False])
def test_unmixing_gives_the_same_results(unmixing: ModuleType, training: bool) -> None:
    model, x = Unmixing(6, 9).train(training), torch.rand(4, 9)
    before = contents()
    expected, gradients = forward_and_backward(model, x)
    with spectrafuse.patch(unmixing):
        actual, found = forward_and_backward(model, x)
        assert isinstance(model(x)["components"], LazyTensor)
    assert contents() == before
    assert list(actual) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(actual[key] + 0, value, rtol=1e-4, atol=1e-6)
    assert len(found) == len(gradients) > 4
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert not isinstance(model(x)["components"], LazyTensor)


def test_sparse_unmixing_draws_elsewhere_and_agrees_on_average(unmixing: ModuleType) -> None:
    model, x = Unmixing(3, 5, sparse=True).train(), torch.rand(1, 5)

    def mean() -> Tensor:
        torch.manual_seed(2)
        return model(x.expand(1500, 5))["synthesized_pattern"].detach().mean(0)

    expected = mean()
    with spectrafuse.patch(unmixing):
        torch.testing.assert_close(mean(), expected, rtol=0.15, atol=0.0)
        out = model(x)
        assert out["sparsity_energy"].shape == (1, 3, 5, 2)


def test_penalties_of_solvers_old_and_new(unmixing: ModuleType) -> None:
    penalties = sys.modules["tool._vendor.unmix.ambiguity_penalty"]
    old, own = Solver(penalties), Solver(penalties)
    own.ambiguity_penalty_func = len  # type: ignore[assignment]
    rows = torch.rand(5, 7)
    patched = spectrafuse.patch(unmixing)
    new = Solver(penalties)
    for solver in (old, new):
        function = solver.ambiguity_penalty_func
        assert function is not rbf_penalty
        torch.testing.assert_close(function(rows), rbf_penalty(rows))
    assert own.ambiguity_penalty_func is len
    patched.undo()
    assert [solver.ambiguity_penalty_func for solver in (old, new, own)] == [rbf_penalty, rbf_penalty, len]


@pytest.mark.parametrize("use_approx", [True, False])
def test_mean_shift_gives_the_same_results(clustering: ModuleType, use_approx: bool) -> None:
    # In float32 the bandwidth's gradient, a sum of terms that cancel, has few digits.
    module = MeanShift(use_approx).double()
    embeddings = F.normalize(torch.randn(2, 6, 7, 5, dtype=torch.float64), dim=1).requires_grad_(True)

    def run() -> list[Tensor]:
        shifted, probs, labels = module(embeddings, return_probs=True, return_labels=True)
        inputs = [embeddings, module.cluster_centers, module.log_bandwidth]
        return [shifted, probs, labels, *torch.autograd.grad(probs[..., 0].sum() + shifted.square().sum(), inputs)]

    before, expected = contents(), run()
    with spectrafuse.patch(clustering) as patched:
        assert any(name.endswith(".forward") for name in patched.swapped)
        assert MeanShift.forward is not before[OWNERS.index(MeanShift)]["forward"]
        actual = run()
        assert module(embeddings).shape == embeddings.shape
    assert contents() == before
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_augmentation_gives_the_same_crops(clustering: ModuleType) -> None:
    augmentation, cubes = Augmentation((6, 5)), torch.rand(3, 4, 9, 11)
    torch.manual_seed(4)
    expected = augmentation(cubes)
    with spectrafuse.patch(clustering):
        torch.manual_seed(4)
        actual = augmentation(cubes)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert not hasattr(augmentation, "draw")


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[int]:
    """Grows by one whenever a function is called."""
    calls, function = [], getattr(owner, name)

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return function(*given, **named)

    monkeypatch.setattr(owner, name, counted)
    return calls


@pytest.mark.parametrize("hooked", [False, True])
def test_a_solver_fits_on_prepared_calls_unless_a_hook_forbids_it(
    unmixing: ModuleType, hooked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = count_calls(monkeypatch, DirectEpochs, "train")
    model, hook = Unmixing(6, 9), []
    if hooked:
        model.concentration_regressor.register_forward_hook(lambda *given: hook.append(1))
    before = model.vanilla_components.detach().clone()
    solver = Solver(sys.modules["tool._vendor.unmix.ambiguity_penalty"], model)
    with spectrafuse.patch(unmixing):
        solver.fit(torch.rand(8, 9))
    assert not torch.equal(model.vanilla_components, before)
    assert len(epochs) == (0 if hooked else solver.max_epoch)
    assert bool(hook) is hooked
    with pytest.raises(NotImplementedError):
        solver.fit(torch.rand(8, 9))


@pytest.mark.parametrize("hooked", [False, True])
def test_a_model_trains_on_both_crops_together_unless_a_hook_forbids_it(
    clustering: ModuleType, hooked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training loop as the published trainer's: two passes a step, and an update of the centers from the second."""
    together = count_calls(monkeypatch, step_terms, "embed")
    joint = count_calls(monkeypatch, step_terms.ops, "clustering_objective")
    cubes, augmentation, hook = torch.rand(2, 5, 9, 9, dtype=torch.float64), Augmentation((6, 6)), []

    def train() -> tuple[list[Tensor], Tensor]:
        torch.manual_seed(6)
        model = Clustering().double()
        if hooked:
            model.encoder.spectral_net[1].register_forward_hook(lambda *given: hook.append(1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(2):
            crops = augmentation(cubes)
            optimizer.zero_grad()
            model.train_step(crops[:, 0], crops[:, 1])[0].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                moved = model.train_step(crops[:, 0], crops[:, 1])[2]
                sums = sum(moved[f"p{i}"].reshape(-1, 4).t() @ moved[f"z{i}"].reshape(-1, 6) for i in (1, 2))
                model.cluster.cluster_centers.lerp_(F.normalize(sums, dim=1), 0.1)
        return [parameter.detach() for parameter in model.parameters()], torch.rand(2)

    expected, left = train()
    hook.clear()
    with spectrafuse.patch(clustering):
        actual, left_here = train()
    assert torch.equal(left_here, left)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    assert len(together) == (0 if hooked else 4)
    assert len(joint) == 4
    assert len(hook) == (8 if hooked else 0)


def test_permanent_patches_are_undone_once_and_in_any_number(unmixing: ModuleType, clustering: ModuleType) -> None:
    before = contents()
    first, second, other = (spectrafuse.patch(module) for module in (unmixing, unmixing, clustering))
    assert second.swapped == []
    second.undo()
    assert contents() != before
    first.undo()
    other.undo()
    assert contents() == before
    first.undo()
    assert contents() == before
    assert repr(first) == "Patch(nothing in force)"


def test_an_error_inside_the_block_undoes_it_too(unmixing: ModuleType) -> None:
    before = contents()
    with pytest.raises(ZeroDivisionError), spectrafuse.patch(unmixing):
        raise ZeroDivisionError
    assert contents() == before


def test_what_cannot_be_put_back_does_not_keep_the_rest(unmixing: ModuleType) -> None:
    before = contents()
    made = spectrafuse.patch(unmixing)
    made.on_undo(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.undo()
    assert contents() == before
    made.undo()


def test_a_hook_that_raises_in_a_patched_fit_leaves_the_package_as_it_was(unmixing: ModuleType) -> None:
    before, model = contents(), Unmixing(6, 9)
    solver = Solver(sys.modules["tool._vendor.unmix.ambiguity_penalty"], model)
    removed = model.concentration_regressor.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), spectrafuse.patch(unmixing):
        solver.fit(torch.rand(8, 9))
    assert contents() == before
    removed.remove()
    with spectrafuse.patch(unmixing):
        solver.fit(torch.rand(8, 9))
    assert contents() == before


def test_a_patch_that_fails_halfway_leaves_nothing(unmixing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    before, usual, left = contents(), Patch.replace, [3]

    def replace(self: Patch, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("this class takes no attributes")
        usual(self, *arguments)

    monkeypatch.setattr(Patch, "replace", replace)
    with pytest.raises(RuntimeError, match="takes no attributes"):
        spectrafuse.patch(unmixing)
    assert left == [0]
    assert contents() == before


def test_what_went_meanwhile_does_not_stand_in_the_way_of_an_undo(unmixing: ModuleType) -> None:
    before = contents()
    made = spectrafuse.patch(unmixing)
    assert "ambiguity_penalty_func" in vars(Solver)
    del Solver.ambiguity_penalty_func
    vanished = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("tool.")}
    made.undo()
    sys.modules.update(vanished)
    assert contents() == before


def test_patches_from_threads_at_once_are_undone(unmixing: ModuleType, clustering: ModuleType) -> None:
    before, start, wrong = contents(), threading.Barrier(4), []

    def use(module: ModuleType) -> None:
        start.wait(60)
        try:
            for _ in range(20):
                with spectrafuse.patch(module):
                    pass
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(module,)) for module in (unmixing, clustering) * 2]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert contents() == before


@pytest.mark.parametrize("given", [None, 3, "ebgmcr", object(), type("module", (), {}), [sys]])
def test_what_is_no_module_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="`module` must be a module; got"):
        spectrafuse.patch(given)


def test_modules_with_strange_contents_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = ModuleType("strange[/b]\x1b")
    strange.__getattr__ = lambda name: object()  # type: ignore[method-assign]
    strange.UnrolledMeanShift = "not a class"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, strange.__name__ + ".none", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has neither") as refused:
        spectrafuse.patch(strange)
    assert "\x1b" not in str(refused.value)


def test_our_own_stand_ins_need_nothing() -> None:
    from spectrafuse.compat import ebgmcr, hsi_global_clustering

    assert spectrafuse.patch(ebgmcr).swapped == []
    assert spectrafuse.patch(hsi_global_clustering).swapped == []


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="has neither"):
        spectrafuse.patch(sys)
    with pytest.raises(TypeError, match="module"):
        spectrafuse.patch("ebgmcr")  # type: ignore[arg-type]
