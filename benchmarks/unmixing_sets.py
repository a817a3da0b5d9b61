"""Spectra at the right count, and the count: the default beside `prefer="pure"` and pyMCR, on sets as chemists have.

`python benchmarks/unmixing_sets.py [--data FOLDER] [--seeds N] [--only NAME ...]` writes `results/ebgmcr/sets.md`.
pyMCR is told the count and starts from the purest spectra, with non-negative factors. Where the default counts another
number than the true one, spectra are those of a fit with `n_components`. Of `raman_drift`, `spikes` and `ultraviolet`
the first seed is that of a report of a defect.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import paper_cases as cases

TABLE = Path(__file__).parent / "results" / "ebgmcr" / "sets.md"
Made = tuple[np.ndarray, np.ndarray]


def _peaks(x: np.ndarray, *peaks: tuple[float, float, float]) -> np.ndarray:
    return np.sum([h * np.exp(-0.5 * ((x - c) / s) ** 2) for c, s, h in peaks], axis=0)


def _lines(random: np.random.Generator, x: np.ndarray, substances: int, each: int) -> np.ndarray:
    def drawn(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, (substances, each, 1))

    return (drawn(0.2, 1) / (1 + ((x - drawn(250, 1750)) / drawn(5, 12)) ** 2)).sum(1)


def _mixed(random: np.random.Generator, amounts: np.ndarray, shapes: np.ndarray, sigma: float) -> Made:
    clean = amounts @ shapes
    return clean + sigma * random.standard_normal(clean.shape), shapes


def ultraviolet(random: np.random.Generator) -> Made:
    """Three that overlap strongly, in all samples."""
    w = np.arange(210.0, 360.0)
    shapes = [
        _peaks(w, (266, 9, 1), (292, 6, 0.3), (219, 7, 0.35), (310, 8, 0.15)),
        _peaks(w, (262, 11, 1), (291, 5, 0.25), (225, 14, 0.3)),
        _peaks(w, (256, 9, 1), (238, 7, 0.35), (300, 14, 0.33), (217, 9, 0.35)),
    ]
    return _mixed(random, random.uniform(0, 1, (150, 3)) * [1, 0.5, 0.1], np.array(shapes), 0.0015)


def aromatics(random: np.random.Generator) -> Made:
    """Ultraviolet spectra with vibrations, in 36 samples."""
    w, shapes = np.arange(235.0, 290.0, 0.5), []
    for origin, step, width, heights, broad in (
        (260.5, 5.6, 1.3, (0.5, 1, 0.9, 0.6, 0.3), 0.35),
        (268.0, 6.3, 1.8, (0.8, 1, 0.75, 0.4, 0.2), 0.5),
        (274.0, 6.6, 1.9, (0.9, 1, 0.7, 0.4, 0.2), 0.55),
    ):
        lines = [(origin - step * i, width, h) for i, h in enumerate(heights)]
        shapes.append(_peaks(w, *lines, (origin - 3 * step, 16, broad)))
    return _mixed(random, random.uniform(0, 1, (36, 3)), np.array(shapes), 0.002)


def raman_drift(random: np.random.Generator) -> Made:
    """A baseline in all spectra, two substances, and noise that is smooth in time and along the bands."""
    x, t = np.linspace(0, 1, 300), np.linspace(0, 1, 120)
    shapes = [
        0.4 + 0.6 * x,
        _peaks(x, (0.2, 0.02, 1), (0.45, 0.02, 0.6)) + 0.1,
        _peaks(x, (0.7, 0.03, 1), (0.3, 0.02, 0.5)),
    ]
    clean = np.c_[0.5 + t, 1.2 - t, 0.55 * np.exp(-0.5 * ((t - 0.5) / 0.15) ** 2)] @ np.array(shapes)
    drift = random.standard_normal(clean.shape)
    for axis, width in ((1, 25), (0, 5)):
        drift = np.apply_along_axis(np.convolve, axis, drift, np.ones(width) / width, "same")
    return clean + drift * np.sqrt(0.0035 * (clean**2).sum() / (drift**2).sum()), np.array(shapes)


def spikes(random: np.random.Generator) -> Made:
    """Cosmic rays in three of 60 spectra."""
    x = np.arange(120)
    shapes = np.array([_peaks(x, (c, s, 1)) for c, s in ((20, 10), (50, 12), (85, 14))])
    spectra, _ = _mixed(random, random.uniform(0, 1, (60, 3)), shapes, 0.005)
    for i, c in ((7, 33), (31, 71), (50, 100)):
        spectra[i, c : c + 2] += 3
    return spectra, shapes


def raman(random: np.random.Generator) -> Made:
    """Five substances with narrow bands, all in all samples."""
    return _mixed(random, random.uniform(0, 1, (60, 5)), _lines(random, np.linspace(200, 1800, 500), 5, 7), 0.02)


def raman_baseline(random: np.random.Generator) -> Made:
    """Three substances, and fluorescence in all samples."""
    x = np.linspace(200, 1800, 400)
    shapes = np.vstack([_lines(random, x, 3, 6), 1.2 * np.exp(-x / 900)])
    return _mixed(random, np.c_[random.uniform(0, 1, (50, 3)), random.uniform(0.3, 2, (50, 1))], shapes, 0.01)


def near_infrared(random: np.random.Generator) -> Made:
    """Four broad spectra in mixtures that add up to one."""
    x = np.linspace(1100, 2500, 300)
    shapes = [
        _peaks(x, (1450, 70, 0.6), (1940, 70, 1), (1200, 60, 0.2)),
        _peaks(x, (1700, 50, 0.5), (2310, 60, 1), (1210, 40, 0.3)),
        _peaks(x, (1520, 60, 0.5), (2100, 70, 1), (2280, 60, 0.4)),
        _peaks(x, (1690, 60, 0.7), (2070, 80, 0.8), (1580, 60, 0.6)),
    ]
    return _mixed(random, random.dirichlet(np.ones(4), 80), np.array(shapes) + 0.05, 0.0008)


def chromatogram(random: np.random.Generator) -> Made:
    """Three substances that elute together, with tails, before a diode array."""
    w, t = np.arange(220.0, 400.0, 2), np.linspace(0, 1, 80)
    shapes = [
        _peaks(w, (255, 14, 1), (300, 20, 0.4), (220, 20, 0.1)),
        _peaks(w, (268, 16, 1), (330, 25, 0.3)),
        _peaks(w, (240, 12, 1), (285, 16, 0.6)),
    ]
    tailing = [
        h * np.exp(-0.5 * ((t - c) / np.where(t < c, s, 1.6 * s)) ** 2)
        for c, s, h in ((0.4, 0.05, 1), (0.48, 0.05, 0.6), (0.57, 0.06, 0.8))
    ]
    return _mixed(random, np.array(tailing).T, np.array(shapes), 0.003)


def _reaction() -> np.ndarray:
    """A to B to C: concentrations (60, 3)."""
    t, first, second = np.linspace(0, 10, 60), 0.8, 0.3
    a, b = np.exp(-first * t), first / (second - first) * (np.exp(-first * t) - np.exp(-second * t))
    return np.c_[a, b, 1 - a - b]


def kinetics(random: np.random.Generator) -> Made:
    """A reaction with two steps."""
    w = np.arange(300.0, 600.0, 3)
    shapes = [_peaks(w, (370, 25, 1)), _peaks(w, (420, 30, 0.8), (330, 20, 0.2)), _peaks(w, (490, 35, 0.9))]
    return _mixed(random, _reaction(), np.array(shapes), 0.003)


def kinetics_alike(random: np.random.Generator) -> Made:
    """The same, of spectra that no band tells apart."""
    w = np.arange(300.0, 600.0, 3)
    shapes = [_peaks(w, (400, 40, 1)), _peaks(w, (430, 45, 0.8)), _peaks(w, (455, 50, 0.9))]
    return _mixed(random, _reaction(), np.array(shapes) + 0.1, 0.002)


def correlated(random: np.random.Generator) -> Made:
    """Two substances, noise that is correlated along the bands."""
    from scipy.signal import lfilter

    x = np.linspace(0, 1, 250)
    shapes = np.array([_peaks(x, (0.3, 0.08, 1), (0.6, 0.05, 0.5)), _peaks(x, (0.4, 0.1, 1), (0.75, 0.06, 0.5))]) + 0.05
    amounts, noise = random.uniform(0, 1, (40, 2)), random.standard_normal((40, 300))
    return amounts @ shapes + 0.006 * lfilter([0.6], [1, -0.8], noise, axis=1)[:, 50:], shapes


def fluorescence(random: np.random.Generator) -> Made:
    """Six substances, of which each sample lacks some."""
    x = np.linspace(300, 700, 200)
    places = ((340, 12), (385, 16), (430, 14), (480, 18), (530, 16), (590, 20))
    shapes = [_peaks(x, (c, s, 1), (c + 2.2 * s, 1.5 * s, 0.5)) for c, s in places]
    amounts = random.uniform(0, 1, (100, 6)) * (random.random((100, 6)) < 0.8)
    return _mixed(random, amounts, np.array(shapes), 0.004)


def _scene(file: Path) -> Callable[[np.random.Generator], Made]:
    def made(random: np.random.Generator) -> Made:
        from scipy.io import loadmat

        stored = loadmat(file)
        pixels = np.sort(random.permutation(stored["Y"].shape[1])[:600])
        shapes = stored["GT"] if stored["GT"].shape[1] == len(stored["Y"]) else stored["GT"].T
        return stored["Y"][:, pixels].T.astype(float), shapes.astype(float)

    return made


def _known(case: cases.Case) -> Callable[[np.random.Generator], Made]:
    assert case.components is not None
    shapes = case.components
    return lambda random: (case.spectra, shapes)


def sets(data: Path | None) -> dict[str, Callable[[np.random.Generator], Made]]:
    simulated = (
        ultraviolet, aromatics, raman_drift, raman, raman_baseline, spikes, near_infrared, chromatogram, kinetics,
        kinetics_alike, correlated, fluorescence,
    )  # fmt: skip
    found: dict[str, Callable[[np.random.Generator], Made]] = {make.__name__: make for make in simulated}
    if data is not None:
        found |= {"carbs": _known(cases.carbs(data)), "als2004": _known(cases.als2004(data))}
        found |= {"samson": _scene(data / "samson" / "Samson.mat"), "moffett": _scene(data / "moffett" / "moffett.mat")}
    return found


def row(name: str, make: Callable[[np.random.Generator], Made], seed: int) -> str:
    import spectrafuse
    from spectrafuse.mcr.matching import match_components

    spectra, shapes = make(np.random.default_rng(seed + (name == "raman_drift")))
    count = len(shapes)

    def least(found: np.ndarray) -> float:
        return float(match_components(found, shapes).cosine.min())

    begin = time.process_time()
    fitted = spectrafuse.EBgMCR(random_state=seed).fit(spectra)
    seconds = time.process_time() - begin
    at = fitted
    if fitted.n_components_ != count:
        at = spectrafuse.EBgMCR(n_components=count, random_state=seed).fit(spectra)
    pure = spectrafuse.EBgMCR(n_components=count, random_state=seed, prefer="pure").fit(spectra)
    other = least(cases.baseline("MCR-ALS", cases.Case(spectra, shapes, np.empty((0, count))), count, seed)[0])
    ours = least(at.components_)
    cells = (
        name, seed, f"{fitted.n_components_} of {count}", len(fitted.cautions_), f"{other:.3f}", f"{ours:.3f}",
        f"{least(pure.components_):.3f}", f"{ours - other:+.3f}", f"{seconds:.1f}",
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with carbs, als2004, samson and moffett")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    titles = ("set", "seed", "count", "cautions", "pyMCR", "default", "`pure`", "default - pyMCR", "processor seconds")
    lines = [
        "# Least cosine of a true spectrum, and the count\n",
        "Written by `benchmarks/unmixing_sets.py`, which says what the sets are; pyMCR is told the count.\n",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
    ]
    for name, make in sets(options.data).items():
        for seed in range(options.seeds):
            if options.only is None or name in options.only:
                lines.append(row(name, make, seed))
                print(lines[-1], flush=True)
    if options.only is None:
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
