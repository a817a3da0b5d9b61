"""torch's and NumPy's global settings around estimators and operations: the same bits as without them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

from helpers.models import cube, segmentation, spectra, unmixing
from spectrafuse import ops
from spectrafuse._runtime.modes import usual_modes

pytestmark = pytest.mark.slow


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
        assert torch.get_default_device().type == name
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


Mode = Callable[[], AbstractContextManager]
TYPES: dict[str, Mode] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: default_device("meta"),
    "in meta": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "NumPy raises": lambda: np.errstate(all="raise"),
}
MODES: dict[str, Mode] = {
    **TYPES,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def segmented() -> list[np.ndarray]:
    fitted = segmentation().fit(cube())
    return [fitted.predict(cube()), fitted.cluster_centers_, fitted.cluster_mass_]


def unmixed() -> list[np.ndarray]:
    fitted = unmixing().fit(spectra())
    concentrations = fitted.transform(spectra())
    return [concentrations, fitted.components_, fitted.inverse_transform(concentrations), fitted.score(spectra())]


def trained() -> list[np.ndarray]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No component was found")
        fitted = unmixing(recipe="published", max_epoch=3).fit(spectra())
    return [np.array([epoch["loss"] for epoch in fitted.history_]), fitted.transform(spectra())]


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.fixture(scope="module")
def usual() -> list[list[np.ndarray]]:
    return [segmented(), unmixed(), trained()]


@pytest.mark.parametrize("mode", MODES)
def test_fits_have_the_same_bits(mode: str, usual: list[list[np.ndarray]]) -> None:
    with MODES[mode]():
        found = [segmented(), unmixed(), trained()]
    assert all(map(same, found, usual))


@pytest.mark.filterwarnings("ignore")
def test_compiled_functions_call_fits_as_they_are(usual: list[list[np.ndarray]]) -> None:
    for fit, expected in ((segmented, usual[0]), (unmixed, usual[1])):
        assert same(torch.compile(fit, backend="eager")(), expected)


def test_the_modes_are_the_callers_again_after_a_failed_fit() -> None:
    with torch.inference_mode(), default_dtype(torch.float64), torch.autocast("cpu"), torch.device("meta"):
        with pytest.raises(ValueError, match="pool_size"):
            unmixing(pool_size=0).fit(spectra())
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_default_device().type == "meta"


def test_the_default_type_comes_back_with_the_last_of_several() -> None:
    with default_dtype(torch.float64):
        first, second = usual_modes(), usual_modes()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)


def test_tensors_of_other_modes_are_data(usual: list[list[np.ndarray]]) -> None:
    with torch.inference_mode():
        scene, mixtures = torch.from_numpy(cube()).clone(), torch.from_numpy(spectra()).clone()
    for x, y in ((scene, mixtures), (scene.clone().requires_grad_(), mixtures.clone().requires_grad_())):
        assert np.array_equal(segmentation().fit(x).predict(x), usual[0][0])
        assert np.array_equal(unmixing().fit(y).transform(y), usual[1][0])


@pytest.mark.parametrize("name", sorted(name for name, found in ops.operations().items() if found.self_test))
def test_operations_have_the_same_bits(name: str) -> None:
    self_test = ops.operations()[name].self_test
    assert self_test is not None
    expected = self_test("cpu")
    for mode in TYPES.values():
        with mode():
            found = self_test("cpu")
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
