"""The unmixing model: a pool of components, gates that select them, and a regressor of concentrations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spectrafuse._runtime import checks
from spectrafuse._runtime.layers import without_values
from spectrafuse._runtime.progress import tell
from spectrafuse.mcr.inputs import Table
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training.optimizer import Stash, stashing_network
from spectrafuse.ops.energy_gate import energy_gate
from spectrafuse.ops.gate import GateNoise, Langevin, gate
from spectrafuse.ops.gated_mixture import gated_mixture
from spectrafuse.ops.skinny_linear import skinny_linear
from spectrafuse.ops.sparse_gated_mixture import draw_sparsity_noise, sparse_gated_mixture
from spectrafuse.random import RandomStream

_COMPONENT_STD, _ENERGY_STD, _CONCENTRATION_STD = 0.1, 0.05, 0.01
_CHUNK_ROWS = 256
_AGGREGATE_CHUNK_ENTRIES = 2**24

PostProcessing = Callable[[Tensor], Tensor]
"""From components (N, d), normalised, to components (N, d)."""

Aggregate = Callable[[Tensor, Tensor], Tensor]
"""From gated concentrations (B, N, 1) and gated components (B, N, d) to spectra (B, d)."""


class ModelNoise(NamedTuple):
    """Random numbers of one pass.

    Attributes
    ----------
    select : GateNoise or None
        Of the component gates (B, N, 2); None: deterministic.
    sparsity : GateNoise or None
        Of the sparse form's gates (B, N, d, 2).
    rng : Tensor, (2,) int64, or None
        Instead of `sparsity`: seed and step from which the operation draws itself.
    """

    select: GateNoise | None = None
    sparsity: GateNoise | None = None
    rng: Tensor | None = None


class ModelOutput(NamedTuple):
    """What one pass gives.

    Attributes
    ----------
    mixture : Tensor, (B, d)
        Reconstructed spectra.
    concentration : Tensor, (B, N)
        Before the gate.
    select_prob : Tensor, (B, N)
        Gates: in [0, 1] in training, 0 or 1 in evaluation.
    select_energy : Tensor, (B, N, 2)
        Negated refined energies r.
    energy_square : Tensor, ()
        Mean of r^2 over the component gates.
    mean_energy : Tensor, ()
        Mean of r over all gates, the sparse form's too.
    used : Tensor, (N,) bool
        Components that some sample selects.
    """

    mixture: Tensor
    concentration: Tensor
    select_prob: Tensor
    select_energy: Tensor
    energy_square: Tensor
    mean_energy: Tensor
    used: Tensor


def network(inputs: int, hidden: int | None, layers: int, outputs: int, activation: type[nn.Module]) -> nn.Module:
    """Linear layers with an activation between them, without initial values.

    Parameters
    ----------
    inputs, outputs : int
        Widths of the first and of the last layer.
    hidden : int or None
        Width of the hidden layers; None: a single linear layer.
    layers : int
        Hidden layers, at least 1.
    activation : type of nn.Module
    """
    if hidden is None:
        return without_values(nn.Linear, inputs, outputs)
    modules: list[nn.Module] = [without_values(nn.Linear, inputs, hidden), activation()]
    for _ in range(layers - 1):
        modules += [without_values(nn.Linear, hidden, hidden), activation()]
    return nn.Sequential(*modules, without_values(nn.Linear, hidden, outputs))


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of one of the model's two networks, first to last."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def layer_names(state: Mapping[str, Tensor], network: str) -> list[str]:
    """Names that the linear layers of a network have in a model's state, first to last.

    Parameters
    ----------
    state : mapping of str to Tensor
    network : {"component_parser.energy_evaluator", "concentration_regressor"}
    """
    names = [key.removesuffix(".weight") for key in state if key.startswith(network) and key.endswith(".weight")]
    # A single layer has the network's own name.
    return sorted(names, key=lambda name: 0 if name == network else int(name.rpartition(".")[2]))


class UnmixingModel(nn.Module):
    """EB-gMCR's model, dense or sparse.

    Parameters
    ----------
    num_components : int
        Size N of the pool.
    dim_components : int
        Length d of a spectrum.
    sparse_component : bool
        Second gate for every entry of every component.
    non_negative_component : bool
        Components are absolute values of their parameters.
    learnable_component : bool
        False: components keep the values they are given.
    component_norm : int or None
        Components are divided by their p-norm; None: not.
    hidden_size_extension : int or None
        r: hidden widths 2 N r and N r; None: one linear layer for each network.
    hidden_layers : int
        Hidden layers, at least 1; without extension there are none.
    component_post_processing : callable, optional
        Applied to the normalised components wherever they are used.
    aggregate_function : callable, optional
        Nonlinear mixing: from gated concentrations (B, N, 1) and gated components (B, N, d) to spectra (B, d). Only
        with it a tensor (B, N, d) is built.
    temperature_train, temperature_eval : float
        Gate temperatures.
    select_threshold : float
        In evaluation a component is selected if its gate exceeds it.
    langevin_step_size, langevin_noise, langevin_steps : float, float, int
        Refinement of energies in training.
    langevin_options_apply : bool
        False: the gates take 0.05, 0.1 and 32 whatever the three options say (published defect).
    stream : RandomStream, optional
        Where initial values come from; default `RandomStream(0)`.
    initialise : bool
        False: leave the parameters unset, for a state to be loaded.

    Notes
    -----
    arXiv 2507.23600 and, for the sparse form, 2510.20364; `docs/algorithms/ebgmcr.md`, "Model" to "Sparse form".
    Parameters have the published names, so states can be exchanged. A plug-in that is
    an `nn.Module` is part of the model and trains with it.
    """

    def __init__(
        self,
        num_components: int,
        dim_components: int,
        *,
        sparse_component: bool = True,
        non_negative_component: bool = True,
        learnable_component: bool = True,
        component_norm: int | None = None,
        hidden_size_extension: int | None = None,
        hidden_layers: int = 1,
        component_post_processing: PostProcessing | None = None,
        aggregate_function: Aggregate | None = None,
        temperature_train: float = 1.0,
        temperature_eval: float = 0.001,
        select_threshold: float = 0.99994,
        langevin_step_size: float = 0.05,
        langevin_noise: float = 0.1,
        langevin_steps: int = 32,
        langevin_options_apply: bool = True,
        stream: RandomStream | None = None,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        # Sums over a pool are divided by this, also where components have left it.
        n = self.num_components = self.pool_size = checks.integer("num_components", num_components)
        d = self.dim_components = checks.integer("dim_components", dim_components)
        self.sparse_component = bool(sparse_component)
        self.non_negative_component = bool(non_negative_component)
        self.component_norm = (
            None if component_norm is None else checks.integer("component_norm", component_norm, maximum=100)
        )
        r = hidden_size_extension
        self.hidden_size_extension = None if r is None else checks.integer("hidden_size_extension", r)
        self.hidden_layers = checks.integer("hidden_layers", hidden_layers)
        self.temperature_train = checks.number("temperature_train", temperature_train, above=0.0)
        self.temperature_eval = checks.number("temperature_eval", temperature_eval, above=0.0)
        self.select_threshold = checks.number("select_threshold", select_threshold, above=0.0, maximum=1.0)
        self.langevin_options = Langevin(
            checks.number("langevin_step_size", langevin_step_size, above=0.0),
            checks.number("langevin_noise", langevin_noise, minimum=0.0),
            checks.integer("langevin_steps", langevin_steps, minimum=0),
        )
        self.langevin = self.langevin_options if langevin_options_apply else Langevin()
        self.component_post_processing = component_post_processing
        self.aggregate_function = aggregate_function
        self.gates: ExactGates | None = None

        self.vanilla_components = nn.Parameter(torch.empty(n, d), requires_grad=bool(learnable_component))
        self.component_sparsity = nn.Module()
        self.component_sparsity.energy = nn.Parameter(torch.empty(n * d, 2), requires_grad=self.sparse_component)
        self.component_parser = nn.Module()
        self.component_parser.energy_evaluator = network(
            d, None if r is None else 2 * n * r, hidden_layers, 2 * n, nn.Tanh
        )
        self.concentration_regressor = network(d, None if r is None else n * r, hidden_layers, n, nn.ReLU)
        if initialise:
            self._initialise(RandomStream(0) if stream is None else stream)

    @torch.no_grad()
    def _initialise(self, stream: RandomStream) -> None:
        # In place: a freed copy of a large layer would stay with the process.
        stream.fill(self.vanilla_components, "normal", scale=_COMPONENT_STD)
        if self.non_negative_component:
            self.vanilla_components.abs_()
        energy = self.component_sparsity.energy
        assert isinstance(energy, Tensor)
        # The dense form has these parameters too, by name only: no reason to draw them.
        if self.sparse_component:
            stream.fill(energy, "normal", scale=_ENERGY_STD)
        else:
            energy.zero_()
        for part, std in ((self._evaluator, _ENERGY_STD), (self.concentration_regressor, _CONCENTRATION_STD)):
            for layer in linear_layers(part):
                stream.fill(layer.weight, "normal", scale=std)
                stream.fill(layer.bias, "normal", scale=std)

    @property
    def _evaluator(self) -> nn.Module:
        evaluator = self.component_parser.energy_evaluator
        assert isinstance(evaluator, nn.Module)
        return evaluator

    @property
    def _sparsity_energy(self) -> Tensor:
        energy = self.component_sparsity.energy
        assert isinstance(energy, Tensor)
        return energy.view(self.num_components, self.dim_components, 2)

    @property
    def learnable_component(self) -> bool:
        """Whether the components train."""
        return self.vanilla_components.requires_grad

    @property
    def config(self) -> dict[str, Any]:
        """What `param.json` holds, under the published names; plug-ins and thresholds are not in it."""
        return {
            "num_components": self.num_components,
            "dim_components": self.dim_components,
            "sparse_component": self.sparse_component,
            "non_negative_component": self.non_negative_component,
            "component_norm": self.component_norm,
            "hidden_size_extension": self.hidden_size_extension,
            "hidden_layers": self.hidden_layers,
            "learnable_component": self.learnable_component,
            "temperature_train": self.temperature_train,
            "temperature_eval": self.temperature_eval,
            "langevin_step_size": self.langevin_options.step_size,
            "langevin_noise": self.langevin_options.noise,
            "langevin_steps": self.langevin_options.steps,
        }

    def components(self) -> Tensor:
        """Components (N, d) as they are mixed: absolute value, norm and post-processing done; sparsity not."""
        components = self.vanilla_components.abs() if self.non_negative_component else self.vanilla_components
        if self.component_norm is not None:
            length = torch.linalg.vector_norm(components, ord=self.component_norm, dim=1, keepdim=True)
            components = components / torch.where(length > 0, length, 1.0)
        if self.component_post_processing is not None:
            components = self.component_post_processing(components)
        return components

    def effective_components(self) -> Tensor:
        """Components (N, d) in deterministic evaluation: in the sparse form times their noise-free sparsity gates."""
        components = self.components()
        if self.sparse_component:
            components = (
                components * gate(self._sparsity_energy, None, tau=self.temperature_eval, langevin=None).select_prob
            )
        return components

    @property
    def tau(self) -> float:
        """Gate temperature in the present mode."""
        return self.temperature_train if self.training else self.temperature_eval

    def draw_noise(self, batch_size: int, stream: RandomStream) -> ModelNoise:
        """Random numbers of one pass in the present mode, in the model's dtype and on its device."""
        like = self.vanilla_components
        shape = (batch_size, self.num_components)
        langevin = None
        if self.training and self.langevin.steps > 0:
            std = self.langevin.noise * math.sqrt(self.langevin.steps)
            langevin = stream.normal((*shape, 2), std, dtype=like.dtype, device=like.device)
        gumbel = stream.logistic(shape, dtype=like.dtype, device=like.device)
        rng = None
        if self.sparse_component:
            # Filled in, not copied: a copy would wait for a GPU.
            words = (torch.full((), word, dtype=torch.int64, device=like.device) for word in stream.state.values())
            rng = torch.stack(tuple(words))
            stream.step += 1
        return ModelNoise(GateNoise(langevin, gumbel), None, rng)

    def forward(
        self,
        x: Tensor,
        noise: ModelNoise | None = None,
        *,
        used_threshold: float = 0.5,
        stash: Stash | None = None,
    ) -> ModelOutput:
        """One pass over spectra.

        Parameters
        ----------
        x : Tensor, (B, d)
        noise : ModelNoise or None
            None: deterministic gates, without refinement.
        used_threshold : float
            In training a component counts as used if a gate exceeds it.
        stash : Stash, optional
            Of an `OuterAdamW`: backward leaves there what the two networks' gradients are made of, and none of their
            parameters gets a `.grad`. None: they do, as for any optimizer.
        """
        noise = ModelNoise() if noise is None else noise
        langevin = self.langevin if self.training else None
        options: dict[str, Any] = {
            "tau": self.tau,
            "langevin": langevin,
            "hard_threshold": None if self.training else self.select_threshold,
            "used_threshold": used_threshold,
        }
        *hidden, last = linear_layers(self._evaluator)
        if stash is None:
            h = x
            for layer in hidden:
                h = skinny_linear(h, layer.weight, layer.bias, "tanh")
            selected = energy_gate(h, last.weight, last.bias, noise.select, **options)
            concentration = self.regress(x)
        else:
            energy = stashing_network((*hidden, last), "tanh", x, stash)
            selected = gate(energy.view(len(x), self.num_components, 2), noise.select, **options)
            concentration = stashing_network(linear_layers(self.concentration_regressor), "relu", x, stash).abs()
        mixture, sparsity_sum = self._mix(concentration, selected.select_prob, noise, langevin)
        gates = selected.select_energy.numel()
        energy_sum, entries = selected.energy_sum, gates
        if sparsity_sum is not None:
            energy_sum = energy_sum + sparsity_sum
            entries += 2 * x.shape[0] * self.vanilla_components.numel()
        return ModelOutput(
            mixture,
            concentration,
            selected.select_prob,
            selected.select_energy,
            selected.energy_square_sum / max(gates // self.num_components * self.pool_size, 1),
            energy_sum / max(entries, 1),
            selected.used,
        )

    def regress(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        """Ungated concentrations of spectra (B, d): (B, N), or only the columns `indices`."""
        *hidden, last = linear_layers(self.concentration_regressor)
        for layer in hidden:
            x = skinny_linear(x, layer.weight, layer.bias, "relu")
        if indices is None:
            return skinny_linear(x, last.weight, last.bias, "abs")
        return skinny_linear(x, last.weight[indices], last.bias[indices], "abs")

    @torch.no_grad()
    def parse(self, x: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Deterministic evaluation of some components only.

        Parameters
        ----------
        x : Tensor, (B, d)
        indices : Tensor, (k,) int64
            Components to look at.

        Returns
        -------
        concentration, select_prob : Tensor, (B, k)
            Gated concentrations, and gates of 0 or 1. No tensor of size (B, N) is formed.
            With `gates`, which refinement sets, computed from the components instead of by the networks.
        """
        if self.gates is not None:
            return self._parse_exactly(x, indices, self.gates)
        *hidden, last = linear_layers(self._evaluator)
        h = x
        for layer in hidden:
            h = skinny_linear(h, layer.weight, layer.bias, "tanh")
        rows = torch.stack((2 * indices, 2 * indices + 1), dim=1).flatten()
        selected = energy_gate(
            h,
            last.weight[rows],
            last.bias[rows],
            None,
            tau=self.temperature_eval,
            langevin=None,
            hard_threshold=self.select_threshold,
        )
        return self.regress(x, indices) * selected.select_prob, selected.select_prob

    def _parse_exactly(self, x: Tensor, indices: Tensor, gates: ExactGates) -> tuple[Tensor, Tensor]:
        places = list(gates.open_ids)
        components = self.effective_components()[places].cpu().numpy()
        whole = x.new_zeros(len(x), self.num_components)
        whole[:, places] = torch.from_numpy(gates.concentrations(x.cpu().numpy(), components)).to(x)
        return whole[:, indices], (whole[:, indices] > 0).to(x.dtype)

    def chunks(self, array: Table) -> Iterator[tuple[slice, Tensor]]:
        """An array's rows (n, ...) on the model's device, as many at a time as fit into moderate memory.

        Yields
        ------
        rows : slice
        values : Tensor, (b, ...)
        """
        size = _CHUNK_ROWS
        if self.aggregate_function is not None:
            size = max(1, min(size, _AGGREGATE_CHUNK_ENTRIES // self.vanilla_components.numel()))
        for start in range(0, len(array), size):
            tell(start, len(array))
            rows = slice(start, start + size)
            yield rows, torch.from_numpy(array[rows]).to(self.vanilla_components.device)

    def parse_array(self, data: Table, indices: Tensor, *, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """`parse` of any number of spectra; memory beyond the results is that of a chunk.

        Parameters
        ----------
        data : ndarray, (n, d)
        indices : Tensor, (k,) int64
            Components to look at.
        wanted : sequence of {"concentration", "select_prob", "reconstruction"}

        Returns
        -------
        dict of str to ndarray
            What is wanted: gated concentrations (n, k), gates (n, k), reconstructed spectra (n, d).
        """
        widths = {"reconstruction": data.shape[1]}
        results = {name: np.empty((len(data), widths.get(name, len(indices))), np.float32) for name in wanted}
        for rows, spectra in self.chunks(data):
            concentration, select_prob = self.parse(spectra, indices)
            values = {"concentration": concentration, "select_prob": select_prob}
            if "reconstruction" in results:
                values["reconstruction"] = self.recompose(concentration, indices)
            for name, result in results.items():
                result[rows] = values[name].cpu().numpy()
        return results

    @torch.no_grad()
    def recompose(self, concentration: Tensor, indices: Tensor) -> Tensor:
        """Spectra (B, d) from gated concentrations (B, k) of the components `indices`, without noise."""
        if self.aggregate_function is None:
            return concentration @ self.effective_components()[indices]
        whole = concentration.new_zeros(concentration.shape[0], self.num_components)
        whole[:, indices] = concentration
        present = (whole != 0).to(whole.dtype).unsqueeze(-1)
        return self.aggregate_function(whole.unsqueeze(-1), self.effective_components() * present)

    def _mix(
        self, concentration: Tensor, select_prob: Tensor, noise: ModelNoise, langevin: Langevin | None
    ) -> tuple[Tensor, Tensor | None]:
        """Mixture (B, d), and in the sparse form the sum of its energies."""
        if self.aggregate_function is not None:
            return self._aggregate(concentration, select_prob, noise, langevin)
        raw: Tensor = self.vanilla_components
        non_negative, norm = self.non_negative_component, self.component_norm
        if self.component_post_processing is not None or norm not in (None, 1, 2):
            raw, non_negative, norm = self.components(), False, None
        if not self.sparse_component:
            mixture = gated_mixture(concentration, select_prob, raw, non_negative=non_negative, norm=norm)
            return mixture, None
        result = sparse_gated_mixture(
            concentration,
            select_prob,
            raw,
            self._sparsity_energy,
            rng=noise.rng,
            noise=noise.sparsity,
            tau=self.tau,
            langevin=langevin,
            non_negative=non_negative,
            norm=norm,
        )
        return result.mixture, result.energy_sum

    def _aggregate(
        self, concentration: Tensor, select_prob: Tensor, noise: ModelNoise, langevin: Langevin | None
    ) -> tuple[Tensor, Tensor | None]:
        assert self.aggregate_function is not None
        components, energy_sum = self.components().unsqueeze(0), None
        if self.sparse_component:
            gates, energy_sum = _sparsity_gates(self._sparsity_energy, len(concentration), noise, langevin, self.tau)
            components = components * gates
        mixture = self.aggregate_function(
            (concentration * select_prob).unsqueeze(-1), components * select_prob.unsqueeze(-1)
        )
        return mixture, energy_sum


def _sparsity_gates(
    energy: Tensor, batch_size: int, noise: ModelNoise, langevin: Langevin | None, tau: float
) -> tuple[Tensor, Tensor]:
    """All samples' sparsity gates (B, N, d), which the operation itself never holds, and the sum of their energies."""
    shape = (energy.shape[0], energy.shape[1])
    drawn = noise.sparsity
    if noise.rng is not None:
        drawn = _all_sparsity_noise(noise.rng, batch_size, shape, langevin, energy.dtype)
    flat = (batch_size * shape[0], shape[1], 2)
    if drawn is not None:
        terms = None if drawn.langevin is None else drawn.langevin.reshape(flat)
        drawn = GateNoise(terms, drawn.gumbel.reshape(flat[0], *drawn.gumbel.shape[2:]))
    made = gate(energy.expand(batch_size, *shape, 2).reshape(flat), drawn, tau=tau, langevin=langevin)
    return made.select_prob.view(batch_size, *shape), made.energy_sum


def _all_sparsity_noise(
    rng: Tensor, batch_size: int, shape: tuple[int, int], langevin: Langevin | None, dtype: torch.dtype
) -> GateNoise:
    samples = [draw_sparsity_noise(rng, b, shape, langevin, dtype=dtype) for b in range(batch_size)]
    refinements = [sample.langevin for sample in samples if sample.langevin is not None]
    gumbel = torch.stack([sample.gumbel for sample in samples])
    return GateNoise(torch.stack(refinements) if refinements else None, gumbel)
