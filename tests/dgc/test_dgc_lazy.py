"""Label maps of scenes in chunks: lazily, the same as strip by strip, bit for bit."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import seeds
from helpers.command_line import SEGMENT, run
from helpers.models import segmentation
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction import lazy
from spectrafuse.dgc.prediction.inference import halo_rows, label_map
from spectrafuse.dgc.scenes import read_scenes
from spectrafuse.io.errors import DataError
from spectrafuse.random import RandomStream

xarray = pytest.importorskip("xarray", reason="the part xarray is not installed")
dask_array = pytest.importorskip("dask.array", reason="the part xarray is not installed")

HOLE = -9999.0


def scene(rows: int = 40, columns: int = 23, bands: int = 6) -> np.ndarray:
    return seeds.generator().normal(size=(bands, rows, columns)).astype(np.float32)


def with_holes(values: np.ndarray) -> np.ndarray:
    """Single pixels, and an area wider than the model looks, without data."""
    holed = values.copy()
    holed[:, seeds.generator().random(values.shape[1:]) < 0.05] = HOLE
    holed[:, 8:35, 2:20] = HOLE
    return holed


@torch.no_grad()
def model_of(values: np.ndarray, **options: Any) -> SegmentationModel:
    """Random, with biases, and centers among the embeddings: labels of neighbors differ, and every pixel counts."""
    model = SegmentationModel(6, 8, 6, bias=True, stream=RandomStream(seeds.fresh_seed()), **options).eval()
    shifted = model(torch.from_numpy(values)[None]).shifted[0].flatten(1).t()
    chosen = seeds.generator().choice(len(shifted), 6, replace=False)
    model.centers.copy_(torch.nn.functional.normalize(shifted[torch.from_numpy(chosen)], dim=1))
    return model


def lazily(values: np.ndarray, chunks: Any, memory: int = 1 << 28, shape: Any = None, **options: Any) -> Any:
    """Labels in chunks, and those of strips."""
    model = model_of(values, **(shape or {}))
    given = dask_array.from_array(values, chunks=chunks)
    (cube,) = read_scenes(given, zeros="accept", layout="chw", **options)
    (same,) = read_scenes(values, zeros="accept", layout="chw", **options)
    how = Normalization("signal+meanstd")
    found = lazy.lazy_label_map(model, cube, how, memory=memory)
    return found, label_map(model, same, how, memory=1 << 28)


@pytest.mark.parametrize("chunks", [(6, 40, 23), (4, 16, 9), (6, 3, 23), ((2, 4), (1, 30, 9), (20, 3))])
def test_chunks_equal_strips_bit_for_bit(chunks: Any) -> None:
    found, expected = lazily(scene(), chunks)
    assert found.chunks[0] == dask_array.core.normalize_chunks(chunks, (6, 40, 23))[1]
    assert found.dtype == np.int64
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found.compute(), expected)


@pytest.mark.parametrize("chunks", [(6, 10, 23), (6, 3, 5)])
def test_pixels_without_data_show_the_same_neighbors(chunks: Any) -> None:
    found, expected = lazily(with_holes(scene()), chunks, nodata=HOLE)
    assert (expected < 0).any()
    np.testing.assert_array_equal(found.compute(), expected)


@pytest.mark.parametrize("options", [{"dense": True}, {"n_spectral_layers": 5, "window": 7}])
def test_models_that_look_farther(options: dict[str, Any]) -> None:
    found, expected = lazily(scene(30, 11), (6, 4, 5), shape=options)
    np.testing.assert_array_equal(found.compute(), expected)


def test_fewer_rows_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "halo_rows", lambda model, width: halo_rows(model, width) - 2)
    found, expected = lazily(scene(60, 9), (6, 2, 9))
    assert (found.compute() != expected).any()


def test_a_task_takes_no_more_rows_than_its_memory_allows() -> None:
    found, expected = lazily(scene(64, 16), (6, 64, 16), memory=8 << 20)
    assert found.chunks == ((64,), (16,))
    assert list(lazy._spans((0, 10, 13), 4)) == [(0, 3), (3, 6), (6, 10), (10, 13)]
    np.testing.assert_array_equal(found.compute(), expected)


@pytest.fixture(scope="module")
def fitted() -> Any:
    return segmentation(max_epoch=1).fit(scene(24, 24), layout="chw")


def test_the_same_kind_comes_back_with_what_it_says(fitted: Any, tmp_path: Path) -> None:
    values = scene(24, 20)
    expected = fitted.predict(values, layout="chw")
    coords = {
        "wavelength": ("band", np.arange(6.0)),
        "y": np.arange(24) * 2.0,
        "spatial_ref": ((), 0, {"crs_wkt": "x"}),
    }
    named = xarray.DataArray(
        values, dims=("band", "y", "x"), coords=coords, attrs={"sensor": "A", "units": "1", "_FillValue": HOLE}
    ).transpose("x", "band", "y")
    for given in (named, named.chunk({"y": 9, "x": 7})):
        found = fitted.predict(given)
        assert found.dims == ("y", "x")
        assert set(found.coords) == {"y", "spatial_ref"}
        assert found["spatial_ref"].attrs == {"crs_wkt": "x"}
        assert found.attrs == {
            "sensor": "A", "long_name": "cluster", "flag_values": [0, 1], "flag_meanings": "cluster_0 cluster_1"
        }  # fmt: skip
        assert (found.chunks is None) == (given.chunks is None)
        np.testing.assert_array_equal(found.values, expected)
    plain, listed = fitted.predict([values, dask_array.from_array(values, chunks=(6, 9, 9))], layout="chw")
    np.testing.assert_array_equal(plain, expected)
    assert listed.chunks == ((9, 9, 6), (9, 9, 2))
    np.testing.assert_array_equal(listed.compute(scheduler="synchronous"), expected)
    written = fitted.predict(dask_array.from_array(values), layout="chw", out=tmp_path / "labels.npy")
    assert isinstance(written, np.memmap)
    np.testing.assert_array_equal(written, expected)
    labels, sure = fitted.predict_with_confidence(named.chunk())
    np.testing.assert_array_equal(labels.values, expected)
    assert sure.shape == (24, 20)
    with pytest.raises(DataError, match="must have 6 bands"):
        fitted.predict(dask_array.from_array(values[:5]), layout="chw")


def test_a_fit_of_chunks_is_the_fit_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = scene(24, 24)
    given = dask_array.from_array(values, chunks=(3, 10, 7))
    monkeypatch.setattr("spectrafuse.dgc.windows._MOST_NUMBERS", 100)
    np.save(tmp_path / "scene.npy", values)
    one = segmentation().fit(tmp_path / "scene.npy", layout="chw")
    two = segmentation().fit(given, layout="chw", checkpoint_dir=tmp_path / "state")
    np.testing.assert_array_equal(one.cluster_centers_, two.cluster_centers_)
    # The same numbers go on, others do not, whatever the arrays are called.
    other = dask_array.from_array(values, chunks=(6, 5, 24))
    segmentation().fit(other, layout="chw", checkpoint_dir=tmp_path / "state")
    with pytest.raises(ValueError, match="data changed"):
        segmentation().fit(given + 1, layout="chw", checkpoint_dir=tmp_path / "state")


def test_a_store_is_segmented_into_a_store(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="the part xarray is not installed")
    values = scene(16, 20)
    named = xarray.DataArray(
        values, dims=("band", "y", "x"), coords={"x": np.arange(20) * 30.0}, name="reflectance", attrs={"sensor": "A"}
    )
    named.chunk({"y": 5}).to_dataset().to_zarr(tmp_path / "scene.zarr", consolidated=False)
    result = run("segment", tmp_path / "scene.zarr", "-o", tmp_path / "out", *SEGMENT, "--max-epoch", "1")
    assert result.exit_code == 0, result.output
    assert "labels.npy, labels.zarr" in result.output.replace("\n", " ")
    found = xarray.open_zarr(tmp_path / "out" / "labels.zarr", consolidated=False)["labels"]
    np.testing.assert_array_equal(found.values, np.load(tmp_path / "out" / "labels.npy"))
    np.testing.assert_array_equal(found["x"], named["x"])
    assert (found.attrs["sensor"], found.attrs["flag_meanings"]) == ("A", "cluster_0 cluster_1 cluster_2")
    again = run("segment", tmp_path / "scene.zarr", "-o", tmp_path / "out", *SEGMENT, "--max-epoch", "1")
    assert "Nothing to do" in again.output


def _kill_once(block: np.ndarray, armed: str) -> np.ndarray:
    with suppress(FileNotFoundError):
        os.unlink(armed)
        os.kill(os.getpid(), signal.SIGKILL)
    return block


@pytest.mark.slow
@pytest.mark.process
def test_on_a_cluster_of_two_workers_of_which_one_is_killed(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the part xarray is not installed")
    values, armed = with_holes(scene(90, 33)), tmp_path / "armed"
    fitted: Any = segmentation(nodata=HOLE, max_epoch=1).fit(values, layout="chw")
    expected = fitted.predict(values, layout="chw")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, protocol="tcp") as cluster,
        distributed.Client(cluster) as client,
    ):
        before = set(client.run(os.getpid).values())
        given = dask_array.from_array(values, chunks=(6, 20, 33)).map_blocks(_kill_once, armed=str(armed))
        labels = fitted.predict(given, layout="chw")
        armed.touch()
        np.testing.assert_array_equal(labels.compute(), expected)
        assert not armed.exists()
        assert before - set(client.run(os.getpid).values())
    assert torch.get_default_dtype() == torch.float32
