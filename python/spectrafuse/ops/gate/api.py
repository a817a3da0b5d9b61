"""Component selection from energies: Langevin refinement and Gumbel gate (arXiv 2507.23600)."""

from __future__ import annotations

from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, counts
from spectrafuse.ops import _self_test
from spectrafuse.ops._gating import (
    GateNoise,
    GateResult,
    Langevin,
    check_langevin,
    check_noise,
    check_thresholds,
    noise_of,
)
from spectrafuse.ops.gate import pytorch, reference, registration


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
    selected = operation(
        energy,
        *noise_of(noise, langevin),
        tau=tau,
        step_size=options.step_size,
        steps=options.steps,
        hard_threshold=hard_threshold,
        used_threshold=used_threshold,
    )
    return GateResult(*selected)


def work(batch: int, components: int) -> Counts:
    """Forward reads energies and noise and writes gates and energies; backward reads three tensors, writes one."""
    gates = batch * components
    return counts((40 * gates, 15 * gates), (8 * gates, 8 * gates))


def made_noise(device: str, shape: tuple[int, ...]) -> GateNoise:
    """For self-tests."""
    langevin, gumbel = _self_test.numbers(device, (*shape, 2), shape)
    return GateNoise(langevin.detach(), 4 * gumbel.detach() - 2)


def self_test(device: str) -> list[Tensor]:
    """Two blocks of components."""
    (energy,) = leaves = _self_test.numbers(device, (3, 70, 2))
    selected = gate(energy, made_noise(device, (3, 70)), tau=0.5, langevin=Langevin())
    return _self_test.with_gradients(selected, leaves)


operation = backends.declare(
    "gate",
    reference=reference.gate,
    pytorch=pytorch.gate,
    kernel=registration.gate,
    kernels={"cpu": (), "cuda": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={
        "gate_forward": lambda sizes, *others: ("gate forward", work(*sizes).forward),
        "gate_backward": lambda sizes, *others: ("gate backward", work(*sizes).backward),
    },
    gpu_kernels={"gate_backward_kernel": "gate backward", "gate_kernel|add_blocks_kernel": "gate forward"},
)
