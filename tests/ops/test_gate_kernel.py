"""C++ kernels of `gate`, `energy_gate`, `gated_mixture` and `sparse_gated_mixture` against the reference in float64:
shapes beyond one vector and one block, instruction sets, threads, strides, registration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import assert_same_bits_at_any_number_of_threads, seeds
from spectrafuse import RandomStream, use_backend
from spectrafuse.ops import energy_gate, gate, gated_mixture, sparse_gated_mixture
from spectrafuse.ops.gate import GateNoise, Langevin

TRAINING = Langevin()
# batch, components, bands; more than a block of gates (256), a group of rows (32), blocks of groups (16 * 32)
SHAPES = [(1, 1, 1), (1, 33, 65), (9, 1, 17), (3, 300, 1), (17, 259, 7), (2, 601, 35), (65, 31, 16), (8, 64, 128)]
OPERATIONS = ["gate", "hard gate", "energy_gate", "gated_mixture", "drawn", "given", "shared"]


def operation(name: str, shape: tuple[int, int, int]) -> tuple[list[Tensor], Callable[..., Any]]:
    """Float64 inputs (fresh ones in every run) and a function of them that gives a named tuple or tensors."""
    batch, count, bands = shape
    seed = seeds.fresh_seed()
    stream = RandomStream(seed)

    def normal(*size: int) -> Tensor:
        return stream.normal(size, dtype=torch.float64)

    mixing = [stream.uniform((batch, count), 0.0, 3.0, dtype=torch.float64), normal(batch, count).sigmoid()]
    # A length near zero would magnify rounding: with one band it cancels the component's own value.
    components, energy = normal(count, bands), normal(count, bands, 2)
    components = components + components.sign()
    options: dict[str, Any] = {"tau": 0.7, "langevin": TRAINING}

    def noise_like(like: Tensor, *size: int) -> GateNoise:
        # Rounded to float32, so that both precisions see the same numbers.
        generator = RandomStream(seed + 1)
        both = generator.normal((*size, 2), 0.57), generator.gumbel((*size, 2))
        return GateNoise(both[0].to(like), both[1].to(like))

    if name in ("gate", "hard gate"):
        hard = 0.6 if name == "hard gate" else None
        return [normal(batch, count, 2)], lambda e: gate(e, noise_like(e, batch, count), hard_threshold=hard, **options)
    if name == "energy_gate":
        layer = [normal(batch, bands), normal(2 * count, bands) / bands**0.5, normal(2 * count)]
        return layer, lambda h, w, b: energy_gate(h, w, b, noise_like(h, batch, count), **options)
    if name == "gated_mixture":
        return [*mixing, components], lambda c, s, v: (gated_mixture(c, s, v, norm=2),)
    numbers: dict[str, Any] = {}
    if name == "drawn":
        numbers = {"rng": torch.tensor([seed, 7])}
    elif name == "shared":
        options["langevin"] = None
    return [*mixing, components, energy], lambda c, s, v, e: sparse_gated_mixture(
        c, s, v, e, norm=1, **options, **(numbers if name != "given" else {"noise": noise_like(e, batch, count, bands)})
    )


def evaluate(backend: str, inputs: list[Tensor], function: Callable[..., Any]) -> list[Tensor]:
    """Floating-point outputs and the gradients of a fixed combination of them."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with use_backend(backend):
        outputs = [x for x in function(*leaves) if x.is_floating_point()]
    objective = torch.zeros((), dtype=torch.float64)
    for k, x in enumerate(outputs):
        if x.requires_grad:
            pattern = RandomStream(k).normal(x.shape, dtype=torch.float64) if x.ndim else 0.01
            objective = objective + (x.double() * pattern).sum()
    return [*(x.detach() for x in outputs), *torch.autograd.grad(objective, leaves)]


def check_against_reference(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    inputs, function = operation(name, shape)
    inputs = [x.to(dtype) for x in inputs]
    exact = evaluate("reference", [x.double() for x in inputs], function)
    actual = evaluate("cpu", inputs, function)
    # Sums of at most 2 B N d terms of order 1 in blocks of vectors; a gate multiplies an energy's error by 1 / tau.
    allowed = 16 * torch.finfo(dtype).eps * (1 + max(shape)) ** 0.5
    for i, (got, want) in enumerate(zip(actual, exact, strict=True)):
        assert got.dtype == dtype
        error = (got.double() - want).abs()
        if name == "hard gate" and i == 0:
            # A gate within rounding of the threshold may fall on either side of it.
            assert (error > 0).sum() <= 1
        elif name == "hard gate" and want.ndim == 0:
            assert error <= 1 + allowed * want.abs()
        else:
            # Terms of both signs nearly cancel in a sum over all gates, their roundings do not.
            floor = math.prod(shape) ** 0.5 if want.ndim == 0 else 1.0
            assert error.max() <= allowed * want.abs().max().clamp(min=floor), f"{name} {shape} {dtype}, result {i}"


@pytest.mark.instruction_sets
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_equal_the_reference(name: str, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        check_against_reference(name, shape, dtype)


@pytest.mark.parametrize("name", OPERATIONS)
def test_same_bits_at_any_number_of_threads(name: str) -> None:
    inputs, function = operation(name, (16, 1300, 40))
    inputs = [x.float() for x in inputs]
    # Weight and bias gradients of a layer are torch's own products and sums.
    ours = slice(-2) if name == "energy_gate" else slice(None)
    assert_same_bits_at_any_number_of_threads(lambda: evaluate("cpu", inputs, function)[ours])


def strided(x: Tensor) -> Tensor:
    """The same numbers, every second one of memory, the first dimension's last."""
    wide = x.new_zeros((*x.shape[::-1], 2))[..., 0].permute(*range(x.ndim)[::-1])
    return wide.copy_(x)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strided_inputs(name: str) -> None:
    inputs, function = operation(name, (3, 21, 18))
    dense = evaluate("cpu", inputs, function)
    views = [strided(x) for x in inputs]
    assert not any(x.is_contiguous() for x in views)
    assert all(torch.equal(a, b) for a, b in zip(evaluate("cpu", views, function), dense, strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradcheck(name: str) -> None:
    inputs, function = operation(name, (3, 5, 4))
    for x in inputs:
        x.requires_grad_()

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x for x in function(*tensors) if x.requires_grad)

    with use_backend("cpu"):
        assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize("name", OPERATIONS)
def test_compiles_without_graph_breaks(name: str) -> None:
    inputs, _ = operation(name, (3, 5, 4))
    # Noise is an input of the graph: a RandomStream draws outside.
    stream = RandomStream(1)
    noise = GateNoise(stream.normal((3, 5, 2), dtype=torch.float64), stream.logistic((3, 5), dtype=torch.float64))
    many = GateNoise(None, stream.logistic((3, 5, 4), dtype=torch.float64))
    rng = torch.tensor([1, 2])
    functions: dict[str, Callable[..., Any]] = {
        "gate": lambda e: gate(e, noise, tau=0.7, langevin=TRAINING),
        "hard gate": lambda e: gate(e, noise, tau=0.7, langevin=None, hard_threshold=0.5),
        "energy_gate": lambda h, w, b: energy_gate(h, w, b, noise, tau=0.7, langevin=TRAINING),
        "gated_mixture": lambda c, s, v: (gated_mixture(c, s, v),),
        "drawn": lambda c, s, v, e: sparse_gated_mixture(c, s, v, e, rng=rng, tau=0.7, langevin=TRAINING),
        "given": lambda c, s, v, e: sparse_gated_mixture(c, s, v, e, noise=many, tau=0.7, langevin=None),
        "shared": lambda c, s, v, e: sparse_gated_mixture(c, s, v, e, tau=0.7, langevin=None),
    }
    torch._dynamo.reset()
    compiled = torch.compile(functions[name], fullgraph=True, backend="aot_eager")
    pairs = zip(evaluate("cpu", inputs, compiled), evaluate("cpu", inputs, functions[name]), strict=True)
    for got, want in pairs:
        torch.testing.assert_close(got, want)


@pytest.mark.slow
def test_opcheck() -> None:
    kernels = torch.ops.spectrafuse
    for dtype in (torch.float32, torch.float64):
        stream = RandomStream(3)

        def leaf(*size: int, stream: RandomStream = stream, dtype: torch.dtype = dtype) -> Tensor:
            return stream.normal(size, dtype=dtype).requires_grad_()

        with torch.no_grad():
            noise = leaf(3, 5, 2).detach(), leaf(3, 5).detach()
        for hard in (None, 0.5):
            torch.library.opcheck(kernels.gate.default, (leaf(3, 5, 2), noise[1], noise[0], 0.7, 1.6, hard, 0.5))
            arguments = (leaf(3, 4), leaf(10, 4), leaf(10), noise[1], None, 0.7, 1.6, hard, 0.5)
            torch.library.opcheck(kernels.energy_gate.default, arguments)
        torch.library.opcheck(kernels.gated_mixture.default, (leaf(3, 5), leaf(3, 5), leaf(5, 4), True, 2))
        pool = (leaf(3, 5), leaf(3, 5), leaf(5, 4), leaf(5, 4, 2))
        for rng in (None, torch.tensor([1, 2])):
            torch.library.opcheck(
                kernels.sparse_gated_mixture.default, (*pool, rng, None, None, 0.7, 1.6, 0.5, False, 1)
            )


def test_energies_gradient_alone_is_what_a_fused_optimiser_needs() -> None:
    """With a layer of its own in front of `gate`, no weight gradient is formed."""
    inputs, _ = operation("energy_gate", (4, 6, 5))
    hidden, weight, bias = inputs
    energy = (hidden @ weight.T + bias).view(4, 6, 2).requires_grad_()
    noise = GateNoise(None, torch.zeros(4, 6, dtype=torch.float64))
    (along_energy,) = torch.autograd.grad(gate(energy, noise, tau=0.7, langevin=None).select_sum, energy)
    weight.requires_grad_()
    result = energy_gate(hidden, weight, bias, noise, tau=0.7, langevin=None)
    (along_weight,) = torch.autograd.grad(result.select_sum, weight)
    torch.testing.assert_close(along_energy.view(4, 12).T @ hidden, along_weight)


def test_nothing_of_batch_components_bands_is_kept_or_made() -> None:
    shape = (16, 64, 128)
    inputs, function = operation("drawn", shape)
    leaves = [x.float().requires_grad_() for x in inputs]
    with torch.profiler.profile(profile_memory=True) as profile, use_backend("cpu"):
        result = function(*leaves)
        (result.mixture.sum() + result.energy_square_sum).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 4 * inputs[3].numel() * 2 < 4 * shape[0] * shape[1] * shape[2]
