"""Mean similarity of the components in use, so that no two of them tell the same story (arXiv 2507.23600)."""

from __future__ import annotations

import torch
from torch import Tensor

from spectrafuse import _checks, backends
from spectrafuse.composed.ambiguity_penalty import ambiguity_penalty as composed
from spectrafuse.reference.ambiguity_penalty import ambiguity_penalty as reference

KERNELS = ("linear", "poly", "laplacian", "rbf", "matern")
MATERN_ORDERS = (0.5, 1.5, 2.5, 3.5)

backends.declare("ambiguity_penalty")


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
    Identical rows have a finite gradient. The number of rows under a mask is read on the host. arXiv
    2507.23600, loss.
    """
    _checks.tensor("components", components, shape="(n, d)", ndim=2)
    _checks.choice("kernel", kernel, KERNELS)
    if mask is not None:
        _checks.tensor("mask", mask, shape=f"({components.shape[0]},)", ndim=1, dtypes=(torch.bool,))
        if mask.shape[0] != components.shape[0]:
            raise _checks.fail("mask", f"a tensor ({components.shape[0]},)", f"shape {tuple(mask.shape)}")
        if mask.device != components.device:
            raise _checks.fail("mask", f"on {components.device} like the other inputs", f"a tensor on {mask.device}")
    _checks.integer("power", power, minimum=1)
    _checks.number("offset", offset)
    _checks.number("scale", scale, above=0.0)
    if _checks.number("nu", nu) not in MATERN_ORDERS:
        raise _checks.fail("nu", "one of 0.5, 1.5, 2.5, 3.5", nu)
    chosen = backends.choose("ambiguity_penalty", components.device.type)
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
