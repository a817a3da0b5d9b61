"""Where kernels run in tests: C++ on the CPU, CUDA in the emulation (tests/emulated_cuda), CUDA on a GPU if any."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from spectrafuse import backends, use_backend
from spectrafuse._runtime import extensions

FILE = Path(__file__).parents[2] / "build" / "emulated_cuda" / f"_emulated_cuda{EXTENSION_SUFFIXES[0]}"
NOT_BUILT = "the CUDA kernels were not built for the CPU (cmake -DSPECTRAFUSE_EMULATED_CUDA=ON)"
ORDERS = ("forwards", "backwards", "random:1")
"""In which blocks, and threads between two barriers, run one after the other."""
DEVICES = ["cpu", "emulated", *["cuda"] * torch.cuda.is_available()]


@functools.cache
def module() -> ModuleType:
    """The emulated kernels, with `set_order` and `launches`."""
    if not FILE.is_file():
        pytest.skip(NOT_BUILT)
    spec = importlib.util.spec_from_file_location("_emulated_cuda", FILE)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def _run_emulated(kernel: str, device: torch.device, *arguments: Any) -> None:
    getattr(module(), kernel)(*arguments, 0)


@contextmanager
def emulated(order: str = "forwards") -> Iterator[ModuleType]:
    """Inside, the cuda implementation is in force and takes CPU tensors: a GPU is where it is forced."""
    module().set_order(order)
    with ExitStack() as stack:
        for name, stand_in in {
            "cuda": module,
            "cuda_kernel_reason": lambda device: None,
            "on_gpu": lambda device: backends.forced() == "cuda",
            "run_on_gpu": _run_emulated,
        }.items():
            stack.enter_context(mock.patch.object(extensions, name, stand_in))
        stack.enter_context(use_backend("cuda"))
        yield module()


def run(device: str, function: Callable[..., Sequence[Tensor]], *tensors: Tensor | None) -> list[Tensor]:
    """What a function of tensors gives where its kernels run on this device; emulated ones the same in every order."""
    if device != "emulated":
        with use_backend(device):
            return [t.detach().cpu() for t in function(*(t if t is None else t.to(device) for t in tensors))]
    found = []
    for order in ORDERS:
        with emulated(order):
            found.append([t.detach() for t in function(*tensors)])
    for order, other in zip(ORDERS[1:], found[1:], strict=True):
        for i, (one, two) in enumerate(zip(found[0], other, strict=True)):
            assert same_bits(one, two), f"result {i} depends on the order of threads: {order}"
    return found[0]


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN to NaN."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())
