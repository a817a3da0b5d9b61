"""Sparse gated mixture as published: a gate per sample, component and band (arXiv 2510.20364)."""

from __future__ import annotations

from torch import Tensor

from spectrafuse.ops._published import energy_sums, mix, normalized_components, soft_gate


def sparse_gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    gumbel: Tensor | None,
    langevin_noise: Tensor | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    non_negative: bool,
    norm: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixture and energy sums; as `spectrafuse.ops.sparse_gated_mixture`, with noise (B, N, d[, 2])."""
    batch_size = concentration.shape[0]
    spectra = normalized_components(components, non_negative, norm)
    batch_components = spectra.unsqueeze(0).expand(batch_size, *spectra.shape)
    batch_energy = sparsity_energy.unsqueeze(0).repeat(batch_size, 1, 1, 1)
    sparsity, energy = soft_gate(batch_energy, gumbel, langevin_noise, tau=tau, step_size=step_size, steps=steps)
    return (mix(concentration, select_prob, batch_components * sparsity), *energy_sums(energy))
