"""What a training run ends with: the chosen state, and the best state of every band it reached."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from spectrafuse._runtime import checks
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training.checkpoint import Record, State, StateKeeper
from spectrafuse.mcr.training.compaction import Compaction
from spectrafuse.mcr.training.rules import Band


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
    keeper : StateKeeper
        The best state of each band that was reached.
    gates : ExactGates or None
        Of a refined state; None: the networks decide.
    evidence : dict or None
        What a refined state's count rests on, as plain values.
    compactions : tuple of Compaction
        When components left the pool, and what that changed.
    """

    state: State
    record: Record
    stop_reason: str
    chosen_reason: str
    history: list[dict[str, float]]
    bands: list[Band]
    keeper: StateKeeper
    gates: ExactGates | None = None
    evidence: dict[str, Any] | None = None
    compactions: tuple[Compaction, ...] = ()

    def count_curve(self, criterion: str, background: int | None = None) -> list[dict[str, float]]:
        """Fewest components, the background aside, against fit: one row for each band that was reached."""
        rows = []
        for band in self.bands:
            if band.name in self.keeper.slots:
                record = self.keeper.slots[band.name].record
                edges = {f"{criterion.lower()}_from": band.start, f"{criterion.lower()}_to": band.end}
                count = record.size - (background in record.component_ids)
                fit = {"count": count, "r2": record.r2, "nmse": record.nmse, "epoch": record.epoch}
                rows.append({**edges, **fit})
        return rows

    def of_band(self, start: float) -> TrainingResult:
        """The same run with the state of another band, the one that begins at `start`.

        Raises
        ------
        ValueError
            If no such band was reached.
        """
        reached = [band for band in self.bands if band.name in self.keeper.slots]
        for band in reached:
            if math.isclose(band.start, start, rel_tol=0.0, abs_tol=1e-9):
                record = self.keeper.slots[band.name].record
                reason = f"Band {band.name} was asked for: {record.size} components, epoch {record.epoch}."
                state = self.keeper.state(band.name)
                return self._replace(state=state, record=record, chosen_reason=reason, gates=None, evidence=None)
        known = ", ".join(f"{band.start:g}" for band in reached) or "none was reached"
        raise checks.fail("r2_from", f"where a row of `count_curve_` begins ({known})", start)
