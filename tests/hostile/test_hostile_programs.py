"""Estimators inside other programs: threads, forks, loaders, joblib; the results are those of a call alone."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from threadpoolctl import threadpool_info, threadpool_limits

from helpers.models import cube, segmentation, spectra, unmixing
from spectrafuse._runtime.threads import single_blas_thread

pytestmark = pytest.mark.slow

PATIENCE = 120

# Threads that begin together with different parts of the package; each forked process is a first use.
FIRST_USE = f"""
import importlib, multiprocessing, os, sys, threading, traceback
import numpy, scipy.linalg, sklearn.cluster, torch, spectrafuse
parts = ["EBgMCR", "DeepGlobalClustering", "ops.gate", "mcr.feasible_bands", "compat.hsi_global_clustering", "io.Cube",
    "compat.hsi_global_clustering.crops", "compat.hsi_global_clustering.default_argument",
    "compat.ebgmcr.prepared", "compat.ebgmcr.data"]

def use(part, start, failures):
    start.wait()
    try:
        if part.startswith(("mcr", "compat")):
            importlib.import_module("spectrafuse." + part)
        else:
            found = spectrafuse
            for name in part.split("."):
                found = getattr(found, name)
            assert callable(found), found
    except BaseException:
        failures.append(part + ": " + traceback.format_exc())

def first_use(number):
    sys.setswitchinterval(1e-5)
    failures, start = [], threading.Barrier(4)
    threads = [threading.Thread(target=use, args=(parts[(number + i) % len(parts)], start, failures)) for i in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join({PATIENCE})
    print("\\n".join(failures), end="", flush=True)
    os._exit(bool(failures) or any(thread.is_alive() for thread in threads))

fork = multiprocessing.get_context("fork")
processes = [fork.Process(target=first_use, args=(number,)) for number in range(len(parts))]
for process in processes: process.start()
for process in processes: process.join()
print([process.exitcode for process in processes].count(0))
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_threads_that_begin_together_with_different_parts() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.stdout.strip() == "10", done.stdout + done.stderr


def labels() -> np.ndarray:
    return segmentation().fit_predict(cube())


def concentrations() -> np.ndarray:
    return unmixing().fit(spectra()).C_opt_


def losses() -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No component was found")
        fitted = unmixing(recipe="published", max_epoch=3).fit(spectra())
    return np.array([epoch["loss"] for epoch in fitted.history_])


FITS = [labels, concentrations, losses]


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What `work` returns in a forked process, which must end."""
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=lambda: answer.put(work()))
    process.start()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        pytest.fail("the forked process did not end")
    assert process.exitcode == 0
    return answer.get()


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fits_in_a_fork_after_fits_with_several_threads() -> None:
    torch.set_num_threads(2)
    expected = [fit() for fit in FITS]
    torch.ones(600, 600) @ torch.ones(600, 600)  # in two threads
    found = in_a_fork(lambda: [fit() for fit in FITS])
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(np.array_equal(fit(), b) for fit, b in zip(FITS, expected, strict=True)), "and here afterwards"


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_fits_in_the_worker_of_a_loader() -> None:
    class Results(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(FITS)

        def __getitem__(self, i: int) -> np.ndarray:
            return FITS[i]()

    torch.set_num_threads(2)
    found = list(torch.utils.data.DataLoader(Results(), batch_size=None, num_workers=1, timeout=PATIENCE))
    torch.set_num_threads(1)
    assert all(np.array_equal(a, fit()) for a, fit in zip(found, FITS, strict=True))


def test_fits_in_threads_at_once_are_those_of_fits_alone() -> None:
    expected = [fit() for fit in FITS]
    found = joblib.Parallel(n_jobs=3, backend="threading")(joblib.delayed(fit)() for fit in FITS * 2)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 2, strict=True))


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_until_the_last_fit_is_done_and_its_own_number_then() -> None:
    entered, leave = threading.Barrier(2), threading.Event()

    def other() -> None:
        with single_blas_thread:
            entered.wait(PATIENCE)
            leave.wait(PATIENCE)
            assert blas_threads() == {1}

    with threadpool_limits(2, user_api="blas"), ThreadPoolExecutor(1) as pool:
        with single_blas_thread:
            running = pool.submit(other)
            entered.wait(PATIENCE)
        leave.set()
        running.result()
        assert blas_threads() == {2}


@pytest.mark.process
def test_fits_in_processes_of_joblib() -> None:
    estimators = [unmixing(), segmentation()]
    data = [spectra(), cube()]
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        fitted = joblib.Parallel()(joblib.delayed(e.fit)(x) for e, x in zip(estimators, data, strict=True))
    assert np.array_equal(fitted[0].transform(data[0]), unmixing().fit(data[0]).transform(data[0]))
    assert np.array_equal(fitted[1].predict(data[1]), labels())


@pytest.mark.parametrize("make", [unmixing, segmentation])
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_work_before_and_after_a_fit(make: Callable[[], BaseEstimator], how: Callable[[Any], Any]) -> None:
    data = spectra() if make is unmixing else cube()
    result = "transform" if make is unmixing else "predict"
    copied = how(make())
    assert str(copied.get_params()) == str(make().get_params())
    fitted = copied.fit(data)
    expected = getattr(fitted, result)(data)
    again = how(fitted)
    assert np.array_equal(getattr(again, result)(data), expected)
    assert np.array_equal(getattr(clone(again).fit(data), result)(data), expected)
