"""Scenes as xarray and Spectral Python hold them, with classes that stand in for theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spectrafuse.io.errors import DataError
from spectrafuse.io.objects import scene_of

CUBE = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)
AXES = {"band": 0, "wavelength": 0, "y": 1, "lat": 1, "x": 2, "lon": 2}


class Coordinate:
    def __init__(self, dim: str, values: np.ndarray, units: str) -> None:
        self.dims, self.values, self.dtype, self.attrs = (dim,), values, values.dtype, {"units": units}


class DataArray:
    __module__ = "xarray.core.dataarray"

    def __init__(self, dims: tuple[str, ...], values: np.ndarray, coords: Any = None, attrs: Any = None) -> None:
        self.dims, self.values, self.coords, self.attrs = dims, values, coords or {}, attrs or {}


class ImageArray(np.ndarray):
    """Of SPy: (rows, columns, bands)."""

    __module__ = "spectral.image"


@pytest.mark.parametrize(
    "dims", [("band", "y", "x"), ("lat", "lon", "wavelength"), ("y", "band", "x"), ("x", "y", "?")]
)
def test_names_of_dimensions_say_which_axis_is_what(dims: tuple[str, ...]) -> None:
    values = CUBE.transpose([AXES.get(dim, 0) for dim in dims])
    found, facts = scene_of("X", DataArray(dims, values), "auto")  # type: ignore[misc]
    np.testing.assert_array_equal(found, CUBE)
    assert facts["layout"].endswith("the names of its dimensions")


def test_coordinates_and_no_data_of_xarray() -> None:
    axis = Coordinate("band", np.array([400.0, 500.0, 600.0, 700.0]), "nm")
    scene = DataArray(("band", "y", "x"), CUBE, {"wavelength": axis}, {"_FillValue": -1})
    _, facts = scene_of("X", scene, "auto")  # type: ignore[misc]
    assert (facts["wavelengths"].tolist(), facts["wavelength_unit"], facts["nodata"]) == (
        [400, 500, 600, 700],
        "nm",
        -1,
    )


def test_dimensions_that_say_nothing_are_asked_about() -> None:
    scene = DataArray(("dim_0", "dim_1", "dim_2"), CUBE.transpose(1, 2, 0))
    with pytest.raises(DataError, match=r"do not say where the bands are.*layout='chw'"):
        scene_of("X", scene, "auto")
    np.testing.assert_array_equal(scene_of("X", scene, "hwc")[0], CUBE)  # type: ignore[index]


def test_images_of_spy_are_rows_columns_bands() -> None:
    scene = CUBE.transpose(1, 2, 0).view(ImageArray)
    scene.bands = SimpleNamespace(centers=[1.0, 2.0, 3.0, 4.0], band_unit="um")
    values, facts = scene_of("X", scene, "auto")  # type: ignore[misc]
    np.testing.assert_array_equal(values, CUBE)
    assert (facts["wavelengths"].tolist(), facts["wavelength_unit"]) == ([1, 2, 3, 4], "um")
    with pytest.raises(DataError, match="image of SPy"):
        scene_of("X", scene, "chw")


@pytest.mark.parametrize("scale", [1, 10])
def test_what_the_metadata_of_spy_say(scale: int) -> None:
    values = CUBE.copy()
    values[:, 1, 2] = -9999
    scene = (values.transpose(1, 2, 0) / np.float32(scale)).view(ImageArray)
    scene.metadata = {"data ignore value": "-9999", "reflectance scale factor": "10", "bbl": ["1", "0", "1", "1"]}
    scene.metadata |= {"map info": ["UTM", "1", "1"], "data gain values": ["2", "2", "2", "2"]}
    _, facts = scene_of("X", scene, "auto")  # type: ignore[misc]
    assert facts["nodata"] == -9999 / scale
    assert facts["bad"].tolist() == [1]
    assert facts["place"] == {"map info": "UTM, 1, 1"}
    assert facts["notes"] == ("the header's 'data gain values' are not applied",)
