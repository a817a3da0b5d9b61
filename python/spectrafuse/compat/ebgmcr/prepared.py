"""When a solver trains on the prepared kernel calls of the package's own trainer, and how it is read by them."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn, optim

from spectrafuse.compat.ebgmcr import core, mcr
from spectrafuse.compat.ebgmcr.checks import plain_layers
from spectrafuse.compat.ebgmcr.options import PENALTIES
from spectrafuse.mcr.model import linear_layers
from spectrafuse.mcr.recipes import Recipe, published
from spectrafuse.mcr.training.cpu_epoch import why_not
from spectrafuse.mcr.training.optimizer import OuterAdamW
from spectrafuse.ops.ambiguity_penalty import MATERN_ORDERS
from spectrafuse.ops.gate import Langevin

__all__ = ["TAKEN_OVER", "PublishedNoise", "SolverModel", "own_optimizer", "recipe_of", "why_autograd"]

TAKEN_OVER: dict[type, tuple[str, ...]] = {
    core.LangevinRefinedEnergyModule: ("forward", "options"),
    core.EBSelectiveModule: ("forward", "_select", "_refinement"),
    core.FixedEBSelectiveModule: ("forward", "lazy"),
    core.DynamicEBSelectiveModule: ("forward",),
    mcr.EBSelectiveMCR: ("forward", "parse_pattern", "_spectra", "_regress"),
}
"""What a module computes with, by class; `spectrafuse.patch` gives it to the published classes of the same names."""

_HARMLESS = {"extra_repr", "from_pretrained", "load_components", "param_dict", "save_pretrained"}
_OPTIMIZER_ARGUMENTS = {"lr", "betas", "eps", "weight_decay"}


class SolverModel:
    """One of a solver's modules as an epoch reads a model (`spectrafuse.mcr.training.cpu_epoch.EpochModel`)."""

    aggregate_function: Any = None
    component_post_processing: Any = None
    learnable_component = True  # as published, whatever the module's attribute says

    def __init__(self, module: Any) -> None:
        self._module = module
        self.pool_size = module.num_components

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    @property
    def select_threshold(self) -> float:
        """Of evaluation."""
        return self._module.select_prob_threshld

    @property
    def langevin(self) -> Langevin:
        """Refinement of both gates."""
        return _refinement(self._module.component_parser)


class PublishedNoise:
    """Noise from torch's global generator, in the published order.

    Parameters
    ----------
    module : EBSelectiveMCR
    training : bool
        Whether steps take it; otherwise evaluations do.
    """

    of_both_classes = True

    def __init__(self, module: Any, training: bool) -> None:
        self._training, self._langevin = training, _refinement(module.component_parser)

    def draw(self, langevin: Tensor | None, gumbel: Tensor | None, rng: Tensor | None, langevin_std: float) -> None:
        """As `spectrafuse.mcr.training.cpu_epoch.Noise.draw`."""
        assert gumbel is not None
        if rng is not None:
            source = core.draw_sparsity_source((), rng, None)
            assert isinstance(source, Tensor)
            rng.copy_(source)
        elif not self._training:
            # The published evaluation runs the model twice and uses the second run.
            gumbel.exponential_()
        core.fill_gate_noise(langevin, gumbel, self._langevin)


def recipe_of(solver: Any) -> Recipe:
    """A solver's options, in the package's own words."""
    return dataclasses.replace(
        published,
        energy_coef=solver.energy_coef,
        ambiguity_coef=solver.ambiguity_coef,
        ambiguity_kernel=solver.ambiguity_penalty,
        poly_degree=solver.poly_dim,
        matern_nu=solver.matern_nu,
        used_threshold=solver.ambiguity_prob_threshold,
    )


def own_optimizer(solver: Any, parameters: list[nn.Parameter]) -> OuterAdamW:
    """The solver's AdamW, as the prepared calls need it."""
    return OuterAdamW(parameters, **{"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-2, **solver.optimizer_args})


def why_autograd(solver: Any) -> str | None:
    """Why `fit` trains a solver through autograd, which takes several times as long on a CPU.

    Parameters
    ----------
    solver : DenseEBgMCR
        Ours, or the published package's under `spectrafuse.patch`. Before its first `fit` it has no modules yet, of
        which nothing can be said then.

    Returns
    -------
    str or None
        A sentence; None: it trains on the prepared kernel calls of the package's own trainer.
    """
    return _of_solver(solver) or _of_kernels(solver) or next(filter(None, map(_of_module, solver.stored_mcrs)), None)


def _of_solver(solver: Any) -> str | None:
    kind, arguments = solver.optimizer_class, solver.optimizer_args
    if len(solver.num_components) != 1:
        return f"Only a single module is trained so; the solver has {len(solver.num_components)}."
    if kind is not optim.AdamW:
        return f"The optimizer must be torch.optim.AdamW; got {kind.__name__}."
    numbers = all(isinstance(value, (int, float, tuple)) for value in arguments.values())
    if arguments.keys() - _OPTIMIZER_ARGUMENTS or not numbers:
        return (
            f"`optimizer_args` may hold numbers for {', '.join(sorted(_OPTIMIZER_ARGUMENTS))}; "
            f"got {', '.join(sorted(arguments))}."
        )
    if solver.ambiguity_penalty_func is not PENALTIES[solver.ambiguity_penalty]:
        return "`ambiguity_penalty_func` is a function of the caller's."
    if solver.ambiguity_penalty == "matern" and solver.matern_nu not in MATERN_ORDERS:
        return f"The kernels know the Matern orders {', '.join(map(str, MATERN_ORDERS))}; got {solver.matern_nu:g}."
    if solver.ambiguity_coef == 0:
        return "`ambiguity_coef` is 0, and the similarity of the components is reported all the same."
    if max(solver.ambiguity_prob_threshold, solver.select_prob_threshld) >= 1:
        return "`ambiguity_prob_threshold` and `select_prob_threshld` must be below 1."
    return None


def _of_module(module: Any) -> str | None:
    parts = (
        (module, mcr.EBSelectiveMCR),
        (module.component_parser, core.DynamicEBSelectiveModule),
        (module.component_sparsity, core.FixedEBSelectiveModule),
        (module.component_parser.langevin_dynamics, core.LangevinRefinedEnergyModule),
        (module.component_sparsity.langevin_dynamics, core.LangevinRefinedEnergyModule),
    )
    for part, kind in parts:
        replaced = _replaced(part, kind)
        if replaced is not None:
            return f"{type(part).__name__} has its own {replaced}."
    if not any(module.aggregate_function is known for known in mcr.LINEAR_AGGREGATES):
        return "`aggregate_function` is a function of the caller's."
    if type(module.component_post_processing) is not nn.Identity:
        return "`component_post_processing` is a function of the caller's."
    networks = (module.component_parser.energy_evaluator, nn.Tanh), (module.concentration_regressor, nn.ReLU)
    if any(plain_layers(network, activation) is None for network, activation in networks):
        return "A network is not made of plain linear layers, has hooks, or runs under autocast."
    if module.sparse_component and _refinement(module.component_parser) != _refinement(module.component_sparsity):
        return "The two kinds of gates are refined differently."
    layers = [layer for network, _ in networks for layer in linear_layers(network)]
    own = [*(p for layer in layers for p in (layer.weight, layer.bias)), module.vanilla_components]
    own.append(module.component_sparsity.energy)
    if sorted(map(id, own)) != sorted(map(id, module.parameters())):
        return "A module has parameters of the caller's, or shares some."
    if not all(p.requires_grad or (p is own[-1] and not module.sparse_component) for p in own):
        return "A parameter does not train."
    if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in own):
        return "A hook on a parameter has to be called."
    if len({p.dtype for p in own}) > 1 or not all(p.is_contiguous() for p in own):
        return "The parameters are of several types, or not contiguous."
    return None


def _of_kernels(solver: Any) -> str | None:
    recipe = recipe_of(solver)
    reasons = (why_not(SolverModel(module), recipe, solver.mini_batch_size) for module in solver.stored_mcrs)
    return next(filter(None, reasons), None)


def _replaced(part: Any, kind: type) -> str | None:
    """What a subclass or an instance puts in the place of the class's own; None: nothing that training uses."""
    base = next((c for c in type(part).__mro__ if _computes(c, kind)), None)
    if base is None:
        return "forward"
    before = type(part).__mro__[: type(part).__mro__.index(base)]
    names = [name for c in before for name in vars(c) if not name.startswith("__") or name == "__call__"]
    names += [name for name in vars(part) if callable(vars(part)[name])]
    return next((name for name in names if hasattr(base, name) and name not in _HARMLESS), None)


def _computes(candidate: type, kind: type) -> bool:
    """Whether a class is `kind`, or a published one that `spectrafuse.patch` lets compute like it."""
    return all(vars(candidate).get(name) is vars(kind)[name] for name in TAKEN_OVER[kind])


def _refinement(selection: Any) -> Langevin:
    dynamics = selection.langevin_dynamics
    return Langevin(dynamics.step_size, dynamics.noise_scale, dynamics.num_steps)
