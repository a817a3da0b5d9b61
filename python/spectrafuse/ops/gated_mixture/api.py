"""Mixture spectra from gated concentrations and a pool of components (arXiv 2507.23600)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks, extensions, triton
from spectrafuse.ops import _trials
from spectrafuse.ops.gated_mixture.pytorch import gated_mixture as composed
from spectrafuse.ops.gated_mixture.reference import gated_mixture as reference

backends.declare(
    "gated_mixture",
    {"cpu": extensions.cpu_kernel_reason, "cuda": extensions.cuda_kernel_reason},
    trial=_trials.gated_mixture,
)


def check_mixture(concentration: Tensor, select_prob: Tensor, components: Tensor, norm: int | None) -> None:
    """Check what both mixtures take."""
    checks.tensor("components", components, shape="(N, d)", ndim=2)
    count = components.shape[0]
    for name, value in (("concentration", concentration), ("select_prob", select_prob)):
        checks.tensor(name, value, shape=f"(B, {count})", ndim=2, like=components)
        if value.shape[1] != count:
            raise checks.fail(
                name,
                f"a tensor (B, {count}) for components {tuple(components.shape)}",
                f"shape {tuple(value.shape)}",
            )
    if concentration.shape != select_prob.shape:
        raise checks.fail(
            "select_prob",
            f"of the shape of `concentration`, {tuple(concentration.shape)}",
            f"shape {tuple(select_prob.shape)}",
        )
    if norm is not None and (isinstance(norm, bool) or norm not in (1, 2)):
        raise checks.fail("norm", "1, 2 or None", repr(norm))


def gated_mixture(
    concentration: Tensor,
    select_prob: Tensor,
    components: Tensor,
    *,
    non_negative: bool = True,
    norm: int | None = 2,
) -> Tensor:
    """`y = (c s^2) S` with `S = |V|` over its row norms; the gate enters squared, as published.

    Parameters
    ----------
    concentration : Tensor (B, N)
        c, at least 0.
    select_prob : Tensor (B, N)
        s, in [0, 1].
    components : Tensor (N, d)
        V, the raw component parameters.
    non_negative : bool
        Take absolute values of `components`.
    norm : {2, 1, None}
        Divide each row by its norm of this order.

    Returns
    -------
    Tensor (B, d)

    Raises
    ------
    ValueError, TypeError
        If a shape, dtype, device or option is wrong.

    Notes
    -----
    A zero row of `components` gives NaN in the reference under a norm, as published; elsewhere it
    contributes a zero spectrum and its gradient is finite. arXiv 2507.23600, model output.
    """
    check_mixture(concentration, select_prob, components, norm)
    limits = {"cuda": triton.dtype_reason(components.dtype)}
    chosen = backends.choose("gated_mixture", components.device.type, limits)
    if chosen in ("cpu", "cuda"):
        working = extensions.working_dtype(components.dtype)
        inputs = (concentration.to(working), select_prob.to(working), components.to(working))
        return torch.ops.spectrafuse.gated_mixture(*inputs, bool(non_negative), norm or 0).to(components.dtype)
    implementation = reference if chosen == "reference" else composed
    return implementation(concentration, select_prob, components, non_negative=non_negative, norm=norm)


# Registration: float32 and float64 on the CPU, float32 on CUDA devices.


def mixture_workspace(batch: int, components: Tensor, forward: bool) -> list[Tensor]:
    """What the CUDA kernels of both mixtures take as workspace: lengths, weights and partial mixtures; else nothing."""
    if not components.is_cuda:
        return []
    count, bands = components.shape
    parts = extensions.cuda().mixture_parts(count) if forward else 0
    return [components.new_empty(shape) for shape in ((count,), (count, batch), (parts, batch, bands))]


def workspace_addresses(workspace: list[Tensor]) -> list[tuple[int, ...]]:
    """The one argument that CUDA kernels take for their workspace; the C++ kernels take none."""
    return [tuple(t.data_ptr() for t in workspace)] if workspace else []


_INPUTS = "Tensor concentration, Tensor select_prob, Tensor components, bool non_negative, int norm"
torch.library.define("spectrafuse::gated_mixture", f"({_INPUTS}) -> Tensor")
torch.library.define("spectrafuse::gated_mixture_backward", f"(Tensor grad, {_INPUTS}) -> (Tensor, Tensor, Tensor)")


def shared_arguments(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> tuple[Any, ...]:
    """What the kernels of both directions take first, of dense tensors."""
    sizes = (*concentration.shape, components.shape[1])
    inputs = concentration.data_ptr(), select_prob.data_ptr(), components.data_ptr()
    return components.dtype, components.device, sizes, non_negative, norm, inputs


def forward_kernel(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> Tensor:
    c, s, v = concentration.contiguous(), select_prob.contiguous(), components.contiguous()
    mixture = v.new_empty((c.shape[0], v.shape[1]))
    workspace = mixture_workspace(len(c), v, forward=True)
    extensions.run(
        "gated_mixture_forward", *shared_arguments(c, s, v, non_negative, norm), mixture.data_ptr(),
        *workspace_addresses(workspace),
    )  # fmt: skip
    return mixture


torch.library.impl("spectrafuse::gated_mixture", ("CPU", "CUDA"), forward_kernel)


def backward_kernel(
    grad: Tensor, concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> tuple[Tensor, Tensor, Tensor]:
    c, s, v = concentration.contiguous(), select_prob.contiguous(), components.contiguous()
    upstream = grad.contiguous()
    grads = torch.empty_like(c), torch.empty_like(s), torch.empty_like(v)
    workspace = mixture_workspace(len(c), v, forward=False)
    extensions.run(
        "gated_mixture_backward", *shared_arguments(c, s, v, non_negative, norm), upstream.data_ptr(),
        tuple(g.data_ptr() for g in grads),
        *workspace_addresses(workspace),
    )  # fmt: skip
    return grads


torch.library.impl("spectrafuse::gated_mixture_backward", ("CPU", "CUDA"), backward_kernel)


@torch.library.register_fake("spectrafuse::gated_mixture")
def _forward_fake(
    concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> Tensor:
    return components.new_empty((concentration.shape[0], components.shape[1]))


@torch.library.register_fake("spectrafuse::gated_mixture_backward")
def _backward_fake(
    grad: Tensor, concentration: Tensor, select_prob: Tensor, components: Tensor, non_negative: bool, norm: int
) -> tuple[Tensor, Tensor, Tensor]:
    like_weights = concentration.new_empty(concentration.shape)
    return like_weights, torch.empty_like(like_weights), components.new_empty(components.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.spectrafuse.gated_mixture_backward(grad, *ctx.saved_tensors, *ctx.options)
    return (*grads, None, None)


torch.library.register_autograd("spectrafuse::gated_mixture", _backward, setup_context=_setup_context)
