"""The kernels of `energy_gate`, registered with torch: the last layer and the gate in one call.

Few rows take the kernel of `skinny_linear`, more a matrix product; then comes the kernel of `gate`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register
from spectrafuse.ops._gating import GateOutputs, empty_outputs, energy_gradient, gate_kernel, mark, widened
from spectrafuse.ops.skinny_linear import ACTIVATIONS, MOST_ROWS


def _forward(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    gumbel: Tensor | None,
    langevin: Tensor | None,
    tau: float,
    shift: float,
    hard_threshold: float | None,
    used_threshold: float,
) -> GateOutputs:
    if hidden.shape[0] <= MOST_ROWS:
        energy, _ = torch.ops.spectrafuse.skinny_linear(hidden, weight, bias, ACTIVATIONS.index("none"))
    else:
        energy = torch.addmm(bias, hidden, weight.T).to(hidden.dtype)  # autocast would narrow it
    energy = energy.view(hidden.shape[0], weight.shape[0] // 2, 2)
    return gate_kernel(energy, gumbel, langevin, tau, shift, hard_threshold, used_threshold)


def _forward_fake(hidden: Tensor, weight: Tensor, *others: Any) -> GateOutputs:
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


_energy_gate = register(
    "energy_gate", _forward, _forward_fake, cuda=_forward, backward=_backward, setup_context=_setup_context
)


def energy_gate(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    gumbel: Tensor | None,
    refinement: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    hard_threshold: float | None,
    used_threshold: float,
) -> GateOutputs:
    """Gates and energies in the type of the inputs."""
    working = extensions.working_dtype(hidden.dtype)
    layer = (hidden.to(working), weight.to(working), bias.to(working))
    noise = widened(gumbel, refinement, steps, working)
    outputs = _energy_gate(*layer, *noise, tau, step_size * steps, hard_threshold, used_threshold)
    return outputs[0].to(hidden.dtype), outputs[1].to(hidden.dtype), *outputs[2:]
