"""What both mixtures share: the checks of their inputs, and the workspace of their CUDA kernels."""

from __future__ import annotations

from torch import Tensor

from spectrafuse._runtime import checks, extensions


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


def mixture_workspace(batch: int, components: Tensor, forward: bool, before: Tensor | None = None) -> list[Tensor]:
    """What the CUDA kernels of both mixtures take as workspace; nothing for those of C++.

    Lengths, weights, partial mixtures, and what concentrations are the absolute values of, if they are.
    """
    if not extensions.on_gpu(components.device):
        return []
    count, bands = components.shape
    parts = extensions.cuda().mixture_parts(count) if forward else 0
    made = [components.new_empty(shape) for shape in ((count,), (count, batch), (parts, batch, bands))]
    return [*made, components.new_empty(0) if before is None else before]


def workspace_addresses(workspace: list[Tensor]) -> list[tuple[int, ...]]:
    """The one argument that CUDA kernels take for their workspace; the C++ kernels take none."""
    return [tuple(t.data_ptr() for t in workspace)] if workspace else []


def before_absolute(grad: Tensor, before: Tensor | None) -> Tensor:
    """Gradient of what an absolute value was taken of, where a C++ kernel has left it to be done."""
    done = before is None or extensions.on_gpu(grad.device)
    return grad if done else grad.mul_(before.sgn())  # type: ignore[union-attr]
