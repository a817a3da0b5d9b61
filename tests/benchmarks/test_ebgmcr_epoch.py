"""The published training epoch: its loss is the operations' loss, and its evaluation counts the second run."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from helpers import assert_close_to_max, golden
from spectrafuse import use_backend
from spectrafuse.benchmarks.published import ebgmcr_epoch as epoch
from spectrafuse.ops.ambiguity_penalty import ambiguity_penalty
from spectrafuse.ops.energy_gate import energy_gate
from spectrafuse.ops.gate import GateNoise, Langevin
from spectrafuse.ops.gated_mixture import gated_mixture
from spectrafuse.ops.skinny_linear import skinny_linear
from spectrafuse.ops.sparse_gated_mixture import sparse_gated_mixture

POOL, BANDS, SAMPLES = 11, 17, 10
CASES = [
    epoch.EpochOptions(batch_size=4, energy_coef=0.3, ambiguity_coef=0.7),
    epoch.EpochOptions(batch_size=4, energy_coef=0.3, ambiguity_coef=0.7, sparse=True, norm=1, tau=0.6),
    epoch.EpochOptions(batch_size=4, norm=None, non_negative=False, steps=0, kernel="matern", nu=3.5),
]


def problem(seed: int, dtype: torch.dtype = torch.float64) -> tuple[epoch.Parameters, Tensor]:
    """Parameters and data."""
    generator = torch.Generator().manual_seed(seed)
    drawn = epoch.initial_parameters(POOL, BANDS, generator=generator)
    parameters = {k: v.detach().to(dtype).requires_grad_(True) for k, v in drawn.items()}
    return parameters, torch.rand(SAMPLES, BANDS, generator=generator).to(dtype)


def drawn_noise(shape: tuple[int, ...], options: epoch.EpochOptions, generator: torch.Generator) -> GateNoise:
    """The numbers the epoch draws, in its order."""
    langevin = None
    if options.steps > 0:
        xi = torch.randn(shape, dtype=torch.float64, generator=generator)
        langevin = options.noise * math.sqrt(options.steps) * xi
    gumbel = -torch.empty(shape, dtype=torch.float64).exponential_(generator=generator).log()
    return GateNoise(langevin, gumbel)


def loss_from_operations(
    parameters: epoch.Parameters, x: Tensor, options: epoch.EpochOptions, l1: float, generator: torch.Generator
) -> Tensor:
    """The specification's loss, from the public operations."""

    def layer(name: str, x: Tensor, activation: str) -> Tensor:
        return skinny_linear(x, parameters[f"{name}.weight"], parameters[f"{name}.bias"], activation)

    batch = x.shape[0]
    langevin = Langevin(options.step_size, options.noise, options.steps)
    raw = parameters["vanilla_components"]
    form: dict[str, Any] = {"non_negative": options.non_negative, "norm": options.norm}
    sparsity = drawn_noise((batch, POOL, BANDS, 2), options, generator) if options.sparse else None
    selection = drawn_noise((batch, POOL, 2), options, generator)
    parser, regressor = "component_parser.energy_evaluator", "concentration_regressor"
    hidden = layer(f"{parser}.2", layer(f"{parser}.0", x, "tanh"), "tanh")
    selected = energy_gate(
        hidden,
        parameters[f"{parser}.4.weight"],
        parameters[f"{parser}.4.bias"],
        selection,
        tau=options.tau,
        langevin=langevin,
    )
    hidden = layer(f"{regressor}.2", layer(f"{regressor}.0", x, "relu"), "relu")
    concentration = layer(f"{regressor}.4", hidden, "abs")
    if sparsity is None:
        mixture = gated_mixture(concentration, selected.select_prob, raw, **form)
    else:
        energy = parameters["component_sparsity.energy"].view(POOL, BANDS, 2)
        mixture = sparse_gated_mixture(
            concentration,
            selected.select_prob,
            raw,
            energy,
            noise=sparsity,
            tau=options.tau,
            langevin=langevin,
            **form,
        ).mixture
    spectra = raw.abs() if options.non_negative else raw
    if options.norm is not None:
        spectra = spectra / torch.linalg.vector_norm(spectra, ord=options.norm, dim=1, keepdim=True)
    penalty = ambiguity_penalty(spectra, options.kernel, selected.used, nu=options.nu, published_coefficients=True)
    return (
        (mixture - x).square().mean()
        + l1 * selected.select_prob.mean()
        + options.energy_coef * selected.energy_square_sum / (2 * batch * POOL)
        + options.ambiguity_coef * penalty
    )


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("options", CASES)
def test_loss_and_gradients_equal_the_operations(options: epoch.EpochOptions, backend: str) -> None:
    parameters, data = problem(seed=71)
    x = data[:4]
    outputs = epoch.forward(parameters, x, options, True, torch.Generator().manual_seed(5))
    value, mean_energy = epoch.loss(parameters, x, outputs, options, l1=0.2)
    with use_backend(backend):
        other = loss_from_operations(parameters, x, options, 0.2, torch.Generator().manual_seed(5))
    torch.testing.assert_close(other, value, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(v, list(parameters.values()), allow_unused=True) for v in (value, other)]
    for name, one, two in zip(parameters, *gradients, strict=True):
        assert (one is None) == (two is None) == (name == "component_sparsity.energy" and not options.sparse)
        if one is not None and two is not None:
            assert_close_to_max(two, one, 1e-10)
    both = [e.flatten() for e in (outputs.select_energy, outputs.sparsity_energy) if e.dim() > 0]
    torch.testing.assert_close(mean_energy, torch.cat(both).mean())


@pytest.mark.parametrize("options", CASES)
def test_evaluation_counts_the_second_run(options: epoch.EpochOptions) -> None:
    parameters, data = problem(seed=72, dtype=torch.float32)
    with torch.no_grad():
        # Half of the gates wide open, so that hard gates are neither all on nor all off.
        parameters["component_parser.energy_evaluator.4.bias"][1:POOL:2] += 0.5
    last = epoch.forward(parameters, data[8:], options, True, torch.Generator().manual_seed(1))
    result = epoch.evaluate(parameters, data, options, last, torch.Generator().manual_seed(6))

    generator = torch.Generator().manual_seed(6)
    mixtures, gates, errors = [], [], []
    # The loader draws from its generator too, once.
    for (x,) in DataLoader(TensorDataset(data), batch_size=4, generator=generator):
        epoch.forward(parameters, x, options, False, generator)
        outputs = epoch.forward(parameters, x, options, False, generator)
        mixtures.append(outputs.mixture.detach().double())
        gates.append(outputs.select_prob)
        errors.append((mixtures[-1] - x.double()).square().mean())
    mixture, x = torch.cat(mixtures), data.double()
    if options.sparse:
        small = (x.abs() < 1e-3) & (mixture.abs() < 1e-3)
        x, mixture = x.masked_fill(small, 0.0), mixture.masked_fill(small, 0.0)
    residual = (mixture - x).square().sum()
    used = torch.cat(gates).bool().any(dim=0).sum().item()
    assert used > 0
    both = [e.detach().flatten() for e in (last.select_energy, last.sparsity_energy) if e.dim() > 0]
    expected = (
        residual / x.square().sum(),
        1.0 - residual / (x.square().sum() - SAMPLES * x.mean(dim=0).square().sum()),
        torch.stack(errors).mean(),
        torch.cat(both).mean(),
        used,
    )
    assert result == pytest.approx(tuple(float(v) for v in expected), rel=1e-5)


@pytest.mark.parametrize(("mode", "threshold"), [("dense", None), ("threshold", "eps")])
def test_sums_reproduce_the_published_metrics(mode: str, threshold: str | None) -> None:
    values = golden("ebgmcr_training_rules")
    sums = epoch.StreamingSums(values["X"].shape[1], None if threshold is None else values[threshold])
    for x, y in zip(values["X"].split(4), values["Y"].split(4), strict=True):
        sums.update(x, y)
    assert sums.compute() == pytest.approx(tuple(values[mode].tolist()), rel=1e-6)


@pytest.mark.parametrize("options", CASES)
def test_training_repeats_learns_and_leaves_the_global_generator_alone(options: epoch.EpochOptions) -> None:
    histories = []
    for _ in range(2):
        parameters, data = problem(seed=73, dtype=torch.float32)
        generator = torch.Generator().manual_seed(7)
        optimizer = epoch.published_optimizer(parameters)
        for group in optimizer.param_groups:
            group["lr"] = 2e-2
        before = torch.get_rng_state()
        history = [
            epoch.training_epoch(parameters, optimizer, data, options, l1=1e-3, generator=generator) for _ in range(8)
        ]
        histories.append((history, parameters["vanilla_components"].detach()))
        assert len(optimizer.state) == len(parameters) - (not options.sparse)
        assert torch.equal(torch.get_rng_state(), before)
    assert histories[0][0] == histories[1][0]
    assert torch.equal(histories[0][1], histories[1][1])
    first, last = histories[0][0][0], histories[0][0][-1]
    assert last.nmse < 0.7 * first.nmse


def test_initial_parameters_have_the_published_names_and_shapes() -> None:
    expected = golden("ebgmcr_forward_0")
    names = {k.removeprefix("state."): v.shape for k, v in expected.items() if k.startswith("state.")}
    drawn = epoch.initial_parameters(12, 20, generator=torch.Generator().manual_seed(0))
    assert {k: v.shape for k, v in drawn.items()} == names
    assert (drawn["vanilla_components"] >= 0).all()
    plain = golden("ebgmcr_forward_2")
    names = {k.removeprefix("state."): v.shape for k, v in plain.items() if k.startswith("state.")}
    drawn = epoch.initial_parameters(9, 17, extension=None, generator=torch.Generator().manual_seed(0))
    assert {k: v.shape for k, v in drawn.items()} == names


def test_no_data_is_one_clear_error() -> None:
    parameters, data = problem(seed=74)
    with pytest.raises(ValueError, match="`data` must hold at least one sample"):
        epoch.training_epoch(
            parameters,
            epoch.published_optimizer(parameters),
            data[:0],
            CASES[0],
            generator=torch.Generator(),
        )
