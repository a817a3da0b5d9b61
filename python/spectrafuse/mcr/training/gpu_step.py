"""The training step of the standard model on a GPU: forward and backward written out, in as few launches as it takes.

Loss and gradients are those of `training_step`, whose way through autograd launches three times as many kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from spectrafuse import backends
from spectrafuse._runtime import extensions
from spectrafuse.mcr.model import UnmixingModel, linear_layers
from spectrafuse.mcr.recipes import Recipe
from spectrafuse.mcr.training.cpu_epoch import OPERATIONS, not_standard
from spectrafuse.mcr.training.optimizer import Layers, OuterAdamW, layer_inputs
from spectrafuse.mcr.training.step import StepInputs, training_step
from spectrafuse.ops.ambiguity_penalty import add_component_penalty, kernel_options
from spectrafuse.ops.gate import gate, gate_gradient
from spectrafuse.ops.gated_mixture import gated_mixture, gated_mixture_gradients
from spectrafuse.ops.skinny_linear import MOST_ROWS, layer, layer_and_before
from spectrafuse.ops.sparse_gated_mixture import sparse_gated_mixture, sparse_gated_mixture_gradients

__all__ = ["GpuStep", "step_of", "why_not"]


def why_not(model: UnmixingModel, recipe: Recipe) -> str | None:
    """Why a model, where it is, cannot be trained this way, in a sentence; None: it can."""
    reason, values = not_standard(model, recipe), model.vanilla_components
    if reason is not None:
        return reason
    if not extensions.on_gpu(values.device) or values.dtype != torch.float32:
        return f"The model must be in float32 on an NVIDIA GPU; it is in {values.dtype} on {values.device}."
    other = [operation for operation in OPERATIONS if backends.choose(operation, values.device.type) != "cuda"]
    return f"These operations do not run their CUDA kernels here: {', '.join(other)}." if other else None


def step_of(model: UnmixingModel, optimizer: OuterAdamW, recipe: Recipe) -> Callable[[StepInputs], Tensor]:
    """The training step of a model where it is now, which takes inputs and returns what `training_step` does."""
    if why_not(model, recipe) is None:
        return GpuStep(model, optimizer, recipe)
    return partial(training_step, model, optimizer, recipe)


class GpuStep:
    """Trains a model on a batch, in place; nothing waits for the GPU.

    Parameters
    ----------
    model : UnmixingModel
        One that `why_not` accepts.
    optimizer : OuterAdamW
        Of the model's parameters.
    recipe : Recipe
    """

    def __init__(self, model: UnmixingModel, optimizer: OuterAdamW, recipe: Recipe) -> None:
        self.model, self.optimizer, self.recipe = model, optimizer, recipe
        energy = model.component_sparsity.energy
        assert isinstance(energy, nn.Parameter)
        self._energy = energy
        networks = model.component_parser.energy_evaluator, model.concentration_regressor
        self._evaluator, self._regressor = (
            [(linear.weight, linear.bias) for linear in linear_layers(network)]  # type: ignore[arg-type]
            for network in networks
        )
        self._ones = energy.new_ones((MOST_ROWS, 1))

    def __call__(self, inputs: StepInputs) -> Tensor:
        """Loss and mean energy (2,) of a batch of any size."""
        if len(inputs.x) > MOST_ROWS:
            return training_step(self.model, self.optimizer, self.recipe, inputs)
        return self._step(inputs)

    @torch.no_grad()
    def _step(self, inputs: StepInputs) -> Tensor:
        x, noise, model, recipe, stash = inputs.x, inputs.noise, self.model, self.recipe, self.optimizer.stash
        rows, raw, tau, langevin = len(x), model.vanilla_components, model.temperature_train, model.langevin
        energy = self._energy.view(*raw.shape, 2)

        # Forward.
        hidden = layer_inputs(self._evaluator, "tanh", x)
        energies = layer(hidden[-1], *self._evaluator[-1], "none").view(rows, -1, 2)
        selected = gate(energies, noise.select, tau=tau, langevin=langevin, used_threshold=recipe.used_threshold)
        prob = selected.select_prob
        values = layer_inputs(self._regressor, "relu", x)
        concentration, before = layer_and_before(values[-1], *self._regressor[-1])
        form = model.non_negative_component, model.component_norm or 0
        pool, sparse_sum = (concentration, prob, raw), None
        if model.sparse_component:
            mixture, sparse_sum, _ = sparse_gated_mixture(
                *pool, energy, rng=noise.rng, tau=tau, langevin=langevin, non_negative=form[0],
                norm=model.component_norm,
            )  # fmt: skip
        else:
            mixture = gated_mixture(*pool, non_negative=form[0], norm=model.component_norm)

        # Backward, from the residuals on.
        loss = _Loss(self, inputs, mixture, (*selected[2:4], selected.select_sum), sparse_sum)
        if model.sparse_component:
            shift, std = langevin.step_size * langevin.steps, langevin.noise * math.sqrt(langevin.steps)
            grad_c, grad_prob, grad_raw, grad_sparse = sparse_gated_mixture_gradients(
                loss.grad, None, None, *pool, energy, noise.rng, None, None, tau, shift, std, *form, before
            )
            stash.add(self._energy, grad_sparse.view(1, -1), self._ones[:1])
        else:
            grad_c, grad_prob, grad_raw = gated_mixture_gradients(loss.grad, *pool, *form, before)
        penalty = None
        if recipe.ambiguity_coef > 0:
            penalty = add_component_penalty(
                raw, selected.used, form, kernel_options(**recipe.penalty_options()), recipe.ambiguity_coef,
                grad_raw if model.learnable_component else None,
            )  # fmt: skip
        stash.add(raw, grad_raw.view(1, -1), self._ones[:1])
        of_squares, of_gates = loss.slopes
        grad_energies = gate_gradient(
            grad_prob, None, None, of_squares, of_gates, prob, selected.select_energy, tau, hard=False
        )
        self._step_back(self._evaluator, "tanh", hidden, grad_energies.view(rows, -1), inputs.number)
        self._step_back(self._regressor, "relu", values, grad_c, inputs.number)
        self.optimizer.step_as(inputs.number)
        stash.clear()
        return loss.result(penalty)

    def _step_back(self, layers: Layers, activation: str, values: list[Tensor], grad: Tensor, number: Tensor) -> None:
        """From the gradient of what the last layer made: steps of all weights but the first; the rest is stashed."""
        stash = self.optimizer.stash
        for (weight, bias), value in zip(reversed(layers[1:]), reversed(values[1:]), strict=True):
            stash.add(bias, grad, self._ones[: len(grad)])
            grad = self.optimizer.step_layer(weight, value, grad, number, activation)
        stash.add(layers[0][0], values[0], grad)
        stash.add(layers[0][1], grad, self._ones[: len(grad)])


class _Loss:
    """The loss of a batch by its kernels, first its gradients.

    Attributes
    ----------
    grad : Tensor, (B, d)
        Of the mixture.
    slopes : list of Tensor, ()
        Of the sums of energies' squares and of gates.
    """

    def __init__(
        self, step: GpuStep, inputs: StepInputs, mixture: Tensor, sums: tuple[Tensor, ...], sparse_sum: Tensor | None
    ) -> None:
        model, recipe = step.model, step.recipe
        gates = len(mixture) * model.pool_size
        energies = 2 * len(mixture) * model.num_components
        if sparse_sum is not None:
            energies += 2 * len(mixture) * model.vanilla_components.numel()
        self._numbers = recipe.energy_coef / (2 * gates), recipe.ambiguity_coef, gates, energies
        self._inputs = [mixture, inputs.x.contiguous(), inputs.sparsity_weight, *sums, sparse_sum]
        self.grad, slopes = torch.empty_like(mixture), mixture.new_empty(2)
        self.slopes = list(slopes)
        blocks = extensions.cuda().unmixing_loss_blocks(*mixture.shape)
        self._block_sums = mixture.new_empty(blocks, dtype=torch.float64)
        self._outputs = self.grad, slopes, mixture.new_empty(2)
        self._run("unmixing_loss_gradient", None)

    def result(self, penalty: Tensor | None) -> Tensor:
        """Loss and mean energy (2,)."""
        self._run("unmixing_loss", penalty)
        return self._outputs[-1]

    def _run(self, kernel: str, penalty: Tensor | None) -> None:
        extensions.run_on_gpu(
            kernel, self.grad.device, self.grad.shape, self._numbers,
            tuple(0 if t is None else t.data_ptr() for t in (*self._inputs, penalty)),
            tuple(t.data_ptr() for t in self._outputs), self._block_sums.data_ptr(),
        )  # fmt: skip
