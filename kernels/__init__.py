"""Triton kernels, one operation a file. Imported by `spectrafuse.ops` when a kernel is first needed.

A file also says, in `compile_cases()`, in which forms its kernels are compiled ahead of time for the table of
registers, spills and shared memory (benchmarks/resources.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LAUNCH = {"enable_fp_fusion": True}
"""Options of every launch: products and sums may fuse (Triton's default differs between its versions)."""


@dataclass(frozen=True)
class CompileCase:
    """One kernel in one form, as it is launched."""

    name: str
    """What is compiled, unique in its file: "forward fp32 D=32"."""
    kernel: Any
    """The function under `triton.jit`."""
    signature: Mapping[str, str]
    """Types of the arguments that are no constants, in Triton's notation ("*fp32:16" is an aligned pointer)."""
    constants: Mapping[str, Any]
    """Values of the `tl.constexpr` arguments."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the launch beyond `LAUNCH`, such as `num_warps`."""
    paper: bool = False
    """Whether the published training and inference run this form; there it must not spill registers."""
