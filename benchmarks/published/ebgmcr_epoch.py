"""One training epoch as published, with its whole cost (arXiv 2507.23600; code `mcr.py`, `analyzer.py`, `eval.py`).

Its purpose is to be the 1x of every ratio: (B, N, d) tensors, a graph that backward keeps, the optimiser's default
flags, and an evaluation that runs twice, builds graphs that nobody uses and waits for every number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from spectrafuse.ops._published import gated_pair, normalized_components, soft_gate
from spectrafuse.ops.ambiguity_penalty.reference import ambiguity_penalty
from spectrafuse.ops.skinny_linear.reference import skinny_linear

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class EpochOptions:
    """What the published solver takes; the values are its defaults."""

    sparse: bool = False
    non_negative: bool = True
    norm: int | None = 2
    tau: float = 1.0
    evaluation_tau: float = 0.01
    select_threshold: float = 0.9999994
    used_threshold: float = 0.5
    step_size: float = 0.05
    noise: float = 0.1
    steps: int = 32
    energy_coef: float = 1e-10
    ambiguity_coef: float = 1e-10
    kernel: str = "rbf"
    power: int = 2
    nu: float = 1.5
    batch_size: int = 64


class Outputs(NamedTuple):
    """What the published model returns; `sparsity_energy` is a scalar zero in the dense form."""

    mixture: Tensor
    concentration: Tensor
    components: Tensor
    select_prob: Tensor
    sparsity_energy: Tensor
    select_energy: Tensor


class EpochResult(NamedTuple):
    """Figures of an evaluation: what the training rules and the checkpoints use."""

    nmse: float
    r2: float
    mse: float
    mean_energy: float
    used_components: int


def initial_parameters(
    pool_size: int, bands: int, *, extension: int | None = 2, hidden_layers: int = 2, generator: torch.Generator
) -> Parameters:
    """Leaves under the published names, drawn from the published distributions, float32."""

    def normal(*shape: int, std: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * std

    parameters = {
        "vanilla_components": normal(pool_size, bands, std=0.1).abs(),
        "component_sparsity.energy": normal(pool_size * bands, 2, std=0.05),
    }
    for name, outputs, std in (
        ("component_parser.energy_evaluator", 2 * pool_size, 0.05),
        ("concentration_regressor", pool_size, 0.01),
    ):
        if extension is None:
            widths, names = [bands, outputs], [name]
        else:
            widths = [bands, *[outputs * extension] * hidden_layers, outputs]
            names = [f"{name}.{2 * i}" for i in range(hidden_layers + 1)]
        for layer, width, fan_out in zip(names, widths[:-1], widths[1:], strict=True):
            parameters[f"{layer}.weight"] = normal(fan_out, width, std=std)
            parameters[f"{layer}.bias"] = normal(fan_out, std=std)
    return {name: value.requires_grad_(True) for name, value in parameters.items()}


def published_optimizer(parameters: Mapping[str, Tensor]) -> torch.optim.AdamW:
    """AdamW with the published options and default flags."""
    return torch.optim.AdamW(parameters.values(), lr=5e-4, betas=(0.9, 0.995), weight_decay=1e-3)


def network(parameters: Mapping[str, Tensor], name: str, activation: str, x: Tensor) -> Tensor:
    """A network of linear layers with an activation between them."""
    layers = [key.removesuffix(".weight") for key in parameters if key.startswith(name) and "weight" in key]
    for i, layer in enumerate(layers):
        last = i == len(layers) - 1
        x = skinny_linear(x, parameters[f"{layer}.weight"], parameters[f"{layer}.bias"], "none" if last else activation)
    return x


def random_gate(
    energy: Tensor, options: EpochOptions, training: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Gate with noise: first the Langevin numbers (training only), then the Gumbel numbers of both classes."""
    langevin_noise = None
    if training and options.steps > 0:
        xi = torch.randn(energy.shape, dtype=energy.dtype, device=energy.device, generator=generator)
        langevin_noise = options.noise * xi * (options.steps**0.5)
    gumbel = -torch.empty_like(energy).exponential_(generator=generator).log()
    return soft_gate(
        energy,
        gumbel,
        langevin_noise,
        tau=options.tau if training else options.evaluation_tau,
        step_size=options.step_size,
        steps=options.steps,
    )


def forward(
    parameters: Mapping[str, Tensor],
    x: Tensor,
    options: EpochOptions,
    training: bool,
    generator: torch.Generator,
) -> Outputs:
    """The model; the sparsity gate draws before the selection gate."""
    raw = parameters["vanilla_components"]
    batch_size = x.shape[0]
    spectra = normalized_components(raw, options.non_negative, options.norm)
    components = spectra.unsqueeze(0).expand(batch_size, *spectra.shape)
    sparsity_energy = torch.tensor(0.0, device=x.device)
    if options.sparse:
        energy = parameters["component_sparsity.energy"].view(*raw.shape, 2)
        sparsity, sparsity_energy = random_gate(
            energy.unsqueeze(0).repeat(batch_size, 1, 1, 1), options, training, generator
        )
        components = components * sparsity

    energy = network(parameters, "component_parser", "tanh", x).view(batch_size, raw.shape[0], 2)
    select_prob, select_energy = random_gate(energy, options, training, generator)
    if not training:
        select_prob = (select_prob > options.select_threshold).to(x.dtype)
    concentration = torch.abs(network(parameters, "concentration_regressor", "relu", x))
    gated_concentration, components = gated_pair(concentration, select_prob, components)
    mixture = (gated_concentration * components).sum(1)
    return Outputs(mixture, gated_concentration, components, select_prob, sparsity_energy, select_energy)


def energies(outputs: Outputs) -> list[Tensor]:
    """Energies of both gates; concatenated, and so copied, as for several models."""
    both = [torch.cat([outputs.select_energy], dim=0)]
    if outputs.sparsity_energy.dim() > 0:
        both.insert(0, torch.cat([outputs.sparsity_energy], dim=0))
    return both


def loss(
    parameters: Mapping[str, Tensor], x: Tensor, outputs: Outputs, options: EpochOptions, l1: float
) -> tuple[Tensor, Tensor]:
    """Loss with all its terms, and the mean energy."""
    reconstruction = functional.mse_loss(outputs.mixture, x)
    used = torch.nonzero((outputs.select_prob > options.used_threshold).any(dim=0), as_tuple=True)[0]
    similarity = torch.tensor(0.0, device=x.device)
    if used.numel() > 0:
        spectra = normalized_components(parameters["vanilla_components"].clone(), options.non_negative, options.norm)
        similarity = ambiguity_penalty(
            spectra[used],
            options.kernel,
            None,
            power=options.power,
            offset=1.0,
            scale=1.0,
            nu=options.nu,
            published_coefficients=True,
        )
    counts = outputs.select_prob.sum(-1)
    count_term = (counts / outputs.select_prob.shape[1]).mean()
    both = energies(outputs)
    energy_term = (both[-1] ** 2).mean()
    mean_energy = torch.stack([e.sum() for e in both]).sum() / sum(e.numel() for e in both)
    value = reconstruction + l1 * count_term + options.energy_coef * energy_term + options.ambiguity_coef * similarity
    return value, mean_energy


def training_step(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    options: EpochOptions,
    l1: float,
    generator: torch.Generator,
) -> tuple[Tensor, Outputs]:
    """One optimisation step: its loss, and the outputs with their graph, which the caller holds."""
    outputs = forward(parameters, x, options, True, generator)
    optimizer.zero_grad()
    value, _ = loss(parameters, x, outputs, options, l1)
    value.backward(retain_graph=True)
    optimizer.step()
    return value, outputs


class StreamingSums:
    """Sums for nMSE and R2, each brought to the host as soon as it is known."""

    def __init__(self, bands: int, threshold: float | None) -> None:
        self.threshold = threshold
        self.residual = 0.0
        self.signal = 0.0
        self.column_sums = torch.zeros(bands)
        self.count = 0

    @torch.no_grad()
    def update(self, x: Tensor, mixture: Tensor) -> None:
        """Add a batch; under a threshold, entries where both are smaller count as zero."""
        if self.threshold is not None:
            mask = (x.abs() >= self.threshold) | (mixture.abs() >= self.threshold)
            x, mixture = x * mask, mixture * mask
        self.residual += ((mixture - x) ** 2).sum().detach().cpu().item()
        self.signal += (x**2).sum().detach().cpu().item()
        self.column_sums += x.sum(dim=0).detach().cpu()
        self.count += x.shape[0]

    def compute(self) -> tuple[float, float]:
        """nMSE and R2 against the column means."""
        means = self.column_sums / self.count
        total = self.signal - means.pow(2).sum().item() * self.count
        return self.residual / self.signal, 1.0 - self.residual / total


def evaluate(
    parameters: Mapping[str, Tensor],
    data: Tensor,
    options: EpochOptions,
    last: Outputs,
    generator: torch.Generator,
) -> EpochResult:
    """Evaluation with Gumbel noise, each batch run twice; `last` holds the last training batch's energies."""
    raw = parameters["vanilla_components"]
    sums = StreamingSums(data.shape[1], 1e-3 if options.sparse else None)
    mse = torch.tensor(0.0, device=data.device)
    mean_energy = torch.tensor(0.0, device=data.device)
    energy_count, batches, used_by_batch = 0, 0, []
    runs: dict[str, Outputs] = {}
    loader = DataLoader(TensorDataset(data), batch_size=options.batch_size, shuffle=False, generator=generator)
    for (x,) in loader:
        # By name, so that a batch's tensors live until the next batch's take their place, as published.
        for run in ("unused", "counted"):
            runs[run] = Outputs(*(t.detach() for t in forward(parameters, x, options, False, generator)))
        outputs = runs["counted"]
        mse = mse + functional.mse_loss(x, outputs.mixture)
        sums.update(x, outputs.mixture)
        used = (outputs.select_prob > options.select_threshold).any(dim=0)
        _ = raw[used, :]
        for energy in energies(last):
            energy_count += energy.numel()
            mean_energy = mean_energy + energy.sum()
        used_by_batch.append(used)
        batches += 1
    if mse > 0.0:
        mse = mse / batches
    nmse, r2 = sums.compute()
    return EpochResult(
        nmse,
        r2,
        mse.cpu().item(),
        (mean_energy / energy_count).cpu().item(),
        int(torch.stack(used_by_batch).any(dim=0).sum().cpu().item()),
    )


def training_epoch(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    data: Tensor,
    options: EpochOptions,
    *,
    l1: float = 0.0,
    generator: torch.Generator,
) -> EpochResult:
    """Train on all data (n, d) in shuffled batches, then evaluate.

    Parameters
    ----------
    parameters : dict of Tensor
        Leaves under the published names, as `initial_parameters` makes them; changed in place by `optimizer`.
    optimizer : torch.optim.Optimizer
    data : Tensor (n, d)
    options : EpochOptions
    l1 : float
        Weight of the mean share of open gates.
    generator : torch.Generator
        Source of the order of the samples and of all noise.

    Returns
    -------
    EpochResult

    Raises
    ------
    ValueError
        If there is no sample.
    """
    if data.shape[0] == 0:
        raise ValueError("`data` must hold at least one sample; got none.")
    loader = DataLoader(TensorDataset(data), batch_size=options.batch_size, shuffle=True, generator=generator)
    for (x,) in loader:
        _, last = training_step(parameters, optimizer, x, options, l1, generator)
    return evaluate(parameters, data, options, last, generator)
