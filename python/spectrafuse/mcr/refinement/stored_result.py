"""Results of fits without training in files, so that the same fit need not be made again."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from spectrafuse.mcr.noise import NoiseLevel
from spectrafuse.mcr.refinement.hard_gates import ExactGates
from spectrafuse.mcr.training.checkpoint import Record, load_training, save_training
from spectrafuse.mcr.training.rules import Band
from spectrafuse.mcr.training.trainer import TrainingResult


def save_result(folder: Path, fingerprint: dict[str, str], result: TrainingResult) -> None:
    """Write a result; it appears complete or not at all."""
    gates, record = result.gates, result.record
    contents = {
        "fingerprint": fingerprint,
        "state": result.state,
        "record": [record.epoch, *map(float, record[1:4]), record.component_ids],
        "reasons": [result.stop_reason, result.chosen_reason],
        "gates": None
        if gates is None
        else [list(gates.noise), float(gates.price), list(gates.open_ids), gates.weights],
        "evidence": json.dumps(result.evidence),
        "concentrations": None if result.concentrations is None else torch.from_numpy(result.concentrations),
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
    amounts = contents.get("concentrations")
    result = TrainingResult(
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
    return result._replace(concentrations=None if amounts is None else amounts.numpy())
