"""Distance of spectra to the mean spectra of their clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse import _checks, backends
from spectrafuse.composed.spectral_compactness import spectral_compactness as composed
from spectrafuse.reference.spectral_compactness import spectral_compactness as reference

backends.declare("spectral_compactness")


def spectral_compactness(spectra: Tensor, probs: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared distance of the spectra to the soft mean spectrum of their cluster.

    Parameters
    ----------
    spectra : Tensor (B, C, h, w)
        Spectra of the pixels, at least one.
    probs : Tensor (B, h, w, K)
        Soft assignments, in the spectra's dtype.
    valid : Tensor (B, h, w) bool, optional
        Pixels that take part; None: all. What the others hold has no influence and gets a zero gradient.

    Returns
    -------
    Tensor ()
        sum_ik q_ik |x_i - mu_k|^2 / (number of pixels * C) with mu_k = sum_i q_ik x_i / sum_i q_ik over all
        pixels of the batch that take part; 0 if none does. A cluster without mass adds nothing.
        Differentiable in `spectra` and `probs`, once.

    Raises
    ------
    TypeError, ValueError
        If a shape, dtype or device is wrong.
    """
    _checks.tensor("spectra", spectra, shape="(B, C, h, w)", ndim=4)
    _checks.tensor("probs", probs, shape="(B, h, w, K)", ndim=4, like=spectra)
    batch, _, height, width = spectra.shape
    if spectra.numel() == 0:
        raise _checks.fail("spectra", "a tensor of at least one pixel and band", f"shape {tuple(spectra.shape)}")
    if tuple(probs.shape[:3]) != (batch, height, width):
        raise _checks.fail("probs", f"a tensor of shape {(batch, height, width)} + (K,)", f"shape {tuple(probs.shape)}")
    if valid is not None:
        _checks.tensor("valid", valid, shape="(B, h, w)", ndim=3, dtypes=(torch.bool,))
        if valid.shape != probs.shape[:3]:
            raise _checks.fail("valid", f"of shape {(batch, height, width)}", f"shape {tuple(valid.shape)}")
        if valid.device != spectra.device:
            raise _checks.fail("valid", f"on {spectra.device} like the other inputs", f"a tensor on {valid.device}")
    chosen = backends.choose("spectral_compactness", spectra.device.type)
    implementation = reference if chosen == "reference" else composed
    return implementation(spectra, probs, valid)
