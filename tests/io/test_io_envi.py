"""ENVI images: every interleave, type and byte order; headers as they are in circulation; class maps; windows."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import seeds
from spectrafuse.io import colors, open_cube, read_cube, read_labels, write_class_map
from spectrafuse.io.envi import DATA_TYPES, open_envi, read_header
from spectrafuse.io.errors import DataError, ReadingNote

STORED = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}


def scene(bands: int = 4, rows: int = 3, columns: int = 5, dtype: str = "f8") -> np.ndarray:
    return (seeds.generator().random((bands, rows, columns)) * 120 + 1).astype(dtype)


def header(shape: tuple[int, ...], **fields: Any) -> str:
    """A header; a field given as None is left out, `_` stands for a blank in names."""
    bands, rows, columns = shape
    base = {"samples": columns, "lines": rows, "bands": bands, "data_type": 5, "interleave": "bsq"}
    lines = [f"{k.replace('_', ' ')} = {v}" for k, v in {**base, **fields}.items() if v is not None]
    return "\n".join(["ENVI", *lines]) + "\n"


def write_envi(
    folder: Path, cube: np.ndarray, interleave: str = "bsq", *, name: str = "x.img", offset: int = 0, **fields: Any
) -> Path:
    """A data file and its header `x.hdr`; the data in the order and type that the header says."""
    code = next(c for c, t in DATA_TYPES.items() if t == f"{cube.dtype.kind}{cube.dtype.itemsize}")
    order = ">" if fields.get("byte_order") == 1 else "<"
    stored = cube.transpose(STORED.get(interleave, (0, 1, 2))).astype(cube.dtype.newbyteorder(order))
    (folder / name).write_bytes(b"\xff" * offset + stored.tobytes())
    if offset:
        fields["header_offset"] = offset
    path = folder / "x.hdr"
    path.write_text(header(cube.shape, **{"data_type": code, "interleave": interleave, **fields}))
    return path


@pytest.mark.parametrize("order", [None, 0, 1])
@pytest.mark.parametrize("dtype", sorted(DATA_TYPES.values()))
@pytest.mark.parametrize("interleave", sorted(STORED))
def test_every_type_and_order(tmp_path: Path, interleave: str, dtype: str, order: int | None) -> None:
    expected = scene(dtype=dtype)
    path = write_envi(tmp_path, expected, interleave, byte_order=order, offset=3)
    cube = read_cube(path)
    np.testing.assert_array_equal(cube.data, expected.astype("float32"))
    assert cube.data.flags.c_contiguous
    assert cube.data.flags.writeable
    assert (cube.key, cube.wavelengths, cube.wavelength_unit, cube.valid) == (None, None, None, None)
    assert f"ENVI {interleave.upper()}" in cube.layout
    assert cube.sha256 == hashlib.sha256((tmp_path / "x.img").read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 7), (5, 1, 3), (3, 7, 1)])
@pytest.mark.parametrize("interleave", sorted(STORED))
def test_windows(tmp_path: Path, interleave: str, size: tuple[int, int, int]) -> None:
    expected = scene(*size, dtype="i2").astype("f4")
    opened = open_cube(write_envi(tmp_path, expected.astype("i2"), interleave))
    assert (opened.shape, opened.ndim, opened.file_backed) == (size, 3, True)
    _, height, width = size
    for y0, y1, x0, x1 in [(0, height, 0, width), (0, 1, width - 1, width), (height - 1, height, 0, 1), (0, 0, 0, 0)]:
        window = opened.read_window(y0, y1, x0, x1)
        assert window.dtype == np.float32
        np.testing.assert_array_equal(window, expected[:, y0:y1, x0:x1])
        np.testing.assert_array_equal(opened[:, y0:y1, x0:x1], window)
    np.testing.assert_array_equal(opened[..., 0:1, :], expected[:, 0:1])
    np.testing.assert_array_equal(opened[1:, -1:], expected[1:, -1:])
    with pytest.raises(ValueError, match="is not inside"):
        opened.read_window(0, height + 1, 0, 1)
    for index in (0, (slice(None), 0), (slice(None),) * 4, slice(None, None, 2)):
        with pytest.raises(TypeError, match="sliced by ranges"):
            opened[index]


BAD = np.array([1, 0, 1, 1])


@pytest.mark.parametrize(
    "marks",
    ["{1 0 1 1}", "{\n1\n0\n1\n1\n}", "{True, False, True, True}", "{1.00, 0.00, 1.00, 1.00}", "{1, -1, 1, 1}"],
)
def test_bad_bands_however_they_are_written(tmp_path: Path, marks: str) -> None:
    expected = scene(dtype="f4")
    with pytest.warns(ReadingNote, match=r"bad by the file \(bbl\): 1"):
        found = open_cube(write_envi(tmp_path, expected, bbl=marks))
    np.testing.assert_array_equal(found.data, expected[BAD == 1])


@pytest.mark.parametrize(
    ("fields", "factor", "words"),
    [
        ({"bbl": "{0, 0, 0, 0}"}, 1, r"the file calls all bands bad \(bbl\), which is passed over"),
        ({"data_gain_values": "{0.5 0.5 0.5 0.5}"}, 0.5, "multiplied by the bands' gains"),
        (
            {"data_gain_values": "{0.01}", "reflectance_scale_factor": 100},
            0.01,
            "say the same as its scale factor and are not applied again",
        ),
        ({"wavelength": "{0, 0, 0, 0}"}, 1, "the header's 'wavelength' are all 0 and are not used"),
        ({"wavelength": "{400, 500, 600, 550}"}, 1, "axis is not in order: from 600 to 550 at band 4"),
        ({"wavelength": "{400, 500, 600, 700}", "wavelength_units": "Unknown"}, 1, "400 to 700, taken as nm"),
        ({"band_names": "{410.5, 420, 431, 440}"}, 1, "410.5 to 440, taken as nm.*from the names of the bands"),
    ],
)
def test_what_a_header_says_is_applied_or_named(
    tmp_path: Path, fields: dict[str, Any], factor: float, words: str
) -> None:
    expected = scene(dtype="f4")
    found = open_cube(write_envi(tmp_path, expected, **fields))
    np.testing.assert_allclose(found.data, expected * factor, rtol=1e-6)
    assert re.search(words, found.description), found.description


@pytest.mark.parametrize(("old", "new"), [(" ", "_"), (" = ", ": ")])
def test_names_with_underscores_and_colons(tmp_path: Path, old: str, new: str) -> None:
    path = write_envi(tmp_path, scene(dtype="f4"), data_ignore_value=-9, reflectance_scale_factor=10)
    path.write_text("\n".join(line.replace(old, new) for line in path.read_text().splitlines()))
    if new == "_":
        path.write_text(path.read_text().replace("_=_", " = "))
    found = open_envi(path)
    assert (found.nodata, found.scale) == (-9, 10)


def test_what_is_no_scene_or_not_to_be_read_says_what_to_do(tmp_path: Path) -> None:
    path = write_envi(tmp_path, scene(1, dtype="u1"), file_type="ENVI Classification")
    with pytest.raises(DataError, match="is a map of classes, not a scene; give the scene"):
        open_cube(path)
    for value, words in (("10,000.0", "one number"), ("0", "a positive")):
        with pytest.raises(DataError, match=f"{words}.*mend that line of the header, or take it out"):
            open_envi(write_envi(tmp_path, scene(), reflectance_scale_factor=value))
    assert np.isnan(open_envi(write_envi(tmp_path, scene(), data_ignore_value="-1.#QNAN0e+000")).nodata)
    (tmp_path / "x.img").rename(tmp_path / "x.img.gz")
    (tmp_path / "x.img.gz").write_bytes(b"\x1f\x8b\x08" + bytes(50))
    with pytest.raises(DataError, match=r"'x\.img\.gz' is packed with gzip: unpack it with `gunzip"):
        open_cube(path)


def test_a_header_in_poor_style(tmp_path: Path) -> None:
    expected = scene(3, 2, 4, "u2")
    text = (
        "\ufeffENVI \r\n; samples = 99\r\n\r\nno equals sign\r\n  SAMPLES=4\r\nLines   =\t2 ; comment\r\nbands = 3\r\n"
        "Data  Type = 12\r\nInterleave = BIL\r\ndescription = {\r\n a = b, {c\r\n; not this\r\n}\r\n"
        "wavelength units = Nanometers\r\nWavelength = {400.5,\r\n; 401,\r\n 500,\r\n  600,\r\n}\r\n"
    )
    (tmp_path / "x").write_bytes(expected.transpose(1, 0, 2).tobytes())
    (tmp_path / "x.HDR").write_bytes(text.encode())
    cube = read_cube(tmp_path / "x.HDR")
    np.testing.assert_array_equal(cube.data, expected)
    assert cube.wavelengths is not None
    np.testing.assert_array_equal(cube.wavelengths, [400.5, 500, 600])
    assert cube.wavelength_unit == "Nanometers"
    assert read_header(tmp_path / "x.HDR")["description"] == "a = b, {c"


@pytest.mark.parametrize("name", ["x", "x.img", "x.RAW", "x.dat", "x.bil", "x.bip", "x.bsq"])
@pytest.mark.parametrize("beside", ["x.hdr", "x.HDR", "{}.hdr"])
def test_either_file_finds_the_other(tmp_path: Path, name: str, beside: str) -> None:
    expected = scene()
    written = write_envi(tmp_path, expected, name=name)
    path = written.rename(tmp_path / beside.format(name))
    for given in (path, tmp_path / name, str(path)):
        cube = read_cube(given)
        np.testing.assert_array_equal(cube.data, expected.astype("float32"))
        assert cube.source == str(given)


def test_which_data_file(tmp_path: Path) -> None:
    expected = scene()
    path = write_envi(tmp_path, expected)
    (tmp_path / "x.raw").write_bytes(b"1" * 7)
    np.testing.assert_array_equal(read_cube(path).data, expected.astype("float32"))
    (tmp_path / "x.dat").write_bytes((tmp_path / "x.img").read_bytes())
    with pytest.raises(DataError, match=r"several files beside it .*\(x\.dat, x\.img\); give the data file"):
        read_cube(path)
    assert read_cube(tmp_path / "x.dat").data.shape == expected.shape


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"samples": None}, "must have 'samples', a whole number of at least 1; it has none"),
        ({"lines": 0}, "must have 'lines', a whole number of at least 1; got '0'"),
        ({"bands": "4.5"}, "must have 'bands'.*got '4.5'"),
        ({"bands": "9" * 5000}, "must have 'bands'"),
        ({"data_type": 6}, "data type 6, complex numbers"),
        ({"data_type": 7}, "data type 7, an unknown type; known are 1, 2, 3"),
        ({"interleave": "bsl"}, "interleave of bsq, bil or bip; got 'bsl'"),
        ({"interleave": None}, "interleave of bsq, bil or bip"),
        ({"byte_order": 2}, "byte order 2; it must be 0"),
        ({"header_offset": -1}, "'header offset'"),
        ({"file_type": "ENVI Spectral Library"}, "spectral library"),
        ({"file_compression": 1}, "compressed"),
        ({"major_frame_offsets": "{0, 8}"}, "major frame offsets"),
        ({"data_ignore_value": "x"}, "number as 'data ignore value'; got 'x'"),
        ({"reflectance_scale_factor": 0}, "a positive 'reflectance scale factor'; got 0"),
        ({"wavelength": "{1, 2"}, "ends within the braces of 'wavelength'"),
    ],
)
def test_headers_that_do_not_do(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    path = write_envi(tmp_path, scene(), **fields)
    with pytest.raises(DataError, match=f"^'{re.escape(str(path))}' .*{words}"):
        read_cube(path)


@pytest.mark.parametrize("part", [0.5, 0.999])
def test_data_cut_short(tmp_path: Path, part: float) -> None:
    path = write_envi(tmp_path, scene(4, 30, 50), offset=8)
    data = tmp_path / "x.img"
    length = int(part * data.stat().st_size)
    data.write_bytes(data.read_bytes()[:length])
    expected = 8 + 4 * 30 * 50 * 8
    words = f"has {length} bytes, but 4 bands, 30 lines and 50 samples of 8 bytes after an offset of 8 make {expected}"
    for given in (path, data):
        with pytest.raises(DataError, match=f"^'{re.escape(str(data))}' {words} bytes: it is cut short"):
            read_cube(given)


def test_sizes_beyond_memory_are_only_compared(tmp_path: Path) -> None:
    path = write_envi(tmp_path, scene(), samples=10**12, lines=10**12)
    with pytest.raises(DataError, match="it is cut short"):
        read_cube(path)


def test_more_data_than_the_header_says_warn(tmp_path: Path) -> None:
    expected = scene()
    path = write_envi(tmp_path, expected)
    with (tmp_path / "x.img").open("ab") as file:
        file.write(b"123")
    with pytest.warns(UserWarning, match=r"has 483 bytes.*make 480 bytes; the rest is not read"):
        np.testing.assert_array_equal(read_cube(path).data, expected.astype("float32"))


@pytest.mark.parametrize("wavelengths", ["{1, 2, 3}", "{1, 2, x, 4}", "{1, 2, nan, 4}"])
def test_wavelengths_that_do_not_fit_warn(tmp_path: Path, wavelengths: str) -> None:
    path = write_envi(tmp_path, scene(), wavelength=wavelengths)
    with pytest.warns(UserWarning, match="read without wavelengths"):
        assert read_cube(path).wavelengths is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_cube(write_envi(tmp_path, scene(), wavelength="{}")).wavelengths is None


def test_the_pair_is_not_there(tmp_path: Path) -> None:
    path = write_envi(tmp_path, scene())
    (tmp_path / "x.img").rename(tmp_path / "y.img")
    with pytest.raises(DataError, match=r"x\.hdr' has no data file beside it \('x' with no suffix or one of \.img"):
        read_cube(path)
    with pytest.raises(DataError, match=r"y\.img' has no ENVI header beside it \('y\.img\.hdr' or 'y\.hdr'\)"):
        read_cube(tmp_path / "y.img")
    with pytest.raises(DataError, match="does not exist"):
        read_cube(tmp_path / "z.hdr")
    (tmp_path / "e.hdr").write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_cube(tmp_path / "e.hdr")
    (tmp_path / "e.hdr").write_bytes(b"#?RADIANCE\n")
    with pytest.raises(DataError, match="is not an ENVI header"):
        read_cube(tmp_path / "e.hdr")


def test_options_that_an_image_does_not_have(tmp_path: Path) -> None:
    path = write_envi(tmp_path, scene())
    for options, words in (
        ({"key": "a"}, "leave key='a' out"),
        ({"layout": "hwc"}, "leave layout='hwc' out"),
        ({"rows": 9}, "has 3 rows, not 9"),
    ):
        with pytest.raises(DataError, match=words):
            read_cube(path, **options)  # type: ignore[arg-type]
    assert read_cube(path, rows=3, columns=5, layout="chw").data.shape == (4, 3, 5)


def test_reflectance_scale_factor(tmp_path: Path) -> None:
    expected = scene(dtype="u2") + np.uint16(7)
    expected[:, 1, 2] = 7
    cube = read_cube(write_envi(tmp_path, expected, reflectance_scale_factor=10000, data_ignore_value=7))
    scaled = expected.astype("float32") / np.float32(10000)
    scaled[:, 1, 2] = 0
    np.testing.assert_array_equal(cube.data, scaled)
    assert cube.valid is not None
    assert np.argwhere(~cube.valid).tolist() == [[1, 2]]
    assert "divided by the reflectance scale factor 10000" in cube.layout


@pytest.mark.parametrize("lowest", [-1, 0, 3])
def test_class_map_round_trip(tmp_path: Path, lowest: int) -> None:
    labels = seeds.generator().integers(lowest, 6, (7, 5))
    labels[0, 0] = 5
    names = ["soil", "tree, oak", "{x}", "y=1", "", "water"]
    text, numbers = write_class_map(tmp_path / "new", labels, class_names=names)
    assert (text.name, numbers.name) == ("classes.hdr", "classes.img")
    for path in (text, numbers):
        np.testing.assert_array_equal(read_labels(path), np.where(labels < 0, -1, labels + 1))
    assert numbers.read_bytes() == (np.maximum(labels, -1) + 1).astype("u1").tobytes()
    fields = read_header(text)
    assert fields["file type"] == "ENVI Classification"
    assert fields["classes"] == "7"
    assert open_envi(text).class_names == ["Unclassified", "soil", "tree oak", "x", "y 1", "-", "water"]
    lookup = np.array(fields["class lookup"].split(","), int).reshape(-1, 3)
    np.testing.assert_array_equal(lookup, np.vstack(([[0, 0, 0]], colors(6))))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["classes.hdr", "classes.img"]


def test_class_map_of_many_classes_and_of_none(tmp_path: Path) -> None:
    labels = np.arange(400).reshape(20, 20)
    np.testing.assert_array_equal(read_labels(write_class_map(tmp_path, labels)[0]), labels + 1)
    nothing = np.full((2, 3), -1)
    np.testing.assert_array_equal(read_labels(write_class_map(tmp_path, nothing, name="n")[1]), nothing)


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.zeros((2, 2, 2), int), {}, "`labels` must be an integer array"),
        (np.zeros((2, 2)), {}, "`labels` must be an integer array"),
        (np.full((2, 2), 65535), {}, "`labels` must be below 65535"),
        (np.full((2, 2), 3), {"class_names": ["a"]}, "`class_names` must be 4 names"),
    ],
)
def test_class_maps_that_cannot_be(tmp_path: Path, labels: np.ndarray, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        write_class_map(tmp_path, labels, **options)
    assert not list(tmp_path.iterdir())


def test_labels_from_an_image(tmp_path: Path) -> None:
    labels = seeds.generator().integers(0, 4, (3, 5))
    path = write_envi(tmp_path, labels[None].astype("f4"), data_ignore_value=2)
    np.testing.assert_array_equal(read_labels(path, shape=(3, 5)), np.where(labels == 2, -1, labels))
    with pytest.raises(DataError, match=r"shape \(3, 5\) \(it is transposed\), but the scene has 5 rows, 3 columns"):
        read_labels(path, shape=(5, 3))
    with pytest.raises(DataError, match="holds no variables"):
        read_labels(path, key="a")
    abundances = seeds.generator().random((4, 3, 5))
    np.testing.assert_array_equal(read_labels(write_envi(tmp_path, abundances)), abundances.argmax(0))


def test_real_images(shared_data: Path) -> None:
    folder = shared_data / "maize_kernel_envi"
    cube = read_cube(folder / "4-22-22_right_same_B73_top_00.hdr")
    assert cube.data.shape == (580, 31, 43)
    assert cube.wavelengths is not None
    assert (cube.wavelengths[0], cube.wavelengths[-1], cube.wavelength_unit) == (366.551, 1048.421, "nm")
    # The right order of the axes is the one in which neighbors along every axis are alike.
    white = read_cube(folder / "white_reference_crop.raw").data
    for axis in range(3):
        assert np.abs(np.diff(white, axis=axis)).mean() < 0.1 * white.std(), axis
    grain = read_cube(next((shared_data / "wheat_grains_envi").glob("var1*.hdr")))
    assert grain.data.shape == (10, 200, 200)
    assert grain.wavelengths is None
    # One grain in the middle of a background of zeros.
    inside = (grain.data != 0).any(axis=0)
    assert 0.25 < inside.mean() < 0.33
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()


@pytest.mark.parametrize(("factor", "divisor"), [("0.0001", 10000), ("10000", 10000), ("1.0D+4", 10000)])
def test_scale_factors_of_both_directions(tmp_path: Path, factor: str, divisor: float) -> None:
    expected = scene(dtype="u2")
    cube = read_cube(write_envi(tmp_path, expected, reflectance_scale_factor=factor))
    np.testing.assert_array_equal(cube.data, expected.astype("f4") / np.float32(divisor))
    assert "divided by the reflectance scale factor 10000" in cube.description


def test_gains_and_offsets_of_bands(tmp_path: Path) -> None:
    stored = scene(dtype="u2")
    path = write_envi(tmp_path, stored, data_gain_values="{0.5, 1, 2, 4}", data_offset_values="{-1, 0, 0, 1}")
    gains, offsets = np.array([0.5, 1, 2, 4], "f4"), np.array([-1, 0, 0, 1], "f4")
    expected = stored.astype("f4") * gains[:, None, None] + offsets[:, None, None]
    opened = open_cube(path)
    np.testing.assert_array_equal(opened.data, expected)
    np.testing.assert_array_equal(opened[1:3, 1:2], expected[1:3, 1:2])
    np.testing.assert_array_equal(open_cube(path, bands="2-").held().data, expected[2:])
    path = write_envi(tmp_path, stored, data_gain_values="{0.5, 1}", data_reflectance_gain_values="{1, 1, 1, 1}")
    assert "2 'data gain values' for 4 bands, which are not applied" in open_cube(path).description
    assert "'data reflectance gain values' are not applied" in open_cube(path).description


@pytest.mark.parametrize("text", ["-1.#QNAN", "1.#IND", "nan", "-nan(ind)", "1.#INF"])
def test_no_data_values_as_windows_writes_them(tmp_path: Path, text: str) -> None:
    expected = scene()
    expected[:, 1, 2] = np.inf if "INF" in text else np.nan
    cube = read_cube(write_envi(tmp_path, expected, data_ignore_value=text))
    assert cube.valid is not None
    assert np.argwhere(~cube.valid).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("fields", "unit"),
    [
        ({"wavelengths": "{400, 500, 600, 700}", "wavelength_units": "Nanometers"}, "nm"),
        ({"wavelength": "{400 nm, 500.0 nm, 600nm, 700 nm}"}, "nm"),
        ({"band_names": "{Band 1 (400 nm), Band 2 (500 nm), Band 3 (600 nm), Band 4 (700 nm)}"}, "nm"),
        ({"wavelength": "{400, 500, 600, 700}", "wavelength_units": "cm-1"}, "cm⁻¹"),
        ({"wavelength": "{400, 500, 600, 700}", "wavelength_units": "Angstroms"}, "Å"),
        *(
            ({"wavelength": f"{{{text}}}", "wavelength_units": "nm"}, "nm")
            for text in (
                "400 500 600 700",
                "400\n500\n600\n700",
                '"400", "500", "600", "700"',
                "400,0; 500,0; 600,0; 700,0",
                "400,00, 500,00, 600,00, 700,00",
            )
        ),
    ],
)
def test_wavelengths_as_they_are_written(tmp_path: Path, fields: dict[str, str], unit: str) -> None:
    cube = read_cube(write_envi(tmp_path, scene(), **fields))
    assert cube.wavelengths is not None
    assert (cube.wavelengths.tolist(), cube.unit) == ([400, 500, 600, 700], unit)
    assert f"(400 to 700 {unit})" in cube.description


def test_what_a_header_says_of_its_wavelengths_is_doubted(tmp_path: Path) -> None:
    for wavelengths, unit, words in (
        ("{400, 500, 600, 700}", "Micrometers", "in µm look like nm"),
        ("{0.4, 0.5, 0.6, 0.7}", "Nanometers", "in nm look like µm"),
    ):
        path = write_envi(tmp_path, scene(), wavelength=wavelengths, wavelength_units=unit)
        assert f"{words}: if so, mend its 'wavelength units'" in open_cube(path).description
    path = write_envi(tmp_path, scene(), wavelength="{400, 500, 600, 700}")
    assert "(400 to 700, taken as nm)" in open_cube(path).description
    path.write_text(path.read_text() + "Wavelength = {401, 501, 601, 701}\n")
    assert "the header has wavelength twice: the last one is used" in open_cube(path).description
    # Wavenumbers, as cameras for the infrared write them.
    path = write_envi(tmp_path, scene(), wavelength="{1000, 2000, 3000, 3900}")
    assert "(1000 to 3900, of no known unit)" in open_cube(path).description


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
def test_encodings_and_blank_lines_of_headers(tmp_path: Path, encoding: str) -> None:
    path = write_envi(tmp_path, scene(), description="{Küvette}", bands="4.0")
    path.write_bytes(("\r\n" + path.read_text()).encode(encoding))
    assert read_cube(path).shape == (4, 3, 5)


def test_a_file_beside_the_header_that_is_not_its_data(tmp_path: Path) -> None:
    path = write_envi(tmp_path, scene())
    (tmp_path / "x.seq").write_bytes(bytes(1000))
    with pytest.raises(
        DataError, match=r"x\.seq' has 1000 bytes, but 'x\.hdr' describes 480, .*: give 'x\.hdr' or 'x\.img'"
    ):
        read_cube(tmp_path / "x.seq")
    read_cube(path)


def test_numbers_of_bands_are_no_wavelengths(tmp_path: Path) -> None:
    fields = {"wavelength": "{1, 2, 3, 4}", "wavelength_units": "Index"}
    assert read_cube(write_envi(tmp_path, scene(), **fields)).wavelengths is None


@pytest.mark.parametrize("name", ["x.hyspex", "x.PIX", "X.cub"])
def test_any_data_file_of_the_right_size(tmp_path: Path, name: str) -> None:
    expected = scene()
    path = write_envi(tmp_path, expected, name=name)
    (tmp_path / "x.txt").write_text("notes")
    np.testing.assert_array_equal(read_cube(path).data, expected.astype("float32"))


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"II*\0", "a TIFF image"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the data: fetch .*git lfs pull"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"PK\x03\x04", "a zip archive: unpack it"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    ],
)
def test_files_of_other_formats_beside_a_header(tmp_path: Path, first: bytes, words: str) -> None:
    expected = scene()
    path = write_envi(tmp_path, expected)
    (tmp_path / "x.img").write_bytes(first + bytes(expected.nbytes))
    with pytest.raises(DataError, match=words):
        read_cube(path)
    # Raw numbers may begin like anything, if there are exactly as many as the header says.
    (tmp_path / "x.img").write_bytes((first + bytes(expected.nbytes))[: expected.nbytes - 8] + b"\1" * 8)
    assert open_cube(path, zeros="accept", nodata="nan").shape == expected.shape


def test_place_on_earth_goes_to_class_maps(tmp_path: Path) -> None:
    fields = {"map_info": "{UTM, 1, 1, 380000, 5820000, 30, 30, 33, North, WGS-84}", "x_start": "17"}
    cube = read_cube(write_envi(tmp_path, scene(), **fields))
    text, _ = write_class_map(tmp_path / "out", np.zeros(cube.shape[1:], int), place=cube.place)
    written = read_header(text)
    assert (written["map info"], written["x start"]) == (fields["map_info"].strip("{}"), "17")
