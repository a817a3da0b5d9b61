"""Labels without a network: against the formula in plain loops, by strips, and wherever a scene has an end."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from spectrafuse import DeepGlobalClustering
from spectrafuse.dgc import metrics, prototype_model
from spectrafuse.dgc.model_io import read_model
from spectrafuse.dgc.neighbours import smoothed
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction.inference import label_map, predict_probs
from spectrafuse.dgc.prototype_model import PrototypeModel
from spectrafuse.io.cubes import Cube
from spectrafuse.random import RandomStream

UNIT = Normalization("unit")


def model_of(clusters: int = 3, bands: int = 6) -> PrototypeModel:
    stream = RandomStream(0)
    projection, means = (stream.normal(shape, dtype=torch.float64) for shape in ((bands, 4), (clusters, 4)))
    return PrototypeModel(projection, means, torch.tensor(1.0).double(), torch.tensor(0.7).double())


def image(height: int, width: int, bands: int = 6) -> torch.Tensor:
    return RandomStream(1).normal((bands, height, width), dtype=torch.float64)


def noisy_scene() -> tuple[np.ndarray, np.ndarray]:
    """Three materials in stripes that single pixels cannot tell apart well."""
    drawn = np.random.default_rng(0)
    truth = (np.arange(48)[None, :] // 16).repeat(48, axis=0)
    spectra = 1 + 0.05 * drawn.normal(size=(3, 20))
    cube = spectra[truth].transpose(2, 0, 1) + 0.12 * drawn.normal(size=(20, 48, 48))
    return cube.astype(np.float32), truth


def test_the_formula() -> None:
    model, cube = model_of(), image(3, 4)
    own = torch.einsum("bhw,br->rhw", cube, model.projection)
    averaged = smoothed(own[None], model.bandwidth, 5)[0]
    places = [(y, x) for y in range(3) for x in range(4)]
    unary = {
        p: [-float((own[:, p[0], p[1]] - m).square().sum() / (2 * model.variance)) for m in model.means] for p in places
    }

    def softmax(values: list[float]) -> list[float]:
        powers = [math.exp(v - max(values)) for v in values]
        return [power / sum(powers) for power in powers]

    q = {p: softmax(unary[p]) for p in places}
    for _ in range(8):
        following = {}
        for y, x in places:
            near = [(v, u) for v, u in places if max(abs(v - y), abs(u - x)) <= 2 and (v, u) != (y, x)]
            difference = [float((averaged[:, v, u] - averaged[:, y, x]).square().sum()) for v, u in near]
            weights = [math.exp(-d / 2) for d in difference]
            field = [
                unary[y, x][k] + 16 * sum(w * q[n][k] for w, n in zip(weights, near, strict=True)) / sum(weights)
                for k in range(3)
            ]
            following[y, x] = softmax(field)
        q = following
    expected = torch.tensor([[q[y, x] for x in range(4)] for y in range(3)], dtype=torch.float64)
    torch.testing.assert_close(model(cube[None]).probs[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("width", [11, 1])
def test_strips_equal_the_whole_scene(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cube = model_of(), image(45, width)
    whole = model(UNIT.transform(cube)[None]).probs[0]
    monkeypatch.setattr(prototype_model, "_BLOCK_NUMBERS", 200)
    for rows in (5, 100):
        torch.testing.assert_close(predict_probs(model, cube, UNIT, rows=rows), whole, rtol=0, atol=1e-9)
    if width > 1:
        # Of a chain this long hardly anything is left at its end, so that half of it is taken away.
        monkeypatch.setattr(PrototypeModel, "spatial_reach", PrototypeModel.spatial_reach // 2)
        monkeypatch.setattr("spectrafuse.dgc.prediction.inference._GROUP_PIXELS", 1)
        assert (predict_probs(model, cube, UNIT, rows=3) - whole).abs().max() > 1e-9


@pytest.mark.parametrize(("clusters", "shape"), [(1, (5, 4)), (3, (1, 7)), (3, (7, 1)), (2, (1, 1))])
def test_wherever_a_scene_ends(clusters: int, shape: tuple[int, int]) -> None:
    model, cube = model_of(clusters), image(*shape)
    sure = np.empty(shape, np.float32)
    labels = label_map(model, cube, UNIT, confidence=sure)
    assert labels.shape == shape
    assert ((labels >= 0) & (labels < clusters)).all()
    assert ((sure >= 0) & (sure <= 1)).all()
    assert clusters > 1 or (sure == 1).all()


def test_smoothing_finds_what_single_pixels_hide() -> None:
    cube, truth = noisy_scene()
    fitted = DeepGlobalClustering(3, random_state=0).fit(cube)
    labels, sure = fitted.predict_with_confidence(cube)
    model = fitted.model_
    assert isinstance(model, PrototypeModel)
    spectra = fitted.normalization_.fit(Cube(cube)).transform(cube)[None].permute(0, 2, 3, 1) @ model.projection
    pixels = torch.cdist(spectra[0], model.means).argmin(-1).numpy()

    def nmi(found: np.ndarray) -> float:
        return metrics.normalized_mutual_information(found, truth)

    assert nmi(labels) > 0.9 > 0.6 > nmi(pixels)
    right = metrics.evaluate([labels], [truth])["mapping"]
    wrong = labels != np.array([right[k][0] for k in range(3)])[truth]
    assert sure[wrong].mean() < 0.5 < sure[~wrong].mean()


def test_an_estimator_without_a_network(tmp_path: Path) -> None:
    cube, truth = noisy_scene()
    mask = np.zeros(truth.shape, bool)
    mask[:9, 30:] = True
    fitted = DeepGlobalClustering(3, random_state=4).fit(cube, mask=mask)
    labels = fitted.predict(cube, mask=mask)
    assert (labels[mask] == -1).all()
    assert metrics.normalized_mutual_information(labels[~mask], truth[~mask]) > 0.9
    assert (fitted.history_, fitted.n_iter_) == ([], 0)
    assert fitted.stop_reason_.startswith("Nothing was trained")
    assert fitted.cluster_centers_.shape == (3, 6)
    spoilt = np.where(mask, np.float32(7.5e8), cube)
    np.testing.assert_array_equal(DeepGlobalClustering(3, random_state=4).fit(spoilt, mask=mask).predict(
        spoilt, mask=mask), labels)  # fmt: skip
    assert abs(fitted.cluster_mass_.sum() - 1) < 1e-5

    fitted.save(tmp_path / "model")
    loaded = DeepGlobalClustering.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(cube, mask=mask), labels)
    np.testing.assert_array_equal(loaded.merges_, fitted.merges_)
    two, groups = loaded.at(2).predict(cube, mask=mask), loaded.at(2).cluster_mapping_
    assert groups is not None
    np.testing.assert_array_equal(two[~mask], np.array([k in groups[1] for k in range(3)])[labels[~mask]])
    loaded.prune(0.0)
    np.testing.assert_array_equal(loaded.predict(cube, mask=mask), labels)
    assert (loaded.at(1).predict_with_confidence(cube)[1] == 1).all()

    (tmp_path / "model" / "spectrafuse.json").unlink()
    with pytest.raises(ValueError, match=r"needs its spectrafuse\.json"):
        DeepGlobalClustering.load(tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    (tmp_path / "model" / "config.json").write_text(config.replace('"directions": 6', '"directions": 5'))
    with pytest.raises(ValueError, match="means must be"):
        read_model(tmp_path / "model")


def test_a_background_of_equal_spectra() -> None:
    cube = np.zeros((5, 30, 30), np.float32)
    cube[:, 10:20, 10:20] = 1 + 0.1 * np.random.default_rng(0).normal(size=(5, 10, 10))
    with pytest.warns(UserWarning, match="0 in every band"):
        labels = DeepGlobalClustering(2).fit_predict(cube, layout="chw")
    assert metrics.normalized_mutual_information(labels, cube.any(axis=0).astype(int)) > 0.999
    assert (DeepGlobalClustering(2).fit_predict(np.ones((5, 9, 9), np.float32), layout="chw") >= 0).all()


def test_what_asks_for_a_network() -> None:
    assert not DeepGlobalClustering().trains_network
    assert not DeepGlobalClustering(7, normalization="unit", random_state=3, max_memory=1 << 30).trains_network
    assert DeepGlobalClustering(network=True).trains_network
    for asked in ({"recipe": "published"}, {"max_epoch": 3}, {"embed_dim": 8}, {"precision": "bfloat16"}):
        assert DeepGlobalClustering(**asked).trains_network
        with pytest.raises(ValueError, match=f"`{next(iter(asked))}` concerns the network"):
            DeepGlobalClustering(network=False, **asked).fit(np.ones((3, 4, 5)), layout="chw")
