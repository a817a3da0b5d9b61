"""The kernels of `spectral_compactness`, registered with torch.

`origin`, `means` around it and `squared_norm` are what the backward needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register, triton_function
from spectrafuse.ops.spectral_compactness.pytorch import spectra_gradient


def _flat(spectra: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, C, N) in the kernel's type, without a copy where height and width can be merged."""
    return spectra.flatten(2).to(dtype)


def _address(valid: Tensor | None) -> int:
    return 0 if valid is None else valid.data_ptr()


def _forward_cpu(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    working = extensions.working_dtype(spectra.dtype)
    x, q = _flat(spectra, working), probs.to(working).contiguous()
    valid = None if valid is None else valid.contiguous()
    origin, means = x.new_empty(x.shape[1]), x.new_empty((x.shape[1], q.shape[3]))
    squared_norm = x.new_empty((x.shape[0], x.shape[2]))
    value = extensions.cpu().spectral_compactness_forward(
        extensions.DTYPE_CODE[working], (*x.shape, q.shape[3]), x.stride(), x.data_ptr(), q.data_ptr(), _address(valid),
        origin.data_ptr(), means.data_ptr(), squared_norm.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return torch.full((), value, dtype=spectra.dtype, device="cpu"), origin, means, squared_norm


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


def _forward_triton(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, origin, means around it and squared norms of the spectra."""
    kept = None if valid is None else valid.flatten(1)
    value, origin, means, squared_norm = triton_function("spectral_compactness.forward")(
        spectra.flatten(2), probs.flatten(1, 2), kept
    )
    return value.to(spectra.dtype), origin, means, squared_norm


def _backward_triton(
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
    x, kept = spectra.flatten(2), None if valid is None else valid.flatten(1)
    grad_spectra, grad_probs = spectra.new_empty(0), probs.new_empty(0)
    if for_probs:
        gradient = triton_function("spectral_compactness.grad_probs")(grad, x, kept, origin, means, squared_norm)
        grad_probs = gradient.reshape(probs.shape).to(probs.dtype)
    if for_spectra:
        # Spectra are data and seldom need a gradient; plain PyTorch writes it.
        q = probs.flatten(1, 2).to(torch.float32)
        q = q if kept is None else q.masked_fill(~kept.unsqueeze(2), 0.0)
        scale = grad.to(torch.float32) / (triton_function("spectral_compactness.pixel_count")(x, kept) * x.shape[1])
        gradient = spectra_gradient(x.to(torch.float32), q, kept, origin.unsqueeze(1), means, scale)
        grad_spectra = torch.empty(spectra.shape, dtype=spectra.dtype, device=spectra.device)
        grad_spectra.copy_(gradient.reshape(spectra.shape))
    return grad_spectra, grad_probs


def _forward_fake(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, bands, height, width = spectra.shape
    working = extensions.working_dtype(spectra.dtype)
    return (
        spectra.new_empty(()),
        spectra.new_empty(bands, dtype=working),
        spectra.new_empty((bands, probs.shape[3]), dtype=working),
        spectra.new_empty((batch, height * width), dtype=working),
    )


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
    grad_spectra, grad_probs = _gradients(grad, *ctx.saved_tensors, for_spectra, for_probs)
    return grad_spectra if for_spectra else None, grad_probs if for_probs else None, None


_gradients = register("spectral_compactness_backward", _backward_cpu, _backward_fake, triton=_backward_triton)
_value = register(
    "spectral_compactness",
    _forward_cpu,
    _forward_fake,
    triton=_forward_triton,
    backward=_backward,
    setup_context=_setup_context,
)


def spectral_compactness(spectra: Tensor, probs: Tensor, valid: Tensor | None) -> Tensor:
    """The value alone."""
    return _value(spectra, probs, valid)[0]
