"""Epochs of the standard model straight through the C++ kernels: no graph of autograd, no dispatcher.

At small pools these take several times as long as the work itself. Forward and backward are written out; the noise, the
kernels and what they are given are those of `UnmixingModel.forward`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spectrafuse import _native, backends
from spectrafuse.mcr.known import HeldRows
from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.optimizer import OuterAdamW, SteadySteps
from spectrafuse.mcr.passes import ModelNoise, linear_layers
from spectrafuse.mcr.recipes import Recipe
from spectrafuse.ops import _gate_kernels as gates
from spectrafuse.ops import _sparse_gated_mixture_kernels as sparse_mixture
from spectrafuse.ops.ambiguity_penalty import kernel_options, penalty_cpu
from spectrafuse.ops.gate import Langevin
from spectrafuse.ops.gated_mixture import backward_kernel as dense_backward
from spectrafuse.ops.gated_mixture import forward_kernel as dense_forward
from spectrafuse.ops.skinny_linear import MOST_ROWS, before_activation, input_gradient_cpu, layer_cpu
from spectrafuse.random import RandomStream

_OPERATIONS = (
    "adamw_outer", "ambiguity_penalty", "energy_gate", "gate", "gated_mixture", "skinny_linear", "sparse_gated_mixture",
)  # fmt: skip


def applies(model: UnmixingModel, recipe: Recipe) -> bool:
    """Whether a model, where it is, can be trained this way: no plug-ins, no hooks, and C++ kernels everywhere."""
    values = model.vanilla_components
    return (
        not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        and model.aggregate_function is None
        and model.component_post_processing is None
        and model.component_norm in (None, 1, 2)
        and (recipe.ambiguity_coef <= 0 or recipe.ambiguity_kernel != "linear")
        and values.device.type == "cpu"
        and values.dtype in _native.DTYPE_CODE
        and all(backends.choose(operation, "cpu") == "cpu" for operation in _OPERATIONS)
    )


class _Network:
    """One of the model's two networks: linear layers with an activation between them."""

    def __init__(self, module: nn.Module, activation: str) -> None:
        layers = linear_layers(module)
        self.parameters = [parameter for layer in layers for parameter in layer.parameters()]
        self.layers = [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
        self.activation = activation

    def forward(self, x: Tensor) -> list[Tensor]:
        """What enters each layer, and what the last one returns."""
        values, last = [x], len(self.layers) - 1
        for i, (weight, bias) in enumerate(self.layers):
            values.append(layer_cpu(values[-1], weight, bias, self.activation if i < last else "none"))
        return values

    def backward(self, values: list[Tensor], grad: Tensor, ones: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs whose products are the gradients, in the order of `parameters`, from the output's gradient (B, O)."""
        found = []
        for i in reversed(range(len(self.layers))):
            found += [(grad, ones), (values[i], grad)]
            if i > 0:
                grad = input_gradient_cpu(grad, self.layers[i][0])
                grad = before_activation(grad, values[i], None, self.activation)
        return found[::-1]


class DirectEpoch:
    """Training and evaluation of one epoch; made anew for each, as it holds the model's settings of the moment.

    Parameters
    ----------
    model : UnmixingModel
        One that `applies` accepts.
    recipe : Recipe
    """

    def __init__(self, model: UnmixingModel, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.evaluator = _Network(model.component_parser.energy_evaluator, "tanh")  # type: ignore[arg-type]
        self.regressor = _Network(model.concentration_regressor, "relu")
        self.components = model.vanilla_components.detach()
        energy = model.component_sparsity.energy
        assert isinstance(energy, nn.Parameter)
        self.free = [p for p in (model.vanilla_components, energy) if p.requires_grad]
        self.sparsity_energy = energy.detach().view(*self.components.shape, 2)
        self.form = model.non_negative_component, model.component_norm or 0
        self.penalty_options = kernel_options(**recipe.penalty_options())

    def train(
        self,
        batches: Iterable[Tensor],
        stream: RandomStream,
        optimizer: OuterAdamW,
        sparsity_weight: float,
        held: HeldRows,
    ) -> tuple[Tensor, Tensor]:
        """One step for each batch (B, d) of spectra.

        Returns
        -------
        loss, mean_energy : Tensor, ()
            Mean loss, and the mean energy of the last batch.
        """
        model = self.model
        trained = [*self.evaluator.parameters, *self.regressor.parameters]
        shapes = [(p.shape[0], p.shape[1]) if p.ndim == 2 else (1, p.numel()) for p in trained]
        shapes += [(1, p.numel()) for p in self.free]
        losses = []
        with SteadySteps(optimizer, [*trained, *self.free], shapes) as steps:
            for x in batches:
                noise = model.draw_noise(len(x), stream)
                loss, mean_energy, products = self._step(x, noise, sparsity_weight)
                steps.step(products)
                held.put_back()
                losses.append(loss)
        return torch.stack(losses).mean(), mean_energy

    def _step(
        self, x: Tensor, noise: ModelNoise, sparsity_weight: float
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Loss, mean energy, and the pairs whose products are the gradients of the trained parameters."""
        model, recipe, count = self.model, self.recipe, len(x)
        tau, langevin = model.tau, model.langevin
        energies, concentrations = self.evaluator.forward(x), self.regressor.forward(x)
        selected = self._gate(energies[-1], noise, tau, langevin, None)
        select_prob, select_energy, energy_sum, square_sum, used, select_sum = selected
        signed = concentrations[-1]
        inputs = signed.abs(), select_prob
        mixture, sparsity_sum = self._mix(inputs, noise.rng, tau, langevin)

        residual = mixture - x
        upstream = residual * (2.0 / residual.numel())
        if model.sparse_component:
            *grads, grad_raw, grad_sparsity = sparse_mixture.backward_kernel(
                upstream, None, None, *inputs, *self._sparse_arguments(noise.rng, tau, langevin)
            )
        else:
            *grads, grad_raw = dense_backward(upstream, *inputs, self.components, *self.form)
        entries = select_energy.numel()
        # Rounded step by step as autograd does.
        along_squares = x.new_full((), recipe.energy_coef) / entries
        along_gates = x.new_full((), sparsity_weight) / count / model.num_components
        grad_energy = gates.gate_backward_kernel(
            grads[1], None, None, along_squares, along_gates, select_prob, select_energy, tau, False
        )

        loss = residual.square().mean() + along_gates * select_sum + along_squares * square_sum
        learnable = model.learnable_component
        if recipe.ambiguity_coef > 0:
            loss += recipe.ambiguity_coef * self._penalty(used, grad_raw if learnable else None)
        if sparsity_sum is not None:
            energy_sum, entries = energy_sum + sparsity_sum, entries + 2 * count * self.components.numel()

        ones, one = x.new_ones((count, 1)), x.new_ones((1, 1))
        products = self.evaluator.backward(energies, grad_energy.view(count, -1), ones)
        products += self.regressor.backward(concentrations, grads[0] * signed.sgn(), ones)
        if learnable:
            products.append((grad_raw.view(1, -1), one))
        if model.sparse_component:
            products.append((grad_sparsity.view(1, -1), one))
        return loss, energy_sum / entries, products

    def _gate(
        self, energy: Tensor, noise: ModelNoise, tau: float, langevin: Langevin | None, hard_threshold: float | None
    ) -> gates.GateOutputs:
        gumbel, refinement = (None, None) if noise.select is None else (noise.select.gumbel, noise.select.langevin)
        shift = 0.0 if langevin is None else langevin.step_size * langevin.steps
        pairs_of_energies = energy.view(len(energy), -1, 2)
        return gates.gate_kernel(
            pairs_of_energies, gumbel, refinement, tau, shift, hard_threshold, self.recipe.used_threshold
        )

    def _mix(
        self, inputs: tuple[Tensor, Tensor], rng: Tensor | None, tau: float, langevin: Langevin | None
    ) -> tuple[Tensor, Tensor | None]:
        """Mixture (B, d) of concentrations and gates, and in the sparse form the sum of its energies."""
        if not self.model.sparse_component:
            return dense_forward(*inputs, self.components, *self.form), None
        mixture, energy_sum, _ = sparse_mixture.forward_kernel(*inputs, *self._sparse_arguments(rng, tau, langevin))
        return mixture, energy_sum

    def _sparse_arguments(self, rng: Tensor | None, tau: float, langevin: Langevin | None) -> tuple[Any, ...]:
        shift = noise = 0.0
        if langevin is not None:
            shift, noise = langevin.step_size * langevin.steps, langevin.noise * math.sqrt(langevin.steps)
        return self.components, self.sparsity_energy, rng, None, None, tau, shift, noise, *self.form

    def _penalty(self, used: Tensor, gradient: Tensor | None) -> Tensor:
        """The penalty of the used components; its gradient, times its weight, is added to that of the raw values."""
        rows = used.nonzero().view(-1)
        raw = self.components[rows]
        non_negative, norm = self.form
        components = raw.abs() if non_negative else raw
        if norm:
            length = torch.linalg.vector_norm(components, ord=norm, dim=1, keepdim=True)
            length = torch.where(length > 0, length, 1.0)
            components = components / length
        penalty, grad = penalty_cpu(components, None, *self.penalty_options, gradient is not None)
        if gradient is not None:
            if norm:
                # The norm's own gradient: a unit vector in the same direction, or signs.
                along = components if norm == 2 else components.sgn()
                dots = torch.linalg.vecdot(grad, components).unsqueeze(1)
                grad.addcmul_(along, dots, value=-1.0).div_(length)
            if non_negative:
                grad.mul_(raw.sgn())
            gradient.index_add_(0, rows, grad, alpha=self.recipe.ambiguity_coef)
        return penalty

    def evaluate(self, spectra: Tensor, batch_size: int, stream: RandomStream, metrics: FitMetrics) -> Tensor:
        """Adds the fit of spectra (n, d) to `metrics`, batch by batch; components (N,) that some sample selects.

        The networks see as many batches at a time as their kernel takes rows.
        """
        model = self.model
        used = torch.zeros(model.num_components, dtype=torch.bool)
        for group in spectra.split(batch_size * max(1, MOST_ROWS // batch_size)):
            batches = group.split(batch_size)
            noises = [
                model.draw_noise(len(x), stream) if self.recipe.noisy_evaluation else ModelNoise() for x in batches
            ]
            energies = self.evaluator.forward(group)[-1].split(batch_size)
            concentrations = self.regressor.forward(group)[-1].abs_().split(batch_size)
            mixtures = []
            for noise, energy, concentration in zip(noises, energies, concentrations, strict=True):
                selected = self._gate(energy, noise, model.tau, None, model.select_threshold)
                mixtures.append(self._mix((concentration, selected[0]), noise.rng, model.tau, None)[0])
                used |= selected[4]
            metrics.update(group, torch.cat(mixtures), batch_size)
        return used
