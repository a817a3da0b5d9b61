"""Every operation with CUDA kernels, by the same cases wherever its kernels run: C++ on the CPU, CUDA in the emulation,
CUDA on a GPU where there is one. Against plain PyTorch in float64, at the sizes where tiles, warps and blocks end.

In the emulation each case runs in several orders of threads and blocks, which must not change a bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import emulated_cuda, seeds
from helpers.emulated_cuda import DEVICES
from spectrafuse import RandomStream, backends, ops, use_backend
from spectrafuse.ops.adamw_outer import update, update_layer
from spectrafuse.ops.adamw_outer.registration import AdamwOptions
from spectrafuse.ops.gate import GateNoise, Langevin
from spectrafuse.ops.gated_mixture import gated_mixture_gradients
from spectrafuse.ops.skinny_linear import ACTIVATIONS, hidden_gradient
from spectrafuse.ops.sparse_gated_mixture import sparse_gated_mixture_gradients

pytestmark = pytest.mark.slow

Function = Callable[..., Sequence[Tensor]]
EPS = torch.finfo(torch.float32).eps
LANGEVIN = Langevin()
on_every_device = pytest.mark.parametrize("device", DEVICES)


def test_the_emulation_is_built() -> None:
    """Elsewhere its absence is a skip."""
    assert emulated_cuda.FILE.is_file(), emulated_cuda.NOT_BUILT


def check(device: str, function: Function, *tensors: Tensor | None, terms: int = 1, least: float = 1e-3) -> None:
    """Results in float32 against those of plain PyTorch in float64; sums of `terms` numbers are rounded as often.

    What is left of numbers of size `least` that cancel each other has their rounding.
    """
    got = emulated_cuda.run(device, function, *tensors)
    with use_backend("torch"):
        exact = function(*(t.double() if t is not None and t.is_floating_point() else t for t in tensors))
    for i, (one, wanted) in enumerate(zip(got, exact, strict=True)):
        assert one.shape == wanted.shape
        if one.dtype == torch.bool:
            assert torch.equal(one, wanted), f"result {i}"
        elif one.numel():
            allowed = 8 * EPS * (4 + terms**0.5) * max(least, wanted.abs().max().item())
            assert (one.double() - wanted).abs().max() <= allowed, f"result {i} of {[tuple(g.shape) for g in got]}"


def gradients(outputs: Sequence[Tensor], wanted: Sequence[bool], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of the leaves where only some outputs have one that comes in; sums of many numbers count for less."""
    some = [y for y, chosen in zip(outputs, wanted, strict=True) if chosen and y.requires_grad]
    if not some:
        return []
    patterns = [RandomStream(k).normal(y.shape, dtype=torch.float64).to(y) for k, y in enumerate(some)]
    found = torch.autograd.grad(some, list(leaves), patterns, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def offset(t: Tensor) -> Tensor:
    """The same numbers one element behind a multiple of 16 bytes."""
    return t.new_empty(t.numel() + 1)[1:].view(t.shape).copy_(t)


GATES = [(1, 1), (1, 63), (1, 64), (1, 65), (3, 70), (7, 129), (16, 1), (2, 257), (0, 5), (3, 0)]
NOISES = ["none", "of both", "difference", "refined"]


@on_every_device
@pytest.mark.parametrize("hard", [None, 0.5])
@pytest.mark.parametrize("noise", NOISES)
def test_gate(noise: str, hard: float | None, device: str) -> None:
    stream = RandomStream(seeds.fresh_seed())
    for (batch, count), spread in itertools.product(GATES, (1.0, 60.0)):
        every = (batch, count) == (3, 70) and spread == 1.0
        for wanted in itertools.product((False, True), repeat=5) if every else [(True,) * 5]:
            energy = stream.uniform((batch, count, 2), -spread, spread)
            gumbel = stream.uniform((batch, count) if noise in ("difference", "refined") else energy.shape, -3.0, 3.0)
            refinement = stream.normal(energy.shape, 0.1)

            def gate(e: Tensor, g: Tensor, r: Tensor, wanted: tuple[bool, ...] = wanted) -> list[Tensor]:
                leaf = e.detach().requires_grad_()
                given = None if noise == "none" else GateNoise(r if noise == "refined" else None, g)
                found = ops.gate(leaf, given, tau=0.37, langevin=LANGEVIN, hard_threshold=hard)
                outputs = [x for x in found if x.is_floating_point()]
                return [*found, *gradients(outputs, wanted, [leaf])]

            near = energy[..., 1] - energy[..., 0]
            if noise != "none":
                near = near + (gumbel if gumbel.ndim == 2 else gumbel[..., 0] - gumbel[..., 1])
                near = near + (refinement[..., 1] - refinement[..., 0] if noise == "refined" else 0)
            if bool((near.abs() < 1e-4).any()):
                continue  # within rounding of the threshold a gate may fall on either side
            check(device, gate, energy, gumbel, refinement, terms=2 * batch * count)


MIXTURES = [
    *((1, 1, 1), (1, 2, 127), (1, 32, 128), (15, 3, 129), (16, 31, 5), (17, 37, 2), (33, 65, 7), (2, 5, 1)),
    *((0, 4, 9), (3, 0, 9), (3, 4, 0)),
]


def mixture_inputs(shape: tuple[int, int, int], gates: str) -> list[Tensor]:
    """Concentrations, gates, raw components."""
    batch, count, bands = shape
    stream = RandomStream(seeds.fresh_seed())
    select = {"none": torch.zeros(batch, count), "all": torch.ones(batch, count)}.get(
        gates, stream.uniform((batch, count))
    )
    components = stream.normal((count, bands))
    # A length near zero would magnify rounding: with one band it cancels the component's own value.
    components = components + components.sign()
    if gates == "zero row" and count:
        components[count // 2] = 0.0
    return [stream.uniform((batch, count), 0.0, 2.0), select, components]


@on_every_device
@pytest.mark.parametrize("norm", [None, 1, 2])
@pytest.mark.parametrize("gates", ["soft", "none", "all", "zero row"])
def test_gated_mixture(gates: str, norm: int | None, device: str) -> None:
    for i, shape in enumerate(MIXTURES):

        def mixture(*tensors: Tensor, non_negative: bool = bool(i % 2)) -> list[Tensor]:
            leaves = [t.detach().requires_grad_() for t in tensors]
            y = ops.gated_mixture(*leaves, non_negative=non_negative, norm=norm)
            return [y, *gradients([y], [True], leaves)]

        check(device, mixture, *mixture_inputs(shape, gates), terms=sum(shape), least=1.0)


SPARSE = [(1, 1, 1), (1, 2, 127), (4, 3, 128), (5, 33, 3), (3, 31, 5), (9, 2, 131), (2, 65, 2), (1, 3, 257)]
SPARSE += [(0, 4, 9), (3, 0, 9), (3, 4, 0)]


@on_every_device
@pytest.mark.parametrize("norm", [None, 1, 2])
@pytest.mark.parametrize("noise", ["none", "of both", "difference", "refined", "drawn", "drawn, refined"])
def test_sparse_gated_mixture(noise: str, norm: int | None, device: str) -> None:
    for shape in SPARSE:
        batch, count, bands = shape
        stream = RandomStream(seeds.fresh_seed())
        energy = stream.uniform((count, bands, 2), -2.0, 2.0)
        both = (batch, count, bands, 2)
        given = (
            torch.tensor([7 + 2**40, 3 + 2**33]),
            stream.uniform(both[:3] if noise in ("difference", "refined") else both, -3.0, 3.0),
            stream.normal(both, 0.1),
        )
        options: dict[str, Any] = {"tau": 0.61, "norm": norm}
        options["langevin"] = LANGEVIN if "refined" in noise else None
        for wanted in itertools.product((False, True), repeat=3) if shape == (3, 31, 5) else [(True, True, True)]:

            def mixture(
                c: Tensor,
                s: Tensor,
                v: Tensor,
                e: Tensor,
                rng: Tensor,
                gumbel: Tensor,
                refinement: Tensor,
                wanted: tuple[bool, ...] = wanted,
                options: dict[str, Any] = options,
            ) -> list[Tensor]:
                leaves = [t.detach().requires_grad_() for t in (c, s, v, e)]
                numbers: dict[str, Any] = {"rng": rng} if "drawn" in noise else {}
                if noise in ("of both", "difference", "refined"):
                    numbers = {"noise": GateNoise(refinement if noise == "refined" else None, gumbel)}
                found = ops.sparse_gated_mixture(*leaves, **numbers, **options)
                return [*found, *gradients(found, wanted, leaves)]

            inputs = [*mixture_inputs(shape, "soft"), energy, *given]
            check(device, mixture, *inputs, terms=2 * batch * count * bands, least=1.0)


LINEAR = [
    *itertools.product((1, 16, 17), (31, 32, 33), (1, 4, 17)),
    *((15, 1, 7), (64, 20, 129), (33, 5, 128), (2, 130, 127), (0, 5, 3), (3, 0, 5), (3, 5, 0), (17, 129, 2)),
    *((3, 124, 5), (3, 128, 16), (2, 132, 15), (1, 260, 3)),  # inputs that are read four at once
]


@on_every_device
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("activation", ["none", "tanh", "relu", "abs"])
def test_skinny_linear(activation: str, with_bias: bool, device: str) -> None:
    for batch, width, outputs in LINEAR:
        stream = RandomStream(seeds.fresh_seed())
        x, weight = stream.normal((batch, width)), stream.normal((outputs, width))
        bias = stream.normal((outputs,)) if with_bias else None
        before = x.double() @ weight.double().T + (0 if bias is None else bias)
        # Where a kink is nearer than rounding, either slope is right.
        upstream = stream.normal(before.shape) * (before.abs() > 1e-3)

        def layer(x: Tensor, weight: Tensor, upstream: Tensor, bias: Tensor | None) -> list[Tensor]:
            leaves = [t.detach().requires_grad_() for t in (x, weight, bias) if t is not None]
            y = ops.skinny_linear(leaves[0], leaves[1], leaves[2] if bias is not None else None, activation)
            return [y, *torch.autograd.grad(y, leaves, upstream)]

        check(device, layer, x, weight, upstream, bias, terms=batch + width + outputs, least=1.0)
        if activation in ("tanh", "relu") and with_bias:
            # Back through the activation that made x; where relu's value is zero, so is its slope.
            values = getattr(torch, activation)(x)
            check(
                device, lambda *t: [hidden_gradient(*t, activation)], upstream, weight, values, terms=outputs, least=1.0
            )  # fmt: skip


@on_every_device
@pytest.mark.parametrize("activation", ["none", "tanh", "relu", "abs"])
def test_skinny_linear_of_every_magnitude(activation: str, device: str) -> None:
    magnitudes = torch.cat((torch.logspace(-30, 2, 60), torch.tensor([0.0, float("nan"), 1e30, float("inf")])))
    for values in (magnitudes, -magnitudes):
        (got,) = emulated_cuda.run(
            device, lambda x: [ops.skinny_linear(x, torch.ones(1, 1, device=x.device), None, activation)],
            values[:, None],
        )  # fmt: skip
        with use_backend("torch"):
            exact = ops.skinny_linear(values[:, None].double(), torch.ones(1, 1).double(), None, activation)
        torch.testing.assert_close(got.double(), exact, rtol=4 * EPS, atol=0, equal_nan=True)


@on_every_device
@pytest.mark.parametrize("misaligned", [False, True])
@pytest.mark.parametrize("batch", [0, 1, 5, 63, 64, 65, 130])
def test_adamw_outer(batch: int, misaligned: bool, device: str) -> None:
    for (width, outputs), step in itertools.product(
        [(1, 1), (3, 8), (4, 7), (257, 9), (1028, 8), (100, 17)], (1, 2, 100000)[:: 1 + (batch > 5)]
    ):
        stream = RandomStream(seeds.fresh_seed())
        shapes = (batch, width), (batch, outputs), (outputs, width), (outputs, width)
        tensors = [*map(stream.normal, shapes), stream.uniform((outputs, width))]
        options = AdamwOptions(1e-2, 0.9, 0.999, 1e-8, 1e-2) if step != 2 else AdamwOptions(1e-3, 0.0, 0.5, 1e-3, 0.0)

        def stepped(*tensors: Tensor, options: AdamwOptions = options, step: int = step) -> list[Tensor]:
            own = tuple(offset(t) if misaligned else t.clone() for t in tensors)
            # On a GPU the number of the step lies there, so that a graph finds it.
            number = step if own[0].dtype == torch.float64 else torch.tensor(float(step), device=own[0].device)
            update([own], options, number)  # type: ignore[list-item]
            return list(own[2:])

        # The moments are a tenth of such products, and more.
        check(device, stepped, *tensors, terms=batch, least=0.1)


@on_every_device
def test_adamw_outer_of_many_tensors_is_that_of_each(device: str) -> None:
    stream = RandomStream(seeds.fresh_seed())
    sizes = [(i % 3, 4 * (i % 5) + i % 2, i % 11) for i in range(43)]  # samples, columns, rows; also none
    entries = [
        [stream.normal((b, i)), stream.normal((b, o)), *(stream.uniform((o, i)) for _ in range(3))] for b, i, o in sizes
    ]
    options = AdamwOptions(1e-2, 0.9, 0.999, 1e-8, 1e-2)

    def stepped(*tensors: Tensor, at_once: bool) -> list[Tensor]:
        own = [tuple(t.clone() for t in tensors[5 * i : 5 * i + 5]) for i in range(len(entries))]
        for part in [own] if at_once else [[entry] for entry in own]:
            update(part, options, 3)  # type: ignore[arg-type]
        return [t for entry in own for t in entry[2:]]

    tensors = [t for entry in entries for t in entry]
    found, wanted = (emulated_cuda.run(device, partial(stepped, at_once=once), *tensors) for once in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("batch", [1, 5, 16, 17, 64])
@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_layers_step_with_its_input_gradient_is_both_alone(device: str, batch: int, activation: str) -> None:
    stream = RandomStream(seeds.fresh_seed())
    options = AdamwOptions(1e-2, 0.9, 0.999, 1e-8, 1e-2)
    for width, outputs in [(1, 1), (127, 9), (129, 8), (5, 129), (4, 256)]:
        x = getattr(torch, activation)(stream.normal((batch, width)))
        tensors = [stream.normal((batch, outputs)), *(stream.uniform((outputs, width)) for _ in range(3))]

        def together(x: Tensor, grad_y: Tensor, *state: Tensor) -> list[Tensor]:
            own, number = [t.clone() for t in state], torch.tensor(3.0, device=x.device)
            grad_x = update_layer((x, grad_y, *own), options, number, x, ACTIVATIONS.index(activation))  # type: ignore[arg-type]
            return [grad_x, *own]

        def alone(x: Tensor, grad_y: Tensor, *state: Tensor) -> list[Tensor]:
            own, number = [t.clone() for t in state], torch.tensor(3.0, device=x.device)
            grad_x = hidden_gradient(grad_y, own[0], x, activation)
            update([(x, grad_y, *own)], options, number)  # type: ignore[list-item]
            return [grad_x, *own]

        found, wanted = (emulated_cuda.run(device, f, x, *tensors) for f in (together, alone))
        for a, b in zip(found, wanted, strict=True):
            assert torch.equal(a, b)


@on_every_device
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_of_concentrations_that_are_absolute_values(sparse: bool, device: str) -> None:
    """Of what they were taken of, zero where that is."""
    stream, shape = RandomStream(seeds.fresh_seed()), (5, 7, 9)
    before = stream.normal(shape[:2])
    before[0, :3] = 0.0
    _, prob, components = mixture_inputs(shape, "soft")
    grad, energy = stream.normal(shape[::2]), stream.normal((*shape[1:], 2))

    def gradients_of(*tensors: Tensor, through: bool) -> list[Tensor]:
        before, prob, components, grad, energy = tensors
        given = before if through else None
        if sparse:
            inputs = grad, None, None, before.abs(), prob, components, energy, None, None, None
            found = sparse_gated_mixture_gradients(*inputs, 0.5, 0.0, 0.0, True, 2, given)
        else:
            found = gated_mixture_gradients(grad, before.abs(), prob, components, True, 2, given)
        return [*found] if through else [found[0] * before.sgn(), *found[1:]]

    tensors = before, prob, components, grad, energy
    found, wanted = (
        emulated_cuda.run(device, partial(gradients_of, through=through), *tensors) for through in (True, False)
    )
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


KINDS: list[dict[str, Any]] = [
    *({"kernel": "poly", "power": power, "offset": 0.5} for power in (1, 3)),
    {"kernel": "laplacian", "scale": 0.7},
    {"kernel": "rbf", "scale": 0.8},
    *({"kernel": "matern", "nu": nu, "scale": 0.9} for nu in (0.5, 1.5, 2.5, 3.5)),
    {"kernel": "matern", "nu": 3.5, "published_coefficients": True},
]


@on_every_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_ambiguity_penalty(kind: dict[str, Any], dtype: torch.dtype, device: str) -> None:
    sizes = [(1, 1), (2, 15), (3, 16), (63, 17), (64, 2), (65, 65), (130, 8), (0, 3), (5, 127)]
    masks: list[Callable[[int], Tensor | None]] = [
        lambda n: None,
        lambda n: torch.zeros(n, dtype=torch.bool),
        lambda n: torch.ones(n, dtype=torch.bool),
        lambda n: torch.arange(n) == n // 2,
        lambda n: torch.arange(n) % 3 != 1,
    ]
    for i, (count, bands) in enumerate(sizes):
        rows = RandomStream(seeds.fresh_seed()).normal((count, bands), dtype=torch.float64) / bands**0.5
        if count > 3:
            rows[2] = rows[0]
        for j in range(2):
            mask, needs_gradient = masks[(i + 2 * j + len(str(kind))) % len(masks)](count), j == 0 or i % 2 == 0

            def penalty(rows: Tensor, mask: Tensor | None, needs: bool = needs_gradient) -> list[Tensor]:
                leaf = rows.detach().requires_grad_(needs)
                value = ops.ambiguity_penalty(leaf, mask=mask, **kind)
                return [value, *([torch.autograd.grad(value, leaf)[0]] if needs else [])]

            check(device, penalty, rows.to(dtype), mask, terms=bands)


NARROW: dict[str, Callable[[Callable[..., Tensor]], Sequence[Tensor]]] = {
    "gate": lambda t: ops.gate(t(2, 65, 2), None, tau=0.5, langevin=None)[:2],
    "gated_mixture": lambda t: [ops.gated_mixture(t(3, 33), t(3, 33), t(33, 5))],
    "sparse_gated_mixture": lambda t: ops.sparse_gated_mixture(
        t(3, 33), t(3, 33), t(33, 5), t(33, 5, 2), tau=0.5, langevin=None
    )[:1],
    "skinny_linear": lambda t: [ops.skinny_linear(t(17, 33), t(9, 33), t(9), "abs")],
    "energy_gate": lambda t: ops.energy_gate(t(3, 33), t(10, 33), t(10), None, tau=0.5, langevin=None)[:2],
    "ambiguity_penalty": lambda t: [ops.ambiguity_penalty(t(20, 7))],
}


@on_every_device
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("op", NARROW)
def test_narrow_types_are_computed_in_float32(op: str, dtype: torch.dtype, device: str) -> None:
    def drawn(as_float32: bool) -> Function:
        def function(anywhere: Tensor) -> Sequence[Tensor]:
            stream = RandomStream(3)

            def tensor(*size: int) -> Tensor:
                narrow = stream.uniform(size).to(dtype)
                return (narrow.float() if as_float32 else narrow).to(anywhere.device)

            return NARROW[op](tensor)

        return function

    narrow, wide = (emulated_cuda.run(device, drawn(widened), torch.empty(1)) for widened in (False, True))
    for one, other in zip(narrow, wide, strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, other.to(dtype))


@on_every_device
@pytest.mark.parametrize("op", ["gate", "sparse_gated_mixture", "gated_mixture", "skinny_linear", "ambiguity_penalty"])
def test_tensors_that_begin_anywhere_give_the_same_bits(op: str, device: str) -> None:
    """A view may begin at any number; a GPU reads two or four at once from multiples of their size alone."""
    stream = RandomStream(seeds.fresh_seed())
    shapes = {
        "gate": [(3, 70, 2), (3, 70, 2), (3, 70, 2)],
        "gated_mixture": [(3, 33), (3, 33), (33, 9)],
        "sparse_gated_mixture": [(3, 33), (3, 33), (33, 9), (33, 9, 2), (3, 33, 9, 2), (3, 33, 9, 2)],
        "skinny_linear": [(17, 36), (9, 36), (9,)],
        "ambiguity_penalty": [(70, 12)],
    }[op]
    tensors = [stream.uniform(shape) for shape in shapes]
    upstream = stream.uniform((3, 70, 2))

    def evaluate(*given: Tensor, move: Callable[[Tensor], Tensor]) -> list[Tensor]:
        placed = [move(t).requires_grad_() for t in given[:-1]]
        if op == "gate":
            noise = GateNoise(placed[1].detach(), placed[2].detach())
            found = list(ops.gate(placed[0], noise, tau=0.5, langevin=LANGEVIN)[:2])
            return [*found, *torch.autograd.grad(found[1], placed[0], move(given[-1]))]
        if op == "sparse_gated_mixture":
            noise = GateNoise(placed[4].detach(), placed[5].detach())
            found = [ops.sparse_gated_mixture(*placed[:4], noise=noise, tau=0.5, langevin=LANGEVIN).mixture]
        else:
            found = [getattr(ops, op)(*placed)]
        return [*found, *gradients(found, [True], placed[:4])]

    moved = emulated_cuda.run(device, lambda *t: evaluate(*t, move=lambda x: offset(x.detach())), *tensors, upstream)
    plain = emulated_cuda.run(device, lambda *t: evaluate(*t, move=lambda x: x.detach().clone()), *tensors, upstream)
    assert all(torch.equal(a, b) for a, b in zip(moved, plain, strict=True))


WITH_CUDA = [name for name, operation in ops.operations().items() if "cuda" in operation.kernels]


@pytest.mark.parametrize("order", emulated_cuda.ORDERS)
@pytest.mark.parametrize("op", WITH_CUDA)
def test_self_tests_that_decide_on_a_users_gpu_pass_in_the_emulation(op: str, order: str) -> None:
    with emulated_cuda.emulated(order) as module:
        before = module.launches()
        assert backends._run_self_test(op, "cuda", "cpu") is None
        assert module.launches() > before


def test_a_launch_that_no_gpu_accepts_says_what_was_launched() -> None:
    with (
        emulated_cuda.emulated(),
        pytest.raises(RuntimeError, match="^mixture weights: invalid configuration argument"),
    ):
        # 2^31 blocks along the first dimension are one too many; nothing is read.
        emulated_cuda.module().gated_mixture_forward((0, 2**31, 0), False, 0, (0,) * 3, 0, (0,) * 4, 0)
