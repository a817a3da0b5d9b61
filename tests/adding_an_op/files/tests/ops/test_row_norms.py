"""`row_norms`: every implementation against the reference, forward and backward."""

from __future__ import annotations

import pytest
import torch

from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import use_backend
from spectrafuse.ops import row_norms

SHAPES = [(1, 1), (3, 7), (2, 131), (0, 4)]


def evaluate(implementation: str, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.detach().requires_grad_()
    with use_backend(implementation):
        norms = row_norms(x)
        return [norms.detach(), *torch.autograd.grad((norms * torch.arange(len(x))).sum(), x)]


@pytest.mark.parametrize("implementation", ["torch", "cpu", "triton"])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_the_reference(shape: tuple[int, int], implementation: str) -> None:
    x = torch.rand(shape[::-1], generator=torch.Generator().manual_seed(1)).T + 0.1
    for found, expected in zip(evaluate(implementation, x), evaluate("reference", x), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_in_float64() -> None:
    x = torch.rand(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(row_norms, (x,))
    torch.library.opcheck(torch.ops.spectrafuse.row_norms.default, (x,))


def test_what_its_kernels_do_not_take() -> None:
    check_limits("row_norms", {"not_float64": lambda: row_norms(*tensors((2, 3), **DOUBLE))})
