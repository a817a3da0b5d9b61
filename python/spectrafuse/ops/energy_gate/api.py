"""The last layer of the energy evaluator with the component selection as its epilogue."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, Work
from spectrafuse.ops import _self_test
from spectrafuse.ops._gating import (
    GateNoise,
    GateOutputs,
    GateResult,
    Langevin,
    check_langevin,
    check_noise,
    check_thresholds,
    noise_of,
)
from spectrafuse.ops.energy_gate import registration
from spectrafuse.ops.gate import gate_energies, gate_work, made_noise
from spectrafuse.ops.skinny_linear import skinny_linear, skinny_linear_work


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
    selected = operation(
        hidden,
        weight,
        bias,
        *noise_of(noise, langevin),
        tau=tau,
        step_size=options.step_size,
        steps=options.steps,
        hard_threshold=hard_threshold,
        used_threshold=used_threshold,
    )
    return GateResult(*selected)


def _composed(
    hidden: Tensor, weight: Tensor, bias: Tensor, gumbel: Tensor | None, refinement: Tensor | None, **options: Any
) -> GateOutputs:
    """The layer and the gate by their own operations."""
    energy = skinny_linear(hidden, weight, bias).view(hidden.shape[0], weight.shape[0] // 2, 2)
    return gate_energies(energy, gumbel, refinement, **options)


def work(batch: int, components: int, width: int) -> Counts:
    """`skinny_linear` and `gate`."""
    layer, after = skinny_linear_work(batch, width, 2 * components), gate_work(batch, components)
    return Counts(*(Work(a.operations + b.operations, a.bytes + b.bytes) for a, b in zip(layer, after, strict=True)))


def self_test(device: str) -> list[Tensor]:
    """A product of few rows and the gate of it."""
    hidden, weight, bias = leaves = _self_test.numbers(device, (3, 37), (2 * 70, 37), (2 * 70,))
    selected = energy_gate(hidden, weight, bias, made_noise(device, (3, 70)), tau=0.5, langevin=Langevin())
    return _self_test.with_gradients(selected, leaves)


operation = backends.declare(
    "energy_gate",
    reference=_composed,
    pytorch=_composed,
    kernel=registration.energy_gate,
    kernels={"cpu": (), "cuda": (backends.not_float64,)},
    work=work,
    self_test=self_test,
)
