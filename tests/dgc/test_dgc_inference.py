"""Strips of rows give what a run over the whole scene gives; one halo row less does not."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch

from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.normalise import METHODS, Normalization
from spectrafuse.dgc.prediction import inference
from spectrafuse.dgc.prediction.inference import (
    budget,
    cluster_mass,
    halo_rows,
    iterate_embeddings,
    label_map,
    plan_strips,
    predict_labels,
    predict_probs,
    raster_reach,
    spatial_reach,
    strip_height,
)
from spectrafuse.io.cubes import Cube
from spectrafuse.io.errors import DataError
from spectrafuse.random import RandomStream

# Wider than the convolutions reach in one row, a prime, narrower than the kernel, and one column.
WIDTHS = [24, 13, 5, 1]


def scene_and_model(width: int, height: int = 31, seed: int = 0) -> tuple[torch.Tensor, SegmentationModel]:
    stream = RandomStream(seed)
    cube = stream.normal((6, height, width), dtype=torch.float64)
    # Biases and a wide reach of every layer: without biases, dead units can hide a wrong border.
    model = SegmentationModel(6, 8, 4, bias=True, stream=stream).double().eval()
    return cube, model


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [3, 16, 100])
def test_strips_equal_the_whole_scene(width: int, rows: int) -> None:
    cube, model = scene_and_model(width)
    normalization = Normalization("meanstd")
    whole = model(normalization.fit(cube).transform(cube).unsqueeze(0)).probs[0].detach()
    probs = predict_probs(model, cube, normalization, rows=rows)
    torch.testing.assert_close(probs, whole, rtol=0, atol=1e-11)
    assert torch.equal(predict_labels(model, cube, normalization, rows=rows), whole.argmax(-1))


@pytest.mark.parametrize("pixels", [1, 7, 50, 4096])
@pytest.mark.parametrize("width", WIDTHS)
def test_pieces_equal_the_whole_scene(width: int, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, model = scene_and_model(width)
    unit = Normalization("unit")
    whole = model(unit.transform(cube).unsqueeze(0)).probs[0].detach()
    monkeypatch.setattr(inference, "_PIECE_PIXELS", pixels)
    monkeypatch.setattr(inference, "_LEAST_PIECE", 1)
    assert budget(model, cube.shape, 1 << 28).pixels == pixels
    torch.testing.assert_close(predict_probs(model, cube, unit, rows=9), whole, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["raster_reach", "spatial_reach"])
@pytest.mark.parametrize(("layers", "kernel", "window", "width"), [(3, 9, 5, 12), (1, 3, 3, 1), (2, 5, 7, 4)])
def test_neighbours_follow_the_model(
    layers: int, kernel: int, window: int, width: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = RandomStream(1)
    cube = stream.normal((3, 29, width), dtype=torch.float64)
    model = SegmentationModel(
        3, 6, 3, n_spectral_layers=layers, spectral_kernel_size=kernel, window=window, bias=True, stream=stream
    ).double()
    unit = Normalization("unit")
    whole = model(unit.transform(cube).unsqueeze(0)).probs[0].detach()
    monkeypatch.setattr(inference, "_PIECE_PIXELS", 3)
    monkeypatch.setattr(inference, "_LEAST_PIECE", 1)

    def error() -> float:
        return max((predict_probs(model, cube, unit, rows=r) - whole).abs().max().item() for r in (3, 4, 5))

    assert (raster_reach(model), spatial_reach(model)) == (layers * (kernel // 2), window // 2 + 2)
    assert halo_rows(model, width) == spatial_reach(model) + math.ceil(raster_reach(model) / width)
    assert error() < 1e-11
    less = getattr(inference, name)(model) - 1
    monkeypatch.setattr(inference, name, lambda model: less)
    assert error() > 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_statistics_are_those_of_the_scene(method: str) -> None:
    cube, model = scene_and_model(9)
    cube = cube.abs() + 0.1
    fitted = Normalization(method).fit(cube)
    expected = model.labels(fitted.transform(cube).unsqueeze(0))[0]
    assert torch.equal(predict_labels(model, cube, Normalization(method), rows=3), expected)


def test_rows_are_read_as_slices() -> None:
    """A file-backed cube must never be asked for more than a strip with its halo."""
    cube, model = scene_and_model(13)

    class Rows:
        shape = tuple(cube.shape)
        largest = 0

        def __getitem__(self, index: tuple) -> np.ndarray:
            values = cube[index].numpy()
            self.largest = max(self.largest, values.shape[1])
            return values

    lazy = Cube(Rows(), dtype=np.float64)
    unit = Normalization("unit")
    assert torch.equal(predict_labels(model, lazy, unit, rows=4), predict_labels(model, cube, unit, rows=31))
    # One row more on each side, whose pixels the convolutions along the rows reach; the others are kept.
    assert lazy.stored.largest == 4 + 2


def test_memory_sets_the_strips() -> None:
    cube, model = scene_and_model(13)
    small, large = strip_height(model, 13, 1), strip_height(model, 13, 1 << 24)
    assert small == 1
    assert large > 1000
    strips = [strip for strip, _ in iterate_embeddings(model, cube, Normalization("unit"), memory=1 << 19)]
    assert len(strips) > 1
    assert [s.start for s in strips] == [0, *(s.stop for s in strips[:-1])]
    assert strips[-1].stop == cube.shape[1]
    previous = 0
    for memory in (1 << 19, 3 << 18, 1 << 20, 1 << 21):
        rows, _, pixels, _ = budget(model, (6, 10**6, 13), memory)
        assert rows > previous
        assert 256 <= pixels <= 4096
        previous = rows
    assert budget(model, (6, 5, 13), 1 << 24).rows == 5
    assert budget(model, (300, 10**6, 4096), 1 << 40).rows < 20
    with pytest.raises(ValueError, match=r"`max_memory` must be at least 1 MiB for a scene of 6 bands, 31 rows and 13"):
        predict_labels(model, cube, Normalization("unit"), memory=1000)
    with pytest.raises(ValueError, match="`max_memory`"):
        budget(model, (6, 5, 13), 0)


def test_reading_ahead_changes_no_bit() -> None:
    cube, model = scene_and_model(13)
    threads: set[int] = set()

    class File:
        shape = tuple(cube.shape)

        def __getitem__(self, index: tuple) -> np.ndarray:
            threads.add(threading.get_ident())
            return cube[index].numpy()

    unit = Normalization("unit")
    probs = predict_probs(model, Cube(File(), file_backed=True, dtype=np.float64), unit, rows=4)
    assert threading.get_ident() not in threads
    assert len(threads) == 1
    assert torch.equal(probs, predict_probs(model, cube, unit, rows=4))


def test_what_goes_wrong_in_the_background_is_raised() -> None:
    cube, model = scene_and_model(13)

    class Damaged:
        shape = tuple(cube.shape)

        def __getitem__(self, index: tuple) -> np.ndarray:
            if index[1].start > 8:
                raise DataError("cut short")
            return cube[index].numpy()

    with pytest.raises(DataError, match="cut short"):
        predict_labels(model, Cube(Damaged(), file_backed=True, dtype=np.float64), Normalization("unit"), rows=4)


def test_plan_strips() -> None:
    assert plan_strips(7, 3, 2) == [(0, 3, 0, 5), (3, 6, 1, 7), (6, 7, 4, 7)]
    with pytest.raises(ValueError, match="`rows`"):
        plan_strips(7, 0, 2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (17, 1), (2, 2)])
def test_tiny_scenes(shape: tuple[int, int]) -> None:
    _, model = scene_and_model(5)
    cube = RandomStream(8).normal((6, *shape), dtype=torch.float64)
    labels = predict_labels(model, cube, Normalization("meanstd"))
    assert labels.shape == shape
    assert labels.dtype == torch.int64


def test_dense_models_take_the_whole_scene() -> None:
    stream = RandomStream(3)
    cube = stream.normal((4, 9, 7), dtype=torch.float64)
    model = SegmentationModel(4, 6, 3, dense=True, stream=stream).double()
    unit = Normalization("unit")
    expected = model(unit.transform(cube).unsqueeze(0)).probs[0].detach()
    torch.testing.assert_close(predict_probs(model, cube, unit, rows=2), expected, rtol=0, atol=1e-12)


def test_dense_models_that_do_not_fit_are_refused() -> None:
    model = SegmentationModel(4, 6, 3, dense=True)
    budget(model, (4, 50, 50), 1 << 23)
    with pytest.raises(ValueError, match="100 rows and 500 columns, all at once because its mean shift takes all"):
        predict_labels(model, torch.zeros(4, 100, 500), Normalization("unit"), memory=1 << 23)


def test_cluster_mass() -> None:
    cube, model = scene_and_model(13)
    other, _ = scene_and_model(5, seed=9)
    unit = Normalization("unit")
    probs = [predict_probs(model, scene, unit).reshape(-1, 4) for scene in (cube, other)]
    mass = cluster_mass(model, [cube, other], unit, memory=1 << 19)
    torch.testing.assert_close(mass, torch.cat(probs).mean(0), rtol=1e-10, atol=0)


def test_wrong_bands() -> None:
    _, model = scene_and_model(5)
    with pytest.raises(ValueError, match="must have 6 bands like the model; got 5"):
        predict_labels(model, torch.zeros(5, 4, 4), Normalization("unit"))


@pytest.mark.parametrize("mapping", [None, {0: [0, 2], 1: [1, 3]}])
def test_confidence_is_the_margin_of_the_two_best_clusters(mapping: dict[int, list[int]] | None) -> None:
    cube, model = scene_and_model(13)
    normalization = Normalization("unit")
    probs = predict_probs(model, cube, normalization).numpy()
    margin = np.empty(probs.shape[:2], np.float32)
    labels = label_map(model, cube, normalization, rows=7, mapping=mapping, confidence=margin)
    np.testing.assert_array_equal(labels, label_map(model, cube, normalization, mapping=mapping))
    best = probs.argmax(-1)
    label_of = np.arange(4) if mapping is None else np.array([0, 1, 0, 1])
    others = np.where(label_of == label_of[best][..., None], 0, probs).max(-1)
    np.testing.assert_allclose(margin, probs.max(-1) - others, atol=1e-6)
    assert margin.max() > 0
    scene = Cube(cube.numpy().astype("f4"), valid=np.arange(31 * 13).reshape(31, 13) % 5 > 0)
    labels = label_map(model.float(), scene, normalization, confidence=margin)
    np.testing.assert_array_equal(np.isnan(margin), ~scene.valid)
    np.testing.assert_array_equal(labels < 0, ~scene.valid)
