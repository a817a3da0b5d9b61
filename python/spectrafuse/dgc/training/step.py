"""One training step, on inputs that are all on the model's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.dgc.training.centers import move_centers
from spectrafuse.dgc.training.objective import StepObjective, step_objective


class StepInputs(NamedTuple):
    """Everything that differs from step to step."""

    batch: CropBatch
    labels: Tensor | None
    """(forward passes, 2, B h w) int64: pseudo-labels of the uniform term; None where it has no weight."""
    noise: Tensor
    """(K, D): standard normal numbers of the centres' push."""
    uniform: Tensor
    """(): weight of the uniform term."""
    kick: Tensor
    """(): size of the centres' push."""

    def mapped(self, change: Callable[[Tensor], Tensor]) -> StepInputs:
        """The inputs with every tensor changed."""
        padded, geometry, valid = self.batch[:3]
        batch = self.batch._replace(
            padded=change(padded), geometry=change(geometry), valid=None if valid is None else change(valid)
        )
        labels = None if self.labels is None else change(self.labels)
        return StepInputs(batch, labels, change(self.noise), change(self.uniform), change(self.kick))


def training_step(
    model: SegmentationModel,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    inputs: StepInputs,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """Train on a batch, in place; nothing waits for a GPU.

    Of a batch that is shared among processes, each adds its part of gradients and sums: all end with the same model.

    Returns
    -------
    Tensor (7,)
        `StepObjective.terms` of the recipe's last forward pass.
    """

    def objective(forward: int) -> StepObjective:
        return step_objective(
            model,
            inputs.batch,
            recipe,
            uniform_weight=inputs.uniform,
            pseudo_labels=None if inputs.labels is None else inputs.labels[forward],
            autocast=autocast,
        )

    optimizer.zero_grad(set_to_none=True)
    result = objective(0)
    result.total.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    ranks.add([*gradients, *result[1:]])
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    if recipe.second_forward:
        with torch.no_grad():
            result = objective(1)
            ranks.add(result[1:])
    move_centers(model, result.mass, result.sums, decay=recipe.decay, kick=inputs.kick, noise=inputs.noise)
    return result.terms
