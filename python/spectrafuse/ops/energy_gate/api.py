"""The last layer of the energy evaluator with the component selection as its epilogue."""

from __future__ import annotations

import torch
from torch import Tensor

import spectrafuse.ops.energy_gate.registration  # noqa: F401  registers the kernel
from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.gate import GateNoise, GateResult, Langevin
from spectrafuse.ops.gate.api import (
    check_langevin,
    check_noise,
    check_thresholds,
    kernel_options,
    kernel_result,
    widened,
)
from spectrafuse.ops.gate.pytorch import energy_gate as composed
from spectrafuse.ops.gate.reference import energy_gate as reference

backends.declare(
    "energy_gate",
    {"cpu": extensions.cpu_kernel_reason, "cuda": extensions.cuda_kernel_reason},
    trial=_trials.energy_gate,
)


def energy_gate(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    noise: GateNoise | None,
    *,
    tau: float,
    langevin: Langevin | None,
    hard_threshold: float | None = None,
    used_threshold: float = 0.5,
) -> GateResult:
    """Energies `hidden @ weight.T + bias`, viewed as (B, N, 2), and the gate over them.

    Parameters
    ----------
    hidden : Tensor (B, M)
        Output of the evaluator's last hidden layer (the spectra themselves if it has none).
    weight : Tensor (2N, M)
    bias : Tensor (2N,)
        Rows 2n and 2n + 1 give component n's energies (selected, not selected).
    noise, tau, langevin, hard_threshold, used_threshold
        As for `spectrafuse.ops.gate`; noise for energies (B, N, 2).

    Returns
    -------
    GateResult

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or number is wrong.

    Notes
    -----
    arXiv 2507.23600, energy-based selection. An optimiser that forms the weight gradient itself (`adamw_outer`) needs
    the energies' gradient only: it calls `gate` on the energies that it made, for the same numbers.
    """
    checks.tensor("hidden", hidden, shape="(B, M)", ndim=2)
    checks.tensor("weight", weight, shape="(2N, M)", ndim=2, like=hidden)
    checks.tensor("bias", bias, shape="(2N,)", ndim=1, like=hidden)
    rows = weight.shape[0]
    if rows % 2 or weight.shape[1] != hidden.shape[1]:
        raise checks.fail(
            "weight",
            f"a tensor (2N, {hidden.shape[1]}) for hidden {tuple(hidden.shape)}",
            f"shape {tuple(weight.shape)}",
        )
    if bias.shape[0] != rows:
        raise checks.fail("bias", f"a tensor ({rows},)", f"shape {tuple(bias.shape)}")
    noise = check_noise(noise, (hidden.shape[0], rows // 2, 2), hidden)
    options = check_langevin(langevin)
    checks.number("tau", tau, above=0.0)
    check_thresholds(hard_threshold, used_threshold)
    gumbel = None if noise is None else noise.gumbel
    refinement = None if noise is None or langevin is None else noise.langevin
    chosen = backends.choose("energy_gate", hidden.device.type, {"cuda": triton.dtype_reason(hidden.dtype)})
    if chosen in ("cpu", "cuda"):
        wide_hidden, gumbel, refinement = widened(hidden, gumbel, refinement, options)
        outputs = torch.ops.spectrafuse.energy_gate(
            wide_hidden, weight.to(wide_hidden.dtype), bias.to(wide_hidden.dtype), gumbel, refinement,
            *kernel_options(options, tau, hard_threshold, used_threshold),
        )  # fmt: skip
        return kernel_result(outputs, hidden.dtype)
    implementation = reference if chosen == "reference" else composed
    return GateResult(
        *implementation(
            hidden,
            weight,
            bias,
            gumbel,
            refinement,
            tau=tau,
            step_size=options.step_size,
            steps=options.steps,
            hard_threshold=hard_threshold,
            used_threshold=used_threshold,
        )
    )
