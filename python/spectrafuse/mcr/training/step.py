"""One training step through autograd, on inputs that are all on the model's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse.mcr.model import ModelNoise, UnmixingModel
from spectrafuse.mcr.recipes import Recipe
from spectrafuse.mcr.training.optimizer import OuterAdamW
from spectrafuse.ops.ambiguity_penalty import ambiguity_penalty
from spectrafuse.ops.gate import GateNoise


class StepInputs(NamedTuple):
    """Everything that differs from step to step at one temperature.

    Attributes
    ----------
    x : Tensor, (B, d)
        Spectra.
    noise : ModelNoise
        As `UnmixingModel.draw_noise` makes it.
    sparsity_weight : Tensor, ()
        Weight of the sparsity term in the loss.
    number : Tensor, ()
        float32, of the step, counted from 1.
    """

    x: Tensor
    noise: ModelNoise
    sparsity_weight: Tensor
    number: Tensor

    def mapped(self, change: Callable[[Tensor], Tensor]) -> StepInputs:
        """The inputs with every tensor changed."""
        select, rng = self.noise.select, self.noise.rng
        assert select is not None
        langevin = None if select.langevin is None else change(select.langevin)
        noise = ModelNoise(GateNoise(langevin, change(select.gumbel)), None, None if rng is None else change(rng))
        return StepInputs(change(self.x), noise, change(self.sparsity_weight), change(self.number))


def penalty(model: UnmixingModel, recipe: Recipe, used: Tensor) -> Tensor:
    """The ambiguity penalty of the used components (N,)."""
    return ambiguity_penalty(model.components(), mask=used, **recipe.penalty_options())


def training_step(model: UnmixingModel, optimizer: OuterAdamW, recipe: Recipe, inputs: StepInputs) -> Tensor:
    """Train on a batch, in place; nothing waits for a GPU.

    Parameters
    ----------
    model : UnmixingModel
    optimizer : OuterAdamW
        Of the model's parameters.
    recipe : Recipe
    inputs : StepInputs

    Returns
    -------
    Tensor, (2,)
        Loss and mean energy.

    Notes
    -----
    `docs/algorithms/ebgmcr.md`, "Loss".
    """
    out = model(inputs.x, inputs.noise, used_threshold=recipe.used_threshold, stash=optimizer.stash)
    loss = torch.nn.functional.mse_loss(out.mixture, inputs.x)
    loss = loss + inputs.sparsity_weight * (out.select_prob.sum(1) / model.pool_size).mean()
    loss = loss + recipe.energy_coef * out.energy_square
    if recipe.ambiguity_coef > 0:
        loss = loss + recipe.ambiguity_coef * penalty(model, recipe, out.used)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step_as(inputs.number)
    return torch.stack((loss.detach(), out.mean_energy.detach()))
