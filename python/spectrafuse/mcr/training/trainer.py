"""Training of an unmixing model: steps, one evaluation an epoch, and the rules between them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse import backends
from spectrafuse._runtime import checks
from spectrafuse._runtime.cuda_graph import StaticStep
from spectrafuse._runtime.progress import Callback, Progress
from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.model_io import State
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.recipes import Recipe
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training import cpu_epoch
from spectrafuse.mcr.training.checkpoint import (
    SMALLEST_SHARE_SAVING,
    Record,
    StateKeeper,
    copy_state,
    load_training,
    rescale,
    save_training,
)
from spectrafuse.mcr.training.compaction import Compaction, Pool
from spectrafuse.mcr.training.gpu_step import step_of
from spectrafuse.mcr.training.interrupt import DeferredInterrupt
from spectrafuse.mcr.training.known_components import HeldRows
from spectrafuse.mcr.training.optimizer import OuterAdamW
from spectrafuse.mcr.training.rules import (
    Band,
    EnergyStopRule,
    PatienceStopRule,
    SparsityRule,
    band_of,
    recipe_bands,
    temperature_at,
)
from spectrafuse.mcr.training.step import StepInputs
from spectrafuse.random import RandomStream

CHOSEN = "chosen"
"""Name of the state a fit ends with, beside the names of the bands."""

_SPARSE_METRIC_THRESHOLD = 1e-3
_HISTORY = ("epoch", "nmse", "r2", "mse", "count", "mean_energy", "loss", "sparsity_weight", "temperature")


def default_batch_size(num_samples: int) -> int:
    """A quarter of the samples below 256, else 64, as the published batch script does."""
    return max(1, num_samples // 4) if num_samples < 256 else 64


def unit_scale(spectra: Tensor) -> float:
    """The power of two nearest to the root mean square; 1 without signal."""
    rms = math.sqrt(float(spectra.double().square().mean()))
    return 2.0 ** round(math.log2(rms)) if rms > 0 else 1.0


class TrainingResult(NamedTuple):
    """What a run ends with.

    Attributes
    ----------
    state : dict of str to Tensor
        Of the chosen state, for spectra as given.
    record : Record
        Its figures.
    stop_reason, chosen_reason : str
        A sentence each.
    history : list of dict
        One entry an epoch.
    bands : list of Band
    keeper : StateKeeper or None
        The best state of each band that was reached; None: nothing was trained.
    gates : ExactGates or None
        Of a refined state; None: the networks decide.
    evidence : dict or None
        What a refined state's count rests on, as plain values.
    compactions : tuple of Compaction
        When components left the pool, and what that changed.
    concentrations : ndarray, (n, k), or None
        Of the spectra that were fitted, where they are known already.
    """

    state: State
    record: Record
    stop_reason: str
    chosen_reason: str
    history: list[dict[str, float]]
    bands: list[Band]
    keeper: StateKeeper | None
    gates: ExactGates | None = None
    evidence: dict[str, Any] | None = None
    compactions: tuple[Compaction, ...] = ()
    concentrations: NDArray[np.float32] | None = None

    def count_curve(self, criterion: str, background: int | None = None) -> list[dict[str, float]]:
        """Fewest components, the background aside, against fit: one row for each band that was reached.

        Without training these are states that the refinement passed through.
        """
        if self.keeper is None:
            return self._passed(criterion.lower())
        rows = []
        for band in self.bands:
            if band.name in self.keeper.slots:
                record = self.keeper.slots[band.name].record
                edges = {f"{criterion.lower()}_from": band.start, f"{criterion.lower()}_to": band.end}
                count = record.size - (background in record.component_ids)
                fit = {"count": count, "r2": record.r2, "nmse": record.nmse, "epoch": record.epoch}
                rows.append({**edges, **fit})
        return rows

    def _passed(self, criterion: str) -> list[dict[str, float]]:
        fewest: dict[str, dict[str, Any]] = {}
        for row in (self.evidence or {}).get("path", ()):
            band = band_of(row[criterion], "R2" if criterion == "r2" else "nMSE", self.bands)
            if band is not None and (band.name not in fewest or row["count"] <= fewest[band.name]["count"]):
                edges = {f"{criterion}_from": band.start, f"{criterion}_to": band.end}
                fewest[band.name] = edges | {key: row[key] for key in ("count", "r2", "nmse")} | {"epoch": 0}
        return [fewest[band.name] for band in self.bands if band.name in fewest]

    def of_band(self, start: float) -> TrainingResult:
        """The same run with the state of another band, the one that begins at `start`.

        Raises
        ------
        ValueError
            If no such band was reached.
        """
        if self.keeper is None:
            raise checks.fail("r2_from", "a band of trained networks (recipe 'trained' or 'published')", start)
        reached = [band for band in self.bands if band.name in self.keeper.slots]
        for band in reached:
            if math.isclose(band.start, start, rel_tol=0.0, abs_tol=1e-9):
                record = self.keeper.slots[band.name].record
                reason = f"Band {band.name} was asked for: {record.size} components, epoch {record.epoch}."
                state = self.keeper.state(band.name)
                return self._replace(state=state, record=record, chosen_reason=reason, gates=None, evidence=None)
        known = ", ".join(f"{band.start:g}" for band in reached) or "none was reached"
        raise checks.fail("r2_from", f"where a row of `count_curve_` begins ({known})", start)


class Trainer:
    """Trains a model on spectra.

    Parameters
    ----------
    model : UnmixingModel
        On the device where training is to run.
    spectra : Tensor, (n, d)
        On the same device, as given.
    recipe : Recipe
    noise : NoiseLevel
        Of the spectra as given.
    stream : RandomStream
        Order of samples and gate noise.
    batch_size : int or None
        None: `default_batch_size`.
    max_epoch : int or None
        Replaces the recipe's.
    learning_rate : float
    fixed : sequence of int
        Components that must not change.
    folder : Path or None
        Where states and the run itself are saved; a run found there is resumed.
    fingerprint : dict of str to str
        What identifies the run.
    save_seconds : float
        Shortest time between two saves of the run; states are written as they improve.

    Notes
    -----
    `docs/algorithms/ebgmcr.md`, "Training".
    """

    def __init__(
        self,
        model: UnmixingModel,
        spectra: Tensor,
        recipe: Recipe,
        noise: NoiseLevel,
        stream: RandomStream,
        *,
        batch_size: int | None = None,
        max_epoch: int | None = None,
        learning_rate: float = 5e-4,
        fixed: Sequence[int] = (),
        folder: Path | None = None,
        fingerprint: dict[str, str] | None = None,
        save_seconds: float = 10.0,
    ) -> None:
        self.model, self.recipe, self.noise, self.stream = model, recipe, noise, stream
        # An aggregate need not be linear, so its spectra cannot be rescaled.
        scaled = recipe.unit_scale and model.aggregate_function is None
        self.scale = unit_scale(spectra) if scaled else 1.0
        self.spectra = spectra / self.scale
        self.batch_size = default_batch_size(len(spectra)) if batch_size is None else batch_size
        self.max_epoch = recipe.max_epoch if max_epoch is None else max_epoch
        self.folder, self.fingerprint, self.save_seconds = folder, fingerprint or {}, save_seconds

        self.accept = recipe.noise_factor * max(noise.nmse, recipe.noise_floor)
        margin = self.accept if recipe.sparsity_margin is None else recipe.sparsity_margin
        self.pressure = SparsityRule(
            model.num_components, ratio=recipe.sparsity_ratio, margin=margin, growth=recipe.sparsity_growth
        )
        self.stop: EnergyStopRule | PatienceStopRule
        if recipe.stop == "energy":
            self.stop = EnergyStopRule(
                nmse=recipe.stop_nmse, energy_ratio=recipe.stop_energy_ratio, window=recipe.stop_window
            )
        else:
            self.stop = PatienceStopRule(accept=self.accept, patience=recipe.patience, fit_patience=recipe.fit_patience)
        wide = self.spectra.double()
        power, variation = (float(part.square().sum()) for part in (wide, wide - wide.mean(0)))
        self.bands = recipe_bands(recipe, self.accept, power, variation)
        self.fixed = tuple(fixed)
        self.keeper = StateKeeper(model.config, folder, self.scale)
        for band in self.bands if folder is not None else ():
            self.keeper.check(band.name)
        optimizer = OuterAdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self.pool = Pool(model, optimizer, fixed, recipe.compact_epochs)
        self.held = HeldRows(model, fixed)
        self._step: tuple[float, Callable[[StepInputs], Tensor]] | None = None
        self.history: list[list[float]] = []
        self.record = Record(0, math.inf, -math.inf, 0.0, [])
        self.stop_reason: str | None = None

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def optimizer(self) -> OuterAdamW:
        """Of the part of the pool that trains; another one after components have left."""
        return self.pool.optimizer

    @cached_property
    def direct(self) -> cpu_epoch.DirectEpochs:
        """Epochs straight through the kernels, for a model that they apply to."""
        return cpu_epoch.DirectEpochs(self.pool.part, self.recipe, self.optimizer)

    def run(self, callback: Callback | None = None) -> TrainingResult:
        """Train until a rule stops the run, saving and reporting after every epoch.

        Raises
        ------
        KeyboardInterrupt
            Passed on after the run has been saved, if there is a folder.
        ValueError
            If the folder holds another run.
        """
        self.resume()
        saved_at, saving_took = time.monotonic(), 0.0
        with DeferredInterrupt(self.folder is not None) as interrupt:
            while self.stop_reason is None:
                self.run_epoch()
                try:
                    if callback is not None:
                        callback(self._progress())
                    interrupt.check()
                except KeyboardInterrupt:
                    self.save()
                    raise
                waited = time.monotonic() - saved_at
                if waited >= max(self.save_seconds, SMALLEST_SHARE_SAVING * saving_took):
                    started = time.monotonic()
                    self.save()
                    saved_at = time.monotonic()
                    saving_took = saved_at - started
        self.save()
        # Its moments are twice the model's size, and the result needs room for another state.
        self.optimizer.state.clear()
        return self._result()

    def run_epoch(self) -> None:
        """One epoch: training, evaluation, the rules between them, and the states worth keeping."""
        temperature = temperature_at(
            self.epoch,
            highest=self.recipe.temperature_max,
            lowest=self.recipe.temperature_min,
            drop=self.recipe.temperature_drop,
            every=self.recipe.temperature_drop_epochs,
        )
        self.model.temperature_train = self.pool.part.temperature_train = temperature
        weight = self.pressure.weight
        loss, mean_energy = self.train_epoch()
        metrics, used = self.evaluate()
        # The one transfer of an epoch.
        packed = torch.cat((metrics.packed(), torch.stack((mean_energy, loss)).double(), used.double())).tolist()
        nmse, r2, mse = FitMetrics.unpack(*packed[:4])
        energy, mean_loss = packed[4:6]
        ids = self.pool.selected(packed[6:], self.epoch + 1)
        self.record = Record(self.epoch + 1, nmse, r2, energy, ids)
        self.history.append([self.epoch + 1, nmse, r2, mse, len(ids), energy, mean_loss, weight, temperature])
        self.stop_reason = self._why_stop()
        self.pressure.step(nmse, mse, energy if self.recipe.sparsity_usage == "mean_energy" else len(ids))
        self._keep()
        if self.pool.compact(self.spectra, self.epoch):
            self._pool_changed()

    def _pool_changed(self) -> None:
        """Forget what was prepared for the part of the pool that trained before."""
        self.__dict__.pop("direct", None)
        self._step = None
        self.held = HeldRows(self.pool.part, [self.pool.ids.index(i) for i in self.fixed])

    def train_epoch(self) -> tuple[Tensor, Tensor]:
        """Train on every spectrum once, at the present temperature and sparsity pressure.

        Returns
        -------
        loss, mean_energy : Tensor, ()
            Mean loss of the batches, and the mean energy of the last one, on the device.
        """
        sparsity_weight = self.pressure.weight
        order = self.stream.permutation(len(self.spectra), device=self.spectra.device)
        batches = order.split(self.batch_size)
        if cpu_epoch.why_not(self.pool.part, self.recipe, self.batch_size) is None:
            losses = []
            drawn = cpu_epoch.StreamNoise(self.stream)
            for made in self.direct.train(self.spectra, batches, drawn, sparsity_weight):
                self.held.put_back()
                losses.append(made.loss)
            return torch.stack(losses).mean(), made.energy_sum / made.energies
        model, done = self.pool.part.train(), self.optimizer.steps_done
        step = self.step_at(model.temperature_train)
        weight = self.spectra.new_full((), sparsity_weight)
        results = torch.zeros(2, device=self.spectra.device)
        total = torch.zeros((), device=self.spectra.device)
        for i, indices in enumerate(batches, 1):
            number = torch.full((), float(done + i), device=self.spectra.device)
            noise = model.draw_noise(len(indices), self.stream)
            results = step(StepInputs(self.spectra[indices], noise, weight, number))
            self.held.put_back()
            total = total + results[0]
        self.optimizer.advance(len(batches))
        return total / len(batches), results[1].clone()

    def step_at(self, temperature: float) -> Callable[[StepInputs], Tensor]:
        """The training step at a temperature; on a GPU one that is recorded as a CUDA graph, for this temperature."""
        if self._step is None or self._step[0] != temperature:
            step = step_of(self.pool.part, self.optimizer, self.recipe)
            if self.spectra.is_cuda and backends.choose("adamw_outer", "cuda") == "cuda":
                step = StaticStep(step, record=True)
            self._step = temperature, step
        return self._step[1]

    @torch.no_grad()
    def evaluate(self) -> tuple[FitMetrics, Tensor]:
        """Evaluate the model on all spectra, as the recipe asks for.

        Returns
        -------
        metrics : FitMetrics
        used : Tensor, (N',) bool
            Of the N' components of the pool that still train (`pool.ids`), those that some spectrum selects.
        """
        model = self.pool.part
        if model.training:
            model.eval()
        metrics = FitMetrics(
            model.dim_components,
            threshold=_SPARSE_METRIC_THRESHOLD if model.sparse_component else None,
            device=self.spectra.device,
        )
        batch_size = self.recipe.evaluation_batch or self.batch_size
        if cpu_epoch.why_not(model, self.recipe) is None:
            drawn = cpu_epoch.StreamNoise(self.stream)
            return metrics, self.direct.evaluate(self.spectra, batch_size, drawn, metrics)
        used = torch.zeros(model.num_components, dtype=torch.bool, device=self.spectra.device)
        for x in self.spectra.split(batch_size):
            noise = model.draw_noise(len(x), self.stream) if self.recipe.noisy_evaluation else None
            out = model(x, noise)
            metrics.update(x, out.mixture)
            used |= out.used
        return metrics, used

    def _why_stop(self) -> str | None:
        record = self.record
        if not math.isfinite(record.nmse):
            return f"The fit diverged in epoch {record.epoch}: its error is not a finite number."
        reason = self.stop.step(record.nmse, record.mean_energy, record.size)
        if reason is None and self.max_epoch is not None and self.epoch >= self.max_epoch:
            reason = f"The largest number of epochs, {self.max_epoch}, was reached."
        return reason

    def _keep(self) -> None:
        self.pool.write_back()
        criterion = self.recipe.checkpoint_criterion
        value = self.record.r2 if criterion == "R2" else self.record.nmse
        band = band_of(value, criterion, self.bands)
        if band is not None:
            self.keeper.offer(band.name, self.record, self.model, criterion)
        if self.recipe.choose == "fewest" and self.record.nmse <= self.accept:
            self.keeper.offer(CHOSEN, self.record, self.model)
        self.keeper.stream()

    def _progress(self) -> Progress:
        values = dict(zip(_HISTORY, self.history[-1], strict=True))
        message = f"R2 {self.record.r2:.4f}, nMSE {self.record.nmse:.2e}, {self.record.size} components"
        return Progress(self.epoch, self.max_epoch, values, message)

    def _result(self) -> TrainingResult:
        assert self.stop_reason is not None
        history = [dict(zip(_HISTORY, row, strict=True)) for row in self.history]
        for entry in history:
            entry["epoch"], entry["count"] = int(entry["epoch"]), int(entry["count"])
        if CHOSEN in self.keeper.slots:
            state, record = self.keeper.state(CHOSEN), self.keeper.slots[CHOSEN].record
            reason = (
                f"The fewest components, {record.size}, of all states that fit to the noise level: nMSE "
                f"{record.nmse:.3g}, allowed {self.accept:.3g} ({self.recipe.noise_factor:g} times the noise, "
                f"{self.noise.source}); epoch {record.epoch}."
            )
        else:
            state, record = rescale(copy_state(self.model), self.scale), self.record
            if self.recipe.choose == "last":
                reason = f"The last state, as the {self.recipe.name} recipe asks for; epoch {record.epoch}."
            else:
                reason = (
                    f"The last state, because none fitted to the noise level: nMSE {record.nmse:.3g}, allowed "
                    f"{self.accept:.3g} ({self.recipe.noise_factor:g} times the noise, {self.noise.source})."
                )
        return TrainingResult(
            state, record, self.stop_reason, reason, history, self.bands, self.keeper, compactions=tuple(self.pool.done)
        )

    def save(self) -> None:
        """Write the state of the run into its folder; does nothing without one."""
        if self.folder is None:
            return
        self.keeper.flush()
        contents: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.stream.state,
            "pressure": self.pressure.state(),
            "stop": self.stop.state(),
            "stop_reason": self.stop_reason,
            "history": torch.tensor(self.history, dtype=torch.float64),
            "record": list(self.record),
            "pool": self.pool.state(),
            "kept": self.keeper.saved(),
        }
        save_training(self.folder, contents)

    def resume(self) -> None:
        """Resume the run that the folder holds, where it holds one.

        Raises
        ------
        ValueError
            If it is a run with other parameters or data.
        """
        contents = None if self.folder is None else load_training(self.folder, self.fingerprint)
        if contents is None:
            return
        self.model.load_state_dict(contents["model"])
        if self.pool.load_state(contents["pool"]):
            self._pool_changed()
        self.optimizer.load_state_dict(contents["optimizer"])
        self.stream.seed, self.stream.step = contents["stream"]["seed"], contents["stream"]["step"]
        self.pressure.load_state(contents["pressure"])
        self.stop.load_state(contents["stop"])
        self.stop_reason = contents["stop_reason"]
        self.history = contents["history"].tolist()
        self.record = Record(*contents["record"])
        self.keeper.restore(contents["kept"])
