"""Spectra with known answers for `paper_ebgmcr.py`, and what else could be used to unmix them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BANDS = 512


class Case(NamedTuple):
    """Spectra (n, d), the true components (k, d) if known, and concentrations (n, k)."""

    spectra: np.ndarray
    components: np.ndarray | None
    concentrations: np.ndarray
    noise: float | None = None


def paper(count: int, snr: float, seed: int, samples: int | None = None, **options: Any) -> Case:
    """Mixtures as the paper draws them: 4 N samples of 1 to 4 components, unless other `samples` are asked for.

    A component that occurs in none of few samples is left out of the truth.
    """
    from spectrafuse.mcr.synthesize import MixtureSynthesizer

    settings: dict[str, Any] = {"min_mixing": 1, "max_mixing": 4, "snr_db": snr, "random_state": seed, **options}
    drawn = MixtureSynthesizer(count, BANDS, **settings).generate(samples or 4 * count)
    sigma = float(drawn.noise.square().mean().sqrt())
    concentrations = drawn.concentrations.numpy()
    occurs = concentrations.any(0)
    return Case(drawn.spectra.numpy(), drawn.components.numpy()[occurs], concentrations[:, occurs], sigma)


def correlated(count: int, snr: float, seed: int, cosine: float = 0.85) -> Case:
    """The paper's mixtures of components whose pairwise cosines lie around `cosine`."""
    import torch

    generator = np.random.default_rng(seed)
    own = np.abs(generator.normal(size=(count, BANDS)))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    base = 2 / np.pi
    common = np.full(BANDS, BANDS**-0.5)
    # Adding w times the constant direction raises the cosine of two such components from 2 / pi to the one asked for.
    along = np.sqrt(base)
    weight = float(max(np.roots([1 - cosine, 2 * along * (1 - cosine), base - cosine]).real))
    components = own + weight * common
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    return paper(count, snr, seed, components=torch.from_numpy(components))


def together(count: int, snr: float, seed: int) -> Case:
    """The last two components occur in the same samples only, in one proportion: they are one to any method."""
    case = paper(count, snr, seed)
    concentrations = case.concentrations.astype(float)
    concentrations[:, -1] = 0.7 * concentrations[:, -2]
    return _mixed(case, concentrations, snr, seed)


def never_alone(count: int, snr: float, seed: int) -> Case:
    """The last component occurs only with the one before, in any proportion."""
    case = paper(count, snr, seed)
    concentrations = case.concentrations.astype(float)
    concentrations[:, -1] *= concentrations[:, -2] > 0
    both = np.flatnonzero(concentrations[:, -2])[::2]
    concentrations[both, -1] = np.random.default_rng(seed).uniform(1, 10, len(both))
    return _mixed(case, concentrations, snr, seed)


def nonlinear(count: int, snr: float, seed: int) -> Case:
    """A detector that saturates: 10 % lower at the largest intensity."""
    case = paper(count, snr, seed)
    clean = case.concentrations @ case.components
    bent = clean * (1 - 0.1 * clean / clean.max())
    return case._replace(spectra=_noisy(bent, snr, seed))


def coloured(count: int, snr: float, seed: int) -> Case:
    """Noise that is smooth along the bands (correlation 0.8 from one to the next)."""
    case = paper(count, snr, seed)
    return case._replace(spectra=_noisy(case.concentrations @ case.components, snr, seed, correlation=0.8))


def _mixed(case: Case, concentrations: np.ndarray, snr: float, seed: int) -> Case:
    return case._replace(spectra=_noisy(concentrations @ case.components, snr, seed), concentrations=concentrations)


def _noisy(clean: np.ndarray, snr: float, seed: int, correlation: float = 0.0) -> np.ndarray:
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed + 1000).normal(size=(clean.shape[0], clean.shape[1] + 100))
    noise = lfilter([np.sqrt(1 - correlation**2)], [1, -correlation], noise, axis=1)[:, 100:]
    sigma = np.sqrt((clean**2).mean(1, keepdims=True) / 10 ** (snr / 10))
    return np.maximum(clean + sigma * noise, 1e-6).astype(np.float32)


def carbs(folder: Path) -> Case:
    """Raman spectra of three carbohydrates; the components are stored in the order of the spectra's columns."""
    read = _reader(folder / "carbs")
    return Case(
        read("carbs_D_spectra.csv"), read("carbs_S_endmembers.csv")[:, 1:].T, read("carbs_C_concentrations.csv")
    )


def nir(folder: Path) -> Case:
    """First-derivative NIR spectra of fermentations; glucose and ethanol are known, their spectra are not."""
    read = _reader(folder / "nir")
    return Case(read("nir_D_spectra.csv"), None, read("nir_C_concentrations.csv"))


def als2004(folder: Path) -> Case:
    """Four stacked runs of simulated liquid chromatography with a diode array: four substances."""
    from scipy.io import loadmat

    stored = loadmat(folder / "als2004" / "als2004dataset.MAT")
    # The spectra are stored in another order than the concentrations.
    return Case(stored["MATRIX"], stored["spure"][[1, 2, 0, 3]], stored["cpure"])


def coffee(folder: Path) -> Case:
    """Infrared spectra of coffee from three origins, which stand in for concentrations; from the package chemotools."""
    from chemotools.datasets import load_coffee

    spectra, origins = (np.asarray(table) for table in load_coffee())
    return Case(spectra.astype(float), None, (origins == np.unique(origins)).astype(float))


def fermentation(folder: Path) -> Case:
    """Raman spectra of fermentations, of either sign, with glucose alone known; from the package chemotools."""
    from chemotools.datasets import load_fermentation_train

    spectra, glucose = (np.asarray(table, float) for table in load_fermentation_train())
    return Case(spectra, None, glucose)


def _reader(folder: Path) -> Callable[[str], np.ndarray]:
    return lambda name: np.genfromtxt(folder / name, delimiter=",", skip_header=1)


def scores(
    case: Case, components: np.ndarray, concentrations: np.ndarray, background: int | None = None
) -> dict[str, Any]:
    """Found components, a `background` aside, and concentrations against the true ones, by the Hungarian method.

    Where components are unknown, concentrations are matched by their correlations.
    """
    from scipy.optimize import linear_sum_assignment

    from spectrafuse.mcr.matching import match_components

    spectra = case.spectra.astype(float)
    residual = spectra - concentrations @ components
    if background is not None:
        components, concentrations = np.delete(components, background, 0), np.delete(concentrations, background, 1)
    result: dict[str, Any] = {
        "count": len(components),
        "nmse": float((residual**2).sum() / (spectra**2).sum()),
    }
    count = case.concentrations.shape[1]
    table = np.nan_to_num(np.corrcoef(case.concentrations.T, concentrations.T)[:count, count:])
    if case.components is None:
        true, found = linear_sum_assignment(-table)
    else:
        match = match_components(components, case.components)
        true, found = match.true, match.found
        result["found"] = int((match.cosine > 0.95).sum())
        result["found_99"] = int((match.cosine > 0.99).sum())
        result["cosines"] = [round(float(c), 4) for c in match.cosine]
    result["concentration_r2"] = [round(float(table[t, f] ** 2), 4) for t, f in zip(true, found, strict=True)]
    return result


def baseline(method: str, case: Case, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Components, concentrations and seconds of another method, which is told how many components there are."""
    data = case.spectra.astype(float)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        components, concentrations = _METHODS[method](data, count, seed)
    return components, concentrations, time.perf_counter() - begin


def known_concentrations(case: Case) -> tuple[np.ndarray, np.ndarray, float]:
    """Components by least squares from the true concentrations: what the noise leaves of them at best.

    Spectra are weighted by what they say: their noise is proportional to their size.
    """
    assert case.components is not None
    begin = time.perf_counter()
    weights = 1 / np.linalg.norm(case.spectra, axis=1, keepdims=True)
    components = np.linalg.lstsq(weights * case.concentrations, weights * case.spectra, rcond=None)[0]
    return np.maximum(components, 0), case.concentrations, time.perf_counter() - begin


def searched(method: str, case: Case, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Components, concentrations and seconds of a method that looks for the fewest that fit to the noise level.

    The level is the one that `EBgMCR` estimates, for each degree of freedom that a fit leaves, and a tenth more, as not
    every method ends at its best; a level that is assumed is one for the whole residual. A doubling and a bisection
    find the fewest; where nothing fits, it is the count that comes nearest.
    """
    import torch

    from spectrafuse.mcr.noise import noise_level

    data = case.spectra.astype(float)
    begin = time.perf_counter()
    level = noise_level(torch.from_numpy(data))
    allowed = 1.1 * level.nmse * float((data**2).mean())
    fits: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}

    def fitted(count: int) -> bool:
        components, concentrations, _ = baseline(method, case, count, seed)
        # A component's size is either its own or its concentrations'.
        used = 0 if level.structured else np.count_nonzero(components) + np.count_nonzero(concentrations) - count
        residual = float(((data - concentrations @ components) ** 2).sum())
        excess = residual / (allowed * (data.size - used)) if used < data.size else np.inf
        fits[count] = components, concentrations, excess
        return excess <= 1

    most, few, many = min(data.shape), 0, 1
    while not fitted(many) and many < most:
        few, many = many, min(2 * many, most)
    if fits[many][2] > 1:
        many = min(fits, key=lambda count: fits[count][2])
        few = many - 1
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if fitted(middle) else (middle, many)
    return *fits[many][:2], time.perf_counter() - begin


def _nmf(data: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import NMF

    model = NMF(count, init="nndsvda", max_iter=2000, random_state=seed)
    concentrations = model.fit_transform(np.maximum(data, 0))
    return model.components_, concentrations


def _ica(data: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import FastICA

    model = FastICA(count, max_iter=2000, random_state=seed)
    model.fit(data)
    spectra = model.mixing_.T
    # Neither sign nor offset of a source is determined; the sign that makes a spectrum mostly positive is taken.
    signs = np.where(spectra.sum(1) < 0, -1.0, 1.0)[:, None]
    spectra = spectra * signs
    return spectra, np.linalg.lstsq(spectra.T, data.T, rcond=None)[0].T


def _mcr_als(data: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from pymcr.constraints import ConstraintNonneg
    from pymcr.mcr import McrAR

    signed = (data < 0).mean() > 0.1
    model = McrAR(
        max_iter=500, tol_increase=50, c_constraints=[ConstraintNonneg()],
        st_constraints=[] if signed else [ConstraintNonneg()],
    )  # fmt: skip
    model.fit(data, ST=data[_purest(data, count)])
    return model.ST_opt_, model.C_opt_


def _purest(data: np.ndarray, count: int) -> list[int]:
    """Spectra that are least alike, one after another: the usual start."""
    left, chosen = data.copy(), list[int]()
    for _ in range(count):
        chosen.append(int((left**2).sum(1).argmax()))
        axis = left[chosen[-1]] / np.linalg.norm(left[chosen[-1]])
        left = left - np.outer(left @ axis, axis)
    return chosen


_METHODS: dict[str, Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]] = {
    "NMF": _nmf,
    "ICA": _ica,
    "MCR-ALS": _mcr_als,
}
METHODS = tuple(_METHODS)
BOUND = "known concentrations"
