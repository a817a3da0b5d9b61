"""`spectrafuse demo`: both algorithms on real data that installs with the extra `demo`.

The data are written as files, and the two commands run on them as a user would run them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse.cli import ownership
from spectrafuse.cli.segment import SegmentRequest, segment
from spectrafuse.cli.terminal import CommandError, output_console
from spectrafuse.cli.unmix import UnmixRequest, unmix
from spectrafuse.io.atomic import atomic_write
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.results import write_json

if TYPE_CHECKING:
    from rich.console import Console

_RECORD, _PICTURE = "demo.json", "indian_pines_against_truth.png"
INSTALL = "The demo needs the packages tensorly and chemotools for their data: pip install 'spectrafuse[demo]'"

INDIAN_PINES_CLASSES = (
    "unlabeled",
    "alfalfa",
    "corn, no till",
    "corn, min till",
    "corn",
    "grass, pasture",
    "grass, trees",
    "grass, mowed",
    "hay, windrowed",
    "oats",
    "soybean, no till",
    "soybean, min till",
    "soybean, clean",
    "wheat",
    "woods",
    "buildings, trees",
    "stone, steel towers",
)
"""Ground truth of the scene in the order of its labels (Purdue, doi:10.4231/R7RX991C)."""

SEGMENT_SETTINGS: dict[str, Any] = {"n_clusters": 16, "recipe": "corrected"}
UNMIX_SETTINGS: dict[str, Any] = {"recipe": "corrected", "noise": 0.002}
"""Chosen so that both runs together take a few minutes on two cores.

The noise is given: neighboring wavenumbers scatter by 0.00125, and the instrument drifts slowly on top of that.
"""

GLUCOSE_BAND = (960.0, 1200.0)
"""Wavenumbers (1/cm) where sugars absorb in the mid-infrared; outside, these spectra hold mostly the instrument."""


def indian_pines() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Indian Pines scene `(145, 145, 200)` uint16, wavelengths `(200,)` in nm, labels `(145, 145)`, 0: none.

    From the package tensorly; data by Purdue University, CC BY 3.0, doi:10.4231/R7RX991C.
    """
    try:
        from tensorly.datasets import load_indian_pines
    except ImportError as error:
        raise CommandError(INSTALL) from error
    scene = load_indian_pines()
    labels, wavelengths = scene.ticks
    return np.asarray(scene.tensor).astype(np.uint16), np.asarray(wavelengths, float), np.asarray(labels, np.int64)


def fermentation() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Absorbance of 21 fermentation samples `(21, d)`, wavenumbers `(d,)` in 1/cm, HPLC glucose `(21,)` in g/L.

    From the package chemotools. Its spectra fall where sugars absorb, as transmission does, so absorbance is
    -log10; of each spectrum its smallest value in the glucose band is taken away, which removes the background.
    """
    try:
        folder = resources.files("chemotools.datasets") / "data"
    except ImportError as error:
        raise CommandError(INSTALL) from error
    spectra_file, glucose_file = folder / "train_spectra.csv", folder / "train_hplc.csv"
    if not (spectra_file.is_file() and glucose_file.is_file()):
        raise CommandError("This version of chemotools does not hold the fermentation spectra; version 0.5 does.")
    with spectra_file.open(encoding="utf-8") as file:
        wavenumbers = np.array([float(cell) for cell in file.readline().split(",")])
        spectra = np.loadtxt(file, delimiter=",")
    with glucose_file.open(encoding="utf-8") as file:
        glucose = np.loadtxt(file, delimiter=",", skiprows=1).reshape(-1)
    band = (wavenumbers >= GLUCOSE_BAND[0]) & (wavenumbers <= GLUCOSE_BAND[1])
    absorbance = -np.log10(spectra[:, band])
    return absorbance - absorbance.min(axis=1, keepdims=True), wavenumbers[band], glucose


def _data() -> dict[str, bytes]:
    """The demo's data as files a user might have: contents by name."""
    cube, wavelengths, labels = indian_pines()
    spectra, wavenumbers, glucose = fermentation()
    scene, table, measured = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(scene, cube=cube, wavelengths=wavelengths, labels=labels)
    header = ",".join(f"{x:g}" for x in wavenumbers)
    np.savetxt(table, spectra, fmt="%.6f", delimiter=",", header=header, comments="")
    np.savetxt(measured, glucose, fmt="%.6f", header="glucose", comments="")
    return {
        "data/indian_pines.npz": scene.getvalue(),
        "data/fermentation.csv": table.getvalue(),
        "data/glucose.csv": measured.getvalue(),
    }


class _OwnFiles:
    """What the demo writes beside the folders of its two runs, and replaces where nobody else did: `demo.json` says."""

    def __init__(self, output: Path, data: dict[str, bytes]) -> None:
        self.output, self.record = output, output / _RECORD
        before = self._before()
        self.known = before | {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
        if os.path.lexists(output / "data") and not ownership.is_plain_folder(output / "data"):
            raise ownership.in_the_way(output / "data")
        for name in (*data, _PICTURE, *([] if before else [_RECORD])):
            # Also where there is what would be written.
            if ownership.foreign(output, name, before) and ownership.foreign(output, name, self.known):
                raise ownership.in_the_way(output / name)
        for name, content in data.items():
            with self.writing(name) as path:
                path.write_bytes(content)

    def _before(self) -> dict[str, str]:
        """SHA-256 of what an earlier demo wrote."""
        if not ownership.is_plain_file(self.record):
            return {}
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
            return dict(found["sha256"]) if found["command"] == "demo" else {}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return {}

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Write one of the files; it is in the record before it is there."""
        with atomic_write(self.output / name) as path:
            yield path
            self.known[name] = sha256(path)
            write_json(self.record, {"command": "demo", "sha256": self.known})


def _announce(console: Console, title: str, words: list[str]) -> None:
    console.print(f"\n{title}", style="bold")
    console.print(f"$ spectrafuse {shlex.join(words)}", style="dim", soft_wrap=True)


def _options(settings: dict[str, Any]) -> list[str]:
    return [part for name, value in settings.items() for part in ("--" + name.replace("_", "-"), str(value))]


def demo(output: Path, *, seed: int = 0, threads: int | None = None, restart: bool = False) -> None:
    """Run the demo; pictures go to `output/indian_pines` and `output/fermentation`.

    Raises
    ------
    CommandError
        If the packages that hold the data are missing.
    """
    console = output_console()
    own = _OwnFiles(output, _data())
    data = output / "data"

    scene, target = data / "indian_pines.npz", output / "indian_pines"
    words = ["segment", str(scene), "-o", str(target), *_options(SEGMENT_SETTINGS)]
    words += ["--labels", f"{scene}:labels", "--ignore-label", "0", "--seed", str(seed)]
    _announce(console, "1 of 2: segment Indian Pines (16 classes of crops and woods, seen from the air)", words)
    segment(
        SegmentRequest(
            scenes=[scene],
            output=target,
            settings={**SEGMENT_SETTINGS, "random_state": seed},
            labels=[f"{scene}:labels"],
            ignore_label=0,
            threads=threads,
            restart=restart,
        )
    )
    with own.writing(_PICTURE) as path:
        _picture_of_labeled_pixels(path, data / "indian_pines.npz", target)

    spectra, target = data / "fermentation.csv", output / "fermentation"
    words = ["unmix", str(spectra), "-o", str(target), *_options(UNMIX_SETTINGS), "--seed", str(seed)]
    words += ["--true-concentrations", str(data / "glucose.csv"), "--axis-label", "wavenumber (cm⁻¹)"]
    _announce(console, "2 of 2: unmix fermentation spectra (21 samples with known glucose)", words)
    unmix(
        UnmixRequest(
            spectra=spectra,
            output=target,
            settings={**UNMIX_SETTINGS, "random_state": seed},
            axis_label="wavenumber (cm⁻¹)",
            true_concentrations=data / "glucose.csv",
            threads=threads,
            restart=restart,
        )
    )
    _say_how_glucose_fared(console, target)
    console.print("\nPictures to look at", style="bold")
    for path in sorted(output.rglob("*.png")):
        console.print(f"  {path}", soft_wrap=True)


def _picture_of_labeled_pixels(path: Path, scene: Path, target: Path) -> None:
    """Clusters beside the ground truth where there is one, in the colors of the matched clusters."""
    from spectrafuse.reports.maps import UNLABELED, colored, save_panels
    from spectrafuse.reports.style import palette

    with np.load(scene, allow_pickle=False) as archive:
        truth = archive["labels"]
    labels = np.load(target / "labels.npy", allow_pickle=False)
    scores = json.loads((target / "run.json").read_text(encoding="utf-8"))["scores"]
    cluster_of = {int(label): int(members[0]) for label, members in scores["mapping"].items() if members}
    count = len(INDIAN_PINES_CLASSES)
    colors = palette(count)
    table = np.tile(np.asarray(UNLABELED), (labels.max() + 1, 1))
    legend: list[tuple[Any, str]] = []
    for value in range(1, count):
        if cluster_of.get(value, -1) in range(len(table)):
            table[cluster_of[value]] = colors[value]
        legend.append((colors[value], f"{INDIAN_PINES_CLASSES[value]} · IoU {scores[f'iou_class_{value}']:.2f}"))
    legend.append((UNLABELED, "no label, or a cluster without a match"))
    found = colored(np.where(truth > 0, labels, -1), table)
    save_panels(
        path,
        [
            ("clusters, matched to classes (Hungarian method)", found, "labeled pixels only"),
            ("ground truth", colored(truth, colors, 0), "light gray: no label"),
        ],
        legend,
        title=f"Indian Pines: accuracy {scores['accuracy']:.2f}, mean IoU {scores['mean_iou']:.2f} without any label",
    )


def _say_how_glucose_fared(console: Console, target: Path) -> None:
    record = json.loads((target / "run.json").read_text(encoding="utf-8"))
    if not record["scores"]:
        console.print("No component was found, so none can be compared with glucose.")
        return
    best = record["scores"]["pairs"][0]
    count = record["n_components"]
    console.print(
        f"Of {count} component{'s' * (count != 1)}, the one that follows HPLC glucose best does so with a correlation "
        f"of {best['correlation']:.2f}; the fit never saw glucose, only this choice did."
    )
