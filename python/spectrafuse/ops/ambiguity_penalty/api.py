"""Mean similarity of the components in use, so that no two of them tell the same story (arXiv 2507.23600)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions
from spectrafuse.ops import _trials
from spectrafuse.ops.ambiguity_penalty.pytorch import ambiguity_penalty as composed
from spectrafuse.ops.ambiguity_penalty.reference import ambiguity_penalty as reference

KERNELS = ("linear", "poly", "laplacian", "rbf", "matern")
MATERN_ORDERS = (0.5, 1.5, 2.5, 3.5)

backends.declare(
    "ambiguity_penalty",
    {"cpu": extensions.cpu_kernel_reason, "cuda": extensions.cuda_kernel_reason},
    trial=_trials.ambiguity_penalty,
)


def ambiguity_penalty(
    components: Tensor,
    kernel: str = "rbf",
    mask: Tensor | None = None,
    *,
    power: int = 2,
    offset: float = 1.0,
    scale: float = 1.0,
    nu: float = 1.5,
    published_coefficients: bool = False,
) -> Tensor:
    """Mean over unordered pairs of components of a similarity kernel.

    Parameters
    ----------
    components : Tensor (n, d)
        S: non-negative and normalised if the model says so, not gated.
    kernel : {"linear", "poly", "laplacian", "rbf", "matern"}
        `dot`; `(dot + offset)^power`; `exp(-|.|_1 / scale)`; `exp(-|.|_2^2 / (2 scale^2))`; Matern of order
        `nu` at `|.|_2 / scale`.
    mask : Tensor (n,) bool, optional
        Rows that count; None: all.
    power : int
        At least 1.
    offset : float
    scale : float
        Above 0.
    nu : {0.5, 1.5, 2.5, 3.5}
    published_coefficients : bool
        The published code's quadratic coefficient 21/5 for nu = 3.5, with which the kernel exceeds 1 near 0,
        in place of 14/5.

    Returns
    -------
    Tensor ()
        0, with a zero gradient, for fewer than two components.

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or option is wrong.

    Notes
    -----
    Identical rows have a finite gradient. The number of rows under a mask is read on the host, but not for the `cuda`
    kernel, whose calls a CUDA graph can hold. arXiv 2507.23600, loss. The kernels take every pair once and compute the
    gradient with the value; for it the `cuda` kernel keeps a slope for every pair. `linear` needs no pairs and runs in
    PyTorch.
    """
    checks.tensor("components", components, shape="(n, d)", ndim=2)
    checks.choice("kernel", kernel, KERNELS)
    if mask is not None:
        checks.tensor("mask", mask, shape=f"({components.shape[0]},)", ndim=1, dtypes=(torch.bool,))
        if mask.shape[0] != components.shape[0]:
            raise checks.fail("mask", f"a tensor ({components.shape[0]},)", f"shape {tuple(mask.shape)}")
        if mask.device != components.device:
            raise checks.fail("mask", f"on {components.device} like the other inputs", f"a tensor on {mask.device}")
    checks.integer("power", power, minimum=1)
    checks.number("offset", offset)
    checks.number("scale", scale, above=0.0)
    if checks.number("nu", nu) not in MATERN_ORDERS:
        raise checks.fail("nu", "one of 0.5, 1.5, 2.5, 3.5", nu)
    chosen = backends.choose("ambiguity_penalty", components.device.type)
    if chosen in ("cpu", "cuda") and kernel != "linear":
        options = kernel_options(
            kernel, power=power, offset=offset, scale=scale, nu=nu, published_coefficients=published_coefficients
        )
        needs_gradient = torch.is_grad_enabled() and components.requires_grad
        return torch.ops.spectrafuse.ambiguity_penalty(components, mask, *options, needs_gradient)[0]
    implementation = reference if chosen == "reference" else composed
    return implementation(
        components,
        kernel,
        mask,
        power=power,
        offset=offset,
        scale=scale,
        nu=nu,
        published_coefficients=published_coefficients,
    )


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


# Registration. `gradient` is that of the penalty, which the backward only scales.

torch.library.define(
    "spectrafuse::ambiguity_penalty",
    "(Tensor components, Tensor? mask, str kind, int power, float offset, float scale, float quadratic, "
    "bool needs_gradient) -> (Tensor penalty, Tensor gradient)",
)
torch.library.define("spectrafuse::ambiguity_penalty_backward", "(Tensor grad, Tensor gradient) -> Tensor")


def penalty_cpu(
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
    gradient = torch.zeros(components.shape if needs_gradient else 0, dtype=working)
    if rows.shape[0] < 2:
        return components.new_zeros(()), gradient
    own = torch.empty_like(rows) if needs_gradient else None
    code, sizes = extensions.DTYPE_CODE[working], tuple(rows.shape)
    workspace = torch.empty(extensions.cpu().ambiguity_penalty_workspace(code, sizes), dtype=torch.uint8)
    value = extensions.cpu().ambiguity_penalty(
        code, sizes, kind, power, offset, scale, quadratic, rows.data_ptr(), 0 if own is None else own.data_ptr(),
        workspace.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    if own is not None:
        gradient = own if mask is None else gradient.index_put_((mask,), own)
    return torch.full((), value, dtype=components.dtype), gradient


torch.library.impl("spectrafuse::ambiguity_penalty", "CPU", penalty_cpu)


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


@torch.library.impl("spectrafuse::ambiguity_penalty", "CUDA")
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
    module, code, sizes = extensions.cuda(), extensions.DTYPE_CODE[working], tuple(rows.shape)
    size = module.ambiguity_penalty_workspace(sizes[0], code, needs_gradient)
    workspace = torch.empty(size, dtype=torch.uint8, device=rows.device)
    with torch.cuda.device(rows.device):
        module.ambiguity_penalty(
            code, sizes, kind, power, offset, scale, quadratic, rows.data_ptr(),
            0 if order is None else order.data_ptr(), 0 if selected is None else selected.data_ptr(),
            penalty.data_ptr(), gradient.data_ptr() if needs_gradient else 0, workspace.data_ptr(),
            torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return penalty.to(components.dtype), gradient


def selection(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers (n,) int64, those under `mask` (n,) first, and how many they are (), without asking the device."""
    return mask.logical_not().to(torch.uint8).argsort(stable=True), mask.sum()


@torch.library.impl("spectrafuse::ambiguity_penalty_backward", ("CPU", "CUDA"))
def _scaled(grad: Tensor, gradient: Tensor) -> Tensor:
    return (grad.to(gradient.dtype) * gradient).to(grad.dtype)


@torch.library.register_fake("spectrafuse::ambiguity_penalty")
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


@torch.library.register_fake("spectrafuse::ambiguity_penalty_backward")
def _backward_fake(grad: Tensor, gradient: Tensor) -> Tensor:
    return gradient.new_empty(gradient.shape, dtype=grad.dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, unused: Tensor) -> tuple[Tensor | None, ...]:
    gradient = torch.ops.spectrafuse.ambiguity_penalty_backward(grad, *ctx.saved_tensors)
    return (gradient, *(None,) * 7)


torch.library.register_autograd("spectrafuse::ambiguity_penalty", _backward, setup_context=_setup_context)
