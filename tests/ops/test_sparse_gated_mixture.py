"""`sparse_gated_mixture`: explicit and drawn noise, both implementations, gradients, memory, checks."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import saved_sizes
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse.ops.gate import GateNoise, Langevin
from spectrafuse.ops.gated_mixture import gated_mixture
from spectrafuse.ops.sparse_gated_mixture import draw_sparsity_noise, sparse_gated_mixture
from spectrafuse.random import philox_words

module = import_module("spectrafuse.ops.sparse_gated_mixture.api")

SHAPES = [(1, 1, 1), (1, 5, 7), (4, 1, 3), (3, 6, 1), (3, 5, 4), (0, 3, 4)]
TRAINING = Langevin()
TAU = 0.7


def draw(shape: tuple[int, int, int], seed: int, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], GateNoise]:
    """Concentrations, gates, components, energies; training noise of both classes."""
    batch, count, bands = shape
    stream = RandomStream(seed)
    inputs = [
        stream.uniform((batch, count), 0.0, 10.0, dtype=dtype),
        stream.uniform((count, batch), dtype=dtype).T,
        stream.normal((count, bands), dtype=dtype),
        stream.normal((count, bands, 2), dtype=dtype),
    ]
    std = TRAINING.noise * math.sqrt(TRAINING.steps)
    refinement = stream.normal((*shape, 2), std, dtype=dtype)
    return inputs, GateNoise(refinement, stream.gumbel((*shape, 2), dtype=dtype))


def by_hand(
    inputs: list[Tensor], noise: GateNoise | None, langevin: Langevin | None, norm: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The formulas of the specification, with (B, N, d) tensors."""
    c, s, v, e = inputs
    e = e.expand(c.shape[0], *e.shape)
    if noise is not None and noise.langevin is not None and langevin is not None and langevin.steps:
        e = e - langevin.step_size * langevin.steps + noise.langevin
    g = 0.0 if noise is None else noise.gumbel
    if isinstance(g, Tensor) and g.ndim == 4:
        g = g[..., 0] - g[..., 1]
    h = torch.sigmoid((e[..., 1] - e[..., 0] + g) / TAU)
    v = v.abs() / (1.0 if norm is None else (v.abs() ** norm).sum(dim=1, keepdim=True) ** (1.0 / norm))
    return torch.einsum("bn,nj,bnj->bj", c * s**2, v, h), -e.sum(), e.square().sum()


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("kind", ["training", "evaluation", "no steps", "difference", "no noise"])
@pytest.mark.parametrize("shape", SHAPES)
def test_formula_and_gradients(shape: tuple[int, int, int], kind: str, backend: str) -> None:
    inputs, drawn = draw(shape, seed=51)
    noise: GateNoise | None = drawn
    langevin: Langevin | None = TRAINING
    norm = 2 if kind == "training" else 1 if kind == "difference" else None
    if kind == "evaluation":
        noise, langevin = GateNoise(None, drawn.gumbel), None
    elif kind == "no steps":
        langevin = Langevin(steps=0)
    elif kind == "difference":
        noise = GateNoise(drawn.langevin, drawn.gumbel[..., 0] - drawn.gumbel[..., 1])
    elif kind == "no noise":
        noise = None
    for tensor in inputs:
        tensor.requires_grad_(True)

    def outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(sparse_gated_mixture(*tensors, noise=noise, tau=TAU, langevin=langevin, norm=norm))

    with use_backend(backend):
        torch.testing.assert_close(outputs(*inputs), by_hand(inputs, noise, langevin, norm), rtol=1e-12, atol=1e-12)
        if shape[0]:
            assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize("langevin", [TRAINING, Langevin(steps=0), None])
def test_drawing_inside_equals_the_same_noise_given(langevin: Langevin | None) -> None:
    inputs, _ = draw((3, 5, 4), seed=52)
    for tensor in inputs:
        tensor.requires_grad_(True)
    rng = torch.tensor([2**62 + 12345, 7])
    draws = [draw_sparsity_noise(rng, b, (5, 4), langevin, dtype=torch.float64) for b in range(3)]
    refinements = [d.langevin for d in draws if d.langevin is not None]
    given = GateNoise(torch.stack(refinements) if refinements else None, torch.stack([d.gumbel for d in draws]))
    results = []
    runs = (
        ("torch", rng, None),
        ("torch", None, given),
        ("reference", rng, None),
        ("cpu", rng, None),
        ("cpu", None, given),
    )
    for backend, seeds, noise in runs:
        with use_backend(backend):
            result = sparse_gated_mixture(
                *inputs,
                tau=TAU,
                langevin=langevin,
                rng=seeds,
                noise=noise,
            )
            objective = result.mixture.square().sum() + result.energy_sum + result.energy_square_sum
            results.append((*result, *torch.autograd.grad(objective, inputs)))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    for result in results[2:]:
        torch.testing.assert_close(results[0], result, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_empty_batch_with_rng(backend: str) -> None:
    inputs, _ = draw((0, 3, 4), seed=53)
    with use_backend(backend):
        result = sparse_gated_mixture(*inputs, rng=torch.tensor([1, 2]), tau=TAU, langevin=TRAINING)
    assert result.mixture.shape == (0, 4)
    assert result.energy_sum == result.energy_square_sum == 0


def test_draws_differ_between_samples_steps_and_seeds_and_repeat() -> None:
    def numbers(seed: int, step: int, sample: int) -> Tensor:
        return draw_sparsity_noise(torch.tensor([seed, step]), sample, (3, 4), None).gumbel

    base = numbers(1, 2, 3)
    assert torch.equal(base, numbers(1, 2, 3))
    for other in (numbers(2, 2, 3), numbers(1, 3, 3), numbers(1, 2, 4)):
        assert not torch.isin(base, other).any()


def test_draws_have_the_documented_layout() -> None:
    words = philox_words(9, 5 + (3 << 32), 4 * 6)
    noise = draw_sparsity_noise(torch.tensor([9, 5]), 2, (2, 3), TRAINING, dtype=torch.float64)
    unit = ((words.view(2, 3, 4) >> 9).double() + 0.5) / 2.0**23
    torch.testing.assert_close(noise.gumbel, torch.logit(unit[..., 2]))
    assert noise.langevin is not None
    pair = noise.langevin / (TRAINING.noise * math.sqrt(TRAINING.steps))
    torch.testing.assert_close(pair.square().sum(-1), -2.0 * unit[..., 0].log())
    angle = torch.atan2(pair[..., 1], pair[..., 0]) % (2 * math.pi)
    torch.testing.assert_close(angle, 2 * math.pi * unit[..., 1])


def test_draws_have_the_right_distribution() -> None:
    noise = draw_sparsity_noise(torch.tensor([3, 1]), 0, (100, 200), TRAINING)
    assert noise.langevin is not None
    count = noise.gumbel.numel()
    std = TRAINING.noise * math.sqrt(TRAINING.steps)
    # Five standard errors: of a mean, and of a variance of normal (kurtosis 3) and logistic (4.2) numbers.
    for values, variance, kurtosis in (
        (noise.langevin[..., 0], std**2, 3.0),
        (noise.langevin[..., 1], std**2, 3.0),
        (noise.gumbel, math.pi**2 / 3.0, 4.2),
    ):
        assert abs(values.mean().item()) < 5 * math.sqrt(variance / count)
        assert abs(values.var().item() / variance - 1.0) < 5 * math.sqrt((kurtosis - 1.0) / count)
    product = (noise.langevin[..., 0] * noise.langevin[..., 1]).mean().item()
    assert abs(product) < 5 * std**2 / math.sqrt(count)


def test_open_gates_give_the_dense_mixture() -> None:
    inputs, _ = draw((3, 5, 4), seed=54)
    energy = torch.zeros_like(inputs[3])
    energy[..., 1] = 1e3
    result = sparse_gated_mixture(*inputs[:3], energy, rng=torch.tensor([0, 0]), tau=TAU, langevin=TRAINING)
    torch.testing.assert_close(result.mixture, gated_mixture(*inputs[:3]))
    closed = sparse_gated_mixture(*inputs[:3], -energy, rng=torch.tensor([0, 0]), tau=TAU, langevin=TRAINING)
    assert closed.mixture.abs().max() == 0


def test_a_sample_is_drawn_twice_and_never_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, _ = draw((4, 5, 6), seed=55)
    for tensor in inputs:
        tensor.requires_grad_(True)
    samples: list[int] = []
    original = draw_sparsity_noise

    def recording(rng: Tensor, sample: int, *args: object, **kwargs: object) -> GateNoise:
        samples.append(sample)
        return original(rng, sample, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "draw_sparsity_noise", recording)
    with saved_sizes() as sizes, use_backend("torch"):
        result = sparse_gated_mixture(*inputs, rng=torch.tensor([1, 1]), tau=TAU, langevin=TRAINING)
    assert samples == [0, 1, 2, 3]
    # Nothing larger than the parameters themselves is kept for backward.
    assert max(sizes) <= inputs[3].numel()
    result.mixture.sum().backward()
    assert sorted(samples) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_zero_row_has_a_finite_gradient() -> None:
    inputs, noise = draw((3, 5, 4), seed=56)
    inputs[2][1] = 0.0
    for tensor in inputs:
        tensor.requires_grad_(True)
    result = sparse_gated_mixture(*inputs, noise=noise, tau=TAU, langevin=TRAINING)
    assert all(g.isfinite().all() for g in torch.autograd.grad(result.mixture.square().sum(), inputs[:3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats(dtype: torch.dtype) -> None:
    inputs, noise = draw((3, 20, 30), seed=57, dtype=dtype)
    result = sparse_gated_mixture(*inputs, noise=noise, tau=TAU, langevin=TRAINING)
    wide_noise = GateNoise(*(t.double() for t in noise if t is not None))
    exact = by_hand([t.double() for t in inputs], wide_noise, TRAINING, 2)
    assert result.mixture.dtype == dtype
    assert result.energy_sum.dtype == torch.float32
    bound = 6 * torch.finfo(dtype).eps * exact[0].abs().max()
    assert (result.mixture.double() - exact[0]).abs().max() < bound
    torch.testing.assert_close(result.energy_square_sum.double(), exact[2], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity_energy": torch.zeros(3, 4)}, r"`sparsity_energy` must be a tensor \(N, d, 2\)"),
        ({"sparsity_energy": torch.zeros(3, 5, 2)}, r"`sparsity_energy` must be a tensor \(3, 4, 2\)"),
        ({"rng": torch.tensor([1.0, 2.0])}, "`rng` must have one of the dtypes int64"),
        ({"rng": torch.tensor([1, 2, 3])}, r"`rng` must be a tensor \(2,\)"),
        (
            {"rng": torch.tensor([1, 2]), "noise": GateNoise(None, torch.zeros(2, 3, 4))},
            "`rng` and `noise` must not both be given",
        ),
        ({"noise": GateNoise(None, torch.zeros(2, 3))}, "`noise.gumbel` must be"),
        ({"tau": -1.0}, "`tau` must be"),
        ({"norm": 0}, "`norm` must be 1, 2 or None"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "concentration": torch.zeros(2, 3),
        "select_prob": torch.zeros(2, 3),
        "components": torch.zeros(3, 4),
        "sparsity_energy": torch.zeros(3, 4, 2),
        "tau": 1.0,
        "langevin": None,
    } | change
    with pytest.raises((ValueError, TypeError), match=message):
        sparse_gated_mixture(**arguments)


def test_what_its_kernels_do_not_take() -> None:
    def mixture() -> torch.Tensor:
        inputs = tensors((2, 3), (2, 3), (3, 5), (3, 5, 2), **DOUBLE)
        return ops.sparse_gated_mixture(*inputs, tau=0.5, langevin=None).mixture

    check_limits("sparse_gated_mixture", {"not_float64": mixture})
