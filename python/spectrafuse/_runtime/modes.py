"""torch's settings that programs change for themselves, as the estimators need them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from spectrafuse._runtime.errors import OutOfMemoryError, SpectrafuseError
from spectrafuse._runtime.threads import WhileUsed


def _start_float32() -> torch.dtype:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    return before


_float32 = WhileUsed(_start_float32, torch.set_default_dtype)


@contextmanager
def usual_modes() -> Iterator[None]:
    """torch as it is at first: gradients, no autocast, float32 and the CPU by default; also a decorator.

    Memory that cannot be had is an `OutOfMemoryError`.

    The default type is the process's, and comes back when the last of several fits that run at once is done; the others
    are the thread's own.
    """
    with ExitStack() as modes:
        modes.enter_context(_float32)
        modes.enter_context(torch.inference_mode(False))  # gradients too
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        # It costs some time in every call of torch.
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, SpectrafuseError) or not (
                isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
            ):
                raise
            raise OutOfMemoryError(
                "There is not enough memory for this: choose smaller parameters (of `pool_size`, `batch_size`, "
                "`crop_size`, `embed_dim`), or give fewer spectra or pixels at a time."
            ) from error
