"""From a trained model, or spectra alone, to a refined one: gates closed, components settled, evidence written down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse._runtime.progress import Callback, Progress
from spectrafuse.mcr.constraints import NOTHING, Knowledge, Mixture, Report, constrained
from spectrafuse.mcr.inputs import MappedSpectra, Table, own_share
from spectrafuse.mcr.metrics import nmse_of, r2_of
from spectrafuse.mcr.model import UnmixingModel, layer_names
from spectrafuse.mcr.model_io import State
from spectrafuse.mcr.noise import NoiseLevel, noise_of_rows, numerical_rank, row_blocks, squares
from spectrafuse.mcr.preference import best_supported, comparable, margin_of, preferred
from spectrafuse.mcr.refinement import evidence, many_spectra, weighted
from spectrafuse.mcr.refinement.asked_count import FREELY, AskedCount
from spectrafuse.mcr.refinement.band_noise import band_weights
from spectrafuse.mcr.refinement.count_search import CountSearch, Outcome, degrees_of_freedom
from spectrafuse.mcr.refinement.factors import Factors, Refinement
from spectrafuse.mcr.refinement.hard_gates import Array, ExactGates, level_of_present, price_of_gate
from spectrafuse.mcr.refinement.start import from_spectra
from spectrafuse.mcr.refinement.whitening import whitened
from spectrafuse.mcr.training.checkpoint import Record
from spectrafuse.mcr.training.known_components import FAR_ENERGY, KnownComponents
from spectrafuse.mcr.training.rules import Band
from spectrafuse.mcr.training.trainer import TrainingResult
from spectrafuse.mcr.weighting import noise_of_present, noise_of_weighted
from spectrafuse.random import RandomStream

_INDIFFERENCE = (0.2, 0.9)
"""Spectra whose residuals differ by less, as a share, may be chosen in another order: in a first search, in others."""
_STARTS, _LITTLE_EXCESS, _ALIKE = 6, 1.02, 0.01
"""Searches from other candidates at most, while the residual is larger than the noise by that factor: now and then one
ends with three components in the place of two. They ended alike if costs differ by that share of a component's."""
_ASKED_STARTS = 3
"""Searches at least, where the user decides the count."""
_CONTRADICTED, _BETTER = 2.0, 10.0
"""Noise is looked for below a tail of singular values that is not white if components leave that many times as much as
it; it is believed if they then leave that many times less, and what they leave is white."""
_TRIALS_OF_CANDIDATE = 50
"""Trials in a search, for each candidate that it begins with: 33 to 115 in searches that begin with 8 to 25."""
_TOLD_FROM = 5
"""Trials from which on the time that a search takes is told."""
_LEFT_BY_COMPONENTS = "measured on what the components leave, as the tail of the singular values holds components"

NO_TRAINING = "Nothing was trained: candidates chosen among the spectra were refined on hard gates."


class _Reporter:
    """Tells a callback, once a second, how far the refinement is; the epochs, if there were any, are over."""

    def __init__(self, callback: Callback, history: Sequence[dict[str, float]] = ()) -> None:
        self._callback, self._epochs = callback, len(history)
        self._values = dict(history[-1]) if history else {}
        self._began = self._told = time.monotonic()
        self._searches: tuple[int, int, float] | None = None
        self._trials, self._candidates, self._search_began = 0, 0, self._began

    def begins_search(self, done: int, most: int) -> None:
        """A search begins, after `done` others, of at most `most`."""
        began = time.monotonic() if done == 0 or self._searches is None else self._searches[2]
        self._searches = done, most, began
        self._trials, self._search_began = 0, time.monotonic()

    def _left_in_search(self, now: float, condition: str = "") -> str:
        """How long the running search still takes, if it is like others, in words."""
        done, usual = self._trials, _TRIALS_OF_CANDIDATE * self._candidates
        left = (now - self._search_began) / done * max(usual - done, 0.1 * done)
        return f"about {left:.0f} s left{condition}, " if done >= _TOLD_FROM else ""

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        self._candidates = self._candidates if self._trials else count
        self._trials += 1
        if now - self._told < 1.0:
            return
        self._told = now
        message = f"refining on hard gates for {now - self._began:.0f} s, "
        if self._searches is not None:
            done, most, began = self._searches
            message += f"search {done + 1} of at most {most}, "
            if done:
                left = (now - began) / (done + 0.5) * (most - done - 0.5)
                message += f"about {left:.0f} s left if all are needed, "
            else:
                message += self._left_in_search(now, " if no other is needed")
        else:
            message += self._left_in_search(now)
        message += f"trying {count} components"
        self._callback(Progress(self._epochs, self._epochs or None, self._values, message))


def why_not(result: TrainingResult, model: UnmixingModel) -> str | None:
    """Why a trained model cannot be refined; None if it can."""
    if model.aggregate_function is not None or model.component_post_processing is not None:
        return "Not refined: a plug-in decides how components mix or look."
    if not math.isfinite(result.record.nmse):
        return "Not refined: training diverged."
    if not result.record.component_ids:
        return "Not refined: no gate opened."
    return None


def refine_trained(
    result: TrainingResult,
    model: UnmixingModel,
    spectra: NDArray[np.float32],
    noise: NoiseLevel,
    fixed: Sequence[int] = (),
    *,
    background: int | None = None,
    asked: AskedCount = FREELY,
    knowledge: Knowledge = NOTHING,
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
        The one of them that is the same in all bands.
    asked : AskedCount
        How many components the user wants.
    knowledge : Knowledge
        Constraints of the last fit, once the count is known.
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
    report = None if callback is None else _Reporter(callback, result.history)
    # A component that is given with its shape may be needed although training never opened a gate for it.
    ids = np.union1d(np.asarray(result.record.component_ids, np.int64), np.asarray(fixed, np.int64))
    index = torch.as_tensor(ids, device=model.vanilla_components.device)
    amounts = model.parse_array(spectra, index, wanted=("concentration",))["concentration"]
    components = model.effective_components()[index].detach().cpu().double().numpy()
    data = _Data.of(spectra, noise)
    start = Factors(amounts / data.level[:, None], components, ids)
    form = _Form(
        model.num_components,
        model.non_negative_component,
        model.sparse_component,
        tuple(fixed),
        background,
        asked=asked,
        known=knowledge,
    )
    refined = _search(data, start, form, report)
    return _result(result, model, data, refined, form, spectra)


def refine_spectra(
    build: Callable[[int], UnmixingModel],
    spectra: Table,
    noise: NoiseLevel,
    *,
    pool: int,
    known: KnownComponents | None = None,
    non_negative: bool = True,
    sparse: bool = False,
    background: bool = False,
    asked: AskedCount = FREELY,
    knowledge: Knowledge = NOTHING,
    bands: Sequence[Band] = (),
    floor: float = 1e-3,
    stream: RandomStream,
    callback: Callback | None = None,
) -> tuple[TrainingResult, UnmixingModel]:
    """Refine candidates chosen among the spectra; known components come first.

    Parameters
    ----------
    build : callable
        Makes a model of so many components, with the known ones and the background in their places.
    spectra : ndarray, (n, d)
    noise : NoiseLevel
    pool : int
        Components there can be, the background among them.
    known : KnownComponents or None
    non_negative, sparse, background : bool
        As the estimator's.
    asked : AskedCount
        How many components the user wants.
    knowledge : Knowledge
        Constraints of the last fit, once the count is known.
    bands : sequence of Band
    floor : float
        As for `noise_level`, where bands are weighted.
    stream : RandomStream
        Which of spectra that are nearly as different from the others is chosen first.
    callback : callable, optional
        Told how far the refinement is, once a second.

    Returns
    -------
    TrainingResult, UnmixingModel
        The model has the known components in the first places, then those that were found, then the background.
    """
    given = np.empty((0, spectra.shape[1])) if known is None else known.spectra.astype(np.float64)
    weighting = knowledge.weighting
    original = spectra if knowledge.spectra is None else knowledge.spectra
    if weighting is not None and weighting.given:
        weights = None if background else weighting.bands
    else:
        weights = None if background or sparse or noise.correlation else band_weights(spectra, noise)
    if weights is not None:
        if isinstance(spectra, MappedSpectra):
            spectra, given = spectra.weighted(weights), given * weights
        else:
            spectra, given = (spectra[:] * weights).astype(np.float32), given * weights
        if weighting is None or not weighting.given:
            noise = noise_of_weighted(spectra, weighting, floor=floor)
    last = pool - 1 if background else None
    fixed = (() if known is None else tuple(known.fixed.tolist())) + (() if last is None else (last,))
    form = _Form(pool, non_negative, sparse, fixed, last, reserved=tuple(range(len(given))), asked=asked)
    form = form._replace(known=knowledge)
    first = given if last is None else np.vstack([given, np.ones(spectra.shape[1])])
    first_ids = np.array([*range(len(given)), *([] if last is None else [last])], np.int64)
    report = None if callback is None else _Reporter(callback)
    few = len(spectra) <= many_spectra.MOST_SEARCHED
    rows = np.arange(len(spectra)) if few else many_spectra.sample(len(spectra), stream)

    def search_at(
        noise: NoiseLevel, rows: NDArray[np.int64], before: Array, ids: NDArray[np.int64]
    ) -> tuple[_Data, _Refined]:
        data = _Data.of(spectra[:] if len(rows) == len(spectra) else spectra[rows], noise)
        spare = np.setdiff1d(np.arange(pool), [*ids, *first_ids])
        places, found = len(ids) + len(spare), list[_Refined]()
        while len(found) < _STARTS and not (found and _trusted(found, noise, asked)):
            if report is not None:
                report.begins_search(len(found), _STARTS)
            chance = 1.0 - _INDIFFERENCE[bool(found)] * stream.uniform((len(rows),), dtype=torch.float64).numpy()
            start = from_spectra(
                data.scaled,
                before,
                places,
                non_negative=non_negative,
                background=background,
                correlation=noise.correlation,
                weights=chance,
            )
            start = start._replace(ids=np.append(ids, spare)[: len(start.ids)])
            found.append(_search(data, start, form, report))
        return data, _best(found, asked)

    def search(
        noise: NoiseLevel, rows: NDArray[np.int64], before: Array, ids: NDArray[np.int64]
    ) -> tuple[_Data, _Refined]:
        data, refined, stream.step = ranks.from_first(lambda: (*searched_at(noise, rows, before, ids), stream.step))
        return data, refined

    def searched_at(
        noise: NoiseLevel, rows: NDArray[np.int64], before: Array, ids: NDArray[np.int64]
    ) -> tuple[_Data, _Refined]:
        usual = search_at(noise, rows, before, ids)
        if noise.white or noise.structured or usual[1].outcome.excess < _CONTRADICTED:
            return usual
        level, most = floor, _level_left(*usual) / _BETTER
        # Prices rise where the level is too low, so that any low one leads to the right one.
        for white in (False, True):
            data, refined = search_at(noise.at(level, _LEFT_BY_COMPONENTS, white=white), rows, before, ids)
            level = _level_left(data, refined)
            if level > most:
                return usual
        if not evidence.as_expected(refined.outcome):
            return usual
        return data, refined._replace(again=evidence.AT_A_LOWER_LEVEL)

    data, refined = search(noise, rows, first, first_ids)
    reason = NO_TRAINING
    if len(rows) < len(spectra):
        data, refined, searched = _on_all(spectra, data, refined, rows, search, form, report)
        reason += f" The search worked on {searched} of the {len(spectra)} spectra, what it found was fitted to all."

    # Nothing else of the pool was ever made.
    ids = refined.outcome.factors.ids
    learned = ids[(ids >= len(given)) & (ids != last)]
    place = dict(zip(sorted(learned.tolist()), range(len(given), len(given) + len(learned)), strict=True))
    size = max(1, len(given) + len(learned) + background)
    place |= {i: i for i in range(len(given))} | ({} if last is None else {last: size - 1})
    model = build(size)
    placed = refined.outcome.factors._replace(ids=np.array([place[int(i)] for i in ids], np.int64))
    if weights is not None:
        placed = placed._replace(components=placed.components / weights)
        refined = refined._replace(gates=refined.gates._replace(weights=tuple(weights.tolist())))
    refined = refined._replace(
        outcome=refined.outcome._replace(factors=placed),
        gates=refined.gates._replace(open_ids=tuple(sorted(placed.ids.tolist()))),
    )
    form = form._replace(fixed=tuple(place[i] for i in fixed), background=None if last is None else size - 1)
    state = {name: values.detach().clone() for name, values in model.state_dict().items()}
    nothing = Record(0, math.inf, -math.inf, 0.0, [])
    result = TrainingResult(state, nothing, reason, "", [], list(bands), None)
    return _result(result, model, data, refined, form, original), model


def _on_all(
    spectra: Table,
    data: _Data,
    refined: _Refined,
    rows: NDArray[np.int64],
    search: Callable[[NoiseLevel, NDArray[np.int64], Array, NDArray[np.int64]], tuple[_Data, _Refined]],
    form: _Form,
    report: Callable[[int], None] | None,
) -> tuple[_Data, _Refined, int]:
    """What a search on some of the spectra found, fitted to all; with a second search where some are described badly.

    Returns
    -------
    data, refined : _Data, _Refined
        Of the last search, with components and the price of a gate for all spectra.
    searched : int
        Spectra that were searched.
    """
    noise, outcome = data.noise, refined.outcome
    usual = outcome.path[outcome.chosen].power
    badly = many_spectra.described_badly(spectra, noise, outcome.factors.components, refined.gates.price, usual)
    rows = np.union1d(rows, badly)
    if len(badly):
        data, refined = search(noise, rows, outcome.factors.components, outcome.factors.ids)
        noise = data.noise
        outcome = refined.outcome
    dearer = price_of_gate(len(spectra), form.pool) / price_of_gate(len(rows), form.pool)
    gates = refined.gates._replace(price=refined.gates.price * dearer)
    factors = many_spectra.settled_on_all(
        spectra,
        noise,
        outcome.factors,
        gates,
        non_negative=form.non_negative,
        sparse=form.sparse,
        fixed=form.fixed,
        report=report,
    )
    return data, _Refined(outcome._replace(factors=factors), gates, refined.again), len(rows)


class _Data(NamedTuple):
    """Spectra, their noise, and the spectra in units of it."""

    spectra: NDArray[np.float32]
    noise: NoiseLevel
    level: Array
    scaled: Array
    power: float
    variation: float

    @classmethod
    def of(cls, spectra: NDArray[np.float32], noise: NoiseLevel) -> _Data:
        level = noise_of_rows(spectra, noise)
        return cls(spectra, noise, level, spectra.astype(np.float64) / level[:, None], *squares(spectra))


class _Form(NamedTuple):
    """What kind of mixture is searched for."""

    pool: int
    non_negative: bool
    sparse: bool
    fixed: tuple[int, ...]
    background: int | None
    reserved: tuple[int, ...] = ()
    asked: AskedCount = FREELY
    known: Knowledge = NOTHING


class _Refined(NamedTuple):
    outcome: Outcome
    gates: ExactGates
    again: str = ""


def _level_left(data: _Data, refined: _Refined) -> float:
    """What the components leave for each degree of freedom, as a share of the spectra's; infinite if few are left."""
    outcome, size = refined.outcome.by_the_spectra, data.spectra.size
    left = float(outcome.path[outcome.chosen].power @ data.level**2)
    free = degrees_of_freedom(size, outcome.factors)
    return left / free * size / data.power if free else math.inf


def _best(found: Sequence[_Refined], asked: AskedCount) -> _Refined:
    """The search that ended cheapest; where the count is given, with the least residual."""
    if asked.exactly is None:
        return min(found, key=lambda refined: refined.outcome.cost)
    best = min(found, key=lambda refined: refined.outcome.path[refined.outcome.chosen].residual)
    by_the_spectra = min((refined.outcome.by_the_spectra for refined in found), key=lambda outcome: outcome.cost)
    if by_the_spectra.path[by_the_spectra.chosen].size == asked.exactly:
        return best._replace(outcome=best.outcome._replace(found=None))
    return best._replace(outcome=best.outcome._replace(found=by_the_spectra))


def _trusted(found: Sequence[_Refined], noise: NoiseLevel, asked: AskedCount) -> bool:
    """Whether no other start need be tried: the residual is the noise, or three searches ended alike."""
    decided = asked.exactly is not None or any(refined.outcome.found is not None for refined in found)
    if decided and len(found) < _ASKED_STARTS:
        return False
    last = found[-1].outcome.by_the_spectra
    if not noise.white or last.excess < _LITTLE_EXCESS:
        return True
    alike = (abs(last.cost - other.outcome.by_the_spectra.cost) < _ALIKE * last.component_price for other in found[:-1])
    return sum(alike) >= 2


def _search(data: _Data, start: Factors, form: _Form, report: Callable[[int], None] | None) -> _Refined:
    def search(noise: NoiseLevel) -> tuple[Outcome, ExactGates]:
        refinement = Refinement(
            data.scaled,
            0.0,
            0.0,
            correlation=noise.correlation,
            non_negative=form.non_negative,
            sparse=form.sparse,
            fixed=form.fixed,
            background=form.background,
            report=report,
        )
        search = CountSearch(
            refinement, form.pool, structured=noise.structured, reserved=form.reserved, asked=form.asked
        )
        outcome = search.run(refinement.filtered(start))
        outcome = outcome._replace(factors=refinement.plain(outcome.factors))
        return outcome, ExactGates(noise, refinement.gate_price, tuple(sorted(int(i) for i in outcome.factors.ids)))

    outcome, gates = search(data.noise)
    by_the_spectra = outcome.by_the_spectra
    unexplained = float(by_the_spectra.path[by_the_spectra.chosen].power @ data.level**2)
    if data.noise.structured and evidence.misfits(nmse_of(unexplained, data.power), data.noise):
        # The price of a component was all that the noise may be, and too high for every one of them.
        return _Refined(*search(data.noise._replace(structured=False)), evidence.AT_WHITE_PRICES)
    return _Refined(outcome, gates)


def _result(
    result: TrainingResult,
    model: UnmixingModel,
    data: _Data,
    refined: _Refined,
    form: _Form,
    spectra: Table,
) -> TrainingResult:
    """The result with the refined state, and the model in it; `spectra` are all, `data` those that were searched."""
    outcome, background, weighting = refined.outcome, form.background, form.known.weighting
    noise = noise_of_present(data.noise, weighting)
    refined = refined._replace(gates=refined.gates._replace(noise=noise_of_present(refined.gates.noise, weighting)))
    state = _written(result.state, model, outcome.factors, form.fixed)
    model.load_state_dict(state)
    gates, concentrations = _settled(model, refined.gates, spectra, keep=form.asked.exactly is not None)
    ids = list(gates.open_ids)
    last = _Last(concentrations, state, gates)
    # A disturbance of single spectra is no pure one.
    choose = _several_fit(outcome, form, spectra.shape) and not evidence.rare(concentrations).any()
    choose = choose and comparable(spectra.shape, len(ids))
    if ids and (choose or form.known.needs_a_fit):
        last = _last_fit(model, last, spectra, noise, form, choose=choose)
        model.load_state_dict(last.state)
    concentrations, state, gates = last.concentrations, last.state, last.gates
    components = model.effective_components()[ids].detach().cpu().double().numpy()
    if weighting is None:
        own, part = own_share(spectra)
        amounts = concentrations[own]
        left = sum(float(((block - amounts[rows] @ components) ** 2).sum()) for rows, block in row_blocks(part))
        total = torch.tensor(left, dtype=torch.float64)
        ranks.add([total])
        residual = float(total)
        power, variation = squares(spectra)
    else:
        fit = concentrations @ components
        spectra = np.where(np.isnan(spectra[:]), fit, spectra[:])
        residual, power, variation = weighting.squares(spectra, fit)
    nmse = nmse_of(residual, power)
    final = Factors(concentrations.astype(np.float64), components, np.asarray(ids, np.int64))
    outcome = outcome._replace(factors=final)
    rank = numerical_rank(whitened(data.scaled, noise.correlation))
    count = len(ids) - (background in ids)
    path = evidence.path_rows(outcome, data.level**2, data.power, data.variation)
    path[outcome.chosen]["count"] = count
    plain = gates.weights is None and not noise.correlation and len(data.spectra) == len(spectra)
    if plain or (weighting is not None and weighting.given):
        path[outcome.chosen] |= {"nmse": nmse, "r2": r2_of(residual, variation)}
    chosen = " ".join(filter(None, (evidence.reason(count, nmse, outcome, noise, form.asked), last.taken)))
    weighted_nmse = nmse
    if gates.weights is not None:
        weighted_nmse = nmse_of(float(outcome.path[outcome.chosen].power @ data.level**2), data.power)
    before = result.record
    return result._replace(
        state=state,
        record=Record(before.epoch, nmse, r2_of(residual, variation), before.mean_energy, ids),
        chosen_reason=chosen,
        gates=gates,
        concentrations=concentrations,
        evidence={
            "count": count,
            "reason": chosen,
            "trained_count": before.size - (background in before.component_ids) if result.history else None,
            "asked": form.asked._asdict(),
            "by_the_spectra": (found.path[found.chosen].size if (found := outcome.found) else count),
            "path": path,
            "rise": None if math.isinf(outcome.rise) else outcome.rise / outcome.component_price,
            "rank_check": rank,
            "residual_excess": outcome.excess,
            "residual_colour": outcome.colour,
            "constraints": [report._asdict() for report in last.reports],
            "mixtures": last.tried or {},
            "cautions": [
                *evidence.of_spectra(spectra, noise, non_negative=form.non_negative, background=background is not None),
                *evidence.cautions(
                    outcome,
                    weighted_nmse,
                    rank,
                    noise,
                    background,
                    again=refined.again,
                    weighted=gates.weights is not None,
                    asked=weighting is not None and weighting.given,
                ),
            ],
        },
    )


def _several_fit(outcome: Outcome, form: _Form, shape: tuple[int, ...]) -> bool:
    """Whether mixtures that fit equally well are to be compared, and can be."""
    plain = form.non_negative and not form.sparse and form.background is None
    free = form.known.prefer is None and not form.known.needs_a_fit
    return plain and free and _all_fit(outcome, shape)


def _all_fit(outcome: Outcome, shape: tuple[int, ...]) -> bool:
    """Whether every component explains more than mixtures that fit equally well may differ by."""
    here, found = outcome.path[outcome.chosen], outcome.found
    if found is None or found.path[found.chosen].size >= here.size:
        return True
    fewer = min((step.residual for step in outcome.path if step.size == here.size - 1), default=0.0)
    return fewer > here.residual * (1 + margin_of(shape[0], shape[1]))


class _Last(NamedTuple):
    """How a fit ends: with the state and gates of the search, or of one more fit."""

    concentrations: NDArray[np.float32]
    state: State
    gates: ExactGates
    reports: Sequence[Report] = ()
    taken: str = ""
    tried: dict[str, dict[str, float]] | None = None


def _last_fit(
    model: UnmixingModel, found: _Last, spectra: Table, noise: NoiseLevel, form: _Form, *, choose: bool
) -> _Last:
    """A fit that obeys what the user knows and prefers; without that, one of those that fit as well, or `found`."""
    concentrations, state, gates = found.concentrations, found.state, found.gates
    ids, weighting = np.asarray(gates.open_ids, np.int64), form.known.weighting
    bands = np.ones(spectra.shape[1]) if gates.weights is None else np.asarray(gates.weights)
    data, shares = spectra[:].astype(np.float64), None
    if weighting is None:
        rows = 1.0 / noise_of_rows(data * bands, noise)
    else:
        present = weighting.weights > 0
        data = np.where(present, data, 0.0)
        shares = weighting.weights / np.outer(weighting.rows**2, bands**2 if weighting.given else np.ones(len(bands)))
        most = float(shares.max())
        shares /= most
        level = level_of_present(data * bands * weighting.rows[:, None], present, noise)
        rows = math.sqrt(most) * weighting.rows / level
    mixture = Mixture(
        data,
        rows,
        bands,
        ids,
        ids != form.background,
        np.isin(ids, form.fixed),
        form.non_negative,
        form.known.runs,
        shares,
        form.known.signed,
    )
    shapes = model.effective_components()[ids.tolist()].detach().cpu().double().numpy()
    amounts, reports, taken = concentrations.astype(np.float64), list[Report](), ""
    choice, prefer = None, form.known.prefer
    if choose:
        choice = best_supported(mixture, amounts, shapes)
    if choice is not None:
        amounts, shapes, taken, tried = choice
        found = found._replace(tried=tried)
    elif prefer is not None and prefer != "first":
        amounts, shapes, reports, taken = preferred(mixture, amounts, shapes, form.known, prefer)
    elif not form.known.needs_a_fit:
        return found
    elif form.known.constraints or form.known.signed:
        amounts, shapes, reports = constrained(mixture, amounts, shapes, form.known.constraints)
    else:
        assert shares is not None
        amounts, shapes = weighted.fitted(
            data,
            np.outer(rows**2, bands**2) * shares,
            amounts,
            shapes,
            price=gates.price,
            non_negative=form.non_negative,
            held=mixture.held,
        )
    components = state["vanilla_components"].clone()
    components[torch.from_numpy(ids)] = torch.from_numpy(shapes).to(components)
    state = {**state, "vanilla_components": components}
    model.load_state_dict(state)
    # The model brings components to the norm it keeps.
    kept = np.linalg.norm(model.effective_components()[ids.tolist()].detach().cpu().double().numpy(), axis=1)
    amounts *= np.linalg.norm(shapes, axis=1) / np.where(kept > 0, kept, 1.0)
    if choice is not None:
        gates, concentrations = _gated(model, gates, spectra)
        return found._replace(concentrations=concentrations, state=state, gates=gates, taken=taken)
    if prefer not in (None, "first"):
        gates = gates._replace(price=0.0)
    return found._replace(
        concentrations=amounts.astype(np.float32), state=state, gates=gates, reports=reports, taken=taken
    )


def _gated(model: UnmixingModel, gates: ExactGates, spectra: Table) -> tuple[ExactGates, NDArray[np.float32]]:
    """Concentrations (n, k) as `transform` gives them, with gates that leave none of the components out."""
    index = torch.tensor(gates.open_ids, dtype=torch.int64, device=model.vanilla_components.device)
    for tried in (gates, gates._replace(price=0.0)):
        model.gates = tried
        found: NDArray[np.float32] = model.parse_array(spectra, index, wanted=("concentration",))["concentration"]
        if found.any(0).all():
            break
    return tried, found


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
    name = f"{layer_names(state, 'component_parser.energy_evaluator')[-1]}.bias"
    bias = state[name].clone()
    closed = torch.ones(model.num_components, dtype=torch.bool)
    closed[torch.from_numpy(factors.ids)] = False
    bias.view(-1, 2)[closed] = torch.tensor((FAR_ENERGY, -FAR_ENERGY), dtype=bias.dtype)
    written[name] = bias
    return written


def _settled(
    model: UnmixingModel, gates: ExactGates, spectra: Table, *, keep: bool
) -> tuple[ExactGates, NDArray[np.float32]]:
    """The gates without components that no spectrum opens, and concentrations (n, k) of the others.

    With `keep` all components stay: gates that close one for all spectra cost nothing then.
    """
    while True:
        model.gates = gates
        index: Tensor = torch.tensor(gates.open_ids, dtype=torch.int64, device=model.vanilla_components.device)
        own, part = own_share(spectra)
        found = np.zeros((len(spectra), len(index)), np.float32)
        found[own] = model.parse_array(part, index, wanted=("concentration",))["concentration"]
        ranks.add([torch.from_numpy(found)])
        used = found.any(0)
        if used.all() or (keep and gates.price == 0):
            return gates, found
        if keep:
            gates = gates._replace(price=0.0)
            continue
        gates = gates._replace(open_ids=tuple(int(i) for i in np.asarray(gates.open_ids)[used]))
