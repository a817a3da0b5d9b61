"""Lengths of rows: one program a row, every number read once, bound by bytes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import CompileCase


@triton.jit
def row_norms_kernel(x, stride_row, stride_column, norms, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        place = x + row * stride_row + column.to(tl.int64) * stride_column
        value = tl.load(place, mask=column < columns, other=0.0).to(tl.float32)
        total += value * value
    tl.store(norms + row, tl.sqrt(tl.sum(total, 0)).to(norms.dtype.element_ty))


def forward(x: Tensor) -> Tensor:
    """Lengths (n,) of rows (n, d)."""
    norms = torch.empty(len(x), dtype=x.dtype, device=x.device)
    if len(x):
        row_norms_kernel[(len(x),)](x, *x.stride(), norms, x.shape[1], BLOCK=128)
    return norms


def compile_cases() -> list[CompileCase]:
    """The forms that are compiled for every target."""
    return [
        CompileCase(
            "fp32",
            row_norms_kernel,
            {"x": "*fp32", "stride_row": "i64", "stride_column": "i64", "norms": "*fp32", "columns": "i32"},
            {"BLOCK": 128},
        )
    ]
