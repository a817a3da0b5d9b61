"""What goes into one pass of the unmixing model and what comes out, and its two networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from spectrafuse.ops.gate import GateNoise, Langevin, gate
from spectrafuse.ops.sparse_gated_mixture import draw_sparsity_noise

PostProcessing = Callable[[Tensor], Tensor]
"""From components (N, d), normalised, to components (N, d)."""

Aggregate = Callable[[Tensor, Tensor], Tensor]
"""From gated concentrations (B, N, 1) and gated components (B, N, d) to spectra (B, d)."""


class ModelNoise(NamedTuple):
    """Random numbers of one pass.

    Attributes
    ----------
    select : GateNoise or None
        Of the component gates (B, N, 2); None: deterministic.
    sparsity : GateNoise or None
        Of the sparse form's gates (B, N, d, 2).
    rng : Tensor, (2,) int64, or None
        Instead of `sparsity`: seed and step from which the operation draws itself.
    """

    select: GateNoise | None = None
    sparsity: GateNoise | None = None
    rng: Tensor | None = None


class ModelOutput(NamedTuple):
    """What one pass gives.

    Attributes
    ----------
    mixture : Tensor, (B, d)
        Reconstructed spectra.
    concentration : Tensor, (B, N)
        Before the gate.
    select_prob : Tensor, (B, N)
        Gates: in [0, 1] in training, 0 or 1 in evaluation.
    select_energy : Tensor, (B, N, 2)
        Negated refined energies r.
    energy_square : Tensor, ()
        Mean of r^2 over the component gates.
    mean_energy : Tensor, ()
        Mean of r over all gates, the sparse form's too.
    used : Tensor, (N,) bool
        Components that some sample selects.
    """

    mixture: Tensor
    concentration: Tensor
    select_prob: Tensor
    select_energy: Tensor
    energy_square: Tensor
    mean_energy: Tensor
    used: Tensor


def network(inputs: int, hidden: int | None, layers: int, outputs: int, activation: type[nn.Module]) -> nn.Module:
    if hidden is None:
        return _linear(inputs, outputs)
    modules: list[nn.Module] = [_linear(inputs, hidden), activation()]
    for _ in range(layers - 1):
        modules += [_linear(hidden, hidden), activation()]
    return nn.Sequential(*modules, _linear(hidden, outputs))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    # torch's own initial values would come from the global generator.
    return skip_init(nn.Linear, inputs, outputs)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of one of the model's two networks, first to last."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def sparsity_gates(
    energy: Tensor, batch_size: int, noise: ModelNoise, langevin: Langevin | None, tau: float
) -> tuple[Tensor, Tensor]:
    """All samples' sparsity gates (B, N, d), which the operation itself never holds, and the sum of their energies."""
    shape = (energy.shape[0], energy.shape[1])
    drawn = noise.sparsity
    if noise.rng is not None:
        drawn = _all_sparsity_noise(noise.rng, batch_size, shape, langevin, energy.dtype)
    flat = (batch_size * shape[0], shape[1], 2)
    if drawn is not None:
        terms = None if drawn.langevin is None else drawn.langevin.reshape(flat)
        drawn = GateNoise(terms, drawn.gumbel.reshape(flat[0], *drawn.gumbel.shape[2:]))
    made = gate(energy.expand(batch_size, *shape, 2).reshape(flat), drawn, tau=tau, langevin=langevin)
    return made.select_prob.view(batch_size, *shape), made.energy_sum


def _all_sparsity_noise(
    rng: Tensor, batch_size: int, shape: tuple[int, int], langevin: Langevin | None, dtype: torch.dtype
) -> GateNoise:
    samples = [draw_sparsity_noise(rng, b, shape, langevin, dtype=dtype) for b in range(batch_size)]
    refinements = [sample.langevin for sample in samples if sample.langevin is not None]
    gumbel = torch.stack([sample.gumbel for sample in samples])
    return GateNoise(torch.stack(refinements) if refinements else None, gumbel)
