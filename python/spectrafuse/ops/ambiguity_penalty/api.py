"""Mean similarity of the components in use, so that no two of them tell the same story (arXiv 2507.23600)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, Work, counts
from spectrafuse.ops import _self_test
from spectrafuse.ops.ambiguity_penalty import pytorch, reference, registration

KERNELS = ("linear", "poly", "laplacian", "rbf", "matern")
MATERN_ORDERS = (0.5, 1.5, 2.5, 3.5)


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
    return operation(
        components,
        kernel,
        mask,
        power=power,
        offset=offset,
        scale=scale,
        nu=nu,
        published_coefficients=published_coefficients,
    )


def no_pairs(components: Tensor, kernel: str, *others: Any, **options: Any) -> backends.Reason:
    """The limit of the kernels: the mean of all products is one product."""
    return "it takes kernels of pairs, got 'linear', whose mean needs none" if kernel == "linear" else None


def work(count: int, dim: int, laplacian: bool = False) -> Counts:
    """For a pair, d multiply-adds or differences for its similarity, and two sums of d for the gradients."""
    pairs = count * (count - 1) // 2 * dim
    forward = 3 if laplacian else 2
    return counts((forward * pairs, 2 * forward * pairs), (count * dim, 2 * count * dim), 2 * count * dim)


def _work_of(count: int, dim: int, kind: str, gradient: int) -> tuple[str, Work]:
    counted = work(count, dim, kind == "laplacian")
    return "ambiguity_penalty", counted.both if gradient else counted.forward


def _extension_call(sizes: Sequence[int], kind: str, *others: Any) -> tuple[str, Work]:
    # The kernel for CUDA takes a selection of rows and a place for the value more.
    return _work_of(sizes[0], sizes[1], kind, others[5] if len(others) < 9 else others[8])


def _pool_call(sizes: Sequence[int], kind: str, *others: Any) -> tuple[str, Work]:
    count, dim = sizes
    # Only components that are in use are compared: one flag of a byte each. The kernel for CUDA, which takes a
    # workspace and a place for the value more, has the flags where the host does not read them.
    used, gradient = others[7] if len(others) < 12 else 0, others[9]
    active = ctypes.string_at(used, count).count(1) if used else count
    return _work_of(active, dim, kind, gradient)


def self_test(device: str) -> list[Tensor]:
    """A kernel of squared distances, one of absolute distances, one of products."""
    (components,) = leaves = _self_test.numbers(device, (37, 19))
    return _self_test.with_gradients(
        [ambiguity_penalty(components, name) for name in ("rbf", "laplacian", "poly")], leaves
    )


operation = backends.declare(
    "ambiguity_penalty",
    reference=reference.ambiguity_penalty,
    pytorch=pytorch.ambiguity_penalty,
    kernel=registration.ambiguity_penalty,
    kernels={"cpu": (no_pairs,), "cuda": (no_pairs,)},
    work=work,
    self_test=self_test,
    extension_calls={"ambiguity_penalty": _extension_call, "component_penalty": _pool_call},
    gpu_kernels={
        r"(pair|mean|gradient)_kernel<.*AmbiguityPenalty|(form|spread)_kernel\(.*ComponentPenalty": "ambiguity_penalty"
    },
)
