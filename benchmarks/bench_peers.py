"""Whole methods beside other libraries': the time to a result of the same quality, on data whose answer is known.

Taken with `--peers`; what is not installed (extra `peers`) is skipped with its reason. Segmentation: four materials in
patches, light that varies by 30 %, and little noise or as much as materials differ; quality is the accuracy of matched
labels. Unmixing: mixtures of four known components at 30 dB; quality is the smallest cosine of a true component and its
match. The other methods are told how many components there are, and are given more and more effort until they reach the
quality of ours.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from spectrafuse.benchmarks import harness, measure

SIDE, BANDS, MATERIALS = 64, 61, 4
ALIKE = 0.001
"""Qualities that differ by less are the same."""
Array = NDArray[np.float32]


def scene(noise: float) -> tuple[Array, NDArray[np.int64]]:
    """A cube (bands, rows, columns) and the material of every pixel; the noise is of reflectances of 0.2 to 1."""
    random = np.random.default_rng(0)
    labels = np.kron(random.integers(0, MATERIALS, (8, 8)), np.ones((SIDE // 8, SIDE // 8), dtype=np.int64))
    light = random.uniform(0.7, 1.3, (SIDE, SIDE))
    spectra = random.uniform(0.2, 1.0, (MATERIALS, BANDS))
    cube = spectra[labels] * light[..., None] + noise * random.standard_normal((SIDE, SIDE, BANDS))
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


def k_means(cube: Array, starts: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(MATERIALS, n_init=starts, random_state=0).fit_predict(unit(cube))


def spectral_k_means(cube: Array, iterations: int) -> Any:
    import spectral

    spectral.settings.show_progress = False
    return spectral.kmeans(unit(cube).reshape(SIDE, SIDE, -1), MATERIALS, iterations)[0]


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


def nmf(spectra: Array, iterations: int) -> Any:
    from sklearn.decomposition import NMF

    return NMF(MATERIALS, init="nndsvda", max_iter=iterations, random_state=0).fit(spectra).components_


def fast_ica(spectra: Array, iterations: int) -> Any:
    from sklearn.decomposition import FastICA

    found = FastICA(MATERIALS, max_iter=iterations, random_state=0).fit(spectra).mixing_.T
    return found * np.sign(found.sum(1, keepdims=True))


def mcr_als(spectra: Array, iterations: int) -> Any:
    from pymcr.mcr import McrAR

    # The purest spectra to start from, as SIMPLISMA would take them: each the farthest from those before.
    chosen, rest = [], spectra.astype(float)
    for _ in range(MATERIALS):
        chosen.append(int(np.linalg.norm(rest, axis=1).argmax()))
        direction = rest[chosen[-1]] / np.linalg.norm(rest[chosen[-1]])
        rest = rest - np.outer(rest @ direction, direction)
    solver = McrAR(max_iter=iterations, tol_increase=10.0)
    solver.fit(spectra.astype(float), ST=spectra[chosen].astype(float))
    return solver.ST_opt_


class Task(NamedTuple):
    """Data with a known answer, our method, and those of others with what they are given to try, least first."""

    make: Callable[[], tuple[Array, Any]]
    quality: Callable[..., float]
    own: tuple[str, Callable[[Array], Any]]
    others: dict[str, tuple[Callable[[Array, int], Any], Sequence[int], str]]


class Try(NamedTuple):
    """One run of a method."""

    seconds: float
    quality: float
    effort: str = "default settings"


_SEGMENTERS = {
    "KMeans": (k_means, (1, 10, 100), "starts"),
    "spectral kmeans": (spectral_k_means, (10, 50, 250), "iterations"),
}
TASKS = {
    "segmentation": Task(lambda: scene(0.02), accuracy, ("DeepGlobalClustering", own_segmentation), _SEGMENTERS),
    "segmentation noisy": Task(lambda: scene(1.0), accuracy, ("DeepGlobalClustering", own_segmentation), _SEGMENTERS),
    "unmixing": Task(
        mixtures,
        smallest_cosine,
        ("EBgMCR", own_unmixing),
        {
            "NMF": (nmf, (200, 1000, 5000), "iterations"),
            "FastICA": (fast_ica, (200, 2000), "iterations"),
            "pyMCR": (mcr_als, (50, 500), "iterations"),
        },
    ),
}


def tried(task: Task, call: Callable[..., Any], *effort: int) -> Try:
    """Time and quality of a run; what a library warns of, it is judged by."""
    data, truth = task.make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        found = call(data, *effort)
        seconds = time.perf_counter() - start
    return Try(seconds, task.quality(found, truth))


@functools.cache
def of_ours(name: str) -> Try:
    return tried(TASKS[name], TASKS[name].own[1])


def reaching(task: Task, method: str, quality: float) -> tuple[Try, bool]:
    """The first run of another method that reaches a quality, or its best one; and whether it reaches it."""
    call, efforts, unit = task.others[method]
    tries = []
    for effort in efforts:
        tries.append(tried(task, call, effort)._replace(effort=f"{effort} {unit}"))
        if tries[-1].quality >= quality - ALIKE:
            return tries[-1], True
    return max(tries, key=lambda one: one.quality), False


@pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name, task in TASKS.items() for method in (task.own[0], *task.others)]
)
def test_whole_method(record_property, name, method):
    if not harness.settings.peers:
        pytest.skip("other libraries are measured with --peers")
    task = TASKS[name]
    try:
        ours = of_ours(name)
        found, reaches = (ours, True) if method == task.own[0] else reaching(task, method, ours.quality)
    except ImportError as error:
        pytest.skip(f"{method}: {error}")
    figures = {"milliseconds": 1e3 * found.seconds, "rounds": 1, "quality": found.quality, "effort": found.effort}
    figures |= {"ours": [task.own[0], ours.seconds, ours.quality], "reaches_ours": reaches}
    case = {"operation": name, "implementation": method, "size": "small", "direction": "fit"}
    harness.ROWS.append({**case, **figures, **measure.machine()})
    record_property("row", harness.ROWS[-1])
