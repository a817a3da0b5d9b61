"""`gate` and `energy_gate`: both implementations, shapes that hurt, gradients, checks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse.ops.energy_gate import energy_gate
from spectrafuse.ops.gate import GateNoise, GateResult, Langevin, gate

SHAPES = [(1, 1), (1, 7), (5, 1), (4, 13), (0, 3), (3, 0)]
TRAINING = Langevin()


def draw(
    shape: tuple[int, int], seed: int, dtype: torch.dtype = torch.float64, *, difference: bool = False
) -> tuple[Tensor, GateNoise]:
    """Energies and training noise."""
    stream = RandomStream(seed)
    energy = stream.normal((*shape, 2), dtype=dtype)
    refinement = stream.normal((*shape, 2), TRAINING.noise * math.sqrt(TRAINING.steps), dtype=dtype)
    if difference:
        return energy, GateNoise(refinement, stream.logistic(shape, dtype=dtype))
    return energy, GateNoise(refinement, stream.gumbel((*shape, 2), dtype=dtype))


def by_hand(energy: Tensor, noise: GateNoise | None, tau: float, langevin: Langevin | None) -> GateResult:
    """The formulas of the specification, one sample and component at a time."""
    s, r = torch.zeros(energy.shape[:2], dtype=energy.dtype), torch.zeros_like(energy)
    for b in range(energy.shape[0]):
        for n in range(energy.shape[1]):
            e = energy[b, n].tolist()
            if noise is not None and noise.langevin is not None and langevin is not None and langevin.steps:
                xi = noise.langevin[b, n].tolist()
                e = [e[i] - langevin.step_size * langevin.steps + xi[i] for i in (0, 1)]
            g = 0.0
            if noise is not None:
                value = noise.gumbel[b, n].tolist()
                g = value[0] - value[1] if isinstance(value, list) else value
            s[b, n] = 1.0 / (1.0 + math.exp(-(e[1] - e[0] + g) / tau))
            r[b, n] = torch.tensor([-e[0], -e[1]], dtype=energy.dtype)
    return GateResult(s, r, r.sum(), (r**2).sum(), (s > 0.5).any(dim=0), s.sum())


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("difference", [False, True])
@pytest.mark.parametrize("langevin", [None, TRAINING, Langevin(0.2, 0.3, 5), Langevin(steps=0)])
@pytest.mark.parametrize("shape", SHAPES)
def test_gate_follows_the_formulas(
    shape: tuple[int, int], langevin: Langevin | None, difference: bool, backend: str
) -> None:
    energy, noise = draw(shape, seed=11, difference=difference)
    expected = by_hand(energy, noise, 0.7, langevin)
    with use_backend(backend):
        actual = gate(energy, noise, tau=0.7, langevin=langevin)
    for name in GateResult._fields:
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name), rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_no_noise_is_deterministic_and_refines_nothing(backend: str) -> None:
    energy, _ = draw((3, 5), seed=1)
    with use_backend(backend):
        actual = gate(energy, None, tau=0.5, langevin=TRAINING)
    torch.testing.assert_close(actual.select_prob, torch.sigmoid((energy[..., 1] - energy[..., 0]) / 0.5))
    assert torch.equal(actual.select_energy, -energy)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("gap", [-50.0, 50.0])
def test_all_gates_off_and_all_on_at_low_temperature(gap: float, backend: str) -> None:
    energy = torch.zeros(4, 6, 2)
    energy[..., 1] = gap
    energy.requires_grad_(True)
    with use_backend(backend):
        soft = gate(energy, None, tau=0.001, langevin=None)
        hard = gate(energy, None, tau=0.001, langevin=None, hard_threshold=0.9999994)
    on = gap > 0
    for result in (soft, hard):
        assert torch.equal(result.select_prob, torch.full((4, 6), float(on)))
        assert torch.equal(result.used, torch.full((6,), on))
    (gradient,) = torch.autograd.grad(soft.select_prob.sum() + soft.energy_square_sum, energy)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_hard_gates_keep_the_energy_gradient_only(backend: str) -> None:
    energy, noise = draw((4, 9), seed=3)
    energy.requires_grad_(True)
    with use_backend(backend):
        result = gate(energy, GateNoise(None, noise.gumbel), tau=0.05, langevin=None, hard_threshold=0.6)
    assert not result.select_prob.requires_grad
    assert set(result.select_prob.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(result.used, result.select_prob.bool().any(dim=0))
    (gradient,) = torch.autograd.grad(result.energy_sum + result.select_energy[0, 0, 0], energy)
    expected = torch.full_like(energy, -1.0)
    expected[0, 0, 0] = -2.0
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_used_follows_its_threshold(backend: str) -> None:
    energy, _ = draw((2, 50), seed=4)
    with use_backend(backend):
        result = gate(energy, None, tau=1.0, langevin=None, used_threshold=0.8)
    assert 0 < result.used.sum() < 50
    assert torch.equal(result.used, (result.select_prob > 0.8).any(dim=0))


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_gradients(backend: str) -> None:
    energy, noise = draw((3, 4), seed=5)

    def outputs(e: Tensor) -> tuple[Tensor, ...]:
        return gate(e, noise, tau=0.7, langevin=TRAINING)[:4]

    with use_backend(backend):
        assert torch.autograd.gradcheck(outputs, (energy.requires_grad_(True),))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_computed_in_float32(dtype: torch.dtype) -> None:
    energy, noise = draw((6, 40), seed=6, dtype=dtype)
    result = gate(energy, noise, tau=0.1, langevin=TRAINING)
    wide = gate(energy.float(), GateNoise(noise.langevin.float(), noise.gumbel.float()), tau=0.1, langevin=TRAINING)
    assert result.select_prob.dtype == result.select_energy.dtype == dtype
    assert result.energy_sum.dtype == result.energy_square_sum.dtype == torch.float32
    assert torch.equal(result.select_prob, wide.select_prob.to(dtype))
    assert torch.equal(result.energy_square_sum, wide.energy_square_sum)
    assert torch.equal(result.used, wide.used)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 4), (0, 2, 3), (2, 7, 1), (65, 2, 3)])
def test_energy_gate_is_linear_layer_and_gate(shape: tuple[int, int, int], backend: str) -> None:
    batch, count, width = shape
    stream = RandomStream(7)
    hidden = stream.normal((width, batch), dtype=torch.float64).T.requires_grad_(True)
    weight = stream.normal((2 * count, width), dtype=torch.float64).requires_grad_(True)
    bias = stream.normal((2 * count,), dtype=torch.float64).requires_grad_(True)
    _, noise = draw((batch, count), seed=8)
    energy = (hidden @ weight.T + bias).view(batch, count, 2)

    def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
        return energy_gate(*inputs, noise, tau=0.7, langevin=TRAINING)[:4]

    with use_backend(backend):
        for hard in (None, 0.5):
            actual = energy_gate(hidden, weight, bias, noise, tau=0.7, langevin=TRAINING, hard_threshold=hard)
            expected = gate(energy, noise, tau=0.7, langevin=TRAINING, hard_threshold=hard)
            torch.testing.assert_close(tuple(actual), tuple(expected), rtol=1e-12, atol=1e-12)
        if batch:
            assert torch.autograd.gradcheck(outputs, (hidden, weight, bias))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": torch.zeros(2, 3)}, r"`energy` must be a tensor \(B, N, 2\)"),
        ({"energy": torch.zeros(2, 3, 3)}, r"`energy` must be a tensor \(B, N, 2\); got shape \(2, 3, 3\)"),
        ({"tau": 0.0}, "`tau` must be a finite number above 0"),
        (
            {"noise": GateNoise(None, torch.zeros(2, 4))},
            r"`noise.gumbel` must be .*\(2, 3\); got shape \(2, 4\)",
        ),
        ({"noise": GateNoise(torch.zeros(2, 3), torch.zeros(2, 3))}, "`noise.langevin` must be"),
        ({"noise": GateNoise(None, torch.zeros(2, 3).double())}, "`noise.gumbel` must have dtype"),
        ({"noise": torch.zeros(2, 3)}, "`noise` must be a GateNoise"),
        ({"langevin": (0.05, 0.1, 32)}, "`langevin` must be a Langevin"),
        ({"langevin": Langevin(steps=-1)}, "`langevin.steps` must be an integer of at least 0"),
        ({"hard_threshold": 1.5}, "`hard_threshold` must be"),
        ({"used_threshold": math.nan}, "`used_threshold` must be"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"energy": torch.zeros(2, 3, 2), "noise": None, "tau": 1.0, "langevin": None} | change
    with pytest.raises((ValueError, TypeError), match=message):
        gate(**arguments)


def test_energy_gate_names_wrong_shapes() -> None:
    hidden, weight, bias = torch.zeros(2, 3), torch.zeros(8, 3), torch.zeros(8)
    with pytest.raises(ValueError, match="`weight`"):
        energy_gate(hidden, weight[:7], bias[:7], None, tau=1.0, langevin=None)
    with pytest.raises(ValueError, match="`weight`"):
        energy_gate(hidden, weight[:, :2], bias, None, tau=1.0, langevin=None)
    with pytest.raises(ValueError, match="`bias`"):
        energy_gate(hidden, weight, bias[:6], None, tau=1.0, langevin=None)


def test_what_its_kernels_do_not_take() -> None:
    options = {"tau": 0.5, "langevin": None}
    layer = ((2, 3), (8, 3), (8,))
    check_limits("gate", {"not_float64": lambda: ops.gate(*tensors((2, 3, 2), **DOUBLE), None, **options).select_prob})
    calls = {"not_float64": lambda: ops.energy_gate(*tensors(*layer, **DOUBLE), None, **options).select_prob}
    check_limits("energy_gate", calls)
