"""The whole EB-gMCR model, assembled from the operations, against numbers of the published code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from spectrafuse import use_backend
from spectrafuse.ops.energy_gate import energy_gate
from spectrafuse.ops.gate import GateNoise, GateResult, Langevin, gate
from spectrafuse.ops.gated_mixture import gated_mixture
from spectrafuse.ops.skinny_linear import skinny_linear
from spectrafuse.ops.sparse_gated_mixture import sparse_gated_mixture

CASES = [f"ebgmcr_forward_{i}" for i in range(5)]
PARSER = "component_parser.energy_evaluator"
REGRESSOR = "concentration_regressor"


def layers(parameters: dict[str, Tensor], prefix: str, config: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of a network in order; activations take the odd numbers in their names."""
    extended = config["hidden_size_extension"] is not None
    names = [f"{prefix}.{2 * i}" for i in range(config["hidden_layers"] + 1)] if extended else [prefix]
    return [(parameters[f"{name}.weight"], parameters[f"{name}.bias"]) for name in names]


class Model:
    """Inputs, parameters and outputs of one golden case."""

    def __init__(self, name: str) -> None:
        self.data = golden(name)
        self.config = self.data["config"]
        self.parameters = {k: v.requires_grad_(True) for k, v in state(self.data, "state").items()}
        self.train = bool(self.data["train"])
        self.langevin = (
            Langevin(*(self.config[f"langevin_{k}"] for k in ("step_size", "noise", "steps"))) if self.train else None
        )

    def noise(self, prefix: str) -> GateNoise:
        return GateNoise(self.data[f"{prefix}.langevin_noise"], self.data[f"{prefix}.gumbel"])

    def select(self) -> tuple[GateResult, Tensor]:
        """The gate, and the energies it was made of."""
        hidden = self.data["x"]
        *inner, last = layers(self.parameters, PARSER, self.config)
        for weight, bias in inner:
            hidden = skinny_linear(hidden, weight, bias, "tanh")
        threshold = None if self.train else self.data["threshold"]
        tau = self.data["select.tau"]
        energy = (hidden @ last[0].T + last[1]).view(*self.data["select.energy"].shape)
        fused = energy_gate(
            hidden, *last, self.noise("select"), tau=tau, langevin=self.langevin, hard_threshold=threshold
        )
        separate = gate(energy, self.noise("select"), tau=tau, langevin=self.langevin, hard_threshold=threshold)
        for one, other in zip(fused, separate, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        return fused, energy

    def concentration(self) -> Tensor:
        x = self.data["x"]
        *inner, last = layers(self.parameters, REGRESSOR, self.config)
        for weight, bias in inner:
            x = skinny_linear(x, weight, bias, "relu")
        return skinny_linear(x, *last, "abs")

    def mix(self, concentration: Tensor, select_prob: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Mixture, and sums of the sparsity energies where there are any."""
        components = self.parameters["vanilla_components"]
        options = {
            "non_negative": self.config["non_negative_component"],
            "norm": self.config["component_norm"],
        }
        if not self.config["sparse_component"]:
            return gated_mixture(concentration, select_prob, components, **options), None, None
        energy = self.parameters["component_sparsity.energy"].view(*components.shape, 2)
        return sparse_gated_mixture(
            concentration,
            select_prob,
            components,
            energy,
            noise=self.noise("sparsity"),
            tau=self.data["sparsity.tau"],
            langevin=self.langevin,
            **options,
        )

    def gated_components(self, select_prob: Tensor) -> Tensor:
        """S h s as (B, N, d): each component's own mixture at concentration 1, which holds one more s."""
        count = select_prob.shape[1]
        rows = [self.mix(unit.expand_as(select_prob), select_prob)[0] for unit in torch.eye(count).double()]
        return torch.stack(rows, dim=1) / select_prob.clamp_min(1e-300).unsqueeze(-1)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_forward_and_gradients(name: str, backend: str) -> None:
    model = Model(name)
    expected = model.data
    with use_backend(backend):
        selected, energy = model.select()
        concentration = model.concentration()
        mixture, sparsity_sum, sparsity_square_sum = model.mix(concentration, selected.select_prob)
        objective = (mixture * expected["grad_pattern"]).sum()
        objective = objective + (selected.select_energy * expected["grad_select_energy"]).sum()
        if model.train:
            objective = objective + (selected.select_prob * expected["grad_select_prob"]).sum()
        wanted = sorted(k.removeprefix("grad.") for k in expected if k.startswith("grad."))
        gradients = torch.autograd.grad(objective, [model.parameters[k] for k in wanted])
        with torch.no_grad():
            components = model.gated_components(selected.select_prob)

    for actual, key in (
        (energy, "select.energy"),
        (selected.select_energy, "select_energy"),
        (selected.select_prob, "effective_indices"),
        (mixture, "synthesized_pattern"),
        ((concentration * selected.select_prob).unsqueeze(-1), "concentration"),
        (components, "components"),
    ):
        assert_close_to_max(actual.detach(), expected[key].double(), GOLDEN_RTOL)
    r = expected["select_energy"]
    assert_close_to_max(selected.energy_sum.detach(), r.sum(), GOLDEN_RTOL)
    assert_close_to_max(selected.energy_square_sum.detach(), r.square().sum(), GOLDEN_RTOL)
    threshold = expected["threshold"] if not model.train else 0.5
    assert torch.equal(selected.used, (expected["effective_indices"] > threshold).any(dim=0))
    if sparsity_sum is not None and sparsity_square_sum is not None:
        r = expected["sparsity_energy"]
        assert_close_to_max(sparsity_sum.detach(), r.sum(), GOLDEN_RTOL)
        assert_close_to_max(sparsity_square_sum.detach(), r.square().sum(), GOLDEN_RTOL)
    assert len(wanted) > 0
    for key, gradient in zip(wanted, gradients, strict=True):
        assert_close_to_max(gradient, expected[f"grad.{key}"], GOLDEN_GRADIENT_RTOL)
