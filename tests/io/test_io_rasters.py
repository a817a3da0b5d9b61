"""GeoTIFF and other files that rasterio reads, and label maps as GeoTIFF."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from helpers.io_files import quiet, scene
from spectrafuse.io import colors, open_cube, read_labels, read_spectra, write_class_map
from spectrafuse.io.envi import open_envi
from spectrafuse.io.errors import DataError
from spectrafuse.io.places import place_of
from spectrafuse.io.rasters import write_class_tiff

rasterio = pytest.importorskip("rasterio", reason="the part geo is not installed")
BANDS, ROWS, COLUMNS = 6, 40, 21
UTM = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(380000, 5820000, 30, 20)}


def write_tiff(path: Path, cube: np.ndarray, **options: Any) -> Path:
    bands, rows, columns = cube.shape
    size = {"count": bands, "height": rows, "width": columns, "dtype": cube.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **size, **UTM, **options) as file:
        file.write(cube)
    return path


@pytest.mark.parametrize("options", [{"interleave": "band"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_windows_of_a_tiff(tmp_path: Path, options: dict[str, Any]) -> None:
    expected = scene(BANDS, ROWS, COLUMNS).astype("u2")
    opened = open_cube(write_tiff(tmp_path / "x.tif", expected, compress="deflate", **options))
    assert (opened.shape, opened.file_backed) == ((BANDS, ROWS, COLUMNS), True)
    np.testing.assert_array_equal(opened.data, expected)
    np.testing.assert_array_equal(opened[2:4, 17:30, 3:20], expected[2:4, 17:30, 3:20])
    np.testing.assert_array_equal(opened.with_bands([0, 3, 4])[:, 1:3], expected[[0, 3, 4], 1:3])
    assert opened[:, 3:3].shape == (BANDS, 0, COLUMNS)
    opened.close()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).read_rows(5, 9), expected[:, 5:9])
    got: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda y=y: got.update({y: opened.read_rows(y, y + 5)})) for y in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for y, rows in got.items():
        np.testing.assert_array_equal(rows, expected[:, y : y + 5])
    assert len(got) == 30


@pytest.mark.parametrize("names", ["X{:.2f}", "{}", "Band {} nm", ""])
def test_wavelengths_in_names_or_tags(tmp_path: Path, names: str) -> None:
    axis = np.linspace(400, 900, BANDS)
    path = write_tiff(tmp_path / "x.tif", scene(BANDS, ROWS, COLUMNS).astype("u2"))
    with rasterio.open(path, "r+") as file:
        for i in file.indexes if names else ():
            file.set_band_description(i, names.format(axis[i - 1]))
        if not names:
            file.update_tags(wavelength="{" + ", ".join(map(str, axis)) + "}", wavelength_units="Nanometers")
    found = open_cube(path)
    assert found.unit == "nm"
    np.testing.assert_array_equal(found.wavelengths, axis)


def test_years_are_no_wavelengths(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "x.tif", scene(BANDS, ROWS, COLUMNS).astype("u2"))
    with rasterio.open(path, "r+") as file:
        for i in file.indexes:
            file.set_band_description(i, str(2000 + i))
    assert open_cube(path).wavelengths is None


def test_what_a_tiff_says_of_its_bands(tmp_path: Path) -> None:
    stored = np.round(scene(BANDS, ROWS, COLUMNS)).astype("i2")
    stored[:, :3, :4] = -9999
    path = write_tiff(tmp_path / "x.tif", stored, nodata=-9999)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.5] * BANDS, [1.0] * BANDS
        for i in file.indexes:
            file.set_band_description(i, f"band {i} ({400 + 10 * i} nm)")
    found = open_cube(path)
    np.testing.assert_array_equal(found.data[:, 3:], stored[:, 3:] * 0.5 + 1)
    assert found.valid is not None
    assert int((~found.valid).sum()) == 12
    assert (found.unit, found.wavelengths.tolist()) == ("nm", [410, 420, 430, 440, 450, 460])
    with rasterio.open(path, "r+") as file:
        for i in file.indexes:
            file.update_tags(i, wavelength=str(0.4 + i / 100), wavelength_units="Micrometers")
    found = open_cube(path)
    assert (found.unit, found.wavelengths[0]) == ("µm", 0.4 + 1 / 100)


@pytest.mark.parametrize("of_bands", [False, True])
def test_a_tiff_that_carries_fields_of_a_header(tmp_path: Path, of_bands: bool) -> None:
    stored = scene(BANDS, ROWS, COLUMNS).astype("u2")
    path = write_tiff(tmp_path / "x.tif", stored)
    lists = {"wavelength": [410, 420, 430, 440, 450, 460], "bbl": [1, 1, 0, 1, 1, 1]}
    with rasterio.open(path, "r+") as file:
        for i in file.indexes if of_bands else ():
            file.update_tags(i, ns="ENVI", **{name: str(values[i - 1]) for name, values in lists.items()})
        whole = {} if of_bands else {name: f"{{ {str(values)[1:-1]} }}" for name, values in lists.items()}
        file.update_tags(ns="ENVI", wavelength_units="Nanometers", reflectance_scale_factor="100", **whole)
    found = quiet(open_cube, path)
    assert (found.unit, found.wavelengths.tolist()) == ("nm", [410, 420, 440, 450, 460])
    np.testing.assert_allclose(found.data, stored[[0, 1, 3, 4, 5]] / np.float32(100))
    assert "bad by the file (bbl) (2)" in found.description


def test_a_tiff_with_a_header_of_envi_beside_it(tmp_path: Path) -> None:
    expected = scene(BANDS, ROWS, COLUMNS).astype("u2")
    path = write_tiff(tmp_path / "x.tif", expected)
    header = tmp_path / "x.hdr"
    text = "ENVI\nsamples = 21\nlines = {}\nbands = 6\ndata type = 12\ninterleave = bsq\nfile type = TIFF\n"
    extra = "wavelength units = Nanometers\nwavelength = {1, 2, 3, 4, 5, 6}\nbbl = {1, 1, 1, 0, 1, 1}\n"
    header.write_text(text.format(ROWS) + extra)
    for name in (header, path):
        found = quiet(open_cube, name)
        np.testing.assert_array_equal(found.data, expected[[0, 1, 2, 4, 5]])
        assert (found.unit, found.wavelengths.tolist()) == ("nm", [1, 2, 3, 5, 6])
    header.write_text(text.format(3) + extra)
    found = open_cube(path)
    assert found.shape == expected.shape
    assert "'x.hdr' beside it is for another size and is not used" in found.description


def test_damaged_and_other_contents_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "x.tif", scene(BANDS, ROWS, COLUMNS).astype("f4"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"x\.tif' is a TIFF image that cannot be read, it may be damaged: "):
        open_cube(path)
    path.write_bytes(content)
    for options, match in (
        ({"key": "a"}, "without variables"),
        ({"layout": "hwc"}, "says its layout"),
        ({"rows": 3}, "40 rows"),
    ):
        with pytest.raises(DataError, match=match):
            open_cube(path, **options)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(
        DataError, match=r"pip install 'spectrafuse\[geo\]'; or convert .*gdal_translate -of ENVI x\.tif "
    ):
        open_cube(path)


def test_pixels_of_a_tiff_are_spectra_and_a_map_of_one_band_labels(tmp_path: Path) -> None:
    cube = scene(BANDS, ROWS, COLUMNS).astype("f4")
    found = read_spectra(write_tiff(tmp_path / "x.tif", cube))
    np.testing.assert_array_equal(found.data, cube.reshape(BANDS, -1).T)
    labels = np.arange(ROWS * COLUMNS).reshape(1, ROWS, COLUMNS).astype("u2") % 4
    got = read_labels(write_tiff(tmp_path / "y.tif", labels, nodata=0))
    np.testing.assert_array_equal(got, np.where(labels[0] == 0, -1, labels[0].astype(int)))


@pytest.mark.parametrize(
    "crs", ["EPSG:32633", "EPSG:4326", "EPSG:3035", "EPSG:25832", "EPSG:32756", "EPSG:2056", "EPSG:5070"]
)
def test_a_label_map_lies_where_its_scene_does(tmp_path: Path, crs: str) -> None:
    step = (0.001, 0.002) if crs == "EPSG:4326" else (30, 20)
    transform = rasterio.transform.from_origin(12.5, 47.25, *step)
    size = {"count": 2, "height": 3, "width": 4, "dtype": "float32", "crs": crs, "transform": transform}
    with rasterio.open(tmp_path / "x.tif", "w", driver="GTiff", **size) as file:
        file.write(np.ones((2, 3, 4), "f4"))
    place = open_cube(tmp_path / "x.tif").place
    labels = np.array([[0, 1, 2, -1], [2, 2, 1, 0], [0, 0, 0, 0]])
    header, image = write_class_map(tmp_path, labels, place=place, class_names=["soil", "oak & elm", "water"])
    tiff = write_class_tiff(header)
    assert tiff == tmp_path / "classes.tif"
    for path in (tiff, image):
        with rasterio.open(path) as file:
            assert file.transform.almost_equals(transform, 1e-9)
            assert file.crs.to_epsg(confidence_threshold=20) == int(
                crs[5:]
            ) or file.crs == rasterio.crs.CRS.from_string(crs)
            assert file.nodata == 0
            np.testing.assert_array_equal(file.read(1), labels + 1)
            assert [file.colormap(1)[i + 1][:3] for i in range(3)] == [tuple(color) for color in colors(3).tolist()]
    names = [item.text for item in ElementTree.parse(f"{tiff}.aux.xml").iter("Category")]
    assert names == ["Unclassified", "soil", "oak & elm", "water"]


@pytest.mark.parametrize("degrees", [30, -75, 120])
def test_a_turned_scene_has_a_turned_label_map(tmp_path: Path, degrees: float) -> None:
    turned = rasterio.Affine.translation(500000, 4000000) @ rasterio.Affine.rotation(degrees)
    crs = rasterio.crs.CRS.from_epsg(32632).to_wkt(version="WKT1_ESRI")
    transform = turned @ rasterio.Affine.scale(10, -10)
    header, _ = write_class_map(tmp_path, np.zeros((3, 4), int), place=place_of(transform.to_gdal(), crs))
    with rasterio.open(write_class_tiff(header)) as file:
        assert file.transform.almost_equals(transform, 1e-6)
    for other in (rasterio.Affine.scale(10, -20), rasterio.Affine.scale(10, 10), rasterio.Affine.shear(20)):
        assert place_of((turned @ other).to_gdal(), crs) == {}


def test_places_of_envi_headers_go_to_the_label_map(tmp_path: Path) -> None:
    (tmp_path / "x.img").write_bytes(np.ones((2, 3, 4), "<f4").tobytes())
    lines = [
        "map info = {UTM, 1.5, 1.5, 500000, 4000000, 10, 10, 32, North, WGS-84, units=Meters, rotation=30}",
        "projection info = {3, 6378137.0, 6356752.3, 0.0, 9.0, 500000.0, 0.0, 0.9996, WGS-84, UTM}",
        "x start = 5",
        "y start = 7",
        "pixel size = {10, 10}",
        "geo points = {1, 1, 45.0, 9.0, 4, 1, 45.0, 9.1, 1, 3, 44.9, 9.0, 4, 3, 44.9, 9.1}",
    ]
    text = "ENVI\nsamples = 4\nlines = 3\nbands = 2\ndata type = 4\ninterleave = bsq\n" + "\n".join(lines)
    (tmp_path / "x.hdr").write_text(text + "\n")
    header, _ = write_class_map(tmp_path, np.zeros((3, 4), int), place=open_cube(tmp_path / "x.hdr").place)
    assert open_envi(header).place == open_envi(tmp_path / "x.hdr").place
    with rasterio.open(tmp_path / "x.img") as one, rasterio.open(write_class_tiff(header)) as other:
        assert other.transform.almost_equals(one.transform, 1e-9)
        assert not one.transform.is_rectilinear
        assert other.crs == one.crs


def test_a_scene_without_a_place_has_no_tiff(tmp_path: Path) -> None:
    header, _ = write_class_map(tmp_path, np.zeros((3, 4), int))
    assert write_class_tiff(header) is None
    assert not (tmp_path / "classes.tif").exists()


def test_an_image_with_a_header_of_esri(tmp_path: Path) -> None:
    expected = scene(2, 3, 4).astype("<u2")
    (tmp_path / "x.bil").write_bytes(expected.transpose(1, 0, 2).tobytes())
    words = "BYTEORDER I\nLAYOUT BIL\nNROWS 3\nNCOLS 4\nNBANDS 2\nNBITS 16\nULXMAP 105\nULYMAP 195\nXDIM 10\nYDIM 10\n"
    (tmp_path / "x.hdr").write_text(words)
    for name in ("x.hdr", "x.bil"):
        found = open_cube(tmp_path / name)
        np.testing.assert_array_equal(found.data, expected)
        assert found.place is not None
        assert found.place["map info"].startswith("Arbitrary, 1, 1, 100.0, 200.0, 10.0, 10.0")
    # As cameras write it: no suffix, and wavelengths in the header.
    (tmp_path / "x.bil").rename(tmp_path / "x")
    (tmp_path / "x.hdr").write_text(words + "GAIN 0\nWAVELENGTHS\n899.59\n900.84\nWAVELENGTHS_END\n")
    for name in ("x.hdr", "x"):
        found = open_cube(tmp_path / name)
        np.testing.assert_array_equal(found.data, expected)
        assert found.wavelengths is not None
        assert found.wavelengths.tolist() == [899.59, 900.84]


def test_transparent_pixels_have_no_data(tmp_path: Path) -> None:
    stored = scene(4, 5, 6).astype("u1")
    stored[3] = 255
    stored[3, 1, 2] = 0
    path = write_tiff(tmp_path / "x.tif", stored, photometric="RGB", alpha="yes")
    found = quiet(open_cube, path)
    assert found.shape == (3, 5, 6)
    np.testing.assert_array_equal(found.valid, stored[3] > 0)


def test_a_tiff_of_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((3, 4), i, np.uint16)) for i in range(5)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"a TIFF of 5 pages, of which only .*numpy\.save\('x\.npy', tifffile"):
        open_cube(tmp_path / "x.tif")


def test_scenes_that_are_not_read_name_the_converter(tmp_path: Path) -> None:
    for name, words in (("x.lan", "gdal_translate -of ENVI"), ("x.cu3s", "a Cubert camera: export it as an ENVI")):
        (tmp_path / name).write_bytes(b"HEAD74")
        with pytest.raises(DataError, match=words):
            open_cube(tmp_path / name)
