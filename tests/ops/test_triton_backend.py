"""Where Triton kernels may run: on a GPU, on the CPU only in the interpreter and only when forced."""

from __future__ import annotations

import sys

import pytest
import torch
import triton as installed
from triton import knobs

from spectrafuse import BackendUnavailableError, backends, use_backend
from spectrafuse.cli import doctor


@pytest.fixture
def op(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(backends, "_declared", {})
    nothing = {"reference": tuple, "pytorch": tuple, "work": tuple}
    backends.declare("an_operation", kernels={"triton": ()}, **nothing)
    return "an_operation"


def set_interpreter(monkeypatch: pytest.MonkeyPatch, on: bool) -> None:
    monkeypatch.setattr(knobs.runtime, "interpret", on)


def triton_row() -> dict:
    return next(row for row in doctor.examine()["extensions"] if row["extension"] == "triton")


def test_the_interpreter_takes_cpu_tensors_when_forced_and_never_by_itself(op, monkeypatch):
    set_interpreter(monkeypatch, on=True)
    assert backends.choose(op, "cpu") == "torch"
    with use_backend("triton"):
        assert backends.choose(op, "cpu") == "triton"
        with pytest.raises(BackendUnavailableError, match="interpreter is on .*CPU tensors only"):
            backends.choose(op, "cuda")
    row = triton_row()
    assert row["loaded"]
    assert row["info"] == {"version": installed.__version__, "interpreter": "on"}


def test_without_interpreter_and_gpu_the_reasons_are_given(op, monkeypatch):
    set_interpreter(monkeypatch, on=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with use_backend("triton"), pytest.raises(BackendUnavailableError, match="cannot run: .*TRITON_INTERPRET=1"):
        backends.choose(op, "cpu")
    assert backends.why_not(op, "triton", "cuda") == "torch sees no CUDA device"
    assert "not meta tensors" in str(backends.why_not(op, "triton", "meta"))
    row = triton_row()
    assert not row["loaded"]
    assert row["reason"] == "torch sees no CUDA device"


@pytest.mark.parametrize(("capability", "runs"), [((7, 0), False), ((7, 5), True), ((12, 0), True)])
def test_a_gpu_runs_kernels_from_compute_capability_7_5(op, monkeypatch, capability, runs):
    set_interpreter(monkeypatch, on=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert backends.choose(op, "cuda") == ("triton" if runs else "torch")
    reason = backends.why_not(op, "triton", "cuda")
    assert reason is None if runs else "7.0 is below 7.5" in reason


def test_a_missing_or_old_triton_is_named(op, monkeypatch):
    monkeypatch.setattr(installed, "__version__", "3.5.1")
    assert backends.why_not(op, "triton", "cuda") == "triton 3.5.1 is older than 3.6"
    monkeypatch.setitem(sys.modules, "triton", None)
    reason = backends.why_not(op, "triton", "cpu")
    assert "triton" in reason
    row = triton_row()
    assert row["reason"] == reason
    assert row["info"] == {}
