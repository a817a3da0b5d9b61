"""Distance of spectra to the mean spectra of their clusters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.spectral_compactness import on_triton as triton_kernels
from spectrafuse.ops.spectral_compactness.pytorch import spectra_gradient
from spectrafuse.ops.spectral_compactness.pytorch import spectral_compactness as composed
from spectrafuse.ops.spectral_compactness.reference import spectral_compactness as reference

backends.declare(
    "spectral_compactness",
    {"cpu": extensions.cpu_kernel_reason, "triton": triton.kernel_reason},
    trial=_trials.spectral_compactness,
)


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
        sum_ik q_ik |x_i - mu_k|^2 / (number of pixels * C) with mu_k = sum_i q_ik x_i / sum_i q_ik over all
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
    limits = {"triton": triton.dtype_reason(spectra.dtype)}
    chosen = backends.choose("spectral_compactness", spectra.device.type, limits)
    if chosen in ("cpu", "triton"):
        return torch.ops.spectrafuse.spectral_compactness(spectra, probs, valid)[0]
    implementation = reference if chosen == "reference" else composed
    return implementation(spectra, probs, valid)


# Registration. `origin`, `means` around it and `squared_norm` are what the backward needs.

torch.library.define(
    "spectrafuse::spectral_compactness",
    "(Tensor spectra, Tensor probs, Tensor? valid) -> (Tensor value, Tensor origin, Tensor means, Tensor squared_norm)",
)
torch.library.define(
    "spectrafuse::spectral_compactness_backward",
    "(Tensor grad, Tensor spectra, Tensor probs, Tensor? valid, Tensor origin, Tensor means, Tensor squared_norm, "
    "bool for_spectra, bool for_probs) -> (Tensor, Tensor)",
)


def _flat(spectra: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, C, N) in the kernel's type, without a copy where height and width can be merged."""
    return spectra.flatten(2).to(dtype)


def _address(valid: Tensor | None) -> int:
    return 0 if valid is None else valid.data_ptr()


@torch.library.impl("spectrafuse::spectral_compactness", "CPU")
def _forward_cpu(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backends.forced() == "triton":
        return triton_kernels.forward(spectra, probs, valid)
    working = extensions.working_dtype(spectra.dtype)
    x, q = _flat(spectra, working), probs.to(working).contiguous()
    valid = None if valid is None else valid.contiguous()
    origin, means = x.new_empty(x.shape[1]), x.new_empty((x.shape[1], q.shape[3]))
    squared_norm = x.new_empty((x.shape[0], x.shape[2]))
    value = extensions.cpu().spectral_compactness_forward(
        extensions.DTYPE_CODE[working], (*x.shape, q.shape[3]), x.stride(), x.data_ptr(), q.data_ptr(), _address(valid),
        origin.data_ptr(), means.data_ptr(), squared_norm.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return torch.full((), value, dtype=spectra.dtype), origin, means, squared_norm


@torch.library.impl("spectrafuse::spectral_compactness_backward", "CPU")
def _backward_cpu(
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
    if backends.forced() == "triton":
        return triton_kernels.backward(grad, spectra, probs, valid, origin, means, squared_norm, for_spectra, for_probs)
    working = squared_norm.dtype
    x = _flat(spectra, working)
    valid = None if valid is None else valid.contiguous()
    grad_spectra, grad_probs = spectra.new_empty(0), probs.new_empty(0)
    if for_probs:
        gradient = x.new_empty(probs.shape)
        extensions.cpu().spectral_compactness_backward(
            extensions.DTYPE_CODE[working], (*x.shape, probs.shape[3]), x.stride(), x.data_ptr(), _address(valid),
            origin.data_ptr(), means.data_ptr(), squared_norm.data_ptr(), grad.item(), gradient.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        grad_probs = gradient.to(probs.dtype)
    if for_spectra:
        q, kept, count = probs.flatten(1, 2).to(working), None, squared_norm.numel()
        if valid is not None:
            kept = valid.flatten(1)
            q, count = q.masked_fill(~kept.unsqueeze(2), 0.0), max(int(valid.sum()), 1)
        scale = grad.to(working) / (count * x.shape[1])
        gradient = spectra_gradient(x, q, kept, origin.unsqueeze(1), means, scale)
        grad_spectra = gradient.reshape(spectra.shape).to(spectra.dtype)
    return grad_spectra, grad_probs


torch.library.impl("spectrafuse::spectral_compactness", "CUDA", triton_kernels.forward)
torch.library.impl("spectrafuse::spectral_compactness_backward", "CUDA", triton_kernels.backward)


@torch.library.register_fake("spectrafuse::spectral_compactness")
def _forward_fake(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, bands, height, width = spectra.shape
    working = extensions.working_dtype(spectra.dtype)
    return (
        spectra.new_empty(()),
        spectra.new_empty(bands, dtype=working),
        spectra.new_empty((bands, probs.shape[3]), dtype=working),
        spectra.new_empty((batch, height * width), dtype=working),
    )


@torch.library.register_fake("spectrafuse::spectral_compactness_backward")
def _backward_fake(
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
    return (
        spectra.new_empty(spectra.shape if for_spectra else 0),
        probs.new_empty(probs.shape if for_probs else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    spectra, probs, valid = inputs
    ctx.save_for_backward(spectra, probs, valid, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    for_spectra, for_probs = ctx.needs_input_grad[:2]
    grad_spectra, grad_probs = torch.ops.spectrafuse.spectral_compactness_backward(
        grad, *ctx.saved_tensors, for_spectra, for_probs
    )
    return grad_spectra if for_spectra else None, grad_probs if for_probs else None, None


torch.library.register_autograd("spectrafuse::spectral_compactness", _backward, setup_context=_setup_context)
