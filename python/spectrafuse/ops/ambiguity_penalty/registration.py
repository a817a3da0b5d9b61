"""The kernels of `ambiguity_penalty`, registered with torch.

`gradient` is that of the penalty, which the backward only scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spectrafuse._runtime import extensions
from spectrafuse._runtime.registration import register


def kernel_options(
    kernel: str,
    *,
    power: int = 2,
    offset: float = 1.0,
    scale: float = 1.0,
    nu: float = 1.5,
    published_coefficients: bool = False,
) -> tuple[str, int, float, float, float]:
    """What the C++ kernel takes for options of `ambiguity_penalty`: kind, power, offset, scale, quadratic."""
    kind = f"matern {float(nu)}" if kernel == "matern" else kernel
    return kind, power, offset, scale, 21.0 / 5.0 if published_coefficients else 14.0 / 5.0


def _forward_cpu(
    components: Tensor,
    mask: Tensor | None,
    kind: str,
    power: int,
    offset: float,
    scale: float,
    quadratic: float,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    working = extensions.working_dtype(components.dtype)
    rows = (components if mask is None else components[mask]).to(working).contiguous()
    gradient = torch.zeros(components.shape if needs_gradient else 0, dtype=working, device="cpu")
    if rows.shape[0] < 2:
        return components.new_zeros(()), gradient
    own = torch.empty_like(rows) if needs_gradient else None
    code, sizes = extensions.DTYPE_CODE[working], tuple(rows.shape)
    workspace = torch.empty(extensions.cpu().ambiguity_penalty_workspace(code, sizes), dtype=torch.uint8, device="cpu")
    value = extensions.cpu().ambiguity_penalty(
        code, sizes, kind, power, offset, scale, quadratic, rows.data_ptr(), 0 if own is None else own.data_ptr(),
        workspace.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if own is not None:
        gradient = own if mask is None else gradient.index_put_((mask,), own)
    return torch.full((), value, dtype=components.dtype, device="cpu"), gradient


def component_penalty_call(
    components: Tensor,
    used: Tensor,
    form: tuple[bool, int],
    options: tuple[str, int, float, float, float],
    weight: float,
    gradient: Tensor | None,
) -> Callable[[], float]:
    """A call that returns the penalty of the used components, again and again, of dense CPU tensors.

    Parameters
    ----------
    components : Tensor (N, d)
        Raw values.
    used : Tensor (N,) bool
    form : (bool, int)
        Whether absolute values are taken, and the order of the norm or 0.
    options : tuple
        `kernel_options`.
    weight : float
        Of the penalty in the loss.
    gradient : Tensor (N, d) or None
        The penalty's part of the raw values' gradient is added to it.
    """
    return extensions.prepared(
        "component_penalty", components.dtype, tuple(components.shape), *options, *form, components.data_ptr(),
        used.data_ptr(), weight, 0 if gradient is None else gradient.data_ptr(),
    )  # fmt: skip


def add_component_penalty(
    components: Tensor,
    used: Tensor,
    form: tuple[bool, int],
    options: tuple[str, int, float, float, float],
    weight: float,
    gradient: Tensor | None,
) -> Tensor:
    """The penalty () of the used components on a GPU; arguments as `component_penalty_call` takes them."""
    count, bands = components.shape
    size = extensions.cuda().ambiguity_penalty_workspace(count, 0, gradient is not None)
    workspace = (
        used.new_empty(count + 1, dtype=torch.int64), components.new_empty(count), torch.empty_like(components),
        torch.empty_like(components), used.new_empty(size, dtype=torch.uint8),
    )  # fmt: skip
    penalty = components.new_empty(())
    extensions.run_on_gpu(
        "component_penalty", components.device, (count, bands), *options, *form, components.data_ptr(),
        used.data_ptr(), weight, 0 if gradient is None else gradient.data_ptr(),
        tuple(t.data_ptr() for t in workspace), penalty.data_ptr(),
    )  # fmt: skip
    return penalty


def _forward_cuda(
    components: Tensor,
    mask: Tensor | None,
    kind: str,
    power: int,
    offset: float,
    scale: float,
    quadratic: float,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    working = extensions.working_dtype(components.dtype)
    rows = components.to(working).contiguous()
    penalty, gradient = rows.new_empty(()), rows.new_empty(rows.shape if needs_gradient else 0)
    order, selected = (None, None) if mask is None else selection(mask)
    code, sizes = extensions.DTYPE_CODE[working], tuple(rows.shape)
    size = extensions.cuda().ambiguity_penalty_workspace(sizes[0], code, needs_gradient)
    workspace = torch.empty(size, dtype=torch.uint8, device=rows.device)
    extensions.run_on_gpu(
        "ambiguity_penalty", rows.device, code, sizes, kind, power, offset, scale, quadratic, rows.data_ptr(),
        0 if order is None else order.data_ptr(), 0 if selected is None else selected.data_ptr(),
        penalty.data_ptr(), gradient.data_ptr() if needs_gradient else 0, workspace.data_ptr(),
    )  # fmt: skip
    return penalty.to(components.dtype), gradient


def selection(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers (n,) int64, those under `mask` (n,) first, and how many they are (), without asking the device."""
    return mask.logical_not().to(torch.uint8).argsort(stable=True), mask.sum()


def _scaled(grad: Tensor, gradient: Tensor) -> Tensor:
    return (grad.to(gradient.dtype) * gradient).to(grad.dtype)


def _forward_fake(
    components: Tensor,
    mask: Tensor | None,
    kind: str,
    power: int,
    offset: float,
    scale: float,
    quadratic: float,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor]:
    working = extensions.working_dtype(components.dtype)
    shape = components.shape if needs_gradient else 0
    return components.new_empty(()), components.new_empty(shape, dtype=working)


def _backward_fake(grad: Tensor, gradient: Tensor) -> Tensor:
    return gradient.new_empty(gradient.shape, dtype=grad.dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
    gradient = _scale(grad, *ctx.saved_tensors)
    return (gradient, *(None,) * 7)


_scale = register("ambiguity_penalty_backward", _scaled, _backward_fake, cuda=_scaled)
_penalty = register(
    "ambiguity_penalty",
    _forward_cpu,
    _forward_fake,
    cuda=_forward_cuda,
    backward=_backward,
    setup_context=_setup_context,
)


def ambiguity_penalty(components: Tensor, kernel: str, mask: Tensor | None, **options: Any) -> Tensor:
    """The penalty alone; its gradient is made with it where it is needed."""
    needs_gradient = torch.is_grad_enabled() and components.requires_grad
    return _penalty(components, mask, *kernel_options(kernel, **options), needs_gradient)[0]
