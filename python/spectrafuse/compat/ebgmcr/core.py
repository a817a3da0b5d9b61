"""Gates of the published package: Langevin refinement and Gumbel selection (its `core.py`), on our operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.compat.ebgmcr.checks import Option, integer, number, plain_layers, untouched
from spectrafuse.compat.ebgmcr.recipes import SparsityGates
from spectrafuse.compat.ebgmcr.utils import init_layer_weight
from spectrafuse.ops.energy_gate import energy_gate
from spectrafuse.ops.gate import GateNoise, Langevin, gate
from spectrafuse.ops.skinny_linear import skinny_linear

__all__ = ["DynamicEBSelectiveModule", "FixedEBSelectiveModule"]

ENERGY_STD = 5e-2


def draw_gate_noise(shape: Sequence[int], like: Tensor, langevin: Langevin | None) -> GateNoise:
    """Noise of gates over energies of `shape` (..., 2), from torch's global generator.

    The same numbers in the same order as the published code draws: first the refinement's, then both classes' Gumbel
    numbers. A seed therefore gives the published run.
    """
    gumbel = torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    refinement = torch.empty_like(gumbel) if langevin is not None and langevin.steps > 0 else None
    fill_gate_noise(refinement, gumbel, langevin)
    return GateNoise(refinement, gumbel)


def fill_gate_noise(refinement: Tensor | None, gumbel: Tensor, langevin: Langevin | None) -> None:
    """`draw_gate_noise` into tensors that exist already; None: no refinement."""
    if refinement is not None:
        assert langevin is not None
        refinement.normal_().mul_(langevin.noise).mul_(langevin.steps**0.5)
    gumbel.exponential_().log_().neg_()


def draw_sparsity_source(shape: Sequence[int], like: Tensor, langevin: Langevin | None) -> Tensor | GateNoise:
    """Where the sparsity gates' noise (B, N, d, 2) comes from: a seed, drawn from torch's global generator."""
    seed = int(torch.randint(2**62, ()))
    return torch.tensor([seed, 0], dtype=torch.int64, device=like.device)


def skip_evaluation_draws(module: Any, batch_size: int) -> None:
    """Draw what one evaluation of a dense module draws, and forget it."""
    if not module.sparse_component:
        draw_gate_noise((batch_size, module.num_components, 2), module.vanilla_components, None)


def _check_shape(gate_number: int, output_shape: Any) -> tuple[int, ...]:
    if output_shape is None:
        return (gate_number,)
    shape = tuple(output_shape)
    if any(not isinstance(d, int) or d < 1 for d in shape) or math.prod(shape) != gate_number:
        raise InvalidValueError(
            f"`output_shape` must be positive integers of product {gate_number}; got {output_shape!r}."
        )
    return shape


class LangevinRefinedEnergyModule(nn.Module):
    """Langevin refinement of energies in training; none in evaluation.

    The published steps along the gradient of the energies' sum, which is 1 everywhere, in closed form.
    """

    step_size = Option(number(above=0.0))
    noise_scale = Option(number(minimum=0.0))
    num_steps = Option(integer(0))

    def __init__(self, step_size: float = 0.05, noise_scale: float = 0.1, num_steps: int = 32) -> None:
        super().__init__()
        self.step_size, self.noise_scale, self.num_steps = step_size, noise_scale, num_steps

    @property
    def options(self) -> Langevin | None:
        """What the operations take; None in evaluation."""
        return Langevin(self.step_size, self.noise_scale, self.num_steps) if self.training else None

    def forward(self, energy: Tensor) -> Tensor:
        if not self.training or self.num_steps == 0:
            return energy
        noise = self.noise_scale * torch.randn_like(energy) * self.num_steps**0.5
        return energy - self.step_size * self.num_steps + noise


class EBSelectiveModule(nn.Module):
    """Gates from energies (..., 2): probabilities (...) of class 0, and the negated refined energies."""

    tau = Option(number(above=0.0))

    def __init__(
        self,
        tau: float = 0.1,
        langevin_step_size: float = 0.05,
        langevin_nosie: float = 0.1,
        langevin_steps: int = 32,
    ) -> None:
        super().__init__()
        self.tau = tau
        self.langevin_dynamics = LangevinRefinedEnergyModule(
            step_size=langevin_step_size, noise_scale=langevin_nosie, num_steps=langevin_steps
        )

    def _refinement(self) -> Langevin | None:
        """Options the operation can apply itself; steps=0 where the refinement has to be called."""
        dynamics = self.langevin_dynamics
        return dynamics.options if untouched(dynamics, LangevinRefinedEnergyModule) else Langevin(steps=0)

    def forward(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        return self._select(energy)

    def _select(self, energy: Tensor) -> tuple[Tensor, Tensor]:
        langevin = self._refinement()
        if not untouched(self.langevin_dynamics, LangevinRefinedEnergyModule):
            energy = self.langevin_dynamics(energy)
        shape = energy.shape
        samples = shape[0] if energy.dim() > 2 else 1
        flat = (samples, math.prod(shape[:-1]) // max(samples, 1), 2)
        noise = draw_gate_noise(shape, energy, langevin)
        refinement = None if noise.langevin is None else noise.langevin.reshape(flat)
        flat_noise = GateNoise(refinement, noise.gumbel.reshape(flat))
        result = gate(energy.reshape(flat), flat_noise, tau=self.tau, langevin=langevin)
        return result.select_prob.reshape(shape[:-1]), result.select_energy.reshape(shape)


class FixedEBSelectiveModule(EBSelectiveModule):
    """Gates from energies that are parameters, drawn anew for each sample."""

    def __init__(
        self,
        gate_number: int,
        output_shape: tuple[int, ...] | list[int] | None = None,
        tau: float = 0.1,
        langevin_step_size: float = 0.05,
        langevin_nosie: float = 0.1,
        langevin_steps: int = 32,
    ) -> None:
        super().__init__(tau, langevin_step_size, langevin_nosie, langevin_steps)
        self.gate_number = integer(1)("gate_number", gate_number)
        self.output_shape = _check_shape(self.gate_number, output_shape)
        self.energy = init_layer_weight(nn.Parameter(torch.randn(self.gate_number, 2)), ENERGY_STD)

    def forward(self, batch_size: int = 1) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        integer(1)("batch_size", batch_size)
        return self._select(self.energy.view(*self.output_shape, 2).expand(batch_size, *self.output_shape, 2))

    def lazy(self, batch_size: int) -> SparsityGates | None:
        """The same gates without a tensor of their size; None where something hangs on a module here."""
        if not untouched(self, FixedEBSelectiveModule) or len(self.output_shape) != 2:
            return None
        if not untouched(self.langevin_dynamics, LangevinRefinedEnergyModule):
            return None
        langevin = self.langevin_dynamics.options
        shape = (batch_size, *self.output_shape, 2)
        # A copy: the parameter may be trained on before anybody looks at these gates.
        energy = self.energy.view(*self.output_shape, 2).clone()
        return SparsityGates(
            energy, draw_sparsity_source(shape, energy, langevin), batch_size, float(self.tau), langevin
        )


class DynamicEBSelectiveModule(EBSelectiveModule):
    """Gates from energies that a network, or the caller's module, computes from spectra."""

    def __init__(
        self,
        source_shape: int,
        gate_number: int,
        output_shape: tuple[int, ...] | list[int] | None = None,
        energy_evaluator: nn.Module | None = None,
        energy_hidden_extension: int | None = None,
        energy_hidden_layers: int = 1,
        tau: float = 0.1,
        langevin_step_size: float = 0.05,
        langevin_nosie: float = 0.1,
        langevin_steps: int = 32,
    ) -> None:
        super().__init__(tau, langevin_step_size, langevin_nosie, langevin_steps)
        self.source_shape = integer(1)("source_shape", source_shape)
        self.gate_number = integer(1)("gate_number", gate_number)
        self.output_shape = _check_shape(self.gate_number, output_shape)
        self.energy_hidden_extension: int | None = None
        self.energy_hidden_layers: int | None = None
        if energy_evaluator is None:
            hidden = None if not energy_hidden_extension else 2 * gate_number * energy_hidden_extension
            energy_evaluator = network(source_shape, hidden, energy_hidden_layers, 2 * gate_number, nn.Tanh, ENERGY_STD)
            self.energy_hidden_extension = energy_hidden_extension
            self.energy_hidden_layers = energy_hidden_layers
        elif not isinstance(energy_evaluator, nn.Module):
            raise InvalidTypeError(f"`energy_evaluator` must be a module; got {type(energy_evaluator).__name__}.")
        self.energy_evaluator = energy_evaluator

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch_size = x.shape[0]
        layers = plain_layers(self.energy_evaluator, nn.Tanh) if x.dim() == 2 else None
        if layers is None or not untouched(self.langevin_dynamics, LangevinRefinedEnergyModule):
            return self._select(self.energy_evaluator(x).view(batch_size, *self.output_shape, 2))
        hidden = x
        for layer in layers[:-1]:
            hidden = skinny_linear(hidden, layer.weight, layer.bias, "tanh")
        langevin, last = self.langevin_dynamics.options, layers[-1]
        noise = draw_gate_noise((batch_size, self.gate_number, 2), hidden, langevin)
        result = energy_gate(hidden, last.weight, last.bias, noise, tau=self.tau, langevin=langevin)
        shape = (batch_size, *self.output_shape)
        return result.select_prob.view(shape), result.select_energy.view(*shape, 2)


def network(
    inputs: int, hidden: int | None, layers: int, outputs: int, activation: type[nn.Module], std: float = 1e-2
) -> nn.Module:
    """One of the model's two networks, with normal weights and biases."""
    if hidden is None:
        return init_layer_weight(nn.Linear(inputs, outputs), std)
    modules: list[nn.Module] = [init_layer_weight(nn.Linear(inputs, hidden), std), activation()]
    for _ in range(layers - 1):
        modules += [init_layer_weight(nn.Linear(hidden, hidden), std), activation()]
    return nn.Sequential(*modules, init_layer_weight(nn.Linear(hidden, outputs), std))
