"""Component selection from energies: Langevin refinement and Gumbel gate (arXiv 2507.23600)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import spectrafuse.ops.gate.registration  # noqa: F401  registers the kernel
from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.gate.pytorch import gate as composed
from spectrafuse.ops.gate.reference import gate as reference

backends.declare(
    "gate",
    {"cpu": extensions.cpu_kernel_reason, "cuda": extensions.cuda_kernel_reason},
    trial=_trials.gate,
)


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
        raise TypeError(f"`langevin` must be a Langevin or None; got {type(langevin).__name__}.")
    checks.number("langevin.step_size", langevin.step_size, above=0.0)
    checks.number("langevin.noise", langevin.noise, minimum=0.0)
    checks.integer("langevin.steps", langevin.steps, minimum=0)
    return langevin


def check_noise(noise: GateNoise | None, shape: tuple[int, ...], like: Tensor) -> GateNoise | None:
    """Check the noise of a gate over energies of `shape` (..., 2)."""
    if noise is None:
        return None
    if not isinstance(noise, GateNoise):
        raise TypeError(f"`noise` must be a GateNoise or None; got {type(noise).__name__}.")
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


def gate(
    energy: Tensor,
    noise: GateNoise | None,
    *,
    tau: float,
    langevin: Langevin | None,
    hard_threshold: float | None = None,
    used_threshold: float = 0.5,
) -> GateResult:
    """Select components from energies.

    `r = -(energy - step_size * steps + noise.langevin)` in training and `-energy` in evaluation, then
    `s = sigmoid((r0 - r1 + g0 - g1) / tau)`.

    Parameters
    ----------
    energy : Tensor (B, N, 2)
        Energies of both classes (selected, not selected) of each sample and component.
    noise : GateNoise or None
        Random numbers; None: deterministic, neither refinement nor Gumbel noise.
    tau : float
        Temperature, above 0.
    langevin : Langevin or None
        Refinement; None, or a noise without `langevin`: evaluation, no refinement.
    hard_threshold : float in [0, 1], optional
        Gates above it become 1, all others 0; they then carry no gradient, and `used` follows from them.
    used_threshold : float in [0, 1]
        Without a hard threshold, a component is used if some sample's gate exceeds it.

    Returns
    -------
    GateResult

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or number is wrong.

    Notes
    -----
    arXiv 2507.23600, energy-based selection; the published refinement takes the gradient of the energies'
    sum, which is 1 everywhere. Noise is data: it gets no gradient from the kernels.
    """
    checks.tensor("energy", energy, shape="(B, N, 2)", ndim=3)
    if energy.shape[2] != 2:
        raise checks.fail("energy", "a tensor (B, N, 2)", f"shape {tuple(energy.shape)}")
    noise = check_noise(noise, tuple(energy.shape), energy)
    options = check_langevin(langevin)
    checks.number("tau", tau, above=0.0)
    check_thresholds(hard_threshold, used_threshold)
    gumbel = None if noise is None else noise.gumbel
    refinement = None if noise is None or langevin is None else noise.langevin
    chosen = backends.choose("gate", energy.device.type, {"cuda": triton.dtype_reason(energy.dtype)})
    if chosen in ("cpu", "cuda"):
        options_of_kernel = kernel_options(options, tau, hard_threshold, used_threshold)
        outputs = torch.ops.spectrafuse.gate(*widened(energy, gumbel, refinement, options), *options_of_kernel)
        return kernel_result(outputs, energy.dtype)
    implementation = reference if chosen == "reference" else composed
    return GateResult(
        *implementation(
            energy,
            gumbel,
            refinement,
            tau=tau,
            step_size=options.step_size,
            steps=options.steps,
            hard_threshold=hard_threshold,
            used_threshold=used_threshold,
        )
    )


def widened(
    energy: Tensor, gumbel: Tensor | None, refinement: Tensor | None, options: Langevin
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Energies and noise in the type the kernels compute in; no refinement without steps."""
    working = extensions.working_dtype(energy.dtype)
    return (
        energy.to(working),
        None if gumbel is None else gumbel.to(working),
        None if refinement is None or options.steps == 0 else refinement.to(working),
    )


def kernel_options(
    options: Langevin, tau: float, hard_threshold: float | None, used_threshold: float
) -> tuple[float, float, float | None, float]:
    """tau, shift and thresholds as the registered operations take them."""
    hard = None if hard_threshold is None else float(hard_threshold)
    return float(tau), options.step_size * options.steps, hard, float(used_threshold)


def kernel_result(outputs: tuple[Tensor, ...], dtype: torch.dtype) -> GateResult:
    """A kernel's outputs with gates and energies in the caller's type."""
    select_prob, select_energy, *sums = outputs
    return GateResult(select_prob.to(dtype), select_energy.to(dtype), *sums)
