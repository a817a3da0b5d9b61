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


def _centered(spectra: Tensor, origin: Tensor, valid: Tensor | None) -> Tensor:
    """Spectra (C, N) of one sample around `origin` (C, 1), zero where a pixel takes no part."""
    centered = spectra - origin
    return centered if valid is None else centered.masked_fill_(~valid, 0.0)


def spectra_gradient(
    spectra: Tensor, probs: Tensor, valid: Tensor | None, origin: Tensor, means: Tensor, scale: Tensor
) -> Tensor:
    """Gradient of the spectra (B, C, N); `scale` is the value's gradient over the number of pixels times bands.

    `probs` (B, N, K) is zero where a pixel takes no part; `origin` is (C, 1), `means` (C, K) lie around it.
    """
    gradient = torch.empty_like(spectra)
    for index, sample in enumerate(spectra):
        centered = _centered(sample, origin, None if valid is None else valid[index])
        gradient[index] = 2 * scale * (centered * probs[index].sum(1) - means @ probs[index].t())
    return gradient


class _SpectralCompactness(torch.autograd.Function):
    """The gradient of q_ik is |x_i - mu_k|^2, that of x_i is 2 (x_i sum_k q_ik - sum_k q_ik mu_k).

    Both are divided by the number of pixels times bands; means and spectra are centered.
    """

    @staticmethod
    def forward(ctx: Any, spectra: Tensor, probs: Tensor, valid: Tensor | None) -> Tensor:
        batch, bands, pixels = spectra.shape
        clusters = probs.shape[2]
        rows: tuple[Tensor | None, ...] = (None,) * batch if valid is None else valid.unbind()
        if valid is None:
            count = torch.full((), batch * pixels, dtype=spectra.dtype, device=spectra.device)
            origin = spectra.mean((0, 2)).unsqueeze(1)
        else:
            probs = probs.masked_fill(~valid.unsqueeze(2), 0.0)
            count = valid.sum().clamp_min(1).to(spectra.dtype)
            zero = spectra.new_zeros(())
            sums = [torch.where(row, sample, zero).sum(1) for sample, row in zip(spectra, valid, strict=True)]
            origin = (torch.stack(sums).sum(0) / count).unsqueeze(1)
        mass = probs.sum((0, 1), dtype=torch.float64).clamp_min(torch.finfo(probs.dtype).tiny)
        products = torch.zeros(bands, clusters, dtype=torch.float64, device=spectra.device)
        squared_norm = spectra.new_empty(batch, pixels)
        for index, row in enumerate(rows):
            centered = _centered(spectra[index], origin, row)
            products += centered @ probs[index]
            squared_norm[index] = centered.square_().sum(0)
        within = (probs * squared_norm.unsqueeze(2)).sum(dtype=torch.float64) - (products.square() / mass).sum()
        means = (products / mass).to(spectra.dtype)
        ctx.save_for_backward(spectra, probs, valid, origin, means, squared_norm, count)
        # Rounding alone can push the difference of the two sides below zero.
        return (within.clamp_min(0.0) / (count * bands)).to(spectra.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        spectra, probs, valid, origin, means, squared_norm, count = ctx.saved_tensors
        scale = grad / (count * spectra.shape[1])
        grad_spectra = grad_probs = None
        if ctx.needs_input_grad[0]:
            grad_spectra = spectra_gradient(spectra, probs, valid, origin, means, scale)
        if ctx.needs_input_grad[1]:
            grad_probs = torch.empty_like(probs)
            mean_norm = means.square().sum(0)
            for index, sample in enumerate(spectra):
                row = None if valid is None else valid[index]
                products = _centered(sample, origin, row).t() @ means
                distance = (squared_norm[index].unsqueeze(1) + mean_norm - 2 * products).clamp_min_(0.0)
                if row is not None:
                    distance.masked_fill_(~row.unsqueeze(1), 0.0)
                grad_probs[index] = scale * distance
        return grad_spectra, grad_probs, None


def spectral_compactness(spectra: Tensor, probs: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared distance of the spectra to the soft mean spectrum of their cluster.

    Parameters
    ----------
    spectra : Tensor (B, C, h, w)
    probs : Tensor (B, h, w, K)
        Soft assignments.
    valid : Tensor (B, h, w) bool, optional
        Pixels that take part; None: all.

    Returns
    -------
    Tensor ()
        sum_ik q_ik |x_i - mu_k|^2 / (number of pixels * C) with mu_k = sum_i q_ik x_i / sum_i q_ik over all
        pixels of the batch that take part. 0 if there are none.
    """
    working = spectra.dtype if spectra.dtype == torch.float64 else torch.float32
    pixels = None if valid is None else valid.flatten(1)
    value: Tensor = _SpectralCompactness.apply(spectra.flatten(2).to(working), probs.flatten(1, 2).to(working), pixels)
    return value.to(spectra.dtype)
