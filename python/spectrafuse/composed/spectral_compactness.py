"""Distance of spectra to the mean spectra of their clusters, from Q^T X and row norms.

With the spectra taken around their overall mean, sum_i q_ik |x_i - mu_k|^2 = sum_i q_ik |x_i|^2 - |S_k|^2 /
m_k, where S_k = sum_i q_ik x_i and m_k = sum_i q_ik. Without that mean the two sides could cancel in float32.
Centered spectra exist for one sample of the batch at a time; autograd would keep them all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _SpectralCompactness(torch.autograd.Function):
    """The gradient of q_ik is |x_i - mu_k|^2, that of x_i is 2 (x_i sum_k q_ik - sum_k q_ik mu_k).

    Both are divided by the number of pixels times bands; means and spectra are centered.
    """

    @staticmethod
    def forward(ctx: Any, spectra: Tensor, probs: Tensor) -> Tensor:
        batch, bands, pixels = spectra.shape
        clusters = probs.shape[2]
        origin = spectra.mean((0, 2)).unsqueeze(1)
        mass = probs.sum((0, 1), dtype=torch.float64).clamp_min(torch.finfo(probs.dtype).tiny)
        sums = torch.zeros(bands, clusters, dtype=torch.float64, device=spectra.device)
        squared_norm = spectra.new_empty(batch, pixels)
        for index in range(batch):
            centered = spectra[index] - origin
            sums += centered @ probs[index]
            squared_norm[index] = centered.square_().sum(0)
        within = (probs * squared_norm.unsqueeze(2)).sum(dtype=torch.float64) - (sums.square() / mass).sum()
        ctx.save_for_backward(spectra, probs, origin, (sums / mass).to(spectra.dtype), squared_norm)
        # Rounding alone can push the difference of the two sides below zero.
        return (within.clamp_min(0.0) / (batch * pixels * bands)).to(spectra.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        spectra, probs, origin, means, squared_norm = ctx.saved_tensors
        scale = grad / spectra.numel()
        grad_spectra = torch.empty_like(spectra) if ctx.needs_input_grad[0] else None
        grad_probs = torch.empty_like(probs) if ctx.needs_input_grad[1] else None
        mean_norm = means.square().sum(0)
        for index in range(spectra.shape[0]):
            centered = spectra[index] - origin
            if grad_probs is not None:
                distance = squared_norm[index].unsqueeze(1) + mean_norm - 2 * (centered.t() @ means)
                grad_probs[index] = scale * distance.clamp_min_(0.0)
            if grad_spectra is not None:
                pull = centered * probs[index].sum(1) - means @ probs[index].t()
                grad_spectra[index] = 2 * scale * pull
        return grad_spectra, grad_probs


def spectral_compactness(spectra: Tensor, probs: Tensor) -> Tensor:
    """Mean squared distance of the spectra to the soft mean spectrum of their cluster.

    Parameters
    ----------
    spectra : Tensor (B, C, h, w)
    probs : Tensor (B, h, w, K)
        Soft assignments.

    Returns
    -------
    Tensor ()
        sum_ik q_ik |x_i - mu_k|^2 / (number of pixels * C) with mu_k = sum_i q_ik x_i / sum_i q_ik over all
        pixels of the batch.
    """
    working = spectra.dtype if spectra.dtype == torch.float64 else torch.float32
    value: Tensor = _SpectralCompactness.apply(spectra.flatten(2).to(working), probs.flatten(1, 2).to(working))
    return value.to(spectra.dtype)
