"""Registration of `gate` with torch: one kernel call forward, one backward.

The C++ kernels take float32 and float64, those for CUDA float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions

GateOutputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]

NOISE_AND_OPTIONS = (
    "Tensor? gumbel, Tensor? langevin, float tau, float shift, float? hard_threshold, float used_threshold"
)
OUTPUTS = (
    "(Tensor select_prob, Tensor select_energy, Tensor energy_sum, Tensor energy_square_sum, Tensor used, "
    "Tensor select_sum)"
)
torch.library.define("spectrafuse::gate", f"(Tensor energy, {NOISE_AND_OPTIONS}) -> {OUTPUTS}")
torch.library.define(
    "spectrafuse::gate_backward",
    "(Tensor? grad_prob, Tensor? grad_energy, Tensor? grad_energy_sum, Tensor? grad_energy_square_sum, "
    "Tensor? grad_select_sum, Tensor select_prob, Tensor select_energy, float tau, bool hard) -> Tensor",
)


def address(tensor: Tensor | None) -> int:
    """Where a tensor's numbers lie; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def empty_outputs(energy: Tensor) -> GateOutputs:
    """What the kernel writes for energies (B, N, 2)."""
    batch, components, _ = energy.shape
    return (
        energy.new_empty((batch, components)),
        energy.new_empty((batch, components, 2)),
        energy.new_empty(()),
        energy.new_empty(()),
        energy.new_empty((components,), dtype=torch.bool),
        energy.new_empty(()),
    )


def forward_arguments(
    energy: Tensor,
    gumbel: Tensor | None,
    langevin: Tensor | None,
    tau: float,
    shift: float,
    hard_threshold: float | None,
    used_threshold: float,
    out: GateOutputs,
) -> tuple[Any, ...]:
    """What the forward kernels take first, of dense tensors, after their type and device."""
    return (
        energy.shape[:2], 0.0 if langevin is None else shift, tau, -1.0 if hard_threshold is None else hard_threshold,
        used_threshold, energy.data_ptr(), address(gumbel), gumbel is not None and gumbel.ndim == 3, address(langevin),
        out[0].data_ptr(), out[1].data_ptr(), (out[2].data_ptr(), out[3].data_ptr(), out[5].data_ptr()),
        out[4].data_ptr(),
    )  # fmt: skip


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


def gate_kernel(
    energy: Tensor,
    gumbel: Tensor | None,
    langevin: Tensor | None,
    tau: float,
    shift: float,
    hard_threshold: float | None,
    used_threshold: float,
) -> GateOutputs:
    """The gate of energies (B, N, 2) by the kernel of their device."""
    dense = energy.contiguous()
    gumbel = None if gumbel is None else gumbel.contiguous()
    langevin = None if langevin is None else langevin.contiguous()
    out = empty_outputs(dense)
    workspace = []
    if energy.is_cuda:
        workspace.append(energy.new_empty((3 * extensions.cuda().gate_blocks(energy.shape[1]),), dtype=torch.float64))
    arguments = forward_arguments(dense, gumbel, langevin, tau, shift, hard_threshold, used_threshold, out)
    extensions.run("gate_forward", energy.dtype, energy.device, *arguments, *map(address, workspace))
    return out


torch.library.impl("spectrafuse::gate", ("CPU", "CUDA"), gate_kernel)


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
    grad_prob = None if grad_prob is None else grad_prob.contiguous()
    grad_energy = None if grad_energy is None else grad_energy.contiguous()
    prob, energy = select_prob.contiguous(), select_energy.contiguous()
    grad = torch.empty_like(energy)
    grads = (grad_prob, grad_energy, grad_energy_sum, grad_energy_square_sum, grad_select_sum)
    extensions.run(
        "gate_backward", energy.dtype, energy.device, *backward_arguments(grads, prob, energy, tau, hard, grad)
    )
    return grad


torch.library.impl("spectrafuse::gate_backward", ("CPU", "CUDA"), gate_backward_kernel)


@torch.library.register_fake("spectrafuse::gate")
def _gate_fake(
    energy: Tensor,
    gumbel: Tensor | None,
    langevin: Tensor | None,
    tau: float,
    shift: float,
    hard_threshold: float | None,
    used_threshold: float,
) -> GateOutputs:
    return empty_outputs(energy)


@torch.library.register_fake("spectrafuse::gate_backward")
def _gate_backward_fake(
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
    return select_energy.new_empty(select_energy.shape)


def mark(ctx: Any, output: GateOutputs, tau: float, hard_threshold: float | None) -> None:
    """What a gate's backward needs, and which of its outputs carry no gradient."""
    ctx.set_materialize_grads(False)
    ctx.tau, ctx.hard = tau, hard_threshold is not None
    ctx.mark_non_differentiable(output[4], *((output[0], output[5]) if ctx.hard else ()))


def energy_gradient(
    ctx: Any, grads: tuple[Tensor | None, ...], select_prob: Tensor, select_energy: Tensor
) -> Tensor | None:
    """Gradient (B, N, 2) of the energies, None where nothing came."""
    prob, energy, energy_sum, square_sum, _, select_sum = grads
    if ctx.hard:
        prob = select_sum = None
    if all(grad is None for grad in (prob, energy, energy_sum, square_sum, select_sum)):
        return None
    return torch.ops.spectrafuse.gate_backward(
        prob, energy, energy_sum, square_sum, select_sum, select_prob, select_energy, ctx.tau, ctx.hard
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: GateOutputs) -> None:
    ctx.save_for_backward(output[0], output[1])
    mark(ctx, output, inputs[3], inputs[5])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return (energy_gradient(ctx, grads, *ctx.saved_tensors), *(None,) * 6)


torch.library.register_autograd("spectrafuse::gate", _backward, setup_context=_setup_context)
