"""Memory of EB-gMCR: the whole process in a training with every band filled, and in `transform` of many spectra.

`python -m pytest benchmarks/bench_ebgmcr_memory.py`: each case in a process of its own, which says what it peaked at.
"""

from __future__ import annotations

import tempfile
import time

import pytest

from spectrafuse.benchmarks import harness, measure

LIMITS = {"training 1024": 1.0, "training 4096": 9.0, "transform": 1.0}
"""Gigabytes, 10^9 bytes."""

SPECTRA, BANDS, POOL = 100_000, 200, 1024


def training(pool: int) -> dict[str, float]:
    """Epochs of the solver; a better state for every band in every one."""
    from spectrafuse.benchmarks.bench_ebgmcr_epoch import trainer

    made = trainer(pool, late=True)
    for epoch in range(2):
        made.run_epoch()
        for band in made.bands:
            made.keeper.offer(band.name, made.record._replace(component_ids=list(range(30 - epoch))), made.model)
    assert len(made.keeper.slots) >= len(made.bands)
    return {"bands": len(made.bands)}


def fit_and_save(folder: str) -> None:
    """A short fit to few spectra, which leaves more than half of the pool in use."""
    import numpy as np

    from spectrafuse import EBgMCR

    data = np.random.default_rng(0).random((16, BANDS), dtype=np.float32)
    EBgMCR(pool_size=POOL, recipe="published", max_epoch=1, random_state=0).fit(data).save(folder)


def transform() -> dict[str, float]:
    """What a loaded estimator does with many spectra."""
    import numpy as np

    from spectrafuse import EBgMCR

    data = np.random.default_rng(0).random((SPECTRA, BANDS), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        measure.in_a_fresh_process(__file__, f"fit_and_save({folder!r})")
        estimator = EBgMCR.load(folder)
    concentrations = estimator.transform(data)
    assert concentrations.shape == (SPECTRA, estimator.n_components_)
    return {"components": estimator.n_components_}


def run(case: str) -> dict[str, float]:
    name, *pool = case.split()
    start = time.perf_counter()
    found = training(int(pool[0])) if name == "training" else transform()
    seconds = time.perf_counter() - start
    return {**found, "seconds": seconds, "peak_gb": measure.peak_resident() / 1e9}


@pytest.mark.parametrize("case", LIMITS)
def test_ebgmcr_memory(benchmark, case):
    found = {**measure.in_a_fresh_process(__file__, f"run({case!r})"), "limit_gb": LIMITS[case]}
    harness.record(benchmark, lambda: None, "EB-gMCR memory", "solver", case, "both", found)
