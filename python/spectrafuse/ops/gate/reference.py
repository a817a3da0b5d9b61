"""Energy gate as published: two Gumbel classes and a softmax (arXiv 2507.23600, code `core.py`)."""

from __future__ import annotations

from torch import Tensor

from spectrafuse.ops._published import energy_sums, soft_gate


def gate(
    energy: Tensor,
    gumbel: Tensor | None,
    langevin_noise: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    hard_threshold: float | None,
    used_threshold: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Component selection; arguments and results as `spectrafuse.ops.gate`."""
    select_prob, select_energy = soft_gate(energy, gumbel, langevin_noise, tau=tau, step_size=step_size, steps=steps)
    if hard_threshold is not None:
        select_prob = (select_prob > hard_threshold).to(energy.dtype)
        used = (select_prob > hard_threshold).any(dim=0)
    else:
        used = (select_prob > used_threshold).any(dim=0)
    return (select_prob, select_energy, *energy_sums(select_energy), used, energy_sums(select_prob)[0])
