"""The compiled extensions, loaded when a kernel first asks for them.

torch is imported first, so that the extension resolves `libgomp.so.1` to the OpenMP runtime torch has loaded and the
process has one pool of threads.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Bytes of the widest loads of CUDA kernels."""

DTYPE_CODE = {torch.float32: 0, torch.float64: 1}
"""Floating-point types of the C++ kernels, and their numbers at the boundary."""


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type a C++ kernel computes in for inputs of this type: narrow types are widened to float32."""
    return dtype if dtype in DTYPE_CODE else torch.float32


@functools.cache
def _load(name: str) -> tuple[ModuleType | None, str | None]:
    """The extension, or None and why it is missing."""
    try:
        return importlib.import_module(f"spectrafuse.{name}"), None
    except ModuleNotFoundError as error:
        if error.name != f"spectrafuse.{name}":
            return None, f"spectrafuse.{name} failed to import: {error}"
        if name == "_cpu" and not sys.platform.startswith("linux"):
            return None, f"kernels are built on Linux only, this is {sys.platform}"
        if name == "_cuda":
            return (
                None,
                "this installation was built without CUDA: no NVIDIA GPU or CUDA compiler was found, or asked for",
            )
        return None, f"the extension spectrafuse.{name} was not built"
    except ImportError as error:
        return None, f"spectrafuse.{name} failed to import: {error}"


def cpu_reason() -> str | None:
    """Why the C++ extension cannot be used, or None where it can."""
    module, reason = _load("_cpu")
    if module is None:
        return reason
    try:
        module.isa()
    except RuntimeError as error:
        return str(error)
    return None


# What torch.compiler.assume_constant_result sets: the compiler takes the answer and does not trace the import. The
# decorator itself would import the compiler here, which takes longer than torch.
cpu_reason._dynamo_marked_constant = True  # type: ignore[attr-defined]


def cpu_kernel_reason(device: str) -> str | None:
    """The predicate of every C++ kernel: why it cannot take tensors of this device type, or None."""
    return cpu_reason() if device == "cpu" else f"it takes CPU tensors, not {device} tensors"


def cpu() -> ModuleType:
    """The C++ extension; call it only where `cpu_reason()` is None."""
    module, reason = _load("_cpu")
    if module is None:
        raise ImportError(reason)
    return module


def cuda_reason() -> str | None:
    """Why the CUDA extension cannot be used, or None where it can."""
    module, reason = _load("_cuda")
    if module is None:
        return reason
    report = module.report()
    if report["driver_version"] == 0:
        return "no NVIDIA driver"
    if report["problem"]:
        return str(report["problem"])
    failures = [f"{d['name']}: {d['self_test']}" for d in report["devices"] if d["self_test"]]
    return "; ".join(failures) if len(failures) == len(report["devices"]) else None


cuda_reason._dynamo_marked_constant = True  # type: ignore[attr-defined]


def cuda_kernel_reason(device: str) -> str | None:
    """The predicate of every CUDA kernel: why it cannot take tensors of this device type, or None."""
    return cuda_reason() if device == "cuda" else f"it takes CUDA tensors, not {device} tensors"


def cuda() -> ModuleType:
    """The CUDA extension; call it only where `cuda_reason()` is None."""
    module, reason = _load("_cuda")
    if module is None:
        raise ImportError(reason)
    return module


def on_gpu(device: torch.device) -> bool:
    """Whether kernels of the CUDA extension take tensors of this device."""
    return device.type == "cuda"


def dense(tensor: Tensor) -> Tensor:
    """The tensor, copied where it is strided, or on a GPU begins where several numbers cannot be read at once."""
    found = tensor.contiguous()
    return found.clone() if on_gpu(found.device) and found.data_ptr() % _ALIGNMENT else found


def run_on_gpu(kernel: str, device: torch.device, *arguments: Any) -> None:
    """Call a kernel of the CUDA extension on the current stream of a device."""
    with torch.cuda.device(device):
        getattr(cuda(), kernel)(*arguments, torch.cuda.current_stream().cuda_stream)


def run(kernel: str, dtype: torch.dtype, device: torch.device, *arguments: Any) -> None:
    """Call a kernel that both extensions have: the C++ one on all threads, or the CUDA one (float32) on its stream."""
    if on_gpu(device):
        run_on_gpu(kernel, device, *arguments)
    else:
        getattr(cpu(), kernel)(DTYPE_CODE[dtype], *arguments, torch.get_num_threads())


def prepared(kernel: str, dtype: torch.dtype, *arguments: Any) -> Callable[[], Any]:
    """A call of a C++ kernel on all threads, to be made again and again; the tensors must stay where they are."""
    return functools.partial(getattr(cpu(), kernel), DTYPE_CODE[dtype], *arguments, torch.get_num_threads())


def cpu_info() -> dict[str, Any]:
    """Facts about the C++ extension for `spectrafuse doctor`; empty where it is missing."""
    if cpu_reason() is not None:
        return {}
    module = cpu()
    return {"instruction_set": module.isa(), "openmp": module.openmp, "file": module.__file__}


def cuda_info() -> dict[str, Any]:
    """Facts about the CUDA extension for `spectrafuse doctor`; empty where it is missing."""
    module, _ = _load("_cuda")
    if module is None:
        return {}
    return {"architectures": module.architectures, "file": module.__file__, **module.report()}
