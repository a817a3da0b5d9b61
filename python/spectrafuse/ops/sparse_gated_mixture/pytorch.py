"""Sparse gated mixture in plain PyTorch: one sample at a time, drawn and computed again in backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spectrafuse.ops._plain import mixing_factors, soft_gate

Draw = Callable[[int], tuple[Tensor, Tensor | None]]
"""From a sample's index, its Gumbel numbers (N, d, 2) or (N, d) and its Langevin noise (N, d, 2) or None."""


def sparse_gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    sparsity_energy: Tensor,
    draw: Draw | None,
    *,
    tau: float,
    step_size: float,
    steps: int,
    non_negative: bool,
    norm: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixture and energy sums; as `spectrafuse.ops.sparse_gated_mixture`.

    `draw` gives a sample's noise and the same noise again in backward; without it all samples share their
    gates.
    """
    dtype = components.dtype
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    weights, spectra = mixing_factors(concentration, select_prob, components, non_negative, norm)
    energy = sparsity_energy.to(wide)
    batch_size = weights.shape[0]

    if draw is None:
        sparsity, select_energy = soft_gate(energy, None, None, tau=tau, shift=0.0)
        mixture = weights @ (spectra * sparsity.to(dtype))
        return mixture, batch_size * select_energy.sum(), batch_size * select_energy.square().sum()

    def one_sample(weight: Tensor, spectra: Tensor, energy: Tensor, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        gumbel, langevin_noise = draw(sample)
        if langevin_noise is not None:
            langevin_noise = langevin_noise.to(wide) if steps > 0 else None
        sparsity, select_energy = soft_gate(energy, gumbel.to(wide), langevin_noise, tau=tau, shift=step_size * steps)
        mixed = weight @ (spectra * sparsity.to(dtype))
        return mixed, select_energy.sum(), select_energy.square().sum()

    if batch_size == 0:
        nothing = energy[:0].sum()
        return weights @ spectra, nothing, nothing.square()

    recompute = torch.is_grad_enabled() and any(t.requires_grad for t in (weights, spectra, energy))
    rows = []
    for sample in range(batch_size):
        arguments = (weights[sample], spectra, energy, sample)
        if recompute:
            rows.append(checkpoint(one_sample, *arguments, use_reentrant=False, preserve_rng_state=False))
        else:
            rows.append(one_sample(*arguments))
    mixtures, sums, square_sums = zip(*rows, strict=True)
    return torch.stack(mixtures), torch.stack(sums).sum(), torch.stack(square_sums).sum()
