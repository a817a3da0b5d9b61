"""Concentrations of spectra in chunks of Dask."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from helpers.models import spectra, unmixing
from spectrafuse.io.errors import DataError

xarray = pytest.importorskip("xarray", reason="the part xarray is not installed")
dask_array = pytest.importorskip("dask.array", reason="the part xarray is not installed")


@pytest.fixture(scope="module")
def fitted() -> Any:
    return unmixing(max_epoch=5).fit(spectra())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_comes_back_in_its_chunks(fitted: Any, dtype: type) -> None:
    values = spectra().astype(dtype)
    found = fitted.transform(dask_array.from_array(values, chunks=(5, 7)))
    assert found.chunks[0] == (5, 5, 2)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.compute(), fitted.transform(values), rtol=1e-5, atol=1e-6)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again.compute(scheduler="synchronous"), found.compute())


def test_a_map_comes_back_with_its_coordinates(fitted: Any) -> None:
    values = spectra().reshape(3, 4, 20)
    values[1, 2] = np.nan
    named = xarray.DataArray(values, dims=("y", "x", "band"), coords={"y": [1.0, 2.0, 4.0]}).transpose("band", "y", "x")
    found = fitted.transform(named.chunk({"band": 6, "x": 3}))
    assert found.dims == ("y", "x", "component")
    assert found.chunks == ((3,), (3, 1), (len(fitted.components_),))
    expected = fitted.transform(named)
    np.testing.assert_array_equal(found["y"], expected["y"])
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-6)
    assert np.isnan(found.values[1, 2]).all()


def test_what_chunks_cannot_have(fitted: Any) -> None:
    with pytest.raises(DataError, match=r"`X` must have 20 bands like the model; got shape \(12, 19\)"):
        fitted.transform(dask_array.from_array(spectra()[:, :19]))
    with pytest.raises(DataError, match="`runs` needs all spectra at once"):
        fitted.transform(dask_array.from_array(spectra()), runs=np.zeros(12))
