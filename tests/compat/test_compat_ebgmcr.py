"""The published EB-gMCR package's names: model, goldens, drawing order, metrics, penalties, data."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from spectrafuse.compat import ebgmcr
from spectrafuse.compat.ebgmcr import ambiguity_penalty, analyzer, core, data, mcr, utils
from spectrafuse.compat.ebgmcr.eval import StreamingMetrics
from spectrafuse.compat.ebgmcr.lazy import LazyTensor
from spectrafuse.mcr.model import ModelNoise
from spectrafuse.mcr.model_io import read_model
from spectrafuse.ops.gate import GateNoise, Langevin

CASES = [f"ebgmcr_forward_{i}" for i in range(5)]

SOLVER = (
    "num_components dim_components=None sparse_component=False non_negative_component=True component_norm=2 "
    "hidden_size_extension=2 hidden_layers=2 optimizer_class=AdamW optimizer_args checkpoint_criterion='R2' "
    "checkpoint_threshold=0.97 checkpoint_interval=0.005 device=device(type='cpu') mini_batch_size=64 max_epoch=-1 "
    "tol_pattern_nmse=0.01 tol_energy_ratio={ratio} select_prob_threshld=0.9999994 min_component_coef=1.0 "
    "ambiguity_coef=1e-10 energy_coef=1e-10 ambiguity_penalty='rbf' ambiguity_prob_threshold=0.5 poly_dim=2 "
    "matern_nu=1.5 temperature_max=1.0 temperature_min=0.4 temperature_drop_value=0.01 temperature_drop_epochs=100 "
    "temperature_eval=0.01 langevin_step_size=0.05 langevin_noise=0.1 langevin_steps=32"
)
GATE = "tau=0.1 langevin_step_size=0.05 langevin_nosie=0.1 langevin_steps=32"
SIGNATURES: list[tuple[Any, str]] = [
    (
        mcr.EBSelectiveMCR,
        "num_components dim_components sparse_component=True non_negative_component=True learnable_component=True "
        "component_norm=None hidden_size_extension=None hidden_layers=1 component_post_processing aggregate_function "
        "temperature_train=1.0 temperature_eval=0.001 select_prob_threshld=0.99994 langevin_step_size=0.05 "
        "langevin_noise=0.1 langevin_steps=32",
    ),
    (analyzer.BaseEBgMCR, SOLVER.format(ratio=0.25)),
    (analyzer.DenseEBgMCR, SOLVER.format(ratio=0.5)),
    (
        analyzer.DenseEBgMCR.fit,
        "self data eval_data=None show_args=False show_train_info=False show_eval_info=False "
        "train_info_display_interval=1 eval_info_display_interval=100 log_dir=None log_info_interval=10 "
        "full_result_filename=None final_result_filename=None force_write_file=False",
    ),
    (analyzer.DenseEBgMCR.parse_pattern, "self data select_threshold=None"),
    (core.LangevinRefinedEnergyModule, "step_size=0.05 noise_scale=0.1 num_steps=32"),
    (core.FixedEBSelectiveModule, "gate_number output_shape=None " + GATE),
    (
        core.DynamicEBSelectiveModule,
        "source_shape gate_number output_shape=None energy_evaluator=None energy_hidden_extension=None "
        "energy_hidden_layers=1 " + GATE,
    ),
    (
        data.RandomComponentMixtureSynthesizer,
        "component_number component_dim component_sparsity=0.0 non_negative_component=True orthogonal_component=True "
        "component_norm=None min_mixing_component=1 max_mixing_component=-1 min_concentration=1.0 "
        "max_concentration=10.0 signal_to_nosie_ratio=None components=None device=None",
    ),
    (data.CsvComponentMixtureLoader, "data_dir='real_dataset'"),
    (data.CsvComponentMixtureLoader.__call__, "self batch_size=None dataset='carbs' device='cpu'"),
    (StreamingMetrics, "dim mode='dense' eps=0.001"),
    (utils.EnergyL1Scheduler, "total_components target_ratio=1.0 nmse_margin=0.005 init_coef=0.0 smooth_factor=0.95"),
    (utils.EnergyL1Scheduler.step, "self nMSE MSE used_components"),
    (utils.load_safetensors, "filename device='cpu' extension_check=True"),
    (utils.init_layer_weight, "layer initializer_range=0.01"),
    (ambiguity_penalty.polynomial_penalty, "all_components c=1.0 d=2"),
    (ambiguity_penalty.matern_penalty, "all_components nu=1.5 lengthscale=1.0 sigma=1.0"),
]


@pytest.mark.parametrize(("function", "expected"), SIGNATURES, ids=lambda v: getattr(v, "__qualname__", ""))
def test_published_signatures(function: Any, expected: str) -> None:
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        default = parameter.default
        shown = default.__name__ if isinstance(default, type) else repr(default)
        hidden = default is parameter.empty or isinstance(default, (dict, nn.Module)) or inspect.isfunction(default)
        found.append(name if hidden else f"{name}={shown}")
    assert found == expected.split()


def test_published_names() -> None:
    assert set(ebgmcr.__all__) == {
        "RandomComponentMixtureSynthesizer", "CsvComponentMixtureLoader", "EBSelectiveMCR", "DenseEBgMCR",
    }  # fmt: skip
    assert all(hasattr(ebgmcr, name) for name in ebgmcr.__all__)


def golden_model(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> mcr.EBSelectiveMCR:
    """The model of a golden case that draws the golden numbers."""

    def noise(kind: str, langevin: Langevin | None) -> GateNoise:
        refinement = values[f"{kind}.langevin_noise"] if langevin is not None else None
        return GateNoise(refinement, values[f"{kind}.gumbel"])

    def by_shape(shape: tuple[int, ...], like: Tensor, langevin: Langevin | None) -> GateNoise:
        drawn = noise("select" if len(shape) == 3 else "sparsity", langevin)
        assert tuple(shape) == tuple(drawn.gumbel.shape)
        return drawn

    monkeypatch.setattr(core, "draw_gate_noise", by_shape)
    monkeypatch.setattr(core, "draw_sparsity_source", by_shape)
    model = mcr.EBSelectiveMCR(**values["config"]).double()
    model.load_state_dict(state(values, "state"))
    return model.train(bool(values["train"]))


def unhooked(model: mcr.EBSelectiveMCR) -> None:
    pass


def hooked(model: nn.Module, but: type[nn.Module] | None = core.LangevinRefinedEnergyModule) -> None:
    """Hooks of the caller's, so the modules have to be called (the refinement would draw for itself)."""
    for module in model.modules():
        # An identity is the signature's default, which all models share.
        if not isinstance(module, (nn.Identity, *([] if but is None else [but]))):
            module.register_forward_hook(lambda module, inputs, output: None)


def own_aggregate(model: mcr.EBSelectiveMCR) -> None:
    model.aggregate_function = lambda concentration, components: (concentration * components).sum(dim=1)


@pytest.mark.parametrize("prepare", [unhooked, hooked, own_aggregate])
@pytest.mark.parametrize("name", CASES)
def test_goldens(name: str, prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = golden(name)
    model = golden_model(values, monkeypatch)
    prepare(model)
    out = model(values["x"], select_prob_threshld=values["threshold"])
    objective = (out["synthesized_pattern"] * values["grad_pattern"]).sum()
    objective = objective + (out["select_energy"] * values["grad_select_energy"]).sum()
    if model.training:
        objective = objective + (out["effective_indices"] * values["grad_select_prob"]).sum()
    objective.backward()

    assert list(out) == [
        "synthesized_pattern", "concentration", "components", "effective_indices", "sparsity_energy", "select_energy",
    ]  # fmt: skip
    for key, actual in out.items():
        expected = torch.as_tensor(values[key], dtype=torch.float64)
        assert actual.shape == expected.shape
        assert_close_to_max(actual.detach().double() * 1.0, expected, GOLDEN_RTOL)
    parameters = dict(model.named_parameters())
    wanted = [key.removeprefix("grad.") for key in values if key.startswith("grad.")]
    assert len(wanted) > 3
    for key in wanted:
        gradient = parameters[key].grad
        assert gradient is not None
        assert_close_to_max(gradient, values[f"grad.{key}"], GOLDEN_GRADIENT_RTOL)


@pytest.mark.parametrize("name", ["ebgmcr_forward_0", "ebgmcr_forward_2", "ebgmcr_forward_3", "ebgmcr_forward_4"])
def test_lazy_results_are_not_built_unless_read_and_then_have_the_gradient(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = golden(name)
    model = golden_model(values, monkeypatch)
    out = model(values["x"], select_prob_threshld=values["threshold"])
    lazy = out["components"]
    assert isinstance(lazy, LazyTensor)
    weight = torch.rand(lazy.shape, dtype=torch.float64)
    mixed = (out["concentration"] * lazy).sum(1)
    assert torch.numel(lazy) == weight.numel()
    assert lazy._whole is None
    assert_close_to_max(mixed.detach(), out["synthesized_pattern"].detach(), GOLDEN_RTOL)

    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.data.mul_(3).add_(1.0)  # as an optimizer does before anybody reads
    assert_close_to_max((lazy.detach() * 1.0), values["components"], GOLDEN_RTOL)
    for parameter, value in zip(model.parameters(), before, strict=True):
        parameter.data.copy_(value)
    (lazy * weight).sum().backward()
    lazily = model.vanilla_components.grad
    model.zero_grad()
    built = model(values["x"], select_prob_threshld=values["threshold"])["components"].recipe.whole()
    (built * weight).sum().backward()
    assert lazily is not None
    assert model.vanilla_components.grad is not None
    torch.testing.assert_close(lazily, model.vanilla_components.grad)
    if out["sparsity_energy"].dim() > 0:
        again = model(values["x"])["sparsity_energy"]
        assert_close_to_max(again.sum().detach(), values["sparsity_energy"].sum(), GOLDEN_RTOL)
        assert again._whole is None


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("with_hooks", [True, False])
def test_a_seed_draws_the_published_numbers(seed: int, training: bool, with_hooks: bool) -> None:
    module = core.DynamicEBSelectiveModule(6, 5, energy_hidden_extension=2, tau=0.7).train(training)
    if with_hooks:
        hooked(module, but=None)
    x = torch.rand(3, 6)
    torch.manual_seed(seed)
    gates, energies = module(x)
    torch.manual_seed(seed)
    energy = module.energy_evaluator(x).view(3, 5, 2)
    if training:
        energy = energy - 0.05 * 32 + 0.1 * torch.randn_like(energy) * math.sqrt(32)
    expected = functional.gumbel_softmax(-energy, tau=0.7, dim=-1)[..., 0]
    torch.testing.assert_close(gates, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(energies, -energy)


def test_a_callers_hooks_are_called_and_can_change_things() -> None:
    torch.manual_seed(2)
    model = mcr.EBSelectiveMCR(4, 3, sparse_component=False, hidden_size_extension=1)
    x = torch.rand(5, 3)
    seen = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, core.EBSelectiveModule, core.LangevinRefinedEnergyModule)):
            module.register_forward_hook(lambda module, inputs, output, name=name: seen.append(name))
    model(x)
    assert sorted(seen) == sorted(
        ["component_parser", "component_parser.langevin_dynamics"]
        + [f"component_parser.energy_evaluator.{i}" for i in (0, 2)]
        + [f"concentration_regressor.{i}" for i in (0, 2)]
    )
    model.concentration_regressor.register_forward_hook(lambda module, inputs, output: output * 0)
    assert model(x)["synthesized_pattern"].abs().max() == 0.0


def test_a_seed_draws_the_published_parameters() -> None:
    torch.manual_seed(7)
    model = mcr.EBSelectiveMCR(4, 3, hidden_size_extension=1)
    torch.manual_seed(7)
    components = torch.randn(4, 3).normal_(std=0.1).abs()
    energy = torch.randn(12, 2).normal_(std=0.05)
    first = nn.Linear(3, 8)
    nn.init.normal_(first.weight, std=0.05)
    assert torch.equal(model.vanilla_components, components)
    assert torch.equal(model.component_sparsity.energy, energy)
    assert torch.equal(model.component_parser.energy_evaluator[0].weight, first.weight)


def test_sparsity_draws_have_the_published_distribution() -> None:
    module = core.FixedEBSelectiveModule(6 * 40, (6, 40), tau=1.0)
    module.energy.data.zero_()
    torch.manual_seed(5)
    lazy = module.lazy(30)
    assert lazy is not None
    both = [lazy.sample(b) for b in range(30)]
    energies = torch.stack([energy for _, energy in both])
    logits = torch.stack([torch.logit(gates) for gates, _ in both])
    n = energies.numel()
    spread = 0.1 * math.sqrt(32)
    assert abs(energies.mean().item() - 1.6) < 5 * spread / math.sqrt(n)
    assert abs(energies.std().item() - spread) < 5 * spread / math.sqrt(2 * n)
    variance = math.pi**2 / 3 + 2 * spread**2
    assert abs(logits.var().item() - variance) < 0.05 * variance
    assert lazy.sample(3)[0].equal(both[3][0])
    assert not lazy.sample(2)[0].equal(both[3][0])
    drawn = module(batch_size=30)
    assert drawn[0].shape == (30, 6, 40)
    assert abs(drawn[1].mean().item() - 1.6) < 5 * spread / math.sqrt(n)


def test_options_that_do_not_reach_the_gates_and_those_that_do() -> None:
    model = mcr.EBSelectiveMCR(3, 4, langevin_steps=0, langevin_noise=0.5)
    assert model.component_parser.langevin_dynamics.num_steps == 32
    energies = model(torch.rand(200, 4))["select_energy"]
    assert abs(energies.mean().item() - 1.6) < 0.3
    model.component_parser.langevin_dynamics.num_steps = 0
    assert abs(model(torch.rand(200, 4))["select_energy"].mean().item()) < 0.3


def test_evaluation_is_noisy_and_thresholded() -> None:
    torch.manual_seed(0)
    model = mcr.EBSelectiveMCR(50, 4, sparse_component=False, temperature_eval=1.0).eval()
    x = torch.rand(6, 4)
    first, second = (model(x, select_prob_threshld=0.5)["effective_indices"] for _ in range(2))
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)


def test_components_and_their_indices() -> None:
    model = mcr.EBSelectiveMCR(5, 4, component_norm=2, non_negative_component=False)
    whole = model.components()
    torch.testing.assert_close(whole, functional.normalize(model.vanilla_components, dim=1))
    torch.testing.assert_close(model.components(torch.tensor([3, 1])), whole[[3, 1]])
    torch.testing.assert_close(model.components(torch.tensor([True, False, True, False, False])), whole[[0, 2]])
    torch.testing.assert_close(model.components(2), whole[2])
    torch.testing.assert_close(model.components([2]), whole[2])
    torch.testing.assert_close(model.components([2, 1]), whole[2, 1])
    torch.testing.assert_close(model.components((0, 1, 2)), whole[:3])
    given = torch.rand(5, 4)
    model.load_components(given, learnable=False)
    assert model.vanilla_components.requires_grad
    model.vanilla_components.data.zero_()
    assert given.abs().sum() > 0
    assert model.components().isfinite().all()


def test_post_processing_reaches_components_but_not_the_mixture() -> None:
    model = mcr.EBSelectiveMCR(
        5, 4, sparse_component=False, component_norm=2, component_post_processing=lambda components: components * 2
    )
    given = torch.rand(5, 4)
    model.load_components(given)
    torch.testing.assert_close(model.components(), 2 * functional.normalize(given, dim=1))
    torch.testing.assert_close(model.parse_pattern(torch.rand(2, 4))[1][0], functional.normalize(given, dim=1))


def test_a_callers_evaluator_and_gates() -> None:
    evaluator = nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 10))
    module = core.DynamicEBSelectiveModule(4, 5, energy_evaluator=evaluator)
    gates, energies = module(torch.rand(2, 4))
    (gates.sum() + energies.sum()).backward()
    assert gates.shape == (2, 5)
    assert evaluator[0].weight.grad is not None
    assert module.energy_hidden_extension is None
    with pytest.raises(ValueError, match="output_shape"):
        core.FixedEBSelectiveModule(6, (2, 2))
    shaped = core.FixedEBSelectiveModule(6, (2, 3)).eval()
    assert shaped()[0].shape == (1, 2, 3)
    assert shaped(batch_size=4)[1].shape == (4, 2, 3, 2)


def test_model_files_are_the_published_ones_and_ours(tmp_path: Path) -> None:
    model = mcr.EBSelectiveMCR(5, 4, sparse_component=False, hidden_size_extension=2, component_norm=2)
    model.save_pretrained(str(tmp_path / "a"))
    names = golden("ebgmcr_forward_0")
    config = json.loads((tmp_path / "a" / "param.json").read_text())
    assert list(config) == list(names["config"])
    assert set(model.state_dict()) == {k.removeprefix("state.") for k in names if k.startswith("state.")} - {
        f"{part}.4.{kind}"
        for part in ("component_parser.energy_evaluator", "concentration_regressor")
        for kind in ("weight", "bias")
    }
    again = mcr.EBSelectiveMCR(1, 1).from_pretrained(str(tmp_path / "a"))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert again.param_dict == model.param_dict
    ours = read_model(tmp_path / "a", select_threshold=0.5)
    x, noise = torch.rand(3, 4), GateNoise(None, torch.randn(3, 5, 2))
    expected = ours(x, ModelNoise(noise))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(core, "draw_gate_noise", lambda shape, like, langevin: noise)
        out = again.eval()(x, select_prob_threshld=0.5)
    torch.testing.assert_close(out["synthesized_pattern"], expected.mixture)
    assert torch.equal(out["effective_indices"], expected.select_prob)
    with pytest.raises(OSError, match="not a directory"):
        again.from_pretrained(str(tmp_path / "b"))


@pytest.mark.parametrize("extension", [0, None])
def test_extension_0_is_one_layer(extension: int | None) -> None:
    model = mcr.EBSelectiveMCR(3, 4, hidden_size_extension=extension)
    assert isinstance(model.concentration_regressor, nn.Linear)
    assert model.param_dict["hidden_size_extension"] is None
