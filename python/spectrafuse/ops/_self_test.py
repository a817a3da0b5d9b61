"""Numbers and gradients for the self-tests of the operations: the same on every device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def numbers(device: str, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Leaves uniform in (0, 1), whatever the caller's default type and device are."""
    generator = torch.Generator("cpu").manual_seed(5)
    made = [torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for shape in shapes]
    return [tensor.to(device).requires_grad_() for tensor in made]


def with_gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Outputs and the gradients of their squares' sum."""
    loss = torch.stack([output.square().sum() for output in outputs if output.requires_grad]).sum()
    return [*outputs, *torch.autograd.grad(loss, leaves)]
