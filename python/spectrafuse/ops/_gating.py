"""What the operations with gates share: noise and options, their checks, and the call of the gate's kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spectrafuse._runtime import checks, extensions
from spectrafuse._runtime.errors import InvalidTypeError


class GateNoise(NamedTuple):
    """Random numbers of a gate over energies (..., 2).

    Attributes
    ----------
    langevin : Tensor (..., 2) or None
        The whole noise term of the refinement, `noise * sqrt(steps) * xi` with xi standard normal; None: no
        refinement (evaluation).
    gumbel : Tensor (..., 2) or (...)
        Standard Gumbel numbers of both classes, or their difference g0 - g1, which is standard logistic.
    """

    langevin: Tensor | None
    gumbel: Tensor


class Langevin(NamedTuple):
    """Options of the Langevin refinement; `steps=0` switches it off.

    Attributes
    ----------
    step_size : float
        Above 0; energies fall by `step_size * steps`.
    noise : float
        At least 0; the noise term has standard deviation `noise * sqrt(steps)`.
    steps : int
        At least 0.
    """

    step_size: float = 0.05
    noise: float = 0.1
    steps: int = 32


class GateResult(NamedTuple):
    """What a gate returns.

    Attributes
    ----------
    select_prob : Tensor (B, N)
        Gate s in [0, 1], with gradient; exactly 0 or 1 and without gradient under a hard threshold.
    select_energy : Tensor (B, N, 2)
        r, the negated refined energies, with gradient.
    energy_sum, energy_square_sum : Tensor ()
        Sum of r and of r^2, with gradient; float32 for 16-bit inputs.
    used : Tensor (N,) bool
        Components that some sample selects.
    select_sum : Tensor ()
        Sum of s, with gradient unless s has none; float32 for 16-bit inputs.
    """

    select_prob: Tensor
    select_energy: Tensor
    energy_sum: Tensor
    energy_square_sum: Tensor
    used: Tensor
    select_sum: Tensor


def check_langevin(langevin: Langevin | None) -> Langevin:
    """Check the options; None means no refinement."""
    if langevin is None:
        return Langevin(steps=0)
    if not isinstance(langevin, Langevin):
        raise InvalidTypeError(f"`langevin` must be a Langevin or None; got {type(langevin).__name__}.")
    checks.number("langevin.step_size", langevin.step_size, above=0.0)
    checks.number("langevin.noise", langevin.noise, minimum=0.0)
    checks.integer("langevin.steps", langevin.steps, minimum=0)
    return langevin


def check_noise(noise: GateNoise | None, shape: tuple[int, ...], like: Tensor) -> GateNoise | None:
    """Check the noise of a gate over energies of `shape` (..., 2)."""
    if noise is None:
        return None
    if not isinstance(noise, GateNoise):
        raise InvalidTypeError(f"`noise` must be a GateNoise or None; got {type(noise).__name__}.")
    for name, value, shapes in (
        ("noise.gumbel", noise.gumbel, (shape, shape[:-1])),
        ("noise.langevin", noise.langevin, (shape,)),
    ):
        if value is None and name == "noise.langevin":
            continue
        expected = "of shape " + " or ".join(str(s) for s in shapes)
        ndim = value.ndim if isinstance(value, Tensor) else -1
        checked = checks.tensor(name, value, shape=expected, ndim=ndim, like=like)
        if tuple(checked.shape) not in shapes:
            raise checks.fail(name, f"a tensor {expected}", f"shape {tuple(checked.shape)}")
    return noise


def check_thresholds(hard_threshold: float | None, used_threshold: float) -> None:
    """Check the two thresholds of a gate."""
    if hard_threshold is not None:
        checks.number("hard_threshold", hard_threshold, minimum=0.0, maximum=1.0)
    checks.number("used_threshold", used_threshold, minimum=0.0, maximum=1.0)


Inputs = tuple[Tensor | None, Tensor | None]
"""Gumbel numbers and Langevin noise."""


def noise_of(noise: GateNoise | None, langevin: Langevin | None) -> Inputs:
    """What enters a gate; without `langevin` there is no refinement."""
    if noise is None:
        return None, None
    return noise.gumbel, None if langevin is None else noise.langevin


def widened(gumbel: Tensor | None, refinement: Tensor | None, steps: int, working: torch.dtype) -> Inputs:
    """The noise in the type the kernels compute in; no refinement without steps."""
    return (
        None if gumbel is None else gumbel.to(working),
        None if refinement is None or steps == 0 else refinement.to(working),
    )


GateOutputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Gates, energies, sum of energies, sum of their squares, components in use, sum of gates."""


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
    dense = extensions.dense(energy)
    gumbel = None if gumbel is None else extensions.dense(gumbel)
    langevin = None if langevin is None else extensions.dense(langevin)
    out = empty_outputs(dense)
    workspace = []
    if extensions.on_gpu(energy.device):
        workspace.append(energy.new_empty((3 * extensions.cuda().gate_blocks(energy.shape[1]),), dtype=torch.float64))
    arguments = forward_arguments(dense, gumbel, langevin, tau, shift, hard_threshold, used_threshold, out)
    extensions.run("gate_forward", energy.dtype, energy.device, *arguments, *map(address, workspace))
    return out


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
