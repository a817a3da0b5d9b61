"""The published solver's training run: its loss, its evaluation, its lines and files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.compat.ebgmcr.core import skip_evaluation_draws
from spectrafuse.compat.ebgmcr.prepared import (
    PublishedNoise,
    SolverModel,
    own_optimizer,
    recipe_of,
    why_autograd,
)
from spectrafuse.compat.ebgmcr.utils import EnergyL1Scheduler
from spectrafuse.io.atomic import atomic_write
from spectrafuse.mcr.metrics import FitMetrics
from spectrafuse.mcr.training.checkpoint import Record, State, StateKeeper, copy_state, write_result
from spectrafuse.mcr.training.cpu_epoch import DirectEpochs
from spectrafuse.mcr.training.rules import EnergyStopRule, band_of, make_bands, temperature_at

if TYPE_CHECKING:
    from spectrafuse.compat.ebgmcr.analyzer import BaseEBgMCR

_SPARSE_METRIC_THRESHOLD = 1e-3


@dataclass(frozen=True)
class FitOptions:
    """What `fit` was asked to print and write."""

    show_train_info: bool
    show_eval_info: bool
    train_info_display_interval: int
    eval_info_display_interval: int
    log_dir: str | None
    log_info_interval: int
    full_result_filename: str | None
    final_result_filename: str | None


class _StepFigures(NamedTuple):
    """Figures of one training step, on the device."""

    reconstruction: Tensor
    similarity: Tensor | float
    energy_sum: Tensor
    energies: int


def _writer(folder: str | None) -> Any:
    """TensorBoard's writer, which is an optional dependency; None without a folder."""
    if folder is None:
        return None
    os.makedirs(folder, exist_ok=True)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn(
            "TensorBoard is not installed, so no events are written: pip install 'spectrafuse[tensorboard]'.",
            stacklevel=5,
        )
        return None
    return SummaryWriter(log_dir=folder)


def _fast(kind: type[optim.Optimizer], options: dict[str, Any]) -> dict[str, Any]:
    """Options of a caller's optimizer; torch's own Adam and AdamW fused unless the caller chose something else."""
    chosen = {"fused", "foreach", "capturable", "differentiable", "amsgrad", "maximize"} & options.keys()
    return {**options, "fused": True} if kind in (optim.Adam, optim.AdamW) and not chosen else options


class Fitting:
    """One run of `fit`.

    Random numbers are drawn from torch's global generators as the published run draws them, and in its order, so a
    seed gives the published run up to rounding (the sparse form's gates excepted, which draw from a seed of their
    own).
    """

    def __init__(self, solver: BaseEBgMCR, data: Tensor, eval_data: Tensor, options: FitOptions) -> None:
        if data.dim() != 2 or eval_data.dim() != 2 or data.shape[1] != eval_data.shape[1] or len(data) == 0:
            raise InvalidValueError(
                "`data` and `eval_data` must be spectra (n, d) of one length; "
                f"got shapes {tuple(data.shape)} and {tuple(eval_data.shape)}."
            )
        self.solver, self.options = solver, options
        self.modules: list[Any] = list(solver.stored_mcrs)
        dtype = next(solver.stored_mcrs.parameters()).dtype
        self.data, self.eval_data = data.to(dtype), eval_data.to(dtype)
        parameters = [p for p in solver.stored_mcrs.parameters() if p.requires_grad]
        self.optimizer: optim.Optimizer
        self.prepared: DirectEpochs | None = None
        if why_autograd(solver) is None:
            self.optimizer = own_optimizer(solver, parameters)
            self.prepared = DirectEpochs(SolverModel(self.modules[0]), recipe_of(solver), self.optimizer)
        else:
            self.optimizer = solver.optimizer_class(parameters, **_fast(solver.optimizer_class, solver.optimizer_args))
        self.pool = sum(module.num_components for module in self.modules)
        self.pressure = EnergyL1Scheduler(self.pool, target_ratio=solver.min_component_coef)
        self.stop = EnergyStopRule(nmse=solver.tol_pattern_nmse, energy_ratio=solver.tol_energy_ratio)
        self.criterion = solver.checkpoint_criterion if options.log_dir is not None else None
        self.bands = []
        if self.criterion is not None:
            self.bands = make_bands(self.criterion, solver.checkpoint_threshold, solver.checkpoint_interval)
        self.keeper = StateKeeper({})
        self.train_loader = self._loader(len(data), shuffle=True)
        self.eval_loader = self._loader(len(eval_data), shuffle=False)
        self.writer = _writer(options.log_dir)
        self.epoch = self.iteration = 0
        self.rows: list[tuple[int, float, float, float, int]] = []

    def _loader(self, count: int, shuffle: bool) -> DataLoader:
        # Of indices: torch's loader draws the published order, and samples are gathered a batch at a time.
        return DataLoader(
            range(count),  # type: ignore[arg-type]
            batch_size=self.solver.mini_batch_size,
            shuffle=shuffle,
            collate_fn=torch.tensor,
        )

    def temperature(self, epoch: int) -> float:
        """Gate temperature of a training epoch, 0 for the first."""
        solver = self.solver
        return temperature_at(
            epoch,
            highest=solver.temperature_max,
            lowest=solver.temperature_min,
            drop=solver.temperature_drop_value,
            every=solver.temperature_drop_epochs,
        )

    def run(self) -> None:
        """Train until a rule stops the run; files are written even if the user or an error of a hook ends it."""
        try:
            while not self.run_epoch():
                pass
        except BaseException as error:
            self._settle()
            if self.rows or isinstance(error, KeyboardInterrupt):
                self._write_files()
            raise
        self._settle()
        self._write_files()

    def _settle(self) -> None:
        """Leave modules that are as usable as before the run."""
        self.solver.stored_mcrs = self.solver.stored_mcrs.eval()
        if self.prepared is not None:
            # Out of the memory they share while they train: a tensor that is saved brings all of its memory along.
            for parameter in self.solver.stored_mcrs.parameters():
                parameter.data = parameter.data.clone()
        if self.writer is not None:
            self.writer.close()

    def _write_files(self) -> None:
        self._write_states()
        self._write_results()

    def run_epoch(self) -> bool:
        """One epoch with its evaluation and lines; says whether the run is over."""
        solver = self.solver
        for module in self.modules:
            module.temperature_train = self.temperature(self.epoch)
        mean_energy = self.train_epoch()
        metrics, used = self.evaluate()
        packed = torch.cat((metrics.packed(), mean_energy.double().reshape(1), used.double())).tolist()
        nmse, r2, mse = FitMetrics.unpack(*packed[:4])
        energy = packed[4]
        ids = [index for index, flag in enumerate(packed[5:]) if flag]
        converged = self.stop.step(nmse, energy, len(ids)) is not None
        if converged:
            print(
                f"Epoch: {self.epoch + 1} | nMSE: {nmse:.4f} | E: {energy:.4f} reach terminate condition "
                "(leave converge region)."
            )
        self.pressure.step(nmse, mse, energy)
        self.epoch += 1
        self._keep(Record(self.epoch, nmse, r2, energy, ids))
        self.rows.append((self.epoch, nmse, r2, energy, len(ids)))
        self._report(nmse, r2, energy, len(ids))
        if self.epoch == solver.max_epoch:
            print(f"Reach max epoch: {solver.max_epoch}, stop fitting.")
            return True
        return converged

    def train_epoch(self) -> Tensor:
        """One pass over all samples; the last batch's mean energy, on the device."""
        steps = len(self.train_loader)
        for step, figures in enumerate(self._steps(), start=1):
            self.iteration += 1
            self._report_step(figures, step, steps)
        return figures.energy_sum / figures.energies

    def _steps(self) -> Iterator[_StepFigures]:
        if self.prepared is None:
            self.solver.stored_mcrs = self.solver.stored_mcrs.train()
            for indices in self.train_loader:
                yield self.train_step(self.data[indices].to(self.solver.device))
            return
        noise = PublishedNoise(self.modules[0], training=True)
        for step in self.prepared.train(self.data, list(self.train_loader), noise, self.pressure.coef):
            yield _StepFigures(step.squared_error, step.penalty, step.energy_sum, step.energies)

    def train_step(self, target: Tensor) -> _StepFigures:
        """One step on a batch of spectra (B, d)."""
        solver = self.solver
        outputs = [module(target) for module in self.modules]
        self.optimizer.zero_grad()
        reconstruction = nn.functional.mse_loss(_mixture(outputs), target)
        gates = [output["effective_indices"] for output in outputs]
        # Modules may differ in size: a row for each sample and module, as the published sum has it.
        share = (torch.cat([gate.sum(-1) for gate in gates]) / self.pool).mean()
        selected = [output["select_energy"] for output in outputs]
        energies = sum(energy.numel() for energy in selected)
        square = torch.stack([energy.square().sum() for energy in selected]).sum() / energies
        similarity = self._similarity(gates)
        loss = (
            reconstruction
            + self.pressure.coef * share
            + solver.energy_coef * square
            + solver.ambiguity_coef * similarity
        )
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            sparse = [o["sparsity_energy"] for o in outputs if o["sparsity_energy"].dim() > 0]
            total = torch.stack([energy.sum().detach() for energy in (*sparse, *selected)]).sum()
        energies += sum(energy.numel() for energy in sparse)
        return _StepFigures(reconstruction.detach(), similarity.detach(), total, energies)

    def _similarity(self, gates: list[Tensor]) -> Tensor:
        solver = self.solver
        rows = []
        for module, gate in zip(self.modules, gates, strict=True):
            used = (gate.detach() > solver.ambiguity_prob_threshold).any(dim=0).nonzero().squeeze(1)
            if len(used) > 0:
                rows.append(module.components(used))
        if not rows:
            return gates[0].new_zeros(())
        arguments: dict[str, Any] = {}
        if solver.ambiguity_penalty == "poly":
            arguments["d"] = solver.poly_dim
        elif solver.ambiguity_penalty == "matern":
            arguments["nu"] = solver.matern_nu
        return solver.ambiguity_penalty_func(torch.cat(rows), **arguments)

    @torch.no_grad()
    def evaluate(self) -> tuple[FitMetrics, Tensor]:
        """Fit over all samples, and components (N,) that some sample selects."""
        solver = self.solver
        threshold = _SPARSE_METRIC_THRESHOLD if solver.sparse_component else None
        metrics = FitMetrics(self.data.shape[1], threshold=threshold, device=solver.device)
        if self.prepared is not None:
            iter(self.eval_loader)  # draws its seed
            noise = PublishedNoise(self.modules[0], training=False)
            return metrics, self.prepared.evaluate(self.eval_data, solver.mini_batch_size, noise, metrics)
        solver.stored_mcrs = solver.stored_mcrs.eval()
        used = torch.zeros(self.pool, dtype=torch.bool, device=solver.device)
        for indices in self.eval_loader:
            target = self.eval_data[indices].to(solver.device)
            # The published evaluation runs the model twice and uses the second run.
            for module in self.modules:
                skip_evaluation_draws(module, len(target))
            outputs = [module(target) for module in self.modules]
            metrics.update(target, _mixture(outputs))
            gates = torch.cat([output["effective_indices"] for output in outputs], dim=1)
            used |= (gates > solver.select_prob_threshld).any(dim=0)
        return metrics, used

    def _keep(self, record: Record) -> None:
        if self.criterion is None:
            return
        band = band_of(record.nmse if self.criterion == "nMSE" else record.r2, self.criterion, self.bands)
        if band is not None:
            self.keeper.offer(band.name, record, self.solver.stored_mcrs, self.criterion)  # type: ignore[arg-type]

    def _report_step(self, figures: _StepFigures, step: int, steps: int) -> None:
        options = self.options
        if self.writer is not None and self.iteration % options.log_info_interval == 0:
            self.writer.add_scalar("train/reconstruct_error", figures.reconstruction.item(), self.iteration)
            self.writer.add_scalar("train/component_similarity", float(figures.similarity), self.iteration)
        if not options.show_train_info:
            return
        if step == steps or step % options.train_info_display_interval == 0:
            print(
                f"Epoch: {self.epoch + 1} [iter: {step}/{steps}] | Reconstruct Err. (↓): "
                f"{figures.reconstruction.item():.6f} | Components' Similarity (↓): {float(figures.similarity):.6f} | "
                f"Energy (↓): {figures.energy_sum.item() / figures.energies:.6f}"
            )
        if step == steps:
            print("")

    def _report(self, nmse: float, r2: float, energy: float, count: int) -> None:
        options = self.options
        if self.writer is not None:
            figures = {"nMSE": nmse, "R2": r2, "mean_energy": energy, "effective_components": count}
            for name, value in figures.items():
                self.writer.add_scalar(f"eval/{name}", value, self.iteration)
        if not options.show_eval_info:
            return
        if self.epoch == self.solver.max_epoch or self.epoch % options.eval_info_display_interval == 0:
            print(
                f"Epoch: {self.epoch} | nMSE (pattern): {nmse:.4f} | R2: {r2:.4f} | E: {energy:.4f} | "
                f"Used components: {count}"
            )
        if options.show_train_info:
            print("")

    def _write_states(self) -> None:
        """Write the state of every band that was reached, through the solver's own `save_mcrs`."""
        if not self.keeper.slots:
            return
        solver, final = self.solver, copy_state(self.solver.stored_mcrs)  # type: ignore[arg-type]
        temperature = self.modules[0].temperature_train
        reached = [band.name for band in self.bands if band.name in self.keeper.slots]
        try:
            for name in reached:
                record = self.keeper.slots[name].record
                folder = os.path.join(self.options.log_dir or "", name)
                self._restore(self.keeper.state(name), self.temperature(record.epoch - 1))
                solver.save_mcrs(folder)
                print(f"Successfully save recorded checkpoint (region={name}, effective_components={record.size})")
                with atomic_write(os.path.join(folder, "result.csv")) as temporary:
                    write_result(temporary, record)
                print(f"Successfully checkpoint result to file:{os.path.join(folder, 'result.csv')}.")
        finally:
            self._restore(final, temperature)

    def _restore(self, state: State, temperature: float) -> None:
        self.solver.stored_mcrs.load_state_dict(state)
        for module in self.modules:
            module.temperature_train = temperature

    def _write_results(self) -> None:
        header = "nMSE,R2,mean_energy,effective_components"
        lines = [",".join(str(value) for value in row) for row in self.rows]
        if self.options.full_result_filename is not None:
            path = _csv(self.options.full_result_filename)
            _write(path, ["epoch," + header, *lines])
            print(f"Save full result to file: {path}")
        if self.options.final_result_filename is not None and lines:
            path = _csv(self.options.final_result_filename)
            _write(path, [header, lines[-1].partition(",")[2]])
            print(f"Save final result to file: {path}")


def _mixture(outputs: list[dict[str, Tensor]]) -> Tensor:
    mixtures = [output["synthesized_pattern"] for output in outputs]
    return mixtures[0] if len(mixtures) == 1 else torch.stack(mixtures).sum(0)


def _csv(path: str) -> str:
    return path if path.endswith(".csv") else path + ".csv"


def _write(path: str, lines: list[str]) -> None:
    with atomic_write(Path(path)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
