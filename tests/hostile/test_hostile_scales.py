"""Units and sizes far from the ordinary: the same result as in an ordinary unit, or one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.models import cube, segmentation, spectra, unmixing
from spectrafuse._runtime.errors import SpectrafuseError

pytestmark = pytest.mark.slow

POWERS = [-100, -60, 60, 100]


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("normalization", ["meanstd", "minmax", "unit", "snv", "unit+meanstd"])
def test_the_unit_of_a_scene_does_not_matter(normalization: str, power: int) -> None:
    expected = segmentation(normalization=normalization).fit_predict(cube())
    scaled = cube() * np.float32(2.0**power)
    assert np.mean(segmentation(normalization=normalization).fit_predict(scaled) == expected) > 0.99


def test_the_unit_of_spectra_does_not_matter() -> None:
    expected = unmixing().fit(spectra())
    for power in POWERS:
        scaled = spectra() * np.float32(2.0**power)
        found = unmixing().fit(scaled)
        assert found.n_components_ == expected.n_components_
        assert found.score(scaled) == pytest.approx(expected.score(spectra()), abs=1e-6)


def test_numbers_that_float32_can_hardly_hold_are_one_sentence() -> None:
    scenes = [(segmentation(normalization=how), cube()) for how in ("meanstd", "minmax", "unit", "snv", "unit+meanstd")]
    for estimator, data in ((unmixing(), spectra()), *scenes):
        for factor, said in ((1e-40, "another unit"), (1e-300, "zero everywhere"), (1e60, "float32 cannot hold")):
            with pytest.raises(ValueError, match=said):
                estimator.fit(data.astype(np.float64) * factor)


UNMIXING: list[dict[str, Any]] = [
    {"pool_size": 10**6}, {"pool_size": 10**30}, {"pool_size": -1}, {"n_components": 10**6}, {"noise": 1e300},
    {"max_components": 10**30}, {"component_norm": 10**400}, {"random_state": 2**70},
    {"recipe": "trained", "pool_size": 100_000},  # networks of some hundred gigabytes
]  # fmt: skip
SEGMENTATION: list[dict[str, Any]] = [
    {"window": 1001}, {"window": 10**9 + 1}, {"window": -5}, {"embed_dim": 10**12}, {"n_spectral_layers": 10**5},
    {"spectral_kernel_size": 10**6 + 1}, {"num_iters": 10**4}, {"batch_size": 10**9}, {"bandwidth": 1e300},
    {"max_memory": -1}, {"random_state": 2**70}, {"crop_size": -3},
]  # fmt: skip


def test_sizes_that_make_no_sense_are_one_sentence() -> None:
    tries = [(unmixing(**options), spectra()) for options in UNMIXING]
    tries += [(segmentation(**options), cube()) for options in SEGMENTATION]
    for estimator, data in tries:
        with pytest.raises(SpectrafuseError) as caught:
            estimator.fit(data)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) <= 500
