"""What a training run ends with: the chosen state, and the best state of every band it reached."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrafuse._runtime import checks
from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training.checkpoint import Record, State, StateKeeper, load_training, save_training
from spectrafuse.mcr.training.compaction import Compaction
from spectrafuse.mcr.training.rules import Band, band_of


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
            return self._passed(criterion)
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
        fewest: dict[str, tuple[Band, dict[str, Any]]] = {}
        for row in (self.evidence or {}).get("path", ()):
            band = band_of(row[criterion.lower()], criterion, self.bands)
            if band is not None and (band.name not in fewest or row["count"] <= fewest[band.name][1]["count"]):
                fewest[band.name] = band, row
        edge = criterion.lower()
        return [
            {f"{edge}_from": band.start, f"{edge}_to": band.end}
            | {key: row[key] for key in ("count", "r2", "nmse")}
            | {"epoch": 0}
            for band, row in (fewest[band.name] for band in self.bands if band.name in fewest)
        ]

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


def save_result(folder: Path, fingerprint: dict[str, str], result: TrainingResult) -> None:
    """Write the result of a fit without training, so that the same fit need not be made again."""
    gates = result.gates
    contents = {
        "fingerprint": fingerprint,
        "state": result.state,
        "record": [result.record.epoch, *map(float, result.record[1:4]), result.record.component_ids],
        "reasons": [result.stop_reason, result.chosen_reason],
        "gates": None
        if gates is None
        else [list(gates.noise), float(gates.price), list(gates.open_ids), gates.weights],
        "evidence": json.dumps(result.evidence),
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_training(folder, contents)


def load_result(folder: Path, fingerprint: dict[str, str], bands: list[Band]) -> TrainingResult | None:
    """What `save_result` wrote for the same fit; None where there is nothing.

    Raises
    ------
    ValueError
        If the folder holds another run.
    """
    contents = load_training(folder, fingerprint)
    if contents is None:
        return None
    gates, (stop_reason, chosen_reason) = contents["gates"], contents["reasons"]
    return TrainingResult(
        contents["state"],
        Record(*contents["record"]),
        stop_reason,
        chosen_reason,
        [],
        bands,
        None,
        None if gates is None else ExactGates(NoiseLevel(*gates[0]), gates[1], tuple(gates[2]), gates[3]),
        json.loads(contents["evidence"]),
    )
