"""Several files in one `unmix`: runs one after another, or instruments side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectrafuse._runtime.text import distinct_names
from spectrafuse.cli.terminal import CommandError

if TYPE_CHECKING:
    from spectrafuse.io.spectra import Spectra


@dataclass(frozen=True, eq=False)
class Experiments:
    """Spectra of one or several files.

    Attributes
    ----------
    spectra : Spectra
        Of all files together.
    parts : list of Spectra
        Of each file.
    names : list of str
        What results call the files.
    beside : bool
        The files' bands stand side by side; else their spectra one after another.
    sample_weight : ndarray, (n, d), or None
        Of values, where instruments stand side by side.
    """

    spectra: Spectra
    parts: list[Spectra]
    names: list[str]
    beside: bool = False
    sample_weight: np.ndarray | None = None

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Name and number of spectra of each run; empty where there is one."""
        if self.beside or len(self.parts) < 2:
            return []
        return [(name, len(part.data)) for name, part in zip(self.names, self.parts, strict=True)]

    @property
    def instruments(self) -> list[tuple[str, Spectra, slice]]:
        """Name, spectra and bands of each instrument; empty where there is one."""
        if not self.beside:
            return []
        ends = np.cumsum([part.data.shape[1] for part in self.parts])
        return [
            (name, part, slice(end - part.data.shape[1], end))
            for name, part, end in zip(self.names, self.parts, ends.tolist(), strict=True)
        ]


def joined(parts: Sequence[Spectra], *, beside: bool) -> Experiments:
    """Several files as one experiment.

    Raises
    ------
    CommandError
        If they do not fit together.
    """
    names = distinct_names([Path(part.source).stem for part in parts], "run")
    if len(parts) == 1:
        if beside:
            raise CommandError("--side-by-side is about several files of the same samples; there is one.")
        return Experiments(parts[0], list(parts), names)
    return _beside(parts, names) if beside else _stacked(parts, names)


def _together(parts: Sequence[Spectra], data: np.ndarray) -> Spectra:
    digest = hashlib.sha256(" ".join(part.sha256 for part in parts).encode()).hexdigest()
    source = ", ".join(part.source for part in parts)
    layout = f"{len(parts)} files"
    return replace(parts[0], data=data, sha256=digest, source=source, layout=layout, positions=None, grid=None)


def _stacked(parts: Sequence[Spectra], names: Sequence[str]) -> Experiments:
    first = parts[0]
    for part in parts[1:]:
        same = part.data.shape[1] == first.data.shape[1]
        if same and first.axis is not None and part.axis is not None:
            same = bool(np.allclose(part.axis, first.axis, rtol=1e-6))
        if not same or (first.axis is None) != (part.axis is None):
            raise CommandError(
                f"Runs must have one axis: '{first.source}' has {_axis(first)}, '{part.source}' {_axis(part)}. Bring "
                "them to one axis first; of several instruments give --side-by-side."
            )
    process = None
    titles = {None if part.process is None else part.process[0] for part in parts}
    if len(titles) == 1 and first.process is not None:
        process = first.process[0], np.concatenate([part.process[1] for part in parts if part.process is not None])
    labels = [
        f"{run} {name}"
        for run, part in zip(names, parts, strict=True)
        for name in part.names or map(str, range(1, len(part.data) + 1))
    ]
    together = _together(parts, np.vstack([part.data for part in parts]))
    return Experiments(replace(together, names=labels, process=process), list(parts), list(names))


def _beside(parts: Sequence[Spectra], names: Sequence[str]) -> Experiments:
    from spectrafuse.mcr.experiments import side_by_side

    first = parts[0]
    for part in parts[1:]:
        if len(part.data) != len(first.data):
            raise CommandError(
                f"--side-by-side needs the same samples in all files: '{first.source}' holds {len(first.data)} "
                f"spectra, '{part.source}' {len(part.data)}."
            )
        if part.names and first.names and part.names != first.names and sorted(part.names) == sorted(first.names):
            raise CommandError(
                f"--side-by-side needs the samples in one order: those of '{part.source}' are named as those of "
                f"'{first.source}', but stand in another order."
            )
    both = side_by_side([part.data for part in parts])
    together = replace(_together(parts, both.spectra), axis=None, axis_title=None, axis_unit=None, band_names=None)
    if together.names is None:
        together = replace(together, names=next((part.names for part in parts if part.names), None))
    return Experiments(together, list(parts), list(names), True, both.sample_weight)


def _axis(spectra: Spectra) -> str:
    bands = f"{spectra.data.shape[1]} bands"
    if spectra.axis is None:
        return f"{bands} without an axis"
    unit = f" {spectra.axis_unit}" if spectra.axis_unit else ""
    return f"{bands} from {spectra.axis[0]:g} to {spectra.axis[-1]:g}{unit}"
