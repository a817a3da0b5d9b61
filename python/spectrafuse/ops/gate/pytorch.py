"""Energy gate in plain PyTorch: a sigmoid of the energy difference, the refinement in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse.ops._plain import soft_gate


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
    dtype = energy.dtype
    # Gates lie within 1e-6 of 0 and 1 and are compared with 0.9999994: 16-bit floats cannot hold them.
    if dtype in (torch.float16, torch.bfloat16):
        energy = energy.float()
        gumbel = None if gumbel is None else gumbel.float()
        langevin_noise = None if langevin_noise is None else langevin_noise.float()
    if steps == 0:
        langevin_noise = None
    if hard_threshold is None:
        select_prob, select_energy = soft_gate(energy, gumbel, langevin_noise, tau=tau, shift=step_size * steps)
        selected = select_prob > used_threshold
    else:
        with torch.no_grad():
            soft, _ = soft_gate(energy, gumbel, langevin_noise, tau=tau, shift=step_size * steps)
            selected = soft > hard_threshold
            select_prob = selected.to(soft.dtype)
        select_energy = -energy if langevin_noise is None else step_size * steps - energy - langevin_noise
    return (
        select_prob.to(dtype),
        select_energy.to(dtype),
        select_energy.sum(),
        select_energy.square().sum(),
        selected.any(dim=0),
        select_prob.sum(),
    )
