"""`adamw_outer` against torch's own AdamW."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers import assert_same_bits_at_any_number_of_threads
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, backends, ops, use_backend
from spectrafuse.ops.adamw_outer import adamw_outer
from spectrafuse.ops.adamw_outer import pytorch as composed_module

OPTIONS = {"lr": 5e-4, "beta1": 0.9, "beta2": 0.995, "eps": 1e-8, "weight_decay": 1e-3}
STEPS = 20
SHAPES = [(16, 37, 23), (1, 1, 1), (3, 5, 1), (2, 1, 7), (0, 4, 3), (64, 33, 65), (7, 2, 2051), (65, 35, 3)]
VARIANTS = [
    ("reference", None),
    ("torch", None),
    ("torch", 1),
    ("torch", 40),
    pytest.param("cpu", None, marks=pytest.mark.instruction_sets),
]


@pytest.mark.parametrize(("backend", "chunk_elements"), VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch_over_twenty_steps(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    backend: str,
    chunk_elements: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if chunk_elements is not None:
        monkeypatch.setattr(composed_module, "_CHUNK_ELEMENTS", chunk_elements)
    check_twenty_steps(shape, dtype, backend)


def check_twenty_steps(shape: tuple[int, int, int], dtype: torch.dtype, backend: str) -> None:
    """Weight and moments against `torch.optim.AdamW` given the same gradients."""
    batch, outputs, width = shape
    stream = RandomStream(41)
    start = stream.normal((outputs, width), 0.05, dtype=dtype)
    expected = start.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        [expected],
        lr=OPTIONS["lr"],
        betas=(OPTIONS["beta1"], OPTIONS["beta2"]),
        weight_decay=1e-3,
        foreach=False,
    )
    weight = start.clone().requires_grad_(True)
    moments = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, STEPS + 1):
        x = stream.normal((width, batch), dtype=dtype).T
        grad_y = stream.normal((batch, outputs), 1e-3, dtype=dtype)
        expected.grad = grad_y.T @ x
        optimizer.step()
        with use_backend(backend):
            adamw_outer(x, grad_y, weight, *moments, step=step, **OPTIONS)
    epsilon = torch.finfo(dtype).eps
    state = optimizer.state[expected]
    torch.testing.assert_close(moments[0], state["exp_avg"], rtol=0, atol=64 * epsilon * 1e-2)
    torch.testing.assert_close(moments[1], state["exp_avg_sq"], rtol=0, atol=64 * epsilon * 1e-4)
    # A step has size lr whatever the gradient, so one that cancels to its rounding error moves by more.
    assert (weight - expected).abs().max() <= 64 * epsilon * start.abs().max() + 1e3 * epsilon * OPTIONS["lr"]
    assert (weight - start).abs().max() > 0.1 * OPTIONS["lr"] or batch == 0
    assert weight.grad_fn is None


def _problem(batch: int, outputs: int, width: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """x, grad_y, weight and both moments, after some steps."""
    stream = RandomStream(43)
    shapes = (batch, width), (batch, outputs), (outputs, width), (outputs, width)
    x, grad_y, weight, first = (stream.normal(shape, dtype=torch.float64).to(dtype) for shape in shapes)
    return [x, grad_y, weight, first, stream.uniform((outputs, width), dtype=torch.float64).to(dtype)]


@pytest.mark.parametrize("step", [3, 4])
def test_same_bits_at_any_number_of_threads(step: int) -> None:
    # Large enough for several tiles in both directions, with a rest in each; odd steps go forwards, even ones not.
    start = _problem(5, 131, 2077)

    def changed() -> list[torch.Tensor]:
        tensors = [t.clone() for t in start]
        with use_backend("cpu"):
            adamw_outer(*tensors, step=step, **OPTIONS)
        return tensors

    assert_same_bits_at_any_number_of_threads(changed)


def test_strided_arguments_are_updated_in_place() -> None:
    dense = _problem(6, 9, 21)
    strided = [torch.empty(*t.shape, 2)[..., 0].copy_(t) if i % 2 else t.T.contiguous().T for i, t in enumerate(dense)]
    assert not any(t.is_contiguous() for t in strided)
    with use_backend("cpu"):
        adamw_outer(*strided, step=2, **OPTIONS)
        adamw_outer(*dense, step=2, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(strided, dense, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    narrow = _problem(3, 5, 18, dtype)
    wide = [t.float() for t in narrow]
    with use_backend("cpu"):
        adamw_outer(*narrow, step=2, **OPTIONS)
        adamw_outer(*wide, step=2, **OPTIONS)
    assert all(torch.equal(a, b.to(dtype)) for a, b in zip(narrow, wide, strict=True))


@pytest.mark.slow
def test_opcheck_and_compilation_without_graph_breaks() -> None:
    for dtype in (torch.float32, torch.float64):
        torch.library.opcheck(
            torch.ops.spectrafuse.adamw_outer.default, (*_problem(2, 5, 7, dtype), *OPTIONS.values(), 3)
        )
    for backend in ("auto", "torch", "reference"):
        eager, compiled = _problem(2, 5, 7), _problem(2, 5, 7)
        torch._dynamo.reset()
        with use_backend(backend):
            adamw_outer(*eager, step=3, **OPTIONS)
            torch.compile(lambda *t: adamw_outer(*t, step=3, **OPTIONS), fullgraph=True, backend="aot_eager")(*compiled)
        torch.testing.assert_close(compiled, eager)
    assert backends.choose("adamw_outer", "cpu") == "cpu"


def test_nan_gradients_reach_their_row_only() -> None:
    problem = _problem(2, 6, 40)
    problem[1][0, 3] = float("nan")
    with use_backend("cpu"):
        adamw_outer(*problem, step=1, **OPTIONS)
    assert torch.equal(problem[2].isnan().all(1), torch.arange(6) == 3)
    assert problem[2].isnan().sum() == 40


def test_the_whole_gradient_is_never_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = torch.mm

    def recording(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        sizes.append(out.numel())
        return product(left, right, out=out)

    monkeypatch.setattr(torch, "mm", recording)
    monkeypatch.setattr(composed_module, "_CHUNK_ELEMENTS", 100)
    weight = torch.zeros(37, 23)
    moments = torch.zeros_like(weight), torch.zeros_like(weight)
    with use_backend("torch"):
        adamw_outer(torch.ones(2, 23), torch.ones(2, 37), weight, *moments, step=1, **OPTIONS)
    assert sum(sizes) == 37 * 23
    assert max(sizes) <= 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 5)}, "`x` must be"),
        ({"grad_y": torch.zeros(3, 4)}, "`grad_y` must be"),
        ({"exp_avg": torch.zeros(4, 2)}, "`exp_avg` must be"),
        ({"exp_avg_sq": torch.zeros(4, 3).double()}, "`exp_avg_sq` must have dtype"),
        ({"beta1": 1.0}, "`beta1` must be a finite number of at least 0 and below 1"),
        ({"step": 0}, "`step` must be an integer of at least 1"),
        ({"lr": -1.0}, "`lr` must be"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": torch.zeros(2, 3),
        "grad_y": torch.zeros(2, 4),
        "weight": torch.zeros(4, 3),
        "exp_avg": torch.zeros(4, 3),
        "exp_avg_sq": torch.zeros(4, 3),
        "step": 1,
        **OPTIONS,
    } | change
    with pytest.raises((ValueError, TypeError), match=message):
        adamw_outer(**arguments)


def test_what_its_kernels_do_not_take() -> None:
    def step(rows: int, **options: Any) -> torch.Tensor:
        x, grad_y, weight, first, second = tensors((rows, 5), (rows, 7), (7, 5), (7, 5), (7, 5), **options)
        ops.adamw_outer(
            x, grad_y, weight, first, second, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0, step=1
        )
        return weight

    check_limits("adamw_outer", {"many_rows": lambda: step(257), "not_float64": lambda: step(2, **DOUBLE)})
