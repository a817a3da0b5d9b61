"""Where the tensors of a training run lie: together, with the values and the identity they had."""

from __future__ import annotations

import pytest
import torch

from helpers import seeds
from spectrafuse._runtime import extensions
from spectrafuse.mcr.training.huge_pages import place_together

pytestmark = pytest.mark.skipif(extensions.cpu_reason() is not None, reason=str(extensions.cpu_reason()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_move_side_by_side_and_stay_what_they_are(dtype):
    generator = torch.Generator().manual_seed(seeds.fresh_seed())
    shapes = [(1,), (7, 13), (512, 300), (), (3, 5, 2)]
    values = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    tensors = [torch.nn.Parameter(values[0].clone()), *(value.clone() for value in values[1:])]
    kept = list(tensors)
    place_together(tensors)
    for tensor, before, value in zip(tensors, kept, values, strict=True):
        assert tensor is before
        assert tensor.shape == value.shape
        assert tensor.is_contiguous()
        assert torch.equal(tensor, value)
    assert tensors[0].data_ptr() % 2**21 == 0
    ends = [tensor.data_ptr() + tensor.nbytes for tensor in tensors]
    gaps = [after.data_ptr() - end for after, end in zip(tensors[1:], ends, strict=False)]
    assert all(0 <= gap < 64 for gap in gaps), gaps
    tensors[2].zero_()
    assert torch.equal(tensors[1], values[1])
    assert torch.equal(tensors[3], values[3])


def test_nothing_to_place():
    place_together([])
    empty = torch.empty(0, 4)
    place_together([empty])
    assert empty.shape == (0, 4)
