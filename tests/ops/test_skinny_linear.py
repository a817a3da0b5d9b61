"""`skinny_linear`: both implementations, every activation, gradients, checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import assert_same_bits_at_any_number_of_threads, seeds
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, backends, ops, use_backend
from spectrafuse.ops.skinny_linear import ACTIVATIONS, skinny_linear

FUNCTIONS = {"none": lambda y: y, "tanh": torch.tanh, "relu": lambda y: y.clamp_min(0.0), "abs": torch.abs}
SHAPES = [(1, 1, 1), (1, 7, 5), (4, 1, 3), (16, 13, 11), (0, 3, 2), (64, 2, 3), (17, 3, 19), (33, 5, 2)]
# Across a block of inputs, a tile of columns, and more than two vectors of samples.
LARGE = [(16, 515, 27), (64, 259, 33), (49, 33, 8)]


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_formula_and_gradients(shape: tuple[int, int, int], activation: str, with_bias: bool, backend: str) -> None:
    batch, width, outputs = shape
    stream = RandomStream(31)
    x = stream.normal((width, batch), dtype=torch.float64).T.requires_grad_(True)
    weight = stream.normal((outputs, width), dtype=torch.float64).requires_grad_(True)
    bias = stream.normal((outputs,), dtype=torch.float64).requires_grad_(True) if with_bias else None
    y = x @ weight.T if bias is None else x @ weight.T + bias
    inputs = [t for t in (x, weight, bias) if t is not None]

    def layer(*tensors: Tensor) -> Tensor:
        return skinny_linear(tensors[0], tensors[1], tensors[2] if with_bias else None, activation)

    with use_backend(backend):
        torch.testing.assert_close(layer(*inputs), FUNCTIONS[activation](y), rtol=1e-12, atol=1e-12)
        if 0 < batch <= 17:
            assert torch.autograd.gradcheck(layer, inputs, fast_mode=True)


def evaluate(backend: str, tensors: list[Tensor], upstream: Tensor, activation: str) -> list[Tensor]:
    """The layer and its three gradients."""
    leaves = [t.detach().clone().requires_grad_(True) for t in tensors]
    with use_backend(backend):
        y = skinny_linear(*leaves, activation)
    return [y.detach(), *torch.autograd.grad((y * upstream).sum(), leaves)]


def check_kernel(shape: tuple[int, int, int], dtype: torch.dtype, activation: str) -> None:
    """The kernel against the reference in float64, from fresh inputs."""
    batch, width, outputs = shape
    seed = seeds.fresh_seed()
    stream = RandomStream(seed)
    tensors = [stream.normal(size, dtype=dtype) for size in ((batch, width), (outputs, width), (outputs,))]
    upstream = stream.normal((batch, outputs), dtype=dtype)
    exact = evaluate("reference", [t.double() for t in tensors], upstream.double(), activation)
    if activation in ("relu", "abs"):
        # Where the kink is nearer than rounding, either slope is right: there the upstream gradient is taken away.
        before = (tensors[0].double() @ tensors[1].double().T + tensors[2]).abs()
        upstream = upstream * (before > 1e-3)
        exact = evaluate("reference", [t.double() for t in tensors], upstream.double(), activation)
    actual = evaluate("cpu", tensors, upstream, activation)
    # Sums of at most max(shape) products of order 1, each rounded; slopes are at most 1.
    allowed = 4 * torch.finfo(dtype).eps * (max(shape) + 2) ** 0.5 * 4
    for got, want in zip(actual, exact, strict=True):
        assert got.dtype == dtype
        scale = max(1.0, want.abs().max().item()) if want.numel() else 1.0
        torch.testing.assert_close(got.double(), want, rtol=0, atol=allowed * scale)


@pytest.mark.instruction_sets
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES + LARGE)
def test_kernel_equals_the_reference(shape: tuple[int, int, int], activation: str, dtype: torch.dtype) -> None:
    check_kernel(shape, dtype, activation)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_is_accurate_everywhere(dtype: torch.dtype) -> None:
    exponents = torch.linspace(-30, 6, 4001, dtype=torch.float64)
    values = torch.cat((-(2.0**exponents), torch.zeros(1), 2.0**exponents, torch.tensor([1e30, -1e30]))).to(dtype)
    with use_backend("cpu"):
        got = skinny_linear(torch.ones(1, 1, dtype=dtype), values[:, None], None, "tanh")[0]
        lost = skinny_linear(torch.full((1, 1), float("nan"), dtype=dtype), values[:, None], None, "tanh")
    exact = torch.tanh(values.double())
    assert ((got.double() - exact).abs() <= 4 * torch.finfo(dtype).eps * exact.abs()).all()
    assert lost.isnan().all()


def test_same_bits_at_any_number_of_threads() -> None:
    stream = RandomStream(33)
    tensors = [stream.normal((19, 777)), stream.normal((131, 777)), stream.normal((131,))]
    upstream = stream.normal((19, 131))
    assert_same_bits_at_any_number_of_threads(lambda: evaluate("cpu", tensors, upstream, "tanh")[:2])


def test_a_sample_does_not_depend_on_its_batch() -> None:
    stream = RandomStream(34)
    x, weight, bias = stream.normal((64, 700)), stream.normal((13, 700)), stream.normal((13,))
    with use_backend("cpu"):
        whole = skinny_linear(x, weight, bias, "tanh")
        for start, stop in ((0, 1), (5, 22), (60, 64)):
            assert torch.equal(skinny_linear(x[start:stop], weight, bias, "tanh"), whole[start:stop])


def test_strided_and_narrow_inputs() -> None:
    stream = RandomStream(35)
    x, weight, bias = stream.normal((5, 33)), stream.normal((9, 33)), stream.normal((9,))
    with use_backend("cpu"):
        want = skinny_linear(x, weight, bias, "abs")
        wide = torch.empty(5, 66)[:, ::2].copy_(x)
        assert torch.equal(skinny_linear(wide, weight.T.contiguous().T, bias.repeat(2, 1).T[:, 0], "abs"), want)
        for dtype in (torch.bfloat16, torch.float16):
            narrow = [t.to(dtype) for t in (x, weight, bias)]
            expected = skinny_linear(*(t.float() for t in narrow), "abs").to(dtype)
            assert torch.equal(skinny_linear(*narrow, "abs"), expected)


@pytest.mark.slow
def test_opcheck_and_compilation_without_graph_breaks() -> None:
    stream = RandomStream(36)
    tensors = [stream.normal((3, 7)), stream.normal((5, 7)), stream.normal((5,))]
    leaves = [t.requires_grad_(True) for t in tensors]
    for activation in range(len(ACTIVATIONS)):
        torch.library.opcheck(torch.ops.spectrafuse.skinny_linear.default, (*leaves, activation))
        torch.library.opcheck(torch.ops.spectrafuse.skinny_linear.default, (*leaves[:2], None, activation))
    torch.library.opcheck(
        torch.ops.spectrafuse.skinny_linear_input_gradient.default, (torch.ones(3, 5), tensors[1].detach())
    )
    for backend in ("auto", "torch", "reference"):
        torch._dynamo.reset()
        with use_backend(backend):
            compiled = torch.compile(lambda *t: skinny_linear(*t, "tanh"), fullgraph=True, backend="aot_eager")
            got, want = compiled(*leaves), skinny_linear(*leaves, "tanh")
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(torch.autograd.grad(got.sum(), leaves), torch.autograd.grad(want.sum(), leaves))
    assert backends.choose("skinny_linear", "cpu") == "cpu"


def test_inputs_are_not_changed_by_the_activation() -> None:
    stream = RandomStream(32)
    x, weight, bias = stream.normal((3, 4)), stream.normal((5, 4)), stream.normal((5,))
    before = [t.clone() for t in (x, weight, bias)]
    for activation in ACTIVATIONS:
        skinny_linear(x, weight, bias, activation)
    assert all(torch.equal(a, b) for a, b in zip((x, weight, bias), before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, r"`x` must be a tensor \(B, I\); got shape \(3,\)"),
        ({"weight": torch.zeros(5, 4)}, r"`weight` must be a tensor \(O, 3\)"),
        ({"weight": torch.zeros(5, 3).double()}, "`weight` must have dtype"),
        ({"bias": torch.zeros(4)}, r"`bias` must be a tensor \(5,\)"),
        ({"activation": "gelu"}, "`activation` must be one of 'none', 'tanh', 'relu', 'abs'; got 'gelu'"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"x": torch.zeros(2, 3), "weight": torch.zeros(5, 3), "bias": torch.zeros(5)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        skinny_linear(**arguments)


def test_what_its_kernels_do_not_take() -> None:
    def layer(rows: int, **options: Any) -> torch.Tensor:
        return ops.skinny_linear(*tensors((rows, 5), (7, 5), (7,), **options))

    check_limits("skinny_linear", {"many_rows": lambda: layer(65), "not_float64": lambda: layer(2, **DOUBLE)})
