"""The unmixing model against published forward and backward passes, and its plug-ins."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from spectrafuse import use_backend
from spectrafuse.mcr.model import ModelNoise, UnmixingModel
from spectrafuse.ops.gate import GateNoise, Langevin
from spectrafuse.random import RandomStream


def _published(values: dict[str, Any], **plug_ins: Any) -> UnmixingModel:
    model = UnmixingModel(**values["config"], select_threshold=values["threshold"], **plug_ins).double()
    model.load_state_dict(state(values, "state"))
    return model.train(values["train"])


def _injected(values: dict[str, Any]) -> ModelNoise:
    def of(name: str) -> GateNoise | None:
        if f"{name}.gumbel" not in values:
            return None
        langevin = values[f"{name}.langevin_noise"] if values["train"] else None
        return GateNoise(langevin, values[f"{name}.gumbel"])

    return ModelNoise(of("select"), of("sparsity"))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "aggregate"])
@pytest.mark.parametrize("case", range(5))
def test_published_passes(case: int, plain: bool, backend: str) -> None:
    values = golden(f"ebgmcr_forward_{case}")
    seen: list[Tensor] = []

    def add_up(concentration: Tensor, components: Tensor) -> Tensor:
        seen[:] = [concentration, components]
        return (concentration * components).sum(1)

    model = _published(values, **({} if plain else {"aggregate_function": add_up}))
    with use_backend(backend):
        out = model(values["x"], _injected(values))
        if not plain:
            assert_close_to_max(seen[0], values["concentration"], GOLDEN_RTOL)
            assert_close_to_max(seen[1], values["components"], GOLDEN_RTOL)
        gated = (out.concentration * out.select_prob).unsqueeze(-1)
        assert_close_to_max(out.mixture, values["synthesized_pattern"], GOLDEN_RTOL)
        assert_close_to_max(out.select_prob, values["effective_indices"].double(), GOLDEN_RTOL)
        assert_close_to_max(out.select_energy, values["select_energy"], GOLDEN_RTOL)
        assert_close_to_max(gated, values["concentration"], GOLDEN_RTOL)
        energies = [values["select_energy"].flatten()]
        if values["config"]["sparse_component"]:
            energies.append(values["sparsity_energy"].flatten())
        assert_close_to_max(out.mean_energy, torch.cat(energies).mean(), GOLDEN_RTOL)
        assert_close_to_max(out.energy_square, values["select_energy"].square().mean(), GOLDEN_RTOL)

        objective = (out.mixture * values["grad_pattern"]).sum()
        objective = objective + (out.select_energy * values["grad_select_energy"]).sum()
        if values["train"]:
            objective = objective + (out.select_prob * values["grad_select_prob"]).sum()
        objective.backward()
    named = dict(model.named_parameters())
    for key, expected in values.items():
        if key.startswith("grad.") and key[5:] in named:
            gradient = named[key[5:]].grad
            assert_close_to_max(
                torch.zeros_like(expected) if gradient is None else gradient, expected, GOLDEN_GRADIENT_RTOL
            )


def test_initial_values_have_the_published_spread() -> None:
    options: dict[str, Any] = {"sparse_component": True, "hidden_size_extension": 2, "hidden_layers": 2}
    model = UnmixingModel(40, 100, stream=RandomStream(5), **options)
    for name, parameter in model.named_parameters():
        std = 0.01 if name.startswith("concentration") else 0.05
        if name == "vanilla_components":
            assert (parameter >= 0).all()
            assert parameter.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.05)
        else:
            assert parameter.std().item() == pytest.approx(std, rel=0.25 if parameter.ndim == 1 else 0.05), name
    signed = UnmixingModel(40, 100, non_negative_component=False).vanilla_components
    assert signed.mean().abs() < 0.01
    again = UnmixingModel(40, 100, stream=RandomStream(5), **options).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("extension", "layers"), [(None, 1), (None, 3), (1, 1), (3, 2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_network_shapes(extension: int | None, layers: int, size: tuple[int, int]) -> None:
    n, d = size
    model = UnmixingModel(n, d, sparse_component=False, hidden_size_extension=extension, hidden_layers=layers)
    weights = [tuple(v.shape) for k, v in model.state_dict().items() if "evaluator" in k and k.endswith("weight")]
    if extension is None:
        assert weights == [(2 * n, d)]
    else:
        width = 2 * n * extension
        assert weights == [(width, d), *[(width, width)] * (layers - 1), (2 * n, width)]
    assert model(torch.rand(2, d), model.draw_noise(2, RandomStream(1))).mixture.shape == (2, d)


def test_langevin_options_reach_the_gates_unless_published() -> None:
    options: dict[str, Any] = {"langevin_step_size": 0.5, "langevin_noise": 0.3, "langevin_steps": 7}
    assert UnmixingModel(2, 3, **options).langevin == Langevin(0.5, 0.3, 7)
    published = UnmixingModel(2, 3, **options, langevin_options_apply=False)
    assert published.langevin == Langevin()
    assert published.config["langevin_steps"] == 7
    still = UnmixingModel(2, 3, langevin_steps=0, sparse_component=False)
    noise = still.draw_noise(4, RandomStream(0)).select
    assert noise is not None
    assert noise.langevin is None


def test_drawn_noise_has_its_distributions() -> None:
    model = UnmixingModel(50, 2, sparse_component=False)
    noise = model.draw_noise(400, RandomStream(3)).select
    assert noise is not None
    assert noise.langevin is not None
    assert noise.langevin.shape == (400, 50, 2)
    assert noise.langevin.std().item() == pytest.approx(0.1 * 32**0.5, rel=0.03)
    assert torch.corrcoef(noise.langevin.reshape(-1, 2).T)[0, 1].abs() < 0.03
    assert noise.gumbel.var().item() == pytest.approx(torch.pi**2 / 3, rel=0.05)
    evaluation = model.eval().draw_noise(4, RandomStream(3)).select
    assert evaluation is not None
    assert evaluation.langevin is None


def test_fixed_components_get_no_gradient() -> None:
    model = UnmixingModel(3, 4, sparse_component=False, learnable_component=False)
    model(torch.rand(2, 4)).mixture.sum().backward()
    assert model.vanilla_components.grad is None
    assert model.config["learnable_component"] is False


@pytest.mark.parametrize("norm", [None, 1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_post_processing_is_really_applied(sparse: bool, norm: int | None) -> None:
    def flip(components: Tensor) -> Tensor:
        return 2.0 * components.flip(1)

    options: dict[str, Any] = {"sparse_component": sparse, "component_norm": norm, "select_threshold": 0.4}
    plain = UnmixingModel(6, 7, **options).eval()
    processed = UnmixingModel(6, 7, **options, component_post_processing=flip).eval()
    with torch.no_grad():
        plain.component_sparsity.energy.zero_()
        processed.component_sparsity.energy.zero_()
    x = torch.rand(5, 7)
    assert torch.allclose(processed.components(), flip(plain.components()))
    assert torch.allclose(processed(x).mixture, flip(plain(x).mixture), atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_parsing_some_components_equals_the_whole_pass(sparse: bool) -> None:
    model = UnmixingModel(
        9, 6, sparse_component=sparse, component_norm=2, hidden_size_extension=1, select_threshold=0.5
    ).eval()
    x, ids = torch.rand(8, 6), torch.tensor([7, 2, 3])
    whole = model(x)
    concentration, select_prob = model.parse(x, ids)
    assert torch.equal(select_prob, whole.select_prob[:, ids])
    assert torch.allclose(concentration, (whole.concentration * whole.select_prob)[:, ids])
    every = torch.arange(9)
    assert torch.allclose(model.recompose(model.parse(x, every)[0], every), whole.mixture, atol=1e-6)
    assert model.parse(x, ids[:0])[0].shape == (8, 0)
    assert model.recompose(torch.zeros(2, 0), ids[:0]).tolist() == [[0.0] * 6] * 2


def test_sparse_gates_are_drawn_anew_for_each_sample_and_each_pass() -> None:
    model = UnmixingModel(4, 30, sparse_component=True, component_norm=2)
    x, stream = torch.rand(1, 30).expand(3, 30), RandomStream(2)
    noise = model.draw_noise(3, stream)
    select = GateNoise(None, torch.zeros(3, 4))
    one = model(x, noise._replace(select=select)).mixture
    assert not torch.allclose(one[0], one[1])
    assert torch.equal(one, model(x, noise._replace(select=select)).mixture)
    assert not torch.allclose(one, model(x, model.draw_noise(3, stream)._replace(select=select)).mixture)


def test_sparse_aggregate_draws_what_the_operation_draws() -> None:
    options: dict[str, Any] = {"sparse_component": True, "component_norm": 2}
    plain = UnmixingModel(4, 11, **options)
    aggregated = UnmixingModel(4, 11, **options, aggregate_function=lambda c, s: (c * s).sum(1))
    x, noise = torch.rand(3, 11), plain.draw_noise(3, RandomStream(4))
    first, second = plain(x, noise), aggregated(x, noise)
    assert torch.allclose(first.mixture, second.mixture, atol=1e-6)
    assert torch.allclose(first.mean_energy, second.mean_energy, atol=1e-6)


def test_a_zero_component_stays_finite() -> None:
    model = UnmixingModel(2, 3, sparse_component=False, component_norm=2)
    with torch.no_grad():
        model.vanilla_components.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]]))
    assert model.components()[0].tolist() == [0.0] * 3
    model(torch.rand(2, 3)).mixture.sum().backward()
    assert model.vanilla_components.grad is not None
    assert model.vanilla_components.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_components": 0}, "num_components"),
        ({"hidden_size_extension": 0}, "hidden_size_extension"),
        ({"hidden_layers": 0}, "hidden_layers"),
        ({"temperature_eval": 0.0}, "temperature_eval"),
        ({"langevin_steps": -1}, "langevin_steps"),
        ({"component_norm": 0}, "component_norm"),
        ({"select_threshold": 1.5}, "select_threshold"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        UnmixingModel(**{"num_components": 2, "dim_components": 3, **options})
