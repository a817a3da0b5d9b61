"""Scenes in Zarr stores and in arrays of Dask and xarray: windows out of chunks, and what happens to the chunks."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import seeds
from helpers.io_files import quiet, scene
from spectrafuse.dgc.scenes import read_scenes
from spectrafuse.io import chunked, open_cube
from spectrafuse.io.errors import DataError
from spectrafuse.io.fingerprint import sha256
from spectrafuse.io.zarr_stores import is_store

xarray = pytest.importorskip("xarray", reason="the part xarray is not installed")
dask_array = pytest.importorskip("dask.array", reason="the part xarray is not installed")
zarr = pytest.importorskip("zarr", reason="the part xarray is not installed")

BANDS, ROWS, COLUMNS = 6, 20, 13
LIGHT = np.linspace(400, 900, BANDS)
GRID = {"crs_wkt": 'GEOGCS["WGS 84"]', "GeoTransform": "10 0.5 0 50 0 -0.5"}


def data_array(values: np.ndarray, dims: tuple[str, ...] = ("y", "x", "band")) -> Any:
    """A DataArray with wavelengths and a place, from (bands, rows, columns)."""
    coords = {"wavelength": ("band", LIGHT, {"units": "nm"}), "y": np.arange(ROWS) * 0.5, "spatial_ref": ((), 0, GRID)}
    made = xarray.DataArray(values, dims=("band", "y", "x"), coords=coords, name="reflectance", attrs={"sensor": "A"})
    return made.transpose(*dims)


def write_store(path: Path, values: np.ndarray, *, form: int = 3, **options: Any) -> Path:
    chunks = {"y": 7, "x": 5, "band": 4}
    made = data_array(values, **options).chunk(chunks).to_dataset()
    made.to_zarr(path, zarr_format=form, consolidated=False)
    return path


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return scene(BANDS, ROWS, COLUMNS, "float32")


@pytest.mark.parametrize("form", [2, 3])
def test_windows_and_facts_of_a_store(tmp_path: Path, values: np.ndarray, form: int) -> None:
    path = write_store(tmp_path / "scene.zarr", values, form=form)
    opened = open_cube(path)
    assert (opened.shape, opened.file_backed, opened.key) == ((BANDS, ROWS, COLUMNS), True, "reflectance")
    assert opened.wavelengths is not None
    np.testing.assert_array_equal(opened.wavelengths, LIGHT)
    assert opened.wavelength_unit == "nm"
    assert opened.place is not None
    assert opened.place["map info"].startswith("Geographic Lat/Lon, 1, 1, 10.0, 50.0, 0.5, 0.5")
    np.testing.assert_array_equal(opened.data, values)
    draw = seeds.generator()
    for _ in range(20):
        b, y, x = (sorted(draw.integers(0, n + 1, 2)) for n in opened.shape)
        np.testing.assert_array_equal(opened[slice(*b), slice(*y), slice(*x)], values[slice(*b), slice(*y), slice(*x)])
    np.testing.assert_array_equal(opened.with_bands([0, 3, 4])[:, 1:9], values[[0, 3, 4], 1:9])
    assert opened.sha256 == sha256(path) != ""
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).read_rows(5, 9), values[:, 5:9])


@pytest.mark.parametrize("dims", [("band", "y", "x"), ("x", "band", "y"), ("y", "x", "band")])
def test_arrays_of_dask_zarr_and_xarray_stay_in_their_chunks(
    tmp_path: Path, values: np.ndarray, dims: tuple[str, ...]
) -> None:
    named = data_array(values, dims).chunk({"y": 7, "x": 5, "band": 4})
    stored = zarr.open(write_store(tmp_path / "scene.zarr", values, dims=dims), mode="r")["reflectance"]
    plain = named.transpose("band", "y", "x").data
    for given in (named, stored, plain, named.to_dataset().to_array().isel(variable=0)):
        (found,) = read_scenes(given, zeros="check", layout="chw" if given is plain else "auto")
        assert isinstance(found.stored, chunked.ChunkedArray)
        assert found.file_backed
        np.testing.assert_array_equal(found.data, values)
    (found,) = read_scenes(named, zeros="check")
    assert found.place is not None
    assert found.wavelength_unit == "nm"


def test_a_chunk_is_decoded_once_and_the_memory_for_chunks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    values = scene(4, 12, 12, "float32")
    made: list[Any] = []

    def block(block_info: Any = None) -> np.ndarray:
        place = block_info[None]["array-location"]
        made.append(place)
        return values[tuple(slice(*span) for span in place)]

    array = dask_array.map_blocks(
        block, chunks=((4,), (5, 4, 3), (6, 6)), dtype="float32", meta=np.empty((0, 0, 0), "f4")
    )
    walked = chunked.ChunkedArray(chunked.DaskChunks("`X`", array))
    for y in range(12):
        np.testing.assert_array_equal(walked[:, y : y + 1], values[:, y : y + 1])
    assert len(made) == 6
    assert chunked.KEPT.bytes > 0
    walked.close()
    assert chunked.KEPT.get(walked.source.number, (0, 0, 0)) is None
    monkeypatch.setattr(chunked.KEPT, "most", 1000)
    for y in range(12):
        np.testing.assert_array_equal(walked[:, y : y + 1], values[:, y : y + 1])
        assert chunked.KEPT.bytes <= 1000
    del walked


def test_missing_values_of_xarray_are_no_data(tmp_path: Path, values: np.ndarray) -> None:
    holed = values.copy()
    holed[:, 3:5, 2:9] = np.nan
    path = write_store(tmp_path / "scene.zarr", holed)
    opened = open_cube(path)
    np.testing.assert_array_equal(opened.valid, ~np.isnan(holed[0]))
    (same,) = read_scenes(xarray.open_zarr(path, consolidated=False)["reflectance"], zeros="check")
    np.testing.assert_array_equal(same.valid, opened.valid)
    np.testing.assert_array_equal(same.data, opened.data)


def change(path: Path, what: str) -> None:
    chunk = path / "reflectance" / "c" / "1" / "1" / "0"
    if what == "lost":
        chunk.unlink()
    elif what == "changed":
        chunk.write_bytes(chunk.read_bytes() + b"x")
    elif what == "grown":
        zarr.open(path, mode="r+")["reflectance"].resize((2 * ROWS, COLUMNS, BANDS))
    else:
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("lost", r"lost its chunk \(1, 1, 0\)"),
        ("changed", r"has another chunk \(1, 1, 0\)"),
        ("grown", "was written anew"),
        ("removed", "was written anew|lost its chunk|cannot be read"),
    ],
)
def test_a_store_that_changes_while_it_is_read(tmp_path: Path, values: np.ndarray, what: str, said: str) -> None:
    path = write_store(tmp_path / "scene.zarr", values)
    opened = open_cube(path)
    opened.close()
    change(path, what)
    with pytest.raises(DataError, match=f"'.*scene.zarr', variable 'reflectance',? ({said})"):
        opened.read_rows(7, 12)


def test_chunks_that_were_never_written_are_told(tmp_path: Path, values: np.ndarray) -> None:
    path = write_store(tmp_path / "scene.zarr", values)
    change(path, "lost")
    opened = open_cube(path)
    assert "1 of 18 chunks are not in the store and read as nan" in opened.description
    assert opened.valid is not None
    assert not opened.valid[7:14, 5:10].any()
    shutil.rmtree(path / "reflectance" / "c")
    with pytest.raises(DataError, match="none of its chunks"):
        open_cube(path)


def test_a_damaged_chunk_is_one_sentence(tmp_path: Path, values: np.ndarray) -> None:
    path = write_store(tmp_path / "scene.zarr", values)
    (path / "reflectance" / "c" / "1" / "1" / "0").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"its chunk \(1, 1, 0\) may be damaged"):
        open_cube(path)


def test_dimensions_and_arrays_that_cannot_be_told(tmp_path: Path, values: np.ndarray) -> None:
    bare = zarr.create_array(tmp_path / "bare.zarr", data=values, chunks=(3, 7, 13))
    assert is_store(tmp_path / "bare.zarr")
    with pytest.raises(DataError, match=r"has shape \(6, 20, 13\), and can be read as .* Say which one"):
        open_cube(tmp_path / "bare.zarr")
    np.testing.assert_array_equal(open_cube(tmp_path / "bare.zarr", layout="chw").data, values)
    (found,) = quiet(read_scenes, bare, zeros="check")
    np.testing.assert_array_equal(found.data, values)
    named = data_array(values).rename({"band": "p", "y": "q", "x": "r"}).chunk()
    with pytest.raises(DataError, match="do not say where the bands are"):
        read_scenes(named, zeros="check")
    two = data_array(values).to_dataset().assign(other=data_array(values))
    two.to_zarr(tmp_path / "two.zarr", consolidated=False)
    with pytest.raises(DataError, match="several arrays that can be a cube"):
        open_cube(tmp_path / "two.zarr")
    assert open_cube(tmp_path / "two.zarr", key="other").key == "other"
    with pytest.raises(DataError, match="group of Zarr"):
        read_scenes(zarr.open(tmp_path / "two.zarr", mode="r"), zeros="check")
    unknown = dask_array.from_array(values.reshape(-1, 1, 1))[dask_array.from_array(values.reshape(-1)) > 100]
    with pytest.raises(DataError, match="chunks of unknown size"):
        read_scenes(unknown, zeros="check")


def test_a_chunk_that_cannot_be_computed_is_one_sentence() -> None:
    def broken() -> np.ndarray:
        raise RuntimeError("the disk\nis gone")

    array = dask_array.map_blocks(broken, chunks=((3,), (4,), (5,)), dtype="float32", meta=np.empty((0, 0, 0), "f4"))
    with pytest.raises(DataError, match="A chunk of `X` cannot be computed: the disk is gone"):
        read_scenes(array, zeros="check")


def test_pickles_in_a_store_are_never_loaded(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=values, zarr_format=2, compressors=None)
    said = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(said | {"filters": [{"id": "pickle", "protocol": 5}]}))
    with pytest.raises(DataError, match=r"x\.zarr' cannot be read"):
        open_cube(path, layout="chw")
