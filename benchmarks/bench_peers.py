"""Whole methods beside other libraries': the time to a result of the same quality, on data whose answer is known.

Taken with `--peers`; what is not installed (extra `peers`) is skipped with its reason. Segmentation: four materials in
patches, light that varies by 30 % and noise; quality is the accuracy of matched labels. Unmixing: mixtures of four
known components at 30 dB; quality is the smallest cosine of a true component and its match. The other methods are told
how many components there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spectrafuse.benchmarks import harness

SIDE, BANDS, MATERIALS = 64, 61, 4
Array = NDArray[np.float32]


def scene() -> tuple[Array, NDArray[np.int64]]:
    """A cube (bands, rows, columns) and the material of every pixel."""
    random = np.random.default_rng(0)
    labels = np.kron(random.integers(0, MATERIALS, (8, 8)), np.ones((SIDE // 8, SIDE // 8), dtype=np.int64))
    light = random.uniform(0.7, 1.3, (SIDE, SIDE))
    spectra = random.uniform(0.2, 1.0, (MATERIALS, BANDS))
    cube = spectra[labels] * light[..., None] + 0.02 * random.standard_normal((SIDE, SIDE, BANDS))
    return cube.transpose(2, 0, 1).astype(np.float32), labels


def accuracy(found: Any, labels: NDArray[np.int64]) -> float:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import confusion_matrix

    table = confusion_matrix(labels.ravel(), np.asarray(found).ravel())
    return float(table[linear_sum_assignment(-table)].sum() / labels.size)


def unit(cube: Array) -> Array:
    """Spectra (pixels, bands) of length 1, which takes the light out."""
    flat = cube.reshape(len(cube), -1).T
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def own_segmentation(cube: Array) -> Any:
    import spectrafuse

    return spectrafuse.DeepGlobalClustering(n_clusters=MATERIALS, crop_size=32, max_epoch=10).fit(cube).predict(cube)


def k_means(cube: Array) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(MATERIALS, n_init=10, random_state=0).fit_predict(unit(cube))


def spectral_k_means(cube: Array) -> Any:
    import spectral

    spectral.settings.show_progress = False
    return spectral.kmeans(unit(cube).reshape(SIDE, SIDE, -1), MATERIALS, 50)[0]


def mixtures() -> tuple[Array, Array]:
    from spectrafuse.mcr.synthesize import MixtureSynthesizer

    drawn = MixtureSynthesizer(MATERIALS, 256, snr_db=30.0, random_state=0).generate(64)
    return drawn.spectra.numpy(), drawn.components.numpy()


def smallest_cosine(found: Any, true: Array) -> float:
    from spectrafuse.mcr.matching import match_components

    if len(found) == 0:
        return 0.0
    match = match_components(found, true)
    return float(match.cosine.min()) if len(match.cosine) == len(true) else 0.0


def own_unmixing(spectra: Array) -> Any:
    import spectrafuse

    return spectrafuse.EBgMCR(pool_size=64).fit(spectra).components_


def nmf(spectra: Array) -> Any:
    from sklearn.decomposition import NMF

    return NMF(MATERIALS, init="nndsvda", max_iter=5000, random_state=0).fit(spectra).components_


def fast_ica(spectra: Array) -> Any:
    from sklearn.decomposition import FastICA

    found = FastICA(MATERIALS, max_iter=2000, random_state=0).fit(spectra).mixing_.T
    return found * np.sign(found.sum(1, keepdims=True))


def mcr_als(spectra: Array) -> Any:
    from pymcr.mcr import McrAR

    # The purest spectra to start from, as SIMPLISMA would take them: each the farthest from those before.
    chosen, rest = [], spectra.astype(float)
    for _ in range(MATERIALS):
        chosen.append(int(np.linalg.norm(rest, axis=1).argmax()))
        direction = rest[chosen[-1]] / np.linalg.norm(rest[chosen[-1]])
        rest = rest - np.outer(rest @ direction, direction)
    solver = McrAR(max_iter=500, tol_increase=10.0)
    solver.fit(spectra.astype(float), ST=spectra[chosen].astype(float))
    return solver.ST_opt_


TASKS: dict[str, tuple[Callable[[], Any], Callable[..., float], dict[str, Callable[..., Any]]]] = {
    "segmentation": (
        scene,
        accuracy,
        {"DeepGlobalClustering": own_segmentation, "KMeans": k_means, "spectral kmeans": spectral_k_means},
    ),
    "unmixing": (
        mixtures,
        smallest_cosine,
        {"EBgMCR": own_unmixing, "NMF": nmf, "FastICA": fast_ica, "pyMCR": mcr_als},
    ),
}


@pytest.mark.parametrize(("task", "method"), [(task, method) for task in TASKS for method in TASKS[task][2]])
def test_whole_method(benchmark, task, method):
    if not harness.settings.peers:
        pytest.skip("other libraries are measured with --peers")
    make, quality, methods = TASKS[task]
    data, truth = make()
    start = time.perf_counter()
    try:
        found = methods[method](data)
    except ImportError as error:
        pytest.skip(f"{method}: {error}")
    seconds = time.perf_counter() - start
    figures = {"milliseconds": 1e3 * seconds, "rounds": 1, "quality": quality(found, truth)}
    harness.record(benchmark, lambda: None, task, method, "small", "fit", figures)
