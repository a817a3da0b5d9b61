"""What the registered spectral_compactness runs in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse.ops.spectral_compactness.pytorch import spectra_gradient


def forward(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, origin, means around it and squared norms of the spectra."""
    from spectrafuse.kernels import spectral_compactness as kernels

    kept = None if valid is None else valid.flatten(1)
    value, origin, means, squared_norm = kernels.forward(spectra.flatten(2), probs.flatten(1, 2), kept)
    return value.to(spectra.dtype), origin, means, squared_norm


def backward(
    grad: Tensor,
    spectra: Tensor,
    probs: Tensor,
    valid: Tensor | None,
    origin: Tensor,
    means: Tensor,
    squared_norm: Tensor,
    for_spectra: bool,
    for_probs: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the spectra and the assignments; empty where they are not wanted."""
    from spectrafuse.kernels import spectral_compactness as kernels

    x, kept = spectra.flatten(2), None if valid is None else valid.flatten(1)
    grad_spectra, grad_probs = spectra.new_empty(0), probs.new_empty(0)
    if for_probs:
        gradient = kernels.grad_probs(grad, x, kept, origin, means, squared_norm)
        grad_probs = gradient.reshape(probs.shape).to(probs.dtype)
    if for_spectra:
        # Spectra are data and seldom need a gradient; plain PyTorch writes it.
        q = probs.flatten(1, 2).to(torch.float32)
        q = q if kept is None else q.masked_fill(~kept.unsqueeze(2), 0.0)
        scale = grad.to(torch.float32) / (kernels.pixel_count(x, kept) * x.shape[1])
        gradient = spectra_gradient(x.to(torch.float32), q, kept, origin.unsqueeze(1), means, scale)
        grad_spectra = torch.empty(spectra.shape, dtype=spectra.dtype, device=spectra.device)
        grad_spectra.copy_(gradient.reshape(spectra.shape))
    return grad_spectra, grad_probs
