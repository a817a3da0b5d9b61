"""Mixture spectra from gated concentrations and a pool of components (arXiv 2507.23600)."""

from __future__ import annotations

from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime.counts import Counts, counts
from spectrafuse.ops import _self_test
from spectrafuse.ops._mixture import check_mixture
from spectrafuse.ops.gated_mixture import pytorch, reference, registration


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
    return operation(concentration, select_prob, components, non_negative=bool(non_negative), norm=norm)


def work(batch: int, components: int, bands: int) -> Counts:
    """A product of a sample's weight and a component forward, two of them backward; components are read once, and once
    more with their gradient written."""
    product, values = 2 * batch * components * bands, components * bands
    return counts((product, 2 * product), (values, 2 * values))


def self_test(device: str) -> list[Tensor]:
    """Two parts of components, two blocks of bands, two tiles of samples, both norms."""
    leaves = _self_test.numbers(device, (17, 37), (17, 37), (37, 131))
    return _self_test.with_gradients([gated_mixture(*leaves, norm=norm) for norm in (1, 2)], leaves)


operation = backends.declare(
    "gated_mixture",
    reference=reference.gated_mixture,
    pytorch=pytorch.gated_mixture,
    kernel=registration.gated_mixture,
    kernels={"cpu": (), "cuda": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={
        "gated_mixture_forward": lambda sizes, *others: ("gated_mixture forward", work(*sizes).forward),
        "gated_mixture_backward": lambda sizes, *others: ("gated_mixture backward", work(*sizes).backward),
    },
    gpu_kernels={
        "mixture_backward_kernel": "gated_mixture backward",
        r"mixture(_weights)?_kernel|add_parts_kernel\(float const\*, long": "gated_mixture forward",
    },
)
