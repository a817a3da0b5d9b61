"""From a trained model to the refined one: gates closed, components settled, evidence written down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime.progress import Callback, Progress
from spectrafuse.mcr import evaluation
from spectrafuse.mcr.metrics import nmse_of, r2_of
from spectrafuse.mcr.model import UnmixingModel
from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows
from spectrafuse.mcr.refinement import evidence
from spectrafuse.mcr.refinement.count_search import CountSearch, Outcome
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training.checkpoint import Record, State
from spectrafuse.mcr.training.known_components import FAR_ENERGY
from spectrafuse.mcr.training.result import TrainingResult


class _Reporter:
    """Tells a callback, once a second, how many components are left; the epochs are over."""

    def __init__(self, callback: Callback, result: TrainingResult) -> None:
        self._callback, self._epochs, self._values = callback, len(result.history), dict(result.history[-1])
        self._began = self._told = time.monotonic()

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        if now - self._told < 1.0:
            return
        self._told = now
        message = f"refining on hard gates for {now - self._began:.0f} s, trying {count} components"
        self._callback(Progress(self._epochs, self._epochs, self._values, message))


def why_not(result: TrainingResult, model: UnmixingModel) -> str | None:
    """Why a trained model cannot be refined; None if it can."""
    if model.aggregate_function is not None or model.component_post_processing is not None:
        return "Not refined: a plug-in decides how components mix or look."
    if not math.isfinite(result.record.nmse):
        return "Not refined: training diverged."
    if not result.record.component_ids:
        return "Not refined: no gate opened."
    return None


def refined(
    result: TrainingResult,
    model: UnmixingModel,
    spectra: NDArray[np.float32],
    noise: NoiseLevel,
    fixed: Sequence[int] = (),
    *,
    background: int | None = None,
    callback: Callback | None = None,
) -> TrainingResult:
    """Refine what training ended with.

    Parameters
    ----------
    result : TrainingResult
    model : UnmixingModel
        The one that was trained; it ends with the refined state.
    spectra : ndarray, (n, d)
    noise : NoiseLevel
    fixed : sequence of int
        Components that keep their shape.
    background : int or None
        The one of them that is the same in all channels.
    callback : callable, optional
        Told how far the refinement is, once a second.

    Returns
    -------
    TrainingResult
        With gates and evidence, or the same one with a reason why not.
    """
    model.load_state_dict(result.state)
    model.gates = None
    reason = why_not(result, model)
    if reason is not None:
        return result._replace(chosen_reason=f"{result.chosen_reason} {reason}")
    report = None if callback is None else _Reporter(callback, result)
    wide = spectra.astype(np.float64)
    power, variation = float((wide * wide).sum()), float(((wide - wide.mean(0)) ** 2).sum())
    level = noise_of_rows(spectra, noise)
    outcome, gates = _search(result, model, spectra, noise, fixed, background, report)
    unexplained = float(outcome.path[outcome.chosen].power @ level**2)
    again = noise.structured and evidence.misfits(nmse_of(unexplained, power), noise)
    if again:
        # The price of a component was all that the noise may be, and too high for every one of them.
        white = noise._replace(structured=False)
        outcome, gates = _search(result, model, spectra, white, fixed, background, report)
    state = _written(result.state, model, outcome.factors, fixed)
    model.load_state_dict(state)
    gates, concentrations = _settled(model, gates, spectra)
    ids = list(gates.open_ids)

    components = model.effective_components()[ids].detach().cpu().double().numpy()
    residual = float(((wide - concentrations @ components) ** 2).sum())
    nmse = nmse_of(residual, power)
    rank = evidence.numerical_rank(wide / level[:, None])
    count = len(ids) - (background in ids)
    chosen = evidence.reason(count, nmse, outcome, noise)
    return result._replace(
        state=state,
        record=Record(result.record.epoch, nmse, r2_of(residual, variation), result.record.mean_energy, ids),
        chosen_reason=chosen,
        gates=gates,
        evidence={
            "count": count,
            "reason": chosen,
            "trained_count": result.record.size - (background in result.record.component_ids),
            "path": evidence.path_rows(outcome, level**2, power, variation),
            "rise": None if math.isinf(outcome.rise) else outcome.rise / outcome.component_price,
            "rank_check": rank,
            "residual_excess": outcome.excess,
            "residual_colour": outcome.colour,
            "cautions": evidence.cautions(outcome, nmse, rank, noise, background, again=again),
        },
    )


def _search(
    result: TrainingResult,
    model: UnmixingModel,
    spectra: NDArray[np.float32],
    noise: NoiseLevel,
    fixed: Sequence[int],
    background: int | None,
    report: Callable[[int], None] | None,
) -> tuple[Outcome, ExactGates]:
    # A component that is given with its shape may be needed although training never opened a gate for it.
    ids = np.union1d(np.asarray(result.record.component_ids, np.int64), np.asarray(fixed, np.int64))
    index = torch.as_tensor(ids, device=model.vanilla_components.device)
    start = evaluation.parse(model, index, spectra, wanted=("concentration",))["concentration"]
    components = model.effective_components()[index].detach().cpu().double().numpy()
    level = noise_of_rows(spectra, noise)[:, None]
    refinement = Refinement(
        spectra / level,
        0.0,
        0.0,
        non_negative=model.non_negative_component,
        sparse=model.sparse_component,
        fixed=tuple(fixed),
        background=background,
        report=report,
    )
    search = CountSearch(refinement, model.num_components, structured=noise.structured)
    outcome = search.run(Factors(start / level, components, ids))
    places = tuple(sorted(int(i) for i in outcome.factors.ids))
    return outcome, ExactGates(noise, refinement.gate_price, places)


@torch.no_grad()
def _written(state: State, model: UnmixingModel, factors: Factors, fixed: Sequence[int]) -> State:
    """The state with refined components in their places, and the network's other gates shut for good."""
    written = dict(state)
    learned = ~np.isin(factors.ids, list(fixed))
    rows = torch.from_numpy(factors.ids[learned])
    values = torch.from_numpy(factors.components[learned])
    components = state["vanilla_components"].clone()
    components[rows] = values.to(components.dtype)
    written["vanilla_components"] = components
    if model.sparse_component:
        energy = state["component_sparsity.energy"].clone()
        shut = torch.where(values == 0, FAR_ENERGY, -FAR_ENERGY)
        table = energy.view(model.num_components, model.dim_components, 2)
        table[rows] = torch.stack((shut, -shut), dim=-1).to(energy.dtype)
        written["component_sparsity.energy"] = energy
    prefix = "component_parser.energy_evaluator"
    name = max((key for key in state if key.startswith(prefix) and key.endswith("bias")), key=_layer)
    bias = state[name].clone()
    closed = torch.ones(model.num_components, dtype=torch.bool)
    closed[torch.from_numpy(factors.ids)] = False
    bias.view(-1, 2)[closed] = torch.tensor((FAR_ENERGY, -FAR_ENERGY), dtype=bias.dtype)
    written[name] = bias
    return written


def _layer(key: str) -> int:
    part = key.split(".")[-2]
    return int(part) if part.isdigit() else 0


def _settled(
    model: UnmixingModel, gates: ExactGates, spectra: NDArray[np.float32]
) -> tuple[ExactGates, NDArray[np.float32]]:
    """The gates without components that no spectrum opens, and concentrations (n, k) of the others."""
    while True:
        model.gates = gates
        index: Tensor = torch.tensor(gates.open_ids, dtype=torch.int64, device=model.vanilla_components.device)
        found: NDArray[np.float32] = evaluation.parse(model, index, spectra, wanted=("concentration",))["concentration"]
        used = found.any(0)
        if used.all():
            return gates, found
        gates = gates._replace(open_ids=tuple(int(i) for i in np.asarray(gates.open_ids)[used]))
