"""What distinguishes the published solver from the corrected one, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spectrafuse._runtime import checks
from spectrafuse._runtime.errors import InvalidTypeError


@dataclass(frozen=True)
class Recipe:
    """Every setting of a fit that is not about the data. Derive your own with `dataclasses.replace`.

    Attributes
    ----------
    name : str
        What saved models and messages call it.
    hidden_size_extension : int or None
        r: hidden width 2 N r of the energy evaluator and N r of the regressor; None: one linear layer each.
    hidden_layers : int
        Hidden layers of both networks, at least 1.
    temperature_eval : float
        Gate temperature in evaluation.
    select_threshold : float
        A component is selected in evaluation if its gate exceeds it.
    langevin_step_size, langevin_noise, langevin_steps : float, float, int
        Refinement of energies in training; 0 steps: none.
    langevin_options_apply : bool
        False: the gates take 0.05, 0.1 and 32 whatever the options say, as published.
    betas, weight_decay : tuple of float, float
        AdamW.
    temperature_max, temperature_min, temperature_drop, temperature_drop_epochs : float, float, float, int
        Gate temperature in training: down from max by drop every so many epochs; 0 epochs: constant.
    energy_coef, ambiguity_coef : float
        Weights of mean(r^2) and of the pair penalty of the used components.
    ambiguity_kernel : {"linear", "poly", "laplacian", "rbf", "matern"}
    poly_degree : int
        Power p of "poly".
    matern_nu : {0.5, 1.5, 2.5, 3.5}
    published_matern : bool
        True: the published coefficient of nu = 3.5.
    used_threshold : float
        A component counts as used in a training batch if a gate exceeds it.
    sparsity_ratio : float
        Weight of the sparsity term relative to the error.
    sparsity_growth : float
        Factor by which that ratio rises after every epoch below the margin and falls after one above; 1: constant.
    sparsity_usage : {"mean_energy", "count"}
        What the sparsity rule divides by: the published solver passes the mean energy, the rule means the count.
    sparsity_margin : float or None
        nMSE below which pressure is allowed; None: `noise_factor` times the noise.
    noise_factor : float
        A state fits to the noise level if its nMSE is at most this multiple of the noise's share of the signal.
    noise_floor : float
        Smallest nMSE that counts as a noise level: nothing fits exactly.
    noisy_evaluation : bool
        True: evaluation draws gate noise, as published.
    evaluation_batch : int or None
        Samples evaluated at a time; None: the training batch size.
    checkpoint_criterion : {"R2", "nMSE"}
    checkpoint_threshold, checkpoint_interval : float
        Where bands of fit begin and how wide they are.
    adaptive_bands : bool
        True: ten R2 bands that begin lower than `checkpoint_threshold` where the noise asks for it.
    choose : {"fewest", "last"}
        The state a fit ends with: the fewest components among those that fit to the noise level, or the last.
    stop : {"energy", "patience"}
        The published stop rule (nMSE 0.01 left again and energy fallen), or no improvement.
    stop_nmse, stop_energy_ratio, stop_window : float, float, int
        Of the published rule.
    patience, fit_patience : int
        Epochs without fewer components at the noise level; epochs without a better fit before it is reached.
    max_epoch : int or None
        Epochs at most; None: no limit.
    compact_epochs : int or None
        Components that no spectrum has selected in so many epochs leave the pool, which is quicker and can change what
        training finds; they keep their numbers, and sums are still divided by the whole pool. None: none leaves.
    start : {"spectra", "training"}
        Where a refined mixture comes from: from spectra that are the least like mixtures of others, without any
        training; or from what the networks learned. Plug-ins need the networks, whatever is said here.
    refine : bool
        True: a mixture is refined on hard gates, which settles the number of components. Needed without training.
    unit_scale : bool
        True: spectra are divided by a power of two near their root mean square, and the networks' weights absorb it
        afterwards, so that a measurement's unit does not matter.

    Notes
    -----
    arXiv 2507.23600 and its public code; sparse form arXiv 2510.20364. `docs/algorithms/ebgmcr.md`, "Training" and
    "Published defects", has both recipes side by side.
    """

    name: str
    hidden_size_extension: int | None = 2
    hidden_layers: int = 2
    temperature_eval: float = 0.01
    select_threshold: float = 0.9999994
    langevin_step_size: float = 0.05
    langevin_noise: float = 0.1
    langevin_steps: int = 32
    langevin_options_apply: bool = True
    betas: tuple[float, float] = (0.9, 0.995)
    weight_decay: float = 1e-3
    temperature_max: float = 1.0
    temperature_min: float = 0.4
    temperature_drop: float = 0.01
    temperature_drop_epochs: int = 100
    energy_coef: float = 1e-10
    ambiguity_coef: float = 1e-10
    ambiguity_kernel: str = "rbf"
    poly_degree: int = 2
    matern_nu: float = 1.5
    published_matern: bool = False
    used_threshold: float = 0.5
    sparsity_ratio: float = 10.0
    sparsity_growth: float = 1.01
    sparsity_usage: str = "count"
    sparsity_margin: float | None = None
    noise_factor: float = 1.5
    noise_floor: float = 1e-3
    noisy_evaluation: bool = False
    evaluation_batch: int | None = 256
    checkpoint_criterion: str = "R2"
    checkpoint_threshold: float = 0.95
    checkpoint_interval: float = 0.005
    adaptive_bands: bool = True
    choose: str = "fewest"
    stop: str = "patience"
    stop_nmse: float = 0.01
    stop_energy_ratio: float = 0.25
    stop_window: int = 100
    patience: int = 300
    fit_patience: int = 500
    max_epoch: int | None = 1500
    compact_epochs: int | None = None
    start: str = "spectra"
    refine: bool = True
    unit_scale: bool = True

    def __post_init__(self) -> None:
        checks.choice("sparsity_usage", self.sparsity_usage, ("mean_energy", "count"))
        checks.choice("checkpoint_criterion", self.checkpoint_criterion, ("R2", "nMSE"))
        checks.choice("choose", self.choose, ("fewest", "last"))
        checks.choice("stop", self.stop, ("energy", "patience"))
        checks.choice("start", self.start, ("spectra", "training"))
        kernels = ("linear", "poly", "laplacian", "rbf", "matern")
        checks.choice("ambiguity_kernel", self.ambiguity_kernel, kernels)

    def penalty_options(self) -> dict[str, Any]:
        """Keyword arguments of `spectrafuse.ops.ambiguity_penalty`."""
        return {
            "kernel": self.ambiguity_kernel,
            "power": self.poly_degree,
            "nu": self.matern_nu,
            "published_coefficients": self.published_matern,
        }


published = Recipe(
    name="published",
    langevin_options_apply=False,
    published_matern=True,
    sparsity_ratio=1.0,
    sparsity_growth=1.0,
    sparsity_usage="mean_energy",
    sparsity_margin=0.005,
    noisy_evaluation=True,
    evaluation_batch=None,
    checkpoint_threshold=0.97,
    adaptive_bands=False,
    choose="last",
    stop="energy",
    max_epoch=None,
    start="training",
    refine=False,
    unit_scale=False,
)
"""As the paper's code. Its stop rule need never stop a fit: give `max_epoch`."""

corrected = Recipe(name="corrected")
"""Candidates are chosen among the spectra and refined on hard gates; no network is trained."""

trained = Recipe(name="trained", start="training")
"""The networks are trained, with the options doing what they say, deterministic evaluation and a pressure that follows
the noise level; what they end with is refined on hard gates."""

RECIPES = {"published": published, "corrected": corrected, "trained": trained}


def resolve(recipe: str | Recipe) -> Recipe:
    """A recipe from its name, or itself."""
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str):
        raise InvalidTypeError(f"`recipe` must be a name or a Recipe; got {type(recipe).__name__}.")
    return RECIPES[checks.choice("recipe", recipe, RECIPES)]
