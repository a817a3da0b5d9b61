"""Choosing an implementation, by name, environment and default."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrafuse import BackendUnavailableError, backends, ops, use_backend
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


def arguments(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(shape, generator=generator, dtype=dtype) for shape in shapes]


def _layer(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return ops.skinny_linear(*arguments((rows, 5), (7, 5), (7,), dtype=dtype))


def _step(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x, grad_y, weight, first, second = arguments((rows, 5), (rows, 7), (7, 5), (7, 5), (7, 5), dtype=dtype)
    options = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}
    ops.adamw_outer(x, grad_y, weight, first, second, **options, step=1)
    return weight


def _shift(dim: int = 3, window: int = 5, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return ops.mean_shift_assign(*arguments((1, dim, 12, 13), (2, dim), (), dtype=dtype), window=window).shifted


def _objective(dim: int = 3, dtype: torch.dtype = torch.float32, **options: int | bool) -> torch.Tensor:
    inputs = arguments((2, dim, 12, 13), (2, dim), (), dtype=dtype)
    return ops.clustering_objective(*inputs, None, aligned=False, **options).sums


def _spectra(stored: object = None, method: str = "unit", out: torch.dtype = torch.float32) -> torch.Tensor:
    (cube,) = arguments((3, 4, 5)) if stored is None else (stored,)
    return ops.scene_spectra(cube, torch.empty(4, 5, 3, dtype=out), method)


wide = {"dtype": torch.float64}
LIMITS = {
    "adamw_outer": {"many_rows": lambda: _step(257), "not_float64": lambda: _step(2, **wide)},
    "ambiguity_penalty": {"no_pairs": lambda: ops.ambiguity_penalty(*arguments((4, 5)), "linear")},
    "clustering_objective": {
        "all_pairs": lambda: _objective(dense=True),
        "large_window": lambda: _objective(window=13),
        "many_dimensions": lambda: _objective(dim=129),
        "not_float64": lambda: _objective(**wide),
    },
    "dense_mean_shift": {
        "many_dimensions": lambda: ops.dense_mean_shift(*arguments((1, 129, 2, 3), ())),
        "not_float64": lambda: ops.dense_mean_shift(*arguments((1, 3, 2, 3), (), **wide)),
    },
    "energy_gate": {
        "not_float64": lambda: (
            ops.energy_gate(*arguments((2, 3), (8, 3), (8,), **wide), None, tau=0.5, langevin=None).select_prob
        )
    },
    "extract_crop_pairs": {
        "not_float64": lambda: ops.extract_crop_pairs(
            *arguments((1, 2, 5, 6), **wide), torch.tensor([0.0, 0, 1, 0, 0, 0, 1, 0, 0]).expand(1, 2, 9), (3, 3)
        )
    },
    "gate": {"not_float64": lambda: ops.gate(*arguments((2, 3, 2), **wide), None, tau=0.5, langevin=None).select_prob},
    "gated_mixture": {"not_float64": lambda: ops.gated_mixture(*arguments((2, 3), (2, 3), (3, 5), **wide))},
    "mean_shift_assign": {
        "large_window": lambda: _shift(window=13),
        "many_dimensions": lambda: _shift(dim=129),
        "not_float64": lambda: _shift(**wide),
    },
    "scene_spectra": {
        "stored_numbers": lambda: _spectra(np.ones((3, 4, 5), ">f4")),
        "wide_normalization": lambda: _spectra(*arguments((3, 4, 5), **wide)),
        "wide_results": lambda: _spectra(out=torch.float64),
    },
    "skinny_linear": {"many_rows": lambda: _layer(65), "not_float64": lambda: _layer(2, **wide)},
    "sparse_gated_mixture": {
        "not_float64": lambda: (
            ops.sparse_gated_mixture(
                *arguments((2, 3), (2, 3), (3, 5), (3, 5, 2), **wide), tau=0.5, langevin=None
            ).mixture
        )
    },
    "spectral_compactness": {
        "not_float64": lambda: ops.spectral_compactness(*arguments((1, 3, 2, 2), (1, 2, 2, 2), **wide))
    },
}
"""For every limit of an operation's kernels, a call that is beyond it, with a result."""
DECLARED = [
    (name, kernel, limit.__name__)
    for name, operation in ops.operations().items()
    for kernel, limits in operation.kernels.items()
    for limit in limits
]


def test_every_limit_has_a_call_beyond_it():
    assert {(name, limit) for name, _, limit in DECLARED} == {(op, limit) for op in LIMITS for limit in LIMITS[op]}


@pytest.mark.parametrize(("name", "kernel", "limit"), DECLARED)
def test_beyond_a_limit_a_forced_kernel_raises_and_another_one_serves(monkeypatch, name, kernel, limit):
    monkeypatch.setattr(backends, "_kernel_reason", lambda implementation, device: None)
    call = LIMITS[name][limit]
    with use_backend(kernel), pytest.raises(BackendUnavailableError, match=f"{name}: .*'{kernel}' cannot run: it "):
        call()
    with use_backend("reference"):
        expected = call()
    monkeypatch.undo()
    torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-5)


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
        assert name in ops.__all__
