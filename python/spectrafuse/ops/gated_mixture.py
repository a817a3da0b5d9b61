"""Mixture spectra from gated concentrations and a pool of components (arXiv 2507.23600)."""

from __future__ import annotations

from torch import Tensor

from spectrafuse import _checks, backends
from spectrafuse.composed.gated_mixture import gated_mixture as composed
from spectrafuse.reference.gated_mixture import gated_mixture as reference

backends.declare("gated_mixture")


def check_mixture(concentration: Tensor, select_prob: Tensor, components: Tensor, norm: int | None) -> None:
    """Check what both mixtures take."""
    _checks.tensor("components", components, shape="(N, d)", ndim=2)
    count = components.shape[0]
    for name, value in (("concentration", concentration), ("select_prob", select_prob)):
        _checks.tensor(name, value, shape=f"(B, {count})", ndim=2, like=components)
        if value.shape[1] != count:
            raise _checks.fail(
                name,
                f"a tensor (B, {count}) for components {tuple(components.shape)}",
                f"shape {tuple(value.shape)}",
            )
    if concentration.shape != select_prob.shape:
        raise _checks.fail(
            "select_prob",
            f"of the shape of `concentration`, {tuple(concentration.shape)}",
            f"shape {tuple(select_prob.shape)}",
        )
    if norm is not None and (isinstance(norm, bool) or norm not in (1, 2)):
        raise _checks.fail("norm", "1, 2 or None", repr(norm))


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
    chosen = backends.choose("gated_mixture", components.device.type)
    implementation = reference if chosen == "reference" else composed
    return implementation(concentration, select_prob, components, non_negative=non_negative, norm=norm)
