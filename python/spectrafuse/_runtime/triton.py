"""Where Triton kernels can run, and why not; what the operations need to know without importing them.

On the CPU only Triton's interpreter runs kernels, far slower than anything else: it is there to check them without a
GPU (`TRITON_INTERPRET=1`, set before a kernel is imported) and is never taken by `auto`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

OLDEST = (3, 6)
OLDEST_CAPABILITY = (7, 5)


def _import_reason() -> str | None:
    try:
        import triton
    except ModuleNotFoundError as error:
        if error.name != "triton":
            return f"triton failed to import: {error}"
        if not sys.platform.startswith("linux"):
            return f"Triton exists on Linux only, this is {sys.platform}"
        return "triton is not installed; PyTorch's CUDA packages bring it"
    except ImportError as error:
        return f"triton failed to import: {error}"
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST:
        return f"triton {triton.__version__} is older than {'.'.join(map(str, OLDEST))}"
    return None


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter; ask only where Triton can be imported."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def interpreter_reason() -> str | None:
    """Why kernels cannot take CPU tensors, or None where the interpreter is on."""
    reason = _import_reason()
    if reason is None and not interpreted():
        return "it takes CUDA tensors; CPU tensors only in Triton's interpreter (TRITON_INTERPRET=1)"
    return reason


def gpu_reason() -> str | None:
    """Why kernels cannot take tensors of the current CUDA device, or None where they can."""
    reason = _import_reason()
    if reason is not None:
        return reason
    if interpreted():
        return "Triton's interpreter is on (TRITON_INTERPRET=1): it takes CPU tensors only"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST_CAPABILITY:
        return (
            f"compute capability {capability[0]}.{capability[1]} is below {OLDEST_CAPABILITY[0]}.{OLDEST_CAPABILITY[1]}"
        )
    return None


# torch.compile takes the answers and does not trace the imports (see `extensions.cpu_reason`).
interpreter_reason._dynamo_marked_constant = True  # type: ignore[attr-defined]
gpu_reason._dynamo_marked_constant = True  # type: ignore[attr-defined]


def kernel_reason(device: str) -> str | None:
    """The predicate of every Triton kernel: why it cannot take tensors of this device type, or None."""
    if device == "cpu":
        return interpreter_reason()
    return gpu_reason() if device == "cuda" else f"it takes CUDA tensors, not {device} tensors"


def info() -> dict[str, Any]:
    """Facts about Triton for `spectrafuse doctor`; empty where it is missing."""
    if _import_reason() is not None:
        return {}
    import triton

    return {"version": triton.__version__, "interpreter": "on" if interpreted() else "off"}
