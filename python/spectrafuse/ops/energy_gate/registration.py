"""Registration of `energy_gate` with torch: the last layer and the gate in one call.

Few rows take the kernel of `skinny_linear`, more a matrix product; then comes the kernel of `gate`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse.ops.gate.registration import (
    NOISE_AND_OPTIONS,
    OUTPUTS,
    GateOutputs,
    empty_outputs,
    energy_gradient,
    gate_kernel,
    mark,
)
from spectrafuse.ops.skinny_linear.api import ACTIVATIONS, MOST_ROWS

torch.library.define(
    "spectrafuse::energy_gate", f"(Tensor hidden, Tensor weight, Tensor bias, {NOISE_AND_OPTIONS}) -> {OUTPUTS}"
)


@torch.library.impl("spectrafuse::energy_gate", ("CPU", "CUDA"))
def _forward(
    hidden: Tensor, weight: Tensor, bias: Tensor, gumbel: Tensor | None, langevin: Tensor | None, *options: Any
) -> GateOutputs:
    if hidden.shape[0] <= MOST_ROWS:
        energy, _ = torch.ops.spectrafuse.skinny_linear(hidden, weight, bias, ACTIVATIONS.index("none"))
    else:
        energy = torch.addmm(bias, hidden, weight.T).to(hidden.dtype)  # autocast would narrow it
    return gate_kernel(energy.view(hidden.shape[0], weight.shape[0] // 2, 2), gumbel, langevin, *options)


@torch.library.register_fake("spectrafuse::energy_gate")
def _forward_fake(hidden: Tensor, weight: Tensor, *unused: Any) -> GateOutputs:
    return empty_outputs(hidden.new_empty((hidden.shape[0], weight.shape[0] // 2, 2)))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: GateOutputs) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[0], output[1])
    mark(ctx, output, inputs[5], inputs[7])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    hidden, weight, select_prob, select_energy = ctx.saved_tensors
    along_energy = energy_gradient(ctx, grads, select_prob, select_energy)
    if along_energy is None:
        return (None,) * 9
    upstream = along_energy.view(hidden.shape[0], weight.shape[0])
    needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    grad_hidden = None
    if needs_hidden and hidden.shape[0] <= MOST_ROWS:
        grad_hidden = torch.ops.spectrafuse.skinny_linear_input_gradient(upstream, weight)
    elif needs_hidden:
        grad_hidden = upstream @ weight
    return (
        grad_hidden,
        upstream.T @ hidden if needs_weight else None,
        upstream.sum(0) if needs_bias else None,
        *(None,) * 6,
    )


torch.library.register_autograd("spectrafuse::energy_gate", _backward, setup_context=_setup_context)
