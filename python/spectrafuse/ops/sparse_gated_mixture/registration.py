"""The kernels of `sparse_gated_mixture`, registered with torch: one call forward, one backward.

The C++ kernels take float32 and float64, those for CUDA float32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register
from spectrafuse.ops._gating import Langevin, address, widened
from spectrafuse.ops._mixture import before_absolute, mixture_workspace, workspace_addresses


def shared_arguments(
    inputs: tuple[Tensor, ...],
    numbers: tuple[Tensor | None, ...],
    options: tuple[float, float, float],
    non_negative: bool,
    norm: int,
) -> tuple[Any, ...]:
    """What both directions pass first: inputs are dense tensors, numbers are rng, gumbel and langevin."""
    concentration, _, components, energy = inputs
    rng, gumbel, langevin = numbers
    tau, shift, noise = options
    refined = langevin is not None or (rng is not None and shift > 0)
    return (
        components.dtype,
        components.device,
        (*concentration.shape, components.shape[1]),
        non_negative,
        norm,
        tuple(t.data_ptr() for t in inputs[:3]),
        (energy.data_ptr(), address(rng), address(gumbel), address(langevin)),
        gumbel is not None and gumbel.ndim == 4,
        (shift if refined else 0.0, noise if refined else 0.0, tau),
    )


def _dense(*tensors: Tensor | None) -> tuple[Any, ...]:
    return tuple(None if t is None else extensions.dense(t) for t in tensors)


def forward_kernel(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    rng: Tensor | None,
    gumbel: Tensor | None,
    langevin: Tensor | None,
    tau: float,
    shift: float,
    noise: float,
    non_negative: bool,
    norm: int,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs, numbers = _dense(concentration, select_prob, components, sparsity_energy), _dense(rng, gumbel, langevin)
    mixture = components.new_empty((concentration.shape[0], components.shape[1]))
    sums = components.new_empty(()), components.new_empty(())
    workspace, part_sums = mixture_workspace(len(concentration), inputs[2], forward=True), []
    if workspace:
        blocks = extensions.cuda().sparse_blocks(len(concentration), *components.shape)
        part_sums.append(components.new_empty((2 * blocks,), dtype=torch.float64))
    extensions.run(
        "sparse_gated_mixture_forward", *shared_arguments(inputs, numbers, (tau, shift, noise), non_negative, norm),
        mixture.data_ptr(), sums[0].data_ptr(), sums[1].data_ptr(), *workspace_addresses(workspace),
        *map(address, part_sums),
    )  # fmt: skip
    return mixture, *sums


def backward_kernel(
    grad: Tensor | None,
    grad_energy_sum: Tensor | None,
    grad_energy_square_sum: Tensor | None,
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    rng: Tensor | None,
    gumbel: Tensor | None,
    langevin: Tensor | None,
    tau: float,
    shift: float,
    noise: float,
    non_negative: bool,
    norm: int,
    before: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the inputs; of `before` instead of the concentrations if these are its absolute values."""
    inputs, numbers = _dense(concentration, select_prob, components, sparsity_energy), _dense(rng, gumbel, langevin)
    upstream = grad.contiguous() if grad is not None else components.new_zeros(len(concentration), components.shape[1])
    grads = tuple(torch.empty_like(t) for t in inputs)
    workspace = mixture_workspace(len(concentration), inputs[2], forward=False, before=before)
    extensions.run(
        "sparse_gated_mixture_backward", *shared_arguments(inputs, numbers, (tau, shift, noise), non_negative, norm),
        (upstream.data_ptr(), address(grad_energy_sum), address(grad_energy_square_sum)),
        tuple(t.data_ptr() for t in grads), *workspace_addresses(workspace),
    )  # fmt: skip
    return before_absolute(grads[0], before), *grads[1:]  # type: ignore[return-value]


def _forward_fake(
    concentration: Tensor, select_prob: Tensor, components: Tensor, *unused: Any
) -> tuple[Tensor, Tensor, Tensor]:
    mixture = components.new_empty((concentration.shape[0], components.shape[1]))
    return mixture, components.new_empty(()), components.new_empty(())


def _backward_fake(
    grad: Tensor | None,
    grad_energy_sum: Tensor | None,
    grad_energy_square_sum: Tensor | None,
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    *unused: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = (concentration, select_prob, components, sparsity_energy)
    return tuple(t.new_empty(t.shape) for t in inputs)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.options = inputs[7:]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if all(grad is None for grad in grads):
        return (None,) * 12
    inner = _gradients(*grads, *ctx.saved_tensors, *ctx.options)
    return (*inner, *(None,) * 8)


_gradients = register("sparse_gated_mixture_backward", backward_kernel, _backward_fake, cuda=backward_kernel)
_mixture = register(
    "sparse_gated_mixture",
    forward_kernel,
    _forward_fake,
    cuda=forward_kernel,
    backward=_backward,
    setup_context=_setup_context,
)


def sparse_gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    rng: Tensor | None,
    gumbel: Tensor | None,
    refinement: Tensor | None,
    *,
    tau: float,
    options: Langevin,
    non_negative: bool,
    norm: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mixture in the type of the components, and the sums of energies."""
    working = extensions.working_dtype(components.dtype)
    inputs = (concentration.to(working), select_prob.to(working), components.to(working), sparsity_energy.to(working))
    mixture, *sums = _mixture(
        *inputs, rng, *widened(gumbel, refinement, options.steps, working), float(tau),
        options.step_size * options.steps, options.noise * math.sqrt(options.steps), non_negative, norm or 0,
    )  # fmt: skip
    return mixture.to(components.dtype), *sums
