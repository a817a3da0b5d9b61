"""The state of a training run: the best states of every band of fit, and what resuming needs, in files."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.safetensors import write_tensors
from spectrafuse._runtime.tensor_files import load_state
from spectrafuse.io.atomic import atomic_folder, atomic_write
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import differences, sha256
from spectrafuse.mcr.model import UnmixingModel, layer_names
from spectrafuse.mcr.model_io import CONFIG_FILE, STATE_FILE, State, read_state, write_model

SMALLEST_SHARE_SAVING = 20.0
"""Saving may take one part in so many of the time between two saves."""

TRAINING_FILE = "training.pt"
RESULT_FILE, HASH_FILE = "result.csv", "sha256"
_FILES = {CONFIG_FILE, STATE_FILE, RESULT_FILE, HASH_FILE}
_TRAINING_VERSION = 3
_STATE_MEMORY = 2**28


class Record(NamedTuple):
    """One evaluated state.

    Attributes
    ----------
    epoch : int
        Epochs done.
    nmse, r2, mean_energy : float
    component_ids : list of int
        Components that some sample selected, ascending.
    """

    epoch: int
    nmse: float
    r2: float
    mean_energy: float
    component_ids: list[int]

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.component_ids)


class _Slot:
    """The best record of a name, and its state where it is not on disk."""

    def __init__(self, record: Record, state: State | None) -> None:
        self.record = record
        self.state = state


def rescale(state: State, factor: float) -> State:
    """The state of the same model for spectra `factor` times as large.

    First layers divide by the factor, the regressor's last one multiplies; both exactly, for a power of two.
    """
    if factor == 1.0:
        return state
    scaled = dict(state)
    for network in ("component_parser.energy_evaluator", "concentration_regressor"):
        first, last = (f"{layer_names(state, network)[place]}." for place in (0, -1))
        scaled[first + "weight"] = scaled[first + "weight"] / factor
        if network == "concentration_regressor":
            for part in ("weight", "bias"):
                scaled[last + part] = scaled[last + part] * factor
    return scaled


class StateKeeper:
    """Keeps, for each name, the state with the fewest components.

    Parameters
    ----------
    config : dict
        The model's `param.json`.
    folder : Path or None
        Where `flush` writes states, a folder each; None: those that are too many for memory go to a temporary folder.
    scale : float
        Factor by which states in `folder` are made to fit the spectra as given.
    memory : int
        Bytes that states may take in memory; one may be there whatever its size.
    """

    def __init__(
        self, config: dict[str, Any], folder: Path | None = None, scale: float = 1.0, memory: int = _STATE_MEMORY
    ) -> None:
        self.config = config
        self.folder = folder
        self.scale = scale
        self.memory = memory
        self.slots: dict[str, _Slot] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._next_write = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle must not depend on a temporary folder.
        if self._temporary is None:
            return self.__dict__
        slots = {name: _Slot(slot.record, self._loaded(name)) for name, slot in self.slots.items()}
        return {**self.__dict__, "slots": slots, "_temporary": None}

    def offer(self, name: str, record: Record, model: UnmixingModel, criterion: str = "nMSE") -> bool:
        """Keep the model's present state under `name` if it has fewer components, or as many and no worse a fit."""
        slot = self.slots.get(name)
        if slot is not None:
            worse = record.r2 < slot.record.r2 if criterion == "R2" else record.nmse > slot.record.nmse
            if record.size > slot.record.size or (record.size == slot.record.size and worse):
                return False
        self.slots[name] = _Slot(record, self._copy(name, record, model))
        return True

    def _copy(self, name: str, record: Record, model: UnmixingModel) -> State:
        """The model's state in memory: shared with another name of this epoch, or in the place of what it replaces."""
        others = [slot for other, slot in self.slots.items() if other != name and slot.state is not None]
        for slot in others:
            if slot.record.epoch == record.epoch and slot.state is not None:
                return slot.state
        self._make_room(name, sum(value.nbytes for value in model.state_dict().values()))
        old = self.slots[name].state if name in self.slots else None
        if any(slot.state is old for slot in others):
            old = None
        if old is None:
            return copy_state(model)
        for key, value in model.state_dict().items():
            old[key].copy_(value)
        return old

    def _make_room(self, name: str, size: int) -> None:
        """Write states other than `name`'s until one of this size finds room beside those that stay in memory."""
        held = {id(s.state): s.state for n, s in self.slots.items() if n != name and s.state is not None}
        if (len(held) + 1) * size <= self.memory:
            return
        for other in self.slots:
            if other != name:
                self._write(other)

    def _write(self, name: str) -> None:
        """Write a state that is in memory, and let it go."""
        slot = self.slots[name]
        if slot.state is None:
            return
        if self.folder is not None:
            self.check(name)
            with atomic_folder(self.folder / name) as temporary:
                write_model(temporary, self.config, rescale(slot.state, self.scale))
                write_result(temporary / RESULT_FILE, slot.record)
                (temporary / HASH_FILE).write_text(sha256(temporary / STATE_FILE), encoding="utf-8")
        else:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(prefix="spectrafuse-")
            folder = Path(self._temporary.name, name)
            folder.mkdir(exist_ok=True)
            write_tensors(folder / STATE_FILE, rescale(slot.state, self.scale))
        slot.state = None

    def check(self, name: str) -> None:
        """Refuse to replace a folder that holds anything else than a state.

        Raises
        ------
        ValueError
            With the first such file.
        """
        path = Path(self.folder or "", name)
        others = sorted(set(os.listdir(path)) - _FILES) if path.is_dir() else []
        if others:
            raise InvalidValueError(
                f"'{path}' also holds '{others[0]}', and this folder is replaced as a whole; give another "
                "`checkpoint_dir`."
            )

    def flush(self) -> None:
        """Write what has changed since the last time; does nothing without a folder."""
        if self.folder is not None:
            for name in self.slots:
                self._write(name)

    def stream(self) -> None:
        """`flush`, but for when that would take more than a twentieth of the time: what has improved then waits.

        A run that is killed loses improvements of the last 20 times as long as its last writing took, and no others,
        if it calls this after every epoch.
        """
        started = time.monotonic()
        if started >= self._next_write:
            self.flush()
            ended = time.monotonic()
            self._next_write = ended + SMALLEST_SHARE_SAVING * (ended - started)

    def _loaded(self, name: str) -> State:
        """A kept state in the unit of the training, which memory holds."""
        slot = self.slots[name]
        return rescale(self.state(name), 1.0 / self.scale) if slot.state is None else slot.state

    def state(self, name: str) -> State:
        """A kept state, for spectra as given."""
        slot = self.slots[name]
        if slot.state is not None:
            return rescale(slot.state, self.scale)
        folder = self.folder if self._temporary is None else Path(self._temporary.name)
        assert folder is not None
        return read_state(folder / name)

    def saved(self) -> dict[str, Any]:
        """The records, as plain values; states are in the folder once `flush` has run."""
        return {name: list(slot.record) for name, slot in self.slots.items()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Resume with records whose states are in the folder.

        Raises
        ------
        ValueError
            If one of them is damaged.
        """
        for name in saved:
            assert self.folder is not None
            path = self.folder / name / STATE_FILE
            try:
                whole = (self.folder / name / HASH_FILE).read_bytes() == sha256(path).encode()
            except (OSError, DataError):
                whole = False
            if not whole:
                raise InvalidValueError(f"'{path}' is damaged or gone; delete '{self.folder}' to start again.")
        self.slots = {name: _Slot(Record(*record), None) for name, record in saved.items()}


def copy_state(model: UnmixingModel) -> State:
    """A copy of the model's state in main memory."""
    return {
        key: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }


def write_result(path: Path, record: Record) -> None:
    """Write `result.csv` with the published columns."""
    values = (record.nmse, record.r2, record.mean_energy, record.size)
    line = ",".join(str(value) for value in values)
    path.write_text(f"nMSE,R2,mean_energy,effective_components\n{line}\n", encoding="utf-8")


def save_training(folder: Path, contents: dict[str, Any]) -> None:
    """Write a training run's state completely or not at all."""
    with atomic_write(folder / TRAINING_FILE) as temporary:
        torch.save({"version": _TRAINING_VERSION, **contents}, temporary)


def load_training(folder: Path, fingerprint: dict[str, str]) -> dict[str, Any] | None:
    """The saved state of the same run, to resume it; None where there is none.

    Raises
    ------
    ValueError
        If the file is damaged, or the folder holds a run of other parameters or data; the message names what differs.
    """
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    contents = load_state(path)
    if contents.get("version") != _TRAINING_VERSION:
        raise InvalidValueError(f"'{path}' was written by another version of this package; give another folder.")
    different = differences(contents.get("fingerprint", {}), fingerprint)
    if different:
        raise InvalidValueError(
            f"'{folder}' holds a run with other settings, so it cannot be resumed: {'; '.join(different)}. "
            "Give another folder or remove this one."
        )
    return contents
