"""Lengths of rows."""

from __future__ import annotations

from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.counts import Counts, counts
from spectrafuse.ops import _self_test
from spectrafuse.ops.row_norms import pytorch, reference, registration


def row_norms(x: Tensor) -> Tensor:
    """The Euclidean length of every row.

    Parameters
    ----------
    x : Tensor (n, d)

    Returns
    -------
    Tensor (n,)

    Raises
    ------
    TypeError, ValueError
        If the shape or dtype is wrong.
    """
    checks.tensor("x", x, shape="(n, d)", ndim=2)
    return operation(x)


def work(rows: int, columns: int) -> Counts:
    """A multiply-add a number forward, a product backward."""
    values = rows * columns
    return counts((2 * values, values), (values, 2 * values))


def self_test(device: str) -> list[Tensor]:
    """Rows that fill no block."""
    leaves = _self_test.numbers(device, (5, 37))
    return _self_test.with_gradients([row_norms(*leaves)], leaves)


operation = backends.declare(
    "row_norms",
    reference=reference.row_norms,
    pytorch=pytorch.row_norms,
    kernel=registration.row_norms,
    kernels={"cpu": (), "triton": (backends.not_float64,)},
    work=work,
    self_test=self_test,
    extension_calls={"row_norms": lambda sizes, *others: ("row_norms forward", work(*sizes).forward)},
    triton_calls={"forward": lambda x: ("row_norms forward", work(*x.shape).forward)},
    gpu_kernels={"^row_norms_kernel$": "row_norms forward"},
)
