"""The published package's unmixing module (its `mcr.py`), on our operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.compat.ebgmcr.checks import (
    Option,
    extension,
    flag,
    function,
    integer,
    number,
    optional,
    plain_layers,
)
from spectrafuse.compat.ebgmcr.core import DynamicEBSelectiveModule, FixedEBSelectiveModule, network
from spectrafuse.compat.ebgmcr.lazy import LazyTensor
from spectrafuse.compat.ebgmcr.recipes import GatedComponents, RefinedEnergies
from spectrafuse.compat.ebgmcr.utils import load_json, load_safetensors, save_as_json, save_as_safetensors
from spectrafuse.ops.skinny_linear import skinny_linear

__all__ = ["EBSelectiveMCR"]

_Self = TypeVar("_Self", bound="EBSelectiveMCR")


def default_aggreate_function(concentration: Tensor, components: Tensor) -> Tensor:
    """Spectra (B, d) from concentrations (B, N, 1) and components (B, N, d): linear mixing."""
    return (concentration * components).sum(1)


LINEAR_AGGREGATES: list[Callable[[Tensor, Tensor], Tensor]] = [default_aggreate_function]
"""Functions known to be this one, which an operation computes."""


def _to_gates(name: str) -> Callable[[Any, Any], None]:
    """Set an option on both gates under its own name, where nothing reads it: as published, it has no effect."""

    def tell(model: Any, value: Any) -> None:
        setattr(model.component_sparsity, name, value)
        setattr(model.component_parser, name, value)

    return tell


class EBSelectiveMCR(nn.Module):
    """A pool of components, gates that select them, and a regressor of concentrations.

    Parameters are those of `spectrafuse.mcr.model.UnmixingModel` under their published names, with the published
    defaults, behavior and draws.

    Parameters
    ----------
    num_components, dim_components : int
        Size N of the pool and length d of a spectrum.
    sparse_component, non_negative_component, learnable_component : bool
        As published, `learnable_component=False` is kept and saved, but the components train all the same.
    component_norm : int or None
    hidden_size_extension : int or None
        None or 0: one linear layer for each network.
    hidden_layers : int
    component_post_processing : callable
        As published, `components` applies it and the mixture does not.
    aggregate_function : callable
        From gated concentrations (B, N, 1) and components (B, N, d) to spectra (B, d).
    temperature_train, temperature_eval, select_prob_threshld : float
    langevin_step_size, langevin_noise, langevin_steps : float, float, int
        As published, the gates do not take them: theirs are `component_parser.langevin_dynamics.step_size` and so on.
    """

    num_components = Option(integer(1))
    dim_components = Option(integer(1))
    sparse_component = Option(flag)
    non_negative_component = Option(flag)
    component_norm = Option(optional(integer(1)))
    hidden_size_extension = Option(extension)
    hidden_layers = Option(integer(1))
    learnable_component = Option(flag, lambda model, value: model.load_components(model.vanilla_components, value))
    select_prob_threshld = Option(number(above=0.0, maximum=1.0))
    temperature_train = Option(number(above=0.0))
    temperature_eval = Option(number(above=0.0))
    langevin_step_size = Option(number(above=0.0), _to_gates("langevin_step_size"))
    langevin_noise = Option(number(minimum=0.0), _to_gates("langevin_noise"))
    langevin_steps = Option(integer(0), _to_gates("langevin_steps"))

    def __init__(
        self,
        num_components: int,
        dim_components: int,
        sparse_component: bool = True,
        non_negative_component: bool = True,
        learnable_component: bool = True,
        component_norm: int | None = None,
        hidden_size_extension: int | None = None,
        hidden_layers: int = 1,
        component_post_processing: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008
        aggregate_function: Callable[[Tensor, Tensor], Tensor] = default_aggreate_function,
        temperature_train: float = 1.0,
        temperature_eval: float = 0.001,
        select_prob_threshld: float = 0.99994,
        langevin_step_size: float = 0.05,
        langevin_noise: float = 0.1,
        langevin_steps: int = 32,
    ) -> None:
        super().__init__()
        self.num_components = num_components
        self.dim_components = dim_components
        self.sparse_component = sparse_component
        self.non_negative_component = non_negative_component
        self.component_norm = component_norm
        self.hidden_size_extension = hidden_size_extension
        self.hidden_layers = hidden_layers
        self.temperature_train = temperature_train
        self.temperature_eval = temperature_eval
        self.select_prob_threshld = select_prob_threshld

        n, d, r = self.num_components, self.dim_components, self.hidden_size_extension
        # Drawn twice, like everything below, so that a seed gives the published parameters.
        initial = torch.randn(n, d).normal_(mean=0.0, std=0.1)
        self.vanilla_components = nn.Parameter(initial.abs() if non_negative_component else initial)
        self.learnable_component = learnable_component
        self.component_sparsity = FixedEBSelectiveModule(n * d, (n, d), tau=self.tau)
        self.component_parser = DynamicEBSelectiveModule(
            d, n, energy_hidden_extension=r, energy_hidden_layers=hidden_layers, tau=self.tau
        )
        self.concentration_regressor = network(d, None if r is None else n * r, hidden_layers, n, nn.ReLU)
        self.component_post_processing = function("component_post_processing", component_post_processing)
        self.aggregate_function = function("aggregate_function", aggregate_function)
        self.langevin_step_size = langevin_step_size
        self.langevin_noise = langevin_noise
        self.langevin_steps = langevin_steps

    @property
    def tau(self) -> float:
        """Temperature of the present mode."""
        return self.temperature_train if self.training else self.temperature_eval

    @property
    def param_dict(self) -> dict[str, Any]:
        """What `param.json` holds."""
        names = (
            "num_components", "dim_components", "sparse_component", "non_negative_component", "component_norm",
            "hidden_size_extension", "hidden_layers", "learnable_component", "temperature_train", "temperature_eval",
            "langevin_step_size", "langevin_noise", "langevin_steps",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def _spectra(self, rows: Tensor | None = None) -> Tensor:
        """Components (N, d), or some of them, non-negative and normalized; always a tensor of its own."""
        raw = self.vanilla_components if rows is None else self.vanilla_components[rows]
        spectra = raw.abs() if self.non_negative_component else raw.clone()
        if self.component_norm is not None:
            length = torch.linalg.vector_norm(spectra, ord=self.component_norm, dim=1, keepdim=True)
            spectra = spectra / torch.where(length > 0, length, 1.0)
        return spectra

    def components(self, indices: int | Sequence[int] | Tensor | None = None) -> Tensor:
        """Components (N, d), non-negative, normalized and post-processed.

        Parameters
        ----------
        indices : Tensor, int or sequence of int, optional
            A tensor picks rows. As published, a sequence is used as an index of the matrix: (i,) is row i, (i, j) the
            single entry; longer ones, which have no such meaning, pick rows.
        """
        if isinstance(indices, Tensor) and indices.dim() == 1 and len(indices) > 0:
            return self.component_post_processing(self._spectra(indices))
        spectra = self._spectra()
        if indices is not None:
            index = [indices] if isinstance(indices, int) else indices
            if len(index) == 0:
                raise InvalidValueError("`indices` must name at least one component; got none.")
            if isinstance(index, Tensor):
                spectra = spectra[index]
            else:
                spectra = spectra[tuple(index)] if len(index) <= 2 else spectra[list(index)]
        return self.component_post_processing(spectra)

    def load_components(self, components: Tensor, learnable: bool | None = None) -> None:
        """Take these component parameters (N, d), in a copy. As published, `learnable` does not keep them fixed."""
        if tuple(components.shape) != (self.num_components, self.dim_components):
            raise InvalidValueError(
                f"`components` must be of shape {(self.num_components, self.dim_components)}; "
                f"got {tuple(components.shape)}."
            )
        if learnable is not None:
            flag("learnable", learnable)
        self.vanilla_components = nn.Parameter(components.detach().clone())

    def parse_pattern(self, pattern: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Everything a mixture is made of, before selection.

        Parameters
        ----------
        pattern : Tensor, shape (B, d)

        Returns
        -------
        concentration : Tensor, shape (B, N, 1)
        components : Tensor, shape (B, N, d)
            In the sparse form times its gates; lazy.
        effective_indices : Tensor, shape (B, N)
            Gates.
        sparsity_energy : Tensor, shape (B, N, d, 2), lazy; a zero in the dense form
        select_energy : Tensor, shape (B, N, 2)
        """
        batch_size = pattern.shape[0]
        if pattern.shape[-1] != self.dim_components:
            raise InvalidValueError(
                f"`pattern` must have {self.dim_components} bands; got shape {tuple(pattern.shape)}."
            )
        spectra = self._spectra()
        if not isinstance(self.component_post_processing, nn.Identity):
            self.component_post_processing(spectra)
        components: Tensor = LazyTensor(GatedComponents(spectra, batch_size))
        sparsity_energy: Tensor = torch.tensor(0.0, device=pattern.device)
        if self.sparse_component:
            self.component_sparsity.tau = self.tau
            lazy = getattr(self.component_sparsity, "lazy", lambda size: None)(batch_size)
            if lazy is None:
                sparsity, sparsity_energy = self.component_sparsity(batch_size=batch_size)
                components = spectra * sparsity
            else:
                components = LazyTensor(GatedComponents(spectra, batch_size, lazy))
                sparsity_energy = LazyTensor(RefinedEnergies(lazy))

        self.component_parser.tau = self.tau
        effective_indices, select_energy = self.component_parser(pattern)
        return self._regress(pattern).unsqueeze(-1), components, effective_indices, sparsity_energy, select_energy

    def _regress(self, pattern: Tensor) -> Tensor:
        layers = plain_layers(self.concentration_regressor, nn.ReLU) if pattern.dim() == 2 else None
        if layers is None:
            return torch.abs(self.concentration_regressor(pattern))
        hidden = pattern
        for layer in layers[:-1]:
            hidden = skinny_linear(hidden, layer.weight, layer.bias, "relu")
        return skinny_linear(hidden, layers[-1].weight, layers[-1].bias, "abs")

    def forward(self, pattern: Tensor, select_prob_threshld: float | None = None) -> dict[str, Tensor]:
        """Reconstruct spectra (B, d).

        Parameters
        ----------
        pattern : Tensor, shape (B, d)
        select_prob_threshld : float, optional
            Replaces the model's own: in evaluation, gates above it are 1, others 0.

        Returns
        -------
        dict of Tensor
            synthesized_pattern (B, d); concentration (B, N, 1) and components (B, N, d), both gated, the latter
            lazy; effective_indices (B, N), the gates; sparsity_energy, a zero in the dense form and else (B, N, d, 2),
            lazy; select_energy (B, N, 2).
        """
        threshold = self.select_prob_threshld if select_prob_threshld is None else select_prob_threshld
        concentration, components, gates, sparsity_energy, select_energy = self.parse_pattern(pattern)
        if not self.training:
            gates = (gates > threshold).float()
        gated_concentration = concentration * gates.unsqueeze(-1)
        gated_components = components * gates.unsqueeze(-1)
        recipe = components.recipe if isinstance(components, LazyTensor) else None
        linear = any(self.aggregate_function is known for known in LINEAR_AGGREGATES)
        if isinstance(recipe, GatedComponents) and linear:
            mixture = recipe.mixture(concentration.squeeze(-1), gates)
        else:
            if isinstance(gated_components, LazyTensor):
                gated_components = gated_components.materialize()
            mixture = self.aggregate_function(gated_concentration, gated_components)
        return {
            "synthesized_pattern": mixture,
            "concentration": gated_concentration,
            "components": gated_components,
            "effective_indices": gates,
            "sparsity_energy": sparsity_energy,
            "select_energy": select_energy,
        }

    def from_pretrained(
        self: _Self, path: str, param_filename: str = "param.json", model_filename: str = "model.safetensors"
    ) -> _Self:
        """Become the model in a folder; thresholds and plug-ins, which files do not hold, get their defaults."""
        if not os.path.isdir(path):
            raise OSError(f"{path} is not a directory.")
        param_filename, model_filename = _file_names(param_filename, model_filename)
        self.__init__(**load_json(os.path.join(path, param_filename)))  # type: ignore[misc]
        self.load_state_dict(load_safetensors(os.path.join(path, model_filename)))
        return self

    def save_pretrained(
        self, path: str, param_filename: str = "param.json", model_filename: str = "model.safetensors"
    ) -> None:
        """Write the model into a folder; it stays on its device."""
        param_filename, model_filename = _file_names(param_filename, model_filename)
        save_as_json(self.param_dict, os.path.join(path, param_filename))
        save_as_safetensors(self.state_dict(), os.path.join(path, model_filename))


def _file_names(param_filename: str, model_filename: str) -> tuple[str, str]:
    if not param_filename.endswith(".json"):
        param_filename += ".json"
    if not model_filename.endswith(".safetensors"):
        model_filename += ".safetensors"
    return param_filename, model_filename
