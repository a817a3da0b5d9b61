"""NetCDF files of the classic kind: CDF-1, CDF-2 and CDF-5, with and without an axis of records."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scipy.io import netcdf_file

from helpers.io_files import scene
from spectrafuse.io import open_cube
from spectrafuse.io.errors import DataError

BANDS, ROWS, COLUMNS = 6, 4, 5
WAVELENGTHS = np.linspace(400, 900, BANDS)


def write(path: Path, values: np.ndarray, version: int = 1, *, records: bool = False, unsigned: bool = False) -> Path:
    with netcdf_file(path, "w", version=version) as file:
        for name, length in (("wavelength", None if records else BANDS), ("y", ROWS), ("x", COLUMNS)):
            file.createDimension(name, length)
        file.createVariable("flag", "i1", ("wavelength",))[:] = np.arange(BANDS)
        item = file.createVariable("reflectance", values.dtype.str[1:], ("wavelength", "y", "x"))
        item[:] = values
        item.scale_factor, item._FillValue = 0.5, values.dtype.type(-9)
        if unsigned:
            item._Unsigned = b"true"
        axis = file.createVariable("wavelength", "f8", ("wavelength",))
        axis[:], axis.units = WAVELENGTHS, b"nanometers"
        file.createVariable("crs", "i4", ()).GeoTransform = b"380000 30 0 5820000 0 -30"
    return path


@pytest.mark.parametrize("records", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_a_scene_is_read_in_place(tmp_path: Path, version: int, records: bool) -> None:
    values = np.round(scene(BANDS, ROWS, COLUMNS)).astype("i2")
    values[:, 0, 0] = -9
    opened = open_cube(write(tmp_path / "x.nc", values, version, records=records))
    assert (opened.shape, opened.file_backed, opened.unit) == ((BANDS, ROWS, COLUMNS), True, "nm")
    assert opened.place is not None
    assert int((~opened.valid).sum()) == 1
    np.testing.assert_array_equal(opened[2:4, 1:], values[2:4, 1:] * 0.5)
    np.testing.assert_array_equal(opened.wavelengths, WAVELENGTHS)


def test_the_only_variable_of_records_and_unsigned_numbers(tmp_path: Path) -> None:
    with netcdf_file(tmp_path / "x.cdf", "w") as file:
        for name, length in (("band", None), ("y", 1), ("x", 3)):
            file.createDimension(name, length)
        item = file.createVariable("cube", "i1", ("band", "y", "x"))
        item[:], item._Unsigned = np.arange(12, dtype="i1").reshape(4, 1, 3) * 20, b"true"
    # Records of three bytes are not filled up where they are alone.
    expected = (np.arange(12).reshape(4, 1, 3) * 20).astype("u1")
    np.testing.assert_array_equal(open_cube(tmp_path / "x.cdf").data, expected)


def test_cdf5(tmp_path: Path) -> None:
    def name(text: str) -> bytes:
        return struct.pack(">q", len(text)) + text.encode() + b"\0" * (-len(text) % 4)

    dims = {"band": 3, "y": 2, "x": 2}
    head = b"CDF\x05" + struct.pack(">qiq", 0, 10, 3)
    head += b"".join(name(key) + struct.pack(">q", n) for key, n in dims.items()) + struct.pack(">iq", 0, 0)
    head += struct.pack(">iq", 11, 1) + name("cube") + struct.pack(">4q", 3, 0, 1, 2) + struct.pack(">iq", 0, 0)
    head += struct.pack(">iq", 9, 48)
    path = tmp_path / "x.nc"
    path.write_bytes(head + struct.pack(">q", len(head) + 8) + np.arange(12, dtype=">u4").tobytes())
    np.testing.assert_array_equal(open_cube(path).data, np.arange(12).reshape(3, 2, 2))


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "x.nc", np.ones((BANDS, ROWS, COLUMNS), "f4"))
    content = path.read_bytes()
    for length in (6, 40, 200, len(content) - 8):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"x\.nc' is (cut short|damaged)"):
            open_cube(path)
    for place in range(4, 400, 7):
        path.write_bytes(content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :])
        with suppress(DataError):
            open_cube(path, key="reflectance", layout="chw")
