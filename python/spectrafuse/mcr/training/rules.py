"""The rules that steer a training run: sparsity pressure, temperature, stopping, bands of fit.

All of them work on plain numbers, once an epoch, and can be saved and restored (`state`, `load_state`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from spectrafuse._runtime import checks
from spectrafuse.mcr.recipes import Recipe


class SparsityRule:
    """Weight of the sparsity term of the loss: a smoothed target that follows the error.

    The target is `mse * ratio / (usage / pool_size)` while the fit is below `margin`, and 0 above it: pressure on the
    number of components is allowed only when the spectra are fitted. It starts at 0 and serves the next epoch.

    Parameters
    ----------
    pool_size : int
        Number of candidate components N.
    ratio : float
        How much the sparsity term may weigh relative to the error.
    margin : float
        nMSE below which pressure is allowed.
    smoothing : float
        Share of the old weight in the new one, in [0, 1].
    growth : float
        Factor, at least 1, by which `ratio` rises after an epoch below `margin` and falls back, down to its first
        value, after one above: the fit becomes a constraint instead of one side of a trade. 1, as published: constant.

    Notes
    -----
    `docs/algorithms/ebgmcr.md`, "Training", from the public code of arXiv 2507.23600. What `usage` is, its recipes
    decide: the rule is meant for the number of used components; the published solver passes the mean energy.
    """

    def __init__(
        self,
        pool_size: int,
        *,
        ratio: float = 1.0,
        margin: float = 0.005,
        smoothing: float = 0.95,
        growth: float = 1.0,
    ) -> None:
        self.pool_size = checks.integer("pool_size", pool_size)
        self.ratio = checks.number("ratio", ratio, minimum=0.0)
        self.margin = checks.number("margin", margin, minimum=0.0)
        self.smoothing = checks.number("smoothing", smoothing, minimum=0.0, maximum=1.0)
        self.growth = checks.number("growth", growth, minimum=1.0)
        self.weight = 0.0
        self._factor = 1.0

    def step(self, nmse: float, mse: float, usage: float) -> float:
        """The weight for the next epoch, from this epoch's fit."""
        allowed = nmse < self.margin and usage != 0
        target = max(0.0, mse * self.ratio * self._factor / (usage / self.pool_size)) if allowed else 0.0
        self._factor = max(1.0, self._factor * self.growth if nmse < self.margin else self._factor / self.growth)
        self.weight = self.smoothing * self.weight + (1.0 - self.smoothing) * target
        return self.weight

    def state(self) -> dict[str, Any]:
        """As plain values, for `load_state`."""
        return {"weight": self.weight, "factor": self._factor}

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state` gave."""
        self.weight = float(state["weight"])
        self._factor = float(state["factor"])


class EnergyStopRule:
    """The published stop rule: the fit was good, was lost again under pressure, and the energy has dropped.

    Parameters
    ----------
    nmse : float
        Level that counts as a good fit.
    energy_ratio : float
        The mean energy must fall to this share of its mean over the epochs up to the first good one.
    window : int
        Number of epochs whose mean nMSE must rise above `nmse` once.

    Notes
    -----
    `docs/algorithms/ebgmcr.md`, "Training", from the public code of arXiv 2507.23600. It need never stop a run.
    """

    def __init__(self, *, nmse: float = 0.01, energy_ratio: float = 0.25, window: int = 100) -> None:
        self.nmse = checks.number("nmse", nmse, minimum=0.0, maximum=1.0)
        self.energy_ratio = checks.number("energy_ratio", energy_ratio, minimum=0.0, maximum=1.0)
        self.window: deque[float] = deque(maxlen=checks.integer("window", window))
        self._energy_total = 0.0
        self._energy_epochs = 0
        self._reached = False
        self._left = False

    def step(self, nmse: float, mean_energy: float, count: int) -> str | None:
        """Why to stop after this epoch, in a sentence; None to go on."""
        if self._reached:
            self.window.append(nmse)
        else:
            self._energy_total += mean_energy
            self._energy_epochs += 1
            self._reached = nmse < self.nmse
        full = len(self.window) == self.window.maxlen
        if full and sum(self.window) / len(self.window) > self.nmse:
            self._left = True
        start = self._energy_total / self._energy_epochs
        if self._reached and self._left and mean_energy <= start * self.energy_ratio:
            return (
                f"The fit had reached an nMSE below {self.nmse:g}, left it again under the sparsity pressure, and the "
                f"mean energy fell from {start:.3g} to {mean_energy:.3g}, at most {self.energy_ratio:g} of it."
            )
        return None

    def state(self) -> dict[str, Any]:
        """As plain values, for `load_state`."""
        return {
            "window": list(self.window),
            "energy_total": self._energy_total,
            "energy_epochs": self._energy_epochs,
            "reached": self._reached,
            "left": self._left,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state` gave."""
        self.window.clear()
        self.window.extend(state["window"])
        self._energy_total = state["energy_total"]
        self._energy_epochs = state["energy_epochs"]
        self._reached = state["reached"]
        self._left = state["left"]


class PatienceStopRule:
    """Stop when nothing improves any more: first the fit, then, at the accepted fit, the number of components.

    Parameters
    ----------
    accept : float
        nMSE at which a state fits to the noise level.
    patience : int
        Epochs without a lower count, once a state fits.
    fit_patience : int
        Epochs without an nMSE lower by a hundredth, as long as no state fits.

    Notes
    -----
    `docs/algorithms/ebgmcr.md`, "Training", column `corrected`.
    """

    def __init__(self, *, accept: float, patience: int = 500, fit_patience: int = 1000) -> None:
        self.accept = checks.number("accept", accept, minimum=0.0)
        self.patience = checks.integer("patience", patience)
        self.fit_patience = checks.integer("fit_patience", fit_patience)
        self._count: int | None = None
        self._best_nmse = float("inf")
        self._since = 0

    def step(self, nmse: float, mean_energy: float, count: int) -> str | None:
        """Why to stop after this epoch, in a sentence; None to go on."""
        self._since += 1
        if nmse <= self.accept and (self._count is None or count < self._count):
            self._count = count
            self._since = 0
        elif self._count is None and nmse < 0.99 * self._best_nmse:
            self._best_nmse = nmse
            self._since = 0
        if self._count is not None and self._since >= self.patience:
            return (
                f"For {self._since} epochs no state with fewer than {self._count} components fitted the spectra to "
                f"the noise level (nMSE of at most {self.accept:.3g})."
            )
        if self._count is None and self._since >= self.fit_patience:
            return (
                f"For {self._since} epochs the fit did not improve on an nMSE of {self._best_nmse:.3g}; the noise "
                f"level (nMSE of at most {self.accept:.3g}) was never reached."
            )
        return None

    def state(self) -> dict[str, Any]:
        """As plain values, for `load_state`."""
        return {"count": self._count, "best_nmse": self._best_nmse, "since": self._since}

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from what `state` gave."""
        self._count = state["count"]
        self._best_nmse = state["best_nmse"]
        self._since = state["since"]


def temperature_at(
    epoch: int, *, highest: float = 1.0, lowest: float = 0.4, drop: float = 0.01, every: int = 100
) -> float:
    """Gate temperature of a training epoch.

    Parameters
    ----------
    epoch : int
        Epochs already done: 0 for the first.
    highest, lowest, drop : float
        It starts at `highest` and falls by `drop` to `lowest`.
    every : int
        Epochs between two drops; 0 or less: never.

    Returns
    -------
    float
        Subtracted one drop at a time, so it has the published code's rounding.

    Notes
    -----
    `docs/algorithms/ebgmcr.md`, "Symbols".
    """
    temperature = highest
    for _ in range(epoch // every if every > 0 else 0):
        temperature -= drop
        if temperature <= lowest:
            return lowest
    return temperature


class Band(NamedTuple):
    """A range of fit in which one state is kept: R2 in [start, end), or nMSE in (end, start]."""

    name: str
    start: float
    end: float


def make_bands(criterion: str, threshold: float, interval: float) -> list[Band]:
    """The bands of fit from `threshold` to a perfect fit.

    Parameters
    ----------
    criterion : {"R2", "nMSE"}
        R2 bands go up to 1, nMSE bands down to 0.
    threshold, interval : float
        Both in (0, 1).

    Returns
    -------
    list of Band
        Named by the accumulated floats, `0.97[->]0.975`, as the published checkpoint folders are.
    """
    checks.choice("criterion", criterion, ("R2", "nMSE"))
    checks.number("threshold", threshold, above=0.0, maximum=1.0)
    checks.number("interval", interval, above=0.0, maximum=1.0)
    step = interval if criterion == "R2" else -interval
    bands = []
    start, end = threshold, threshold + step
    while 0.0 <= end <= 1.0:
        bands.append(Band(f"{start}[->]{end}", start, end))
        start, end = end, end + step
    return bands


def recipe_bands(recipe: Recipe, accept: float, power: float, variation: float) -> list[Band]:
    """A recipe's bands of fit.

    Parameters
    ----------
    recipe : Recipe
    accept : float
        nMSE up to which a state fits to the noise level.
    power, variation : float
        Sum of squares of the spectra, and about their column means.
    """
    threshold, interval = recipe.checkpoint_threshold, recipe.checkpoint_interval
    if recipe.adaptive_bands:
        lowest = 1.0 - accept * power / variation if variation > 0 else 1.0
        if lowest < threshold:
            width = next((width for width in (0.1, 0.2, 0.5) if lowest >= 1.0 - width), 0.9)
            threshold, interval = 1.0 - width, width / 10
    return make_bands(recipe.checkpoint_criterion, threshold, interval)


def band_of(value: float, criterion: str, bands: Sequence[Band]) -> Band | None:
    """The band that `value` falls into, or None."""
    for band in bands:
        inside = band.start <= value < band.end if criterion == "R2" else band.end < value <= band.start
        if inside:
            return band
    return None
