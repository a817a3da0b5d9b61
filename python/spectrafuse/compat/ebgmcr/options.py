"""Options of the published package's solvers, under their published names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError
from spectrafuse.compat.ebgmcr.ambiguity_penalty import (
    laplacian_penalty,
    linear_penalty,
    matern_penalty,
    polynomial_penalty,
    rbf_penalty,
)
from spectrafuse.compat.ebgmcr.checks import Option, extension, flag, integer, number, optional, whole_number

PENALTIES: dict[str, Callable[..., Tensor]] = {
    "linear": linear_penalty,
    "poly": polynomial_penalty,
    "laplacian": laplacian_penalty,
    "rbf": rbf_penalty,
    "matern": matern_penalty,
}


def _penalty(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidTypeError(f"`{name}` must be a name; got {type(value).__name__}.")
    return checks.choice(name, value.lower(), PENALTIES)


def _criterion(name: str, value: Any) -> str:
    return checks.choice(name, value, ("nMSE", "R2"))


def _optimizer_class(name: str, value: Any) -> type[optim.Optimizer]:
    if not isinstance(value, type) or not issubclass(value, optim.Optimizer):
        raise InvalidTypeError(f"`{name}` must be a class of optimizers; got {value!r}.")
    return value


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidTypeError(f"`{name}` must be a dict; got {type(value).__name__}.")
    return value


def _device(name: str, value: Any) -> torch.device:
    if not isinstance(value, (str, torch.device)):
        raise InvalidTypeError(f"`{name}` must be a device or its name; got {value!r}.")
    return torch.device(value)


def _to_modules(name: str) -> Callable[[Any, Any], None]:
    """Pass an option on to the modules the solver holds."""

    def tell(solver: Any, value: Any) -> None:
        if value is not None:
            for module in solver.stored_mcrs:
                setattr(module, name, value)

    return tell


class SolverOptions:
    """Options of a solver, checked when they are set; those of the modules are passed on to the modules.

    Attributes
    ----------
    stored_mcrs : nn.ModuleList
        The modules; empty until `fit`, `insert_mcr` or `load_mcrs`.
    """

    dim_components = Option(optional(integer(1)), _to_modules("dim_components"))
    sparse_component = Option(flag, _to_modules("sparse_component"))
    non_negative_component = Option(flag, _to_modules("non_negative_component"))
    component_norm = Option(optional(integer(1)))
    hidden_size_extension = Option(extension)
    hidden_layers = Option(integer(1))
    langevin_step_size = Option(number(above=0.0), _to_modules("langevin_step_size"))
    langevin_noise = Option(number(minimum=0.0), _to_modules("langevin_noise"))
    langevin_steps = Option(integer(0), _to_modules("langevin_steps"))
    optimizer_class = Option(_optimizer_class)
    optimizer_args = Option(_mapping)
    checkpoint_criterion = Option(optional(_criterion))
    checkpoint_threshold = Option(number(minimum=0.0, maximum=1.0))
    checkpoint_interval = Option(number(above=0.0, maximum=1.0))
    mini_batch_size = Option(integer(1))
    max_epoch = Option(whole_number)
    tol_pattern_nmse = Option(number(minimum=0.0, maximum=1.0))
    tol_energy_ratio = Option(number(minimum=0.0, maximum=1.0))
    select_prob_threshld = Option(number(above=0.0, maximum=1.0))
    min_component_coef = Option(number(minimum=0.0))
    ambiguity_coef = Option(number(minimum=0.0))
    energy_coef = Option(number(minimum=0.0))
    ambiguity_prob_threshold = Option(number(above=0.0, maximum=1.0))
    poly_dim = Option(integer(1))
    matern_nu = Option(number())
    temperature_drop_epochs = Option(whole_number)
    temperature_eval = Option(number(above=0.0), _to_modules("temperature_eval"))

    def __init__(
        self,
        num_components: int | Sequence[int],
        dim_components: int | None = None,
        sparse_component: bool = False,
        non_negative_component: bool = True,
        component_norm: int | None = 2,
        hidden_size_extension: int | None = 2,
        hidden_layers: int = 2,
        optimizer_class: type[optim.Optimizer] = optim.AdamW,
        optimizer_args: dict[str, Any] = {"lr": 5e-4, "betas": (0.9, 0.995), "weight_decay": 1e-3},  # noqa: B006
        checkpoint_criterion: str | None = "R2",
        checkpoint_threshold: float = 0.97,
        checkpoint_interval: float = 0.005,
        device: str | torch.device = torch.device("cpu"),  # noqa: B008
        mini_batch_size: int = 64,
        max_epoch: int = -1,
        tol_pattern_nmse: float = 0.01,
        tol_energy_ratio: float = 0.25,
        select_prob_threshld: float = 0.9999994,
        min_component_coef: float = 1.0,
        ambiguity_coef: float = 1e-10,
        energy_coef: float = 1e-10,
        ambiguity_penalty: str = "rbf",
        ambiguity_prob_threshold: float = 0.5,
        poly_dim: int = 2,
        matern_nu: float = 1.5,
        temperature_max: float = 1.0,
        temperature_min: float = 0.4,
        temperature_drop_value: float = 0.01,
        temperature_drop_epochs: int = 100,
        temperature_eval: float = 0.01,
        langevin_step_size: float = 0.05,
        langevin_noise: float = 0.1,
        langevin_steps: int = 32,
    ) -> None:
        given = dict(locals())
        self.stored_mcrs = nn.ModuleList()
        self.optimizer: optim.Optimizer | None = None
        self._temperature_max: float | None = None
        self._temperature_min: float | None = None
        for name, value in given.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    @property
    def num_components(self) -> Sequence[int]:
        """Pool size of each module."""
        if len(self.stored_mcrs) > 0:
            return [module.num_components for module in self.stored_mcrs]  # type: ignore[misc]
        return self._num_components

    @num_components.setter
    def num_components(self, value: int | Sequence[int]) -> None:
        if len(self.stored_mcrs) > 0:
            raise RuntimeError(
                f"Please directly set num_components in target MCR module in {type(self).__name__}.stored_mcrs"
            )
        sizes = (value,) if isinstance(value, int) else tuple(value)
        self._num_components = tuple(checks.integer("num_components", size) for size in sizes)

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        return self._device

    @device.setter
    def device(self, value: str | torch.device) -> None:
        self._device = _device("device", value)
        self.stored_mcrs = self.stored_mcrs.to(self._device)

    @property
    def ambiguity_penalty(self) -> str:
        """Name of the penalty; `ambiguity_penalty_func` is the function."""
        return self._ambiguity_penalty

    @ambiguity_penalty.setter
    def ambiguity_penalty(self, value: str) -> None:
        self._ambiguity_penalty = _penalty("ambiguity_penalty", value)
        self.ambiguity_penalty_func = PENALTIES[self._ambiguity_penalty]

    @property
    def temperature_max(self) -> Any:
        return self._temperature_max

    @temperature_max.setter
    def temperature_max(self, value: float) -> None:
        lowest = self._temperature_min
        checks.number("temperature_max", value, above=0.0, minimum=lowest)
        self._temperature_max = value

    @property
    def temperature_min(self) -> Any:
        return self._temperature_min

    @temperature_min.setter
    def temperature_min(self, value: float) -> None:
        checks.number("temperature_min", value, above=0.0, maximum=self._temperature_max)
        self._temperature_min = value

    @property
    def temperature_drop_value(self) -> float:
        return self._temperature_drop_value

    @temperature_drop_value.setter
    def temperature_drop_value(self, value: float) -> None:
        self._temperature_drop_value = checks.number("temperature_drop_value", value, above=0.0)
