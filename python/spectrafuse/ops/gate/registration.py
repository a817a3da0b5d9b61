"""The kernels of `gate`, registered with torch: one call forward, one backward.

The C++ kernels take float32 and float64, those for CUDA float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register
from spectrafuse.ops._gating import GateOutputs, address, empty_outputs, energy_gradient, gate_kernel, mark, widened


def backward_arguments(
    grads: tuple[Tensor | None, ...], select_prob: Tensor, select_energy: Tensor, tau: float, hard: bool, out: Tensor
) -> tuple[Any, ...]:
    """What the backward kernels take, of dense tensors, after their type and device.

    `grads` are those of the gates, of their energies, and of the sums of energies, of their squares and of gates.
    """
    prob, energy, *sums = map(address, grads)
    return (
        select_prob.shape, tau, hard, select_prob.data_ptr(), select_energy.data_ptr(), prob, energy, tuple(sums),
        out.data_ptr(),
    )  # fmt: skip


def gate_backward_kernel(
    grad_prob: Tensor | None,
    grad_energy: Tensor | None,
    grad_energy_sum: Tensor | None,
    grad_energy_square_sum: Tensor | None,
    grad_select_sum: Tensor | None,
    select_prob: Tensor,
    select_energy: Tensor,
    tau: float,
    hard: bool,
) -> Tensor:
    grad_prob = None if grad_prob is None else extensions.dense(grad_prob)
    grad_energy = None if grad_energy is None else extensions.dense(grad_energy)
    prob, energy = extensions.dense(select_prob), extensions.dense(select_energy)
    grad = torch.empty_like(energy)
    grads = (grad_prob, grad_energy, grad_energy_sum, grad_energy_square_sum, grad_select_sum)
    extensions.run(
        "gate_backward", energy.dtype, energy.device, *backward_arguments(grads, prob, energy, tau, hard, grad)
    )
    return grad


def _gate_fake(energy: Tensor, *others: Any) -> GateOutputs:
    return empty_outputs(energy)


def _gate_backward_fake(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[6])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: GateOutputs) -> None:
    ctx.save_for_backward(output[0], output[1])
    mark(ctx, output, inputs[3], inputs[5])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return (energy_gradient(ctx, grads, *ctx.saved_tensors), *(None,) * 6)


register("gate_backward", gate_backward_kernel, _gate_backward_fake, cuda=gate_backward_kernel)
_gate = register("gate", gate_kernel, _gate_fake, cuda=gate_kernel, backward=_backward, setup_context=_setup_context)


def gate(
    energy: Tensor,
    gumbel: Tensor | None,
    refinement: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    hard_threshold: float | None,
    used_threshold: float,
) -> GateOutputs:
    """Gates and energies in the type of the energies given."""
    working = extensions.working_dtype(energy.dtype)
    noise = widened(gumbel, refinement, steps, working)
    outputs = _gate(energy.to(working), *noise, tau, step_size * steps, hard_threshold, used_threshold)
    return outputs[0].to(energy.dtype), outputs[1].to(energy.dtype), *outputs[2:]
