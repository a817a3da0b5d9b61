"""Calls beyond what an operation's kernels take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import seeds
from spectrafuse import BackendUnavailableError, backends, ops, use_backend

DOUBLE = {"dtype": torch.float64}


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Uniform in (0, 1), the same for every call of a test."""
    seeds.restart("limits")
    return [torch.from_numpy(np.asarray(seeds.generator().random(shape))).to(dtype) for shape in shapes]


def check_limits(name: str, calls: Mapping[str, Callable[[], Tensor]]) -> None:
    """Every limit that is declared has a call beyond it: forced kernels raise and say why, `auto` serves it."""
    operation = ops.operations()[name]
    declared = {(kernel, limit.__name__) for kernel, limits in operation.kernels.items() for limit in limits}
    assert {limit for _, limit in declared} == set(calls)
    for kernel, limit in sorted(declared):
        with (
            patch.object(backends, "_kernel_reason", lambda implementation, device: None),
            use_backend(kernel),
            pytest.raises(BackendUnavailableError, match=f"{name}: .*'{kernel}' cannot run: it "),
        ):
            calls[limit]()
    for call in calls.values():
        with use_backend("reference"):
            expected = call()
        torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-5)
