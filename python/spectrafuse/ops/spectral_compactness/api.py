"""Distance of spectra to the mean spectra of their clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, Work, counts, labeled
from spectrafuse.ops import _self_test
from spectrafuse.ops.spectral_compactness import pytorch, reference, registration


def spectral_compactness(spectra: Tensor, probs: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared distance of the spectra to the soft mean spectrum of their cluster.

    Parameters
    ----------
    spectra : Tensor (B, C, h, w)
        Spectra of the pixels, at least one. The `cpu` kernel reads them where they lie if h and w can be merged,
        fastest where a band's pixels or a pixel's bands are neighbours in memory.
    probs : Tensor (B, h, w, K)
        Soft assignments, in the spectra's dtype.
    valid : Tensor (B, h, w) bool, optional
        Pixels that take part; None: all. What the others hold has no influence and gets a zero gradient.

    Returns
    -------
    Tensor ()
        ``sum_ik q_ik |x_i - mu_k|^2 / (number of pixels * C)`` with ``mu_k = sum_i q_ik x_i / sum_i q_ik`` over all
        pixels of the batch that take part; 0 if none does. A cluster without mass adds nothing.
        Differentiable in `spectra` and `probs`, once.

    Raises
    ------
    TypeError, ValueError
        If a shape, dtype or device is wrong.
    """
    checks.tensor("spectra", spectra, shape="(B, C, h, w)", ndim=4)
    checks.tensor("probs", probs, shape="(B, h, w, K)", ndim=4, like=spectra)
    batch, _, height, width = spectra.shape
    if spectra.numel() == 0:
        raise checks.fail("spectra", "a tensor of at least one pixel and band", f"shape {tuple(spectra.shape)}")
    if tuple(probs.shape[:3]) != (batch, height, width):
        raise checks.fail("probs", f"a tensor of shape {(batch, height, width)} + (K,)", f"shape {tuple(probs.shape)}")
    if valid is not None:
        checks.tensor("valid", valid, shape="(B, h, w)", ndim=3, dtypes=(torch.bool,))
        if valid.shape != probs.shape[:3]:
            raise checks.fail("valid", f"of shape {(batch, height, width)}", f"shape {tuple(valid.shape)}")
        if valid.device != spectra.device:
            raise checks.fail("valid", f"on {spectra.device} like the other inputs", f"a tensor on {valid.device}")
    return operation(spectra, probs, valid)


def work(pixels: int, bands: int, clusters: int) -> Counts:
    """One product with the spectra each way, and the norms."""
    values, numbers = 2 * pixels * bands, pixels * (bands + clusters + 1)
    return counts((values * (clusters + 1), values * clusters), (numbers, numbers))


def _extension_work(direction: str) -> Callable[..., Work]:
    def of_call(sizes: Sequence[int], *others: Any) -> Work:
        batch, bands, pixels, clusters = sizes
        return work(batch * pixels, bands, clusters).of(direction)

    return of_call


def _triton_work(direction: str, spectra_at: int) -> Callable[..., Work]:
    def of_call(*arguments: Any) -> Work:
        batch, bands, pixels = arguments[spectra_at].shape
        clusters = arguments[1].shape[2] if direction == "forward" else arguments[4].shape[1]
        return work(batch * pixels, bands, clusters).of(direction)

    return of_call


def self_test(device: str) -> list[Tensor]:
    """Two images with a mask."""
    spectra, probs, place = _self_test.numbers(device, (2, 19, 7, 9), (2, 7, 9, 3), (2, 7, 9))
    value = spectral_compactness(spectra, probs, place.detach() > 0.1)
    return _self_test.with_gradients([value], [spectra, probs])


_FORWARD, _BACKWARD = "spectral_compactness forward", "spectral_compactness backward"
operation = backends.declare(
    "spectral_compactness",
    reference=reference.spectral_compactness,
    pytorch=pytorch.spectral_compactness,
    kernel=registration.spectral_compactness,
    kernels={"cpu": (), "triton": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={
        "spectral_compactness_forward": labeled(_FORWARD, _extension_work("forward")),
        "spectral_compactness_backward": labeled(_BACKWARD, _extension_work("backward")),
    },
    triton_calls={
        "forward": labeled(_FORWARD, _triton_work("forward", 0)),
        "grad_probs": labeled(_BACKWARD, _triton_work("backward", 1)),
    },
    gpu_kernels={"^_sums$": _FORWARD, "^_distances$": _BACKWARD},
)
