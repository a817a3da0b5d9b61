"""In the tools that chemists use: HyperSpy's decompositions and arrays of xarray, with the real packages."""

from __future__ import annotations

import numpy as np
import pytest

from spectrafuse.io.errors import DataError
from spectrafuse.mcr.estimator import EBgMCR
from spectrafuse.mcr.matching import match_components


def _map() -> tuple[np.ndarray, np.ndarray]:
    """A map (6, 7, 60) of three components, and their spectra (3, 60)."""
    x = np.arange(60)
    shapes = np.array([np.exp(-0.5 * ((x - c) / s) ** 2) for c, s in ((15, 6), (30, 7), (45, 8))])
    random = np.random.default_rng(0)
    amounts = random.dirichlet(np.full(3, 0.4), 42).reshape(6, 7, 3)
    return amounts @ shapes + 0.003 * random.standard_normal((6, 7, 60)), shapes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lazy", [False, True])
def test_hyperspy_decomposes_with_it(lazy: bool) -> None:
    signals = pytest.importorskip("hyperspy.api", reason="the part peers is not installed").signals
    values, shapes = _map()
    signal = signals.Signal1D(values)
    if lazy:
        signal = signal.as_lazy()
        signal.compute(close_file=False)
    signal.decomposition(algorithm=EBgMCR(8, n_components=3), output_dimension=3, print_info=False)
    factors = signal.get_decomposition_factors().data
    assert match_components(factors, shapes).cosine.min() > 0.999
    assert signal.get_decomposition_loadings().data.shape == (3, 6, 7)
    left = signal.get_decomposition_model().data - values
    assert np.sqrt((left**2).mean()) < 0.004


def test_arrays_of_xarray_come_back_as_such() -> None:
    xarray = pytest.importorskip("xarray", reason="the part peers is not installed")
    values, shapes = _map()
    values[2, 3] = np.nan
    places = {"y": np.arange(6) * 0.5, "x": np.arange(7) * 0.25, "wavenumber": 400.0 + np.arange(60)}
    scene = xarray.DataArray(values, dims=("y", "x", "wavenumber"), coords=places).transpose("wavenumber", "y", "x")
    fitted = EBgMCR(8, n_components=3)
    found = fitted.fit_transform(scene)
    assert match_components(fitted.components_, shapes).cosine.min() > 0.999
    assert found.dims == ("y", "x", "component")
    assert found.sizes["component"] == 3
    np.testing.assert_array_equal(found["x"], places["x"])
    assert np.isnan(found.values[2, 3]).all()
    assert int(np.isnan(found.values).sum()) == 3
    again = fitted.transform(scene.isel(y=[1]))
    np.testing.assert_allclose(again.values[0], found.values[1], atol=1e-4)
    table = xarray.DataArray(values[0], dims=("time", "energy"), coords={"time": np.arange(7)})
    assert fitted.transform(table).dims == ("time", "component")
    with pytest.raises(DataError, match="a dimension of bands and one or more others"):
        fitted.transform(table[0])
    for wrong in (table.astype(object), table.astype(complex), table[:, :0]):
        with pytest.raises(DataError, match="must hold real numbers, integer or floating, and at least one along each"):
            EBgMCR().fit(wrong)
