"""The two pictures of the README, from what `spectrafuse demo` leaves: `python docs/images/draw.py [demo]`.

Data: Indian Pines, Purdue University, CC BY 3.0, doi:10.4231/R7RX991C; fermentation spectra of the package chemotools.
"""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from spectrafuse.io import colors
from spectrafuse.reports.maps import colored, pseudo_color


def scene(demo: Path, target: Path) -> None:
    """The scene in colors, its clusters, and the ground truth in the colors of the matched clusters."""
    with np.load(demo / "data" / "indian_pines.npz") as archive:
        cube, wavelengths, truth = archive["cube"], archive["wavelengths"], archive["labels"]
    labels = np.load(demo / "indian_pines" / "labels.npy")
    scores = json.loads((demo / "indian_pines" / "run.json").read_text(encoding="utf-8"))["scores"]
    seen, _ = pseudo_color(np.moveaxis(cube, 2, 0), wavelengths)
    table = np.asarray(colors(int(labels.max()) + 1), dtype=np.float64) / 255
    of_class = np.array([[0.93, 0.93, 0.93]] * (int(truth.max()) + 1))
    for label, members in scores["mapping"].items():
        if members and 0 < int(label) < len(of_class):
            of_class[int(label)] = table[members[0]]
    figure = Figure(figsize=(9, 3.25), layout="constrained")
    shown = [
        (seen**0.7, "scene: 145 × 145 pixels, 200 bands"),
        (colored(labels, table), "16 clusters, found without labels"),
        (colored(truth, of_class), "ground truth (matched colors)"),
    ]
    for axes, (picture, title) in zip(figure.subplots(1, 3), shown, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
    figure.savefig(target, dpi=100)


def spectra(demo: Path, target: Path) -> None:
    """Components, their concentrations, and the one that follows glucose against the laboratory's values."""
    with np.load(demo / "fermentation" / "components.npz") as archive:
        components, axis = archive["components"], archive["axis"]
    with np.load(demo / "fermentation" / "concentrations.npz") as archive:
        concentrations = archive["concentrations"]
    glucose = np.loadtxt(demo / "data" / "glucose.csv", skiprows=1)
    follows = [np.corrcoef(column, glucose)[0, 1] for column in concentrations.T]
    best = int(np.argmax(follows))
    rising, largest = np.argsort(glucose), concentrations.max(axis=0)
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1.25, 1])
    for number, spectrum in enumerate(components):
        strong = number == best
        options = {"color": f"C{number}", "linewidth": 2.0 if strong else 1.0, "zorder": 3 if strong else 2}
        left.plot(axis, spectrum, **options)
        middle.plot(np.arange(1, len(concentrations) + 1), concentrations[rising, number] / largest[number], **options)
    left.set(xlabel="wavenumber (cm⁻¹)", yticks=[])
    middle.set(xlabel="samples, by rising glucose")
    right.plot(glucose, concentrations[:, best], "o", color=f"C{best}", markersize=4)
    right.set(xlabel="glucose by HPLC (g/L)", ylabel="concentration", yticks=[])
    titles = [f"{len(components)} spectra found in 21 mixtures", "concentrations, each / its largest"]
    titles.append(f"one follows glucose (r = {follows[best]:.2f})")
    for axes, title in zip((left, middle, right), titles, strict=True):
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=100)


if __name__ == "__main__":
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    scene(results, Path(__file__).with_name("indian_pines.png"))
    spectra(results, Path(__file__).with_name("fermentation.png"))
