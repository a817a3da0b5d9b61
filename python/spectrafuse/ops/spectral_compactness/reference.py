"""Distance of spectra to the mean spectra of their clusters: means first, then differences."""

from __future__ import annotations

import torch
from torch import Tensor


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
    bands, clusters = spectra.shape[1], probs.shape[3]
    rows = spectra.permute(0, 2, 3, 1).reshape(-1, bands)
    weights = probs.reshape(-1, clusters)
    if valid is not None:
        rows, weights = rows[valid.reshape(-1)], weights[valid.reshape(-1)]
    # A cluster without any mass has no mean; its distances get weight zero.
    mass = weights.sum(0).clamp_min(torch.finfo(probs.dtype).tiny)
    means = (weights.t() @ rows) / mass.unsqueeze(1)
    total = rows.new_zeros(())
    for cluster in range(clusters):
        squared_distance = ((rows - means[cluster]) ** 2).sum(1)
        total = total + (weights[:, cluster] * squared_distance).sum()
    return total / (max(rows.shape[0], 1) * bands)
