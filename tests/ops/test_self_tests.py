"""A kernel for a GPU is compared with plain PyTorch before it is first taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch._subclasses import FakeTensorMode

from spectrafuse import BackendUnavailableError, backends, ops, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.cli import doctor

RIGHT = (1.0, -2.0)
FOR_GPUS = [name for name, operation in ops.operations().items() if {"cuda", "triton"} & set(operation.kernels)]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    """Declares `an_operation` whose kernels give certain numbers; the answer lists the calls of its self-test."""
    monkeypatch.setattr(backends, "_declared", {})
    monkeypatch.setattr(backends, "_verdicts", {})
    monkeypatch.setattr(backends, "_kernel_reason", lambda implementation, device: None)

    def declared(**kernels: tuple[float, ...] | Exception) -> list[tuple[str, str]]:
        calls = []

        def self_test(device: str) -> list[torch.Tensor]:
            implementation = backends.choose("an_operation", device)
            calls.append((implementation, device))
            numbers = kernels.get(implementation, RIGHT)
            if isinstance(numbers, Exception):
                raise numbers
            scale = torch.ones(len(numbers), requires_grad=True)
            loss = (torch.tensor(numbers) * scale).sum()
            return [torch.tensor(3.0), *torch.autograd.grad(loss, scale)]

        nothing = {"reference": tuple, "pytorch": tuple, "work": tuple}
        backends.declare("an_operation", kernels=dict.fromkeys(kernels, ()), self_test=self_test, **nothing)
        return calls

    return declared


@pytest.mark.parametrize("implementation", ["cuda", "triton"])
def test_a_kernel_that_agrees_is_taken_and_tried_once(declare, implementation):
    calls = declare(**{implementation: (1.0 + 1e-6, -2.0)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert backends.choose("an_operation", "cuda") == implementation
    assert calls == [(implementation, "cuda"), ("torch", "cpu")]


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ((1.0, -2.01), "its self-test on cuda differs from plain PyTorch by 1.0e-02 where numbers reach 2.0e+00"),
        ((float("nan"), -2.0), "differs from plain PyTorch by nan"),
        ((1.0,), "its self-test on cuda gave other shapes than plain PyTorch"),
        (
            RuntimeError("no image for this device"),
            "its self-test on cuda raised RuntimeError: no image for this device",
        ),
    ],
)
def test_a_kernel_that_disagrees_or_fails_is_not_taken_and_says_why(declare, numbers, sentence):
    calls = declare(cuda=numbers)
    with pytest.warns(RuntimeWarning, match="an_operation: the cuda kernel is not used") as raised:
        chosen = [backends.choose("an_operation", "cuda") for _ in range(3)]
    assert chosen == ["torch"] * 3
    assert len(raised) == 1
    assert calls.count(("cuda", "cuda")) == 1
    assert sentence in backends.why_not("an_operation", "cuda", "cuda")
    with use_backend("cuda"), pytest.raises(BackendUnavailableError, match="its self-test on cuda"):
        backends.choose("an_operation", "cuda")


def test_the_next_kernel_stands_in_for_a_wrong_one(declare):
    declare(cuda=(0.0, 0.0), triton=RIGHT)
    with pytest.warns(RuntimeWarning, match="the cuda kernel is not used"):
        assert backends.choose("an_operation", "cuda") == "triton"


def test_kernels_for_cpu_tensors_and_limited_calls_are_not_tried(declare):
    calls = declare(cpu=(0.0, 0.0), triton=(0.0, 0.0), cuda=(0.0, 0.0))
    with use_backend("triton"):
        assert backends.choose("an_operation", "cpu") == "triton"
    limits = {"cuda": "not float64", "triton": "not float64"}
    assert backends.choose("an_operation", "cuda", limits.get) == "cpu"
    assert calls == []


@pytest.mark.parametrize(
    "mode",
    [
        torch.no_grad,
        torch.inference_mode,
        FakeTensorMode,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
    ],
)
def test_modes_of_the_caller_do_not_reach_the_self_test(declare, mode):
    declare(cuda=RIGHT)
    with mode():
        assert backends.choose("an_operation", "cuda") == "cuda"


def test_the_compiler_takes_the_answer_and_does_not_trace_the_self_test(declare):
    calls = declare(cuda=RIGHT)

    @torch.compile(fullgraph=True, backend="eager")
    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if backends.choose("an_operation", "cuda") == "cuda" else x - 1

    assert function(torch.zeros(2)).tolist() == [1.0, 1.0]
    assert calls == [("cuda", "cuda"), ("torch", "cpu")]


def test_nothing_is_tried_while_a_graph_is_captured(declare, monkeypatch):
    calls = declare(cuda=RIGHT)
    capturing = True
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("device", device)))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    assert backends.choose("an_operation", "cuda") == "torch"
    assert "captured" in backends.why_not("an_operation", "cuda", "cuda")
    assert calls == []
    capturing = False
    assert backends.choose("an_operation", "cuda") == "cuda"
    capturing = True
    assert backends.choose("an_operation", "cuda") == "cuda"
    assert calls == [("device", "cuda:1"), ("cuda", "cuda:1"), ("torch", "cpu")]


def test_doctor_shows_what_a_self_test_found(declare, monkeypatch):
    declare(cuda=(5.0, 5.0))
    monkeypatch.setattr(doctor, "_devices", lambda: [{"device": "cuda:0"}])
    with pytest.warns(RuntimeWarning, match="the cuda kernel is not used"):
        (row,) = doctor.examine()["operations"]
    assert row["runs"] == "torch"
    assert "differs from plain PyTorch by 7.0e+00" in row["why_not"]["cuda"]


def test_every_operation_with_a_kernel_for_a_gpu_has_a_self_test():
    assert len(FOR_GPUS) >= 10
    assert all(ops.operations()[name].self_test is not None for name in FOR_GPUS)


@pytest.mark.parametrize("op", FOR_GPUS)
def test_self_tests_hold_for_implementations_that_are_right(op):
    """The C++ kernels pass as CUDA kernels must; what is compared is finite and not all zero."""
    assert extensions.cpu_reason() is None
    self_test = ops.operations()[op].self_test
    assert backends._run_self_test(op, "cpu", "cpu") is None
    with use_backend("torch"):
        found, again = self_test("cpu"), self_test("cpu")
    assert all(bool(tensor.isfinite().all()) and bool(tensor.any()) for tensor in found)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
