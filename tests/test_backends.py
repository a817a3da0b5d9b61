"""Choosing an implementation, by name, environment and default."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from spectrafuse import BackendUnavailableError, backends, ops, use_backend
from spectrafuse._runtime import extensions
from spectrafuse.ops import mean_shift_assign

ARGUMENTS = (torch.ones(1, 3, 4, 5), torch.ones(2, 3), torch.ones(()))


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


@pytest.mark.process
def test_unknown_names_are_refused():
    with (
        pytest.raises(ValueError, match="`name` must be one of auto, reference, .*; got 'fast'"),
        use_backend("fast"),
    ):
        pass
    done = run("import spectrafuse.backends", SPECTRAFUSE_BACKEND="fast")
    assert "SPECTRAFUSE_BACKEND must be one of auto" in done.stderr


@pytest.mark.slow
@pytest.mark.process
def test_the_environment_forces_an_implementation():
    code = "from spectrafuse import backends, ops; ops.operations(); print(backends.choose('mean_shift_assign', 'cpu'))"
    for name in ("reference", "torch", "cpu"):
        assert run(code, SPECTRAFUSE_BACKEND=name).stdout.strip() == name
    assert run(code, SPECTRAFUSE_BACKEND="").stdout.strip() == "cpu"


def test_a_thread_has_a_choice_of_its_own_unless_it_runs_in_a_copy_of_the_context():
    with use_backend("torch"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(backends.forced).result() == "auto"
        assert pool.submit(contextvars.copy_context().run, backends.forced).result() == "torch"


def test_two_threads_force_two_implementations_at_once():
    inside = threading.Barrier(2)

    def chosen(name: str) -> str:
        with use_backend(name):
            inside.wait(timeout=60)
            return backends.choose("mean_shift_assign", "cpu")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(chosen, ["reference", "torch"])) == ["reference", "torch"]


@pytest.mark.slow
def test_a_compiled_function_follows_the_choice():
    seen = []

    def backend(module, inputs):
        seen.append(any("mean_shift_assign" in str(node.target) for node in module.graph.nodes))
        return module

    compiled = torch.compile(lambda *a: mean_shift_assign(*a).shifted, fullgraph=True, backend=backend)
    compiled(*ARGUMENTS)
    with use_backend("torch"):
        compiled(*ARGUMENTS)
    compiled(*ARGUMENTS)
    assert seen == [True, False]


def test_every_operation_is_declared_with_all_that_is_read_of_it():
    """What an operation's room holds is what is declared; kernels, tests and benchmarks have its name."""
    package = Path(ops.__file__).parent
    rooms = {room.parent.name for room in package.glob("*/reference.py")} | {"energy_gate"}
    assert set(ops.operations()) == rooms
    kernels = {file.stem for file in (package.parent / "kernels").glob("[!_]*.py")}
    root = Path(__file__).parents[1]
    measured = "".join(file.read_text(encoding="utf-8") for file in (root / "benchmarks").glob("bench_*.py"))
    tested = "".join(file.read_text(encoding="utf-8") for file in (root / "tests" / "ops").glob("test_*.py"))
    for name, operation in ops.operations().items():
        assert operation.kernels, name
        assert set(operation.kernels) <= {"cpu", "triton", "cuda"}
        assert ("triton" in operation.kernels) == (name in kernels) == bool(operation.triton_calls), name
        assert ("triton" in operation.kernels or "cuda" in operation.kernels) == (operation.self_test is not None), name
        assert operation.extension_calls or name == "energy_gate", name
        assert f'name="{name}"' in measured, name
        assert f"{name}(" in tested, name
        assert f'check_limits("{name}"' in tested or not any(operation.kernels.values()), name
        assert name in ops.__all__
