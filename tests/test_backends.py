"""Choosing an implementation, by name, environment and default."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from spectrafuse import BackendUnavailableError, backends, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.ops import mean_shift_assign

ARGUMENTS = (torch.rand(1, 3, 4, 5), torch.rand(2, 3), torch.ones(()))


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_forced_implementation_that_cannot_run_raises_and_says_why():
    with (
        use_backend("cuda"),
        pytest.raises(BackendUnavailableError, match="'cuda' cannot run: .*no cuda kernel"),
    ):
        mean_shift_assign(*ARGUMENTS)


def test_a_missing_extension_is_named_when_forced_and_replaced_under_auto(monkeypatch):
    monkeypatch.setattr(extensions, "cpu_reason", lambda: "the extension spectrafuse._cpu was not built")
    assert backends.choose("mean_shift_assign", "cpu") == "torch"
    mean_shift_assign(*ARGUMENTS)
    with use_backend("cpu"), pytest.raises(BackendUnavailableError, match=r"spectrafuse\._cpu was not built"):
        mean_shift_assign(*ARGUMENTS)


def test_cpu_kernels_refuse_other_devices():
    assert "not meta tensors" in str(backends.why_not("mean_shift_assign", "cpu", "meta"))
    assert backends.choose("mean_shift_assign", "cuda") == "torch"


def test_use_backend_nests_and_ends_with_an_exception():
    assert backends.forced() == "auto"
    with use_backend("torch"):
        with use_backend("reference"):
            assert backends.forced() == "reference"
        assert backends.forced() == "torch"
    with pytest.raises(KeyError), use_backend("torch"):
        raise KeyError
    assert backends.forced() == "auto"


def test_unknown_names_are_refused():
    with (
        pytest.raises(ValueError, match="`name` must be one of auto, reference, .*; got 'fast'"),
        use_backend("fast"),
    ):
        pass
    done = run("import spectrafuse.backends", SPECTRAFUSE_BACKEND="fast")
    assert "SPECTRAFUSE_BACKEND must be one of auto" in done.stderr


def test_the_environment_forces_an_implementation():
    code = (
        "from spectrafuse import backends; import spectrafuse.ops; print(backends.choose('mean_shift_assign', 'cpu'))"
    )
    for name in ("reference", "torch", "cpu"):
        assert run(code, SPECTRAFUSE_BACKEND=name).stdout.strip() == name
    assert run(code, SPECTRAFUSE_BACKEND="").stdout.strip() == "cpu"


def test_every_operation_has_a_reference_and_a_torch_implementation():
    names = backends.operations()
    assert "mean_shift_assign" in names
    for name in names:
        assert backends.why_not(name, "reference", "cpu") is None
        assert backends.why_not(name, "torch", "cuda") is None
        assert backends.choose(name, "cpu") != "reference"


def test_limits_of_a_call_rule_an_implementation_out():
    limits = {"cpu": "it takes no float64"}
    assert backends.choose("mean_shift_assign", "cpu", limits) == "torch"
    assert backends.choose("mean_shift_assign", "cpu", {"cpu": None}) == "cpu"
    with use_backend("cpu"), pytest.raises(BackendUnavailableError, match="cannot run: it takes no float64"):
        backends.choose("mean_shift_assign", "cpu", limits)
