"""Scenes in structs of MATLAB files and in groups of HDF5 and NetCDF-4 files, with what their attributes say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from helpers.io_files import quiet, scene
from spectrafuse.io import open_cube, read_cube
from spectrafuse.io.errors import DataError

BANDS, ROWS, COLUMNS = 6, 4, 5
WAVELENGTHS = np.linspace(400, 900, BANDS)
STORED = {"hwc": (1, 2, 0), "chw": (0, 1, 2), "hcw": (1, 0, 2)}


def cube(dtype: str = "f4") -> np.ndarray:
    return scene(BANDS, ROWS, COLUMNS).astype(dtype)


def stored(file: h5py.File, name: str, values: np.ndarray, layout: str = "hwc", **attributes: Any) -> Any:
    item = file.create_dataset(name, data=values.transpose(STORED[layout]))
    item.attrs.update(attributes)
    return item


@pytest.mark.parametrize("how", ["packed", "plain", "7.3"])
def test_fields_of_structs(tmp_path: Path, how: str) -> None:
    expected, path = cube("f8"), tmp_path / "x.mat"
    turned = expected.transpose(1, 2, 0)
    if how == "7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_group("hsi/info").attrs["MATLAB_class"] = np.bytes_("struct")
            for name, values in (("Data", turned.T), ("info/wavelength", WAVELENGTHS[:, None])):
                file[f"hsi/{name}"] = values
                file[f"hsi/{name}"].attrs["MATLAB_class"] = np.bytes_("double")
    else:
        info = {"wavelength": WAVELENGTHS, "name": "x"}
        content = {"one": 1.0, "hsi": {"info": info, "Data": turned, "gt": np.ones((ROWS, COLUMNS))}, "last": 2.0}
        savemat(path, content, do_compression=how == "packed")
    for key in (None, "hsi.Data", "hsi/Data", "Data"):
        found = open_cube(path, key=key)
        np.testing.assert_array_equal(found.data, expected.astype("f4"))
        np.testing.assert_array_equal(found.wavelengths, WAVELENGTHS)
        assert (found.key, found.file_backed) == ("hsi.Data", how != "packed")
    with pytest.raises(DataError, match=r"'hsi' is no array of numbers but holds others.*hsi\.Data \(4, 5"):
        read_cube(path, key="hsi")


def test_a_struct_array_is_named(tmp_path: Path) -> None:
    items = np.zeros((1, 2), dtype=[("Data", "O")])
    items[0, 0]["Data"] = items[0, 1]["Data"] = np.ones((2, 3, 4))
    savemat(tmp_path / "x.mat", {"hsi": items})
    with pytest.raises(DataError, match=r"hsi \(1, 2\) \(struct\)"):
        read_cube(tmp_path / "x.mat")


def test_dimensions_fill_value_and_good_bands_of_netcdf(tmp_path: Path) -> None:
    expected, path = cube(), tmp_path / "emit.nc"
    values = expected.copy()
    values[:, 0] = -9999
    with h5py.File(path, "w") as file:
        item = stored(file, "reflectance", values, _FillValue=np.float32([-9999]))
        for axis, (name, size) in enumerate((("downtrack", ROWS), ("crosstrack", COLUMNS), ("bands", BANDS))):
            file[name] = np.zeros(size)
            file[name].make_scale("This is a netCDF dimension but not a netCDF variable.")
            item.dims[axis].attach_scale(file[name])
        file["sensor_band_parameters/wavelengths"] = WAVELENGTHS / 1000
        file["sensor_band_parameters/wavelengths"].attrs["units"] = "micrometers"
        file["sensor_band_parameters/good_wavelengths"] = np.array([1, 1, 0, 1, 1, 1], "u1")
    found = quiet(open_cube, path)
    assert found.band_numbers.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(found.data[:, 1:], expected[found.band_numbers, 1:])
    assert found.valid is not None
    assert not found.valid[0].any()
    assert (found.unit, float(found.wavelengths[1])) == ("µm", 0.5)
    assert "its dimensions are downtrack, crosstrack, bands" in found.description


def test_scale_no_data_and_place_of_neon(tmp_path: Path) -> None:
    expected, path = cube(), tmp_path / "neon.h5"
    values = np.round(expected * 10).astype("i2")
    values[:, 0, 0] = -9999
    with h5py.File(path, "w") as file:
        attributes = {
            "Scale_Factor": 10.0,
            "Data_Ignore_Value": -9999.0,
            "Dimension_Labels": "Line, Sample, Wavelength",
        }
        stored(file, "SITE/Reflectance/Reflectance_Data", values, **attributes)
        file["SITE/Reflectance/Metadata/Ancillary_Imagery/Weather"] = np.zeros((ROWS, COLUMNS, 3), "u1")
        file["SITE/Reflectance/Metadata/Spectral_Data/Wavelength"] = WAVELENGTHS
        file["SITE/Reflectance"].attrs["Band_Window_1_Nanometers"] = np.array([590, 710])
        place = "UTM, 1, 1,   257000, 4112000, 1, 1, 11, North, WGS-84, units=Meters"
        file["SITE/Reflectance/Metadata/Coordinate_System/Map_Info"] = np.bytes_(place)
    found = quiet(open_cube, path)
    want = values.astype("f4") / np.float32(10)
    want[:, 0, 0] = 0
    assert found.band_numbers.tolist() == [0, 1, 4, 5]
    np.testing.assert_array_equal(found.data, want[found.band_numbers])
    assert found.place == {"map info": "UTM, 1, 1, 257000, 4112000, 1, 1, 11, North, WGS-84, units=Meters"}
    assert "divided by 10 (Scale_Factor)" in found.description


def test_factor_offset_and_range_of_cf(tmp_path: Path) -> None:
    path = tmp_path / "cf.nc"
    values = np.round(cube()).astype("i2")
    values[:, 1, 2] = 9000
    with h5py.File(path, "w") as file:
        attributes = {"scale_factor": 0.25, "add_offset": -1.0, "valid_range": np.array([0, 500], "i2")}
        stored(file, "r", values, "chw", _ARRAY_DIMENSIONS=["band", "y", "x"], **attributes)
    found = open_cube(path)
    want = values * np.float32(0.25) - np.float32(1)
    want[:, 1, 2] = 0
    np.testing.assert_array_equal(found.data, want)
    assert "times 0.25 (scale_factor) plus -1 (add_offset)" in found.description
    assert "outside 0 to 500 (valid_range) are no data" in found.description
    np.testing.assert_array_equal(found.valid, (values != 9000).all(axis=0))


def test_prisma_and_tanager(tmp_path: Path) -> None:
    expected = cube()
    values = np.round(expected * 100).astype("u2")
    values[:, 2, 1] = 0
    prisma, tanager = tmp_path / "prisma.he5", tmp_path / "tanager.h5"
    with h5py.File(prisma, "w") as file:
        for sensor in ("VNIR", "SWIR"):
            stored(file, f"HDFEOS/SWATHS/HCO/Data Fields/{sensor}_Cube", values, "hcw")
        file.attrs.update({"L2ScaleVnirMin": 0.5, "L2ScaleVnirMax": 2.5, "List_Cw_Vnir": WAVELENGTHS[::-1]})
        file.attrs["List_Cw_Vnir_Flags"] = np.array([0, 1, 1, 1, 1, 1])
    with h5py.File(tanager, "w") as file:
        stored(file, "HDFEOS/SWATHS/HYP/Data Fields/toa", expected, "chw", wavelengths=WAVELENGTHS)
    with pytest.raises(DataError, match=r"several arrays.*VNIR_Cube \(4, 6, 5\)"):
        open_cube(prisma)
    found = quiet(open_cube, prisma, key="VNIR_Cube")
    want = 0.5 + values[1:] * (2.0 / 65535)
    want[:, 2, 1] = 0
    np.testing.assert_allclose(found.data, want, rtol=1e-6)
    np.testing.assert_array_equal(found.wavelengths, WAVELENGTHS[-2::-1])
    found = open_cube(tanager)
    np.testing.assert_array_equal(found.data, expected)
    np.testing.assert_array_equal(found.wavelengths, WAVELENGTHS)


def test_hdf5_that_does_not_say_its_order_asks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = np.ones((2, 3, 4))
    with pytest.raises(DataError, match=r"\(2 rows, 3 columns, 4 bands\) with layout='hwc'.* or .*\(2 bands"):
        open_cube(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["a/loop"] = file["a"]
        file["a/type"] = np.dtype("f4")
        file["away"] = h5py.ExternalLink("/etc/passwd", "/")
    assert open_cube(tmp_path / "x.h5", layout="chw").shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("name", "value", "factor", "words"),
    [
        ("ScaleFactor", 0.5, 0.5, r"divided by 2 \(ScaleFactor\)"),
        ("reflectance_scale_factor", 4, 0.25, r"divided by 4 \(reflectance_scale_factor\)"),
        ("Gain", 0.5, 1, "its attributes 'Gain' are not applied"),
    ],
)
def test_other_names_of_factors(tmp_path: Path, name: str, value: float, factor: float, words: str) -> None:
    expected = cube()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        stored(file, "cube", expected, Dimension_Labels="row, column, band", **{name: value})
    found = open_cube(tmp_path / "x.h5")
    np.testing.assert_allclose(found.data, expected * factor, rtol=1e-6)
    assert re.search(words, found.description)


def test_axes_of_length_1_are_left_out(tmp_path: Path) -> None:
    expected = cube()
    with h5py.File(tmp_path / "x.nc", "w") as file:
        file["rfl"] = expected[None]
        file["rfl"].attrs["_ARRAY_DIMENSIONS"] = ["time", "wavelength", "y", "x"]
    found = open_cube(tmp_path / "x.nc")
    np.testing.assert_array_equal(found.data, expected)
    assert "of the shape (1, 6, 4, 5), without axes of length 1" in found.description


def test_a_heap_that_goes_in_circles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        stored(file, "cube", cube(), Dimension_Labels="row, column, band")
    content = bytearray(path.read_bytes())
    # After the one text, which takes 16 and 24 bytes, lies the size of the free space.
    place = content.index(b"GCOL") + 16 + 40 + 8
    assert int.from_bytes(content[place : place + 8], "little") > 0
    assert open_cube(path).shape == (BANDS, ROWS, COLUMNS)
    content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged: its texts cannot be read"):
        open_cube(path)


def test_a_picture_beside_a_scene_is_not_taken_for_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["Acquisition/Image"] = np.ones((4, 1, 1, 3, 2))
        file["Preview/Image"] = np.ones((30, 20, 3), "u1")
    with pytest.raises(DataError, match=r"Acquisition/Image' has shape \(4, 3, 2\)"):
        open_cube(tmp_path / "x.h5")


@pytest.mark.parametrize("chunks", [(4, 5, 3), (7, 2, 9), (20, 30, 1)])
def test_a_scene_in_chunks_is_surveyed_as_one_in_memory(
    tmp_path: Path, chunks: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectrafuse.io.nodata.BLOCK_VALUES", 200)
    numbers = np.random.default_rng(2).random((20, 30, 9)).astype("f4")
    numbers[3:8, 11:17] = -9999
    numbers[..., 4] = -9999
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("cube", data=numbers, chunks=chunks)
    np.save(tmp_path / "x.npy", numbers)
    found, known = (quiet(open_cube, tmp_path / name, layout="hwc", nodata=-9999) for name in ("x.h5", "x.npy"))
    np.testing.assert_array_equal(found.valid, known.valid)
    np.testing.assert_array_equal(found.band_numbers, known.band_numbers)
    np.testing.assert_array_equal(found.data, known.data)
