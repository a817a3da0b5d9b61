"""EB-gMCR on scenes: pixels with data are spectra, and concentrations come back as maps."""

from __future__ import annotations

import numpy as np
import pytest

from spectrafuse.io.cubes import Cube, array_cube
from spectrafuse.mcr.estimator import EBgMCR

_HIDDEN = -9.0


@pytest.fixture(scope="module")
def scene() -> Cube:
    """Two materials whose concentrations rise along the rows and the columns; pixel (1, 2) has no data."""
    bands = np.arange(12.0)
    spectra = np.exp(-0.5 * ((bands - np.array([[3.0], [8.0]])) / 1.5) ** 2)
    y, x = np.mgrid[:5, :6]
    values = np.einsum("kyx,kd->dyx", np.array([y + 0.2, x + 0.2]), spectra)
    values += 1e-3 * np.random.default_rng(0).standard_normal(values.shape)
    values[:, 1, 2] = _HIDDEN
    return array_cube("X", values, nodata=_HIDDEN, zeros="check")


@pytest.mark.slow
def test_a_scene_is_fitted_as_its_pixels_and_gives_maps(scene: Cube) -> None:
    seen = np.ones((5, 6), dtype=bool)
    seen[1, 2] = False
    pixels = np.ascontiguousarray(scene.data[:, seen].T)
    folded, plain = EBgMCR().fit(scene), EBgMCR().fit(pixels)
    assert folded.n_components_ == 2
    np.testing.assert_array_equal(folded.components_, plain.components_)
    maps = folded.transform(scene)
    assert maps.shape == (2, 5, 6)
    assert np.isnan(maps[:, ~seen]).all()
    np.testing.assert_array_equal(maps[:, seen].T, plain.transform(pixels))
    again = EBgMCR().fit_transform(scene)
    assert np.isnan(again[:, ~seen]).all()
    # `fit` and `transform` solve for the concentrations in products of different size.
    np.testing.assert_allclose(again[:, seen], maps[:, seen], rtol=1e-4, atol=1e-5)
