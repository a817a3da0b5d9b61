"""`DeepGlobalClustering` as a scikit-learn estimator, on tiny scenes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from spectrafuse import DeepGlobalClustering
from spectrafuse._runtime.progress import Progress
from spectrafuse.dgc import estimator as estimator_module
from spectrafuse.dgc import metrics
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import published
from spectrafuse.io.cubes import open_cube, read_cube
from spectrafuse.io.errors import DataError

BANDS = 12


def scene(seed: int, height: int = 20, width: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A scene of three materials in blocks, lit unevenly, with a little noise; and its labels."""
    rng = np.random.default_rng(seed)
    spectra = np.random.default_rng(99).random((3, BANDS)) + 0.2
    coarse = rng.permutation(np.arange(24) % 3).reshape(4, 6)
    labels = coarse[np.arange(height)[:, None] * 4 // height, np.arange(width) * 6 // width]
    light = 0.7 + 0.6 * rng.random((height, width))
    cube = spectra[labels].transpose(2, 0, 1) * light + 0.02 * rng.standard_normal((BANDS, height, width))
    return cube.astype(np.float32), labels


def small(**options: object) -> DeepGlobalClustering:
    defaults: dict = {
        "n_clusters": 3,
        "embed_dim": 8,
        "crop_size": 12,
        "batch_size": 2,
        "max_epoch": 2,
        "reuse_iter": 2,
        "device": "cpu",
    }
    return DeepGlobalClustering(**(defaults | options))


@pytest.fixture(scope="module")
def fitted() -> DeepGlobalClustering:
    return small().fit(scene(0)[0])


def test_scikit_learn_conventions() -> None:
    estimator = small(recipe=published, learning_rate=1e-3)
    assert set(vars(estimator)) == set(estimator.get_params())
    again = clone(estimator)
    assert again.get_params() == estimator.get_params()
    assert again.set_params(n_clusters=7).n_clusters == 7
    nonsense = DeepGlobalClustering(n_clusters=-3, recipe="no such", random_state="x")  # type: ignore[arg-type]
    assert nonsense.n_clusters == -3
    for call in (
        lambda: estimator.predict(scene(0)[0]),
        lambda: estimator.cluster_centers_,
        lambda: estimator.prune(),
        lambda: estimator.merge_clusters({0: [0]}),
        lambda: estimator.save("nowhere"),
    ):
        with pytest.raises(NotFittedError):
            call()


def test_fitted_attributes(fitted: DeepGlobalClustering) -> None:
    labels = fitted.predict(scene(0)[0])
    assert isinstance(labels, np.ndarray)
    assert labels.dtype == np.int64
    assert labels.shape == (20, 24)
    assert fitted.cluster_centers_.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(fitted.cluster_centers_, axis=1), 1, rtol=1e-5)
    assert fitted.n_features_in_ == BANDS
    assert fitted.n_iter_ == len(fitted.history_) == 2
    assert fitted.stop_reason_.startswith("Ran all 2 epochs")
    assert fitted.cluster_mass_.sum() == pytest.approx(1)
    assert fitted.normalization_.method == "signal+meanstd"
    assert fitted.normalization_reason_.startswith("Brightness is taken out of the spectra: ")


def test_learns_three_materials() -> None:
    """Far above chance on data the method is made for; a floor, not a figure."""
    cube, truth = scene(1, 32, 36)
    labels = small(max_epoch=10, reuse_iter=10, learning_rate=2e-3, crop_size=16, batch_size=4).fit_predict(cube)
    assert metrics.evaluate([labels], [truth])["accuracy"] > 0.8


@pytest.mark.parametrize("recipe", ["corrected", "published"])
def test_repeatable_to_the_bit(recipe: str) -> None:
    cube = scene(2)[0]
    runs = [small(recipe=recipe).fit(cube) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].cluster_centers_, runs[1].cluster_centers_)
    assert runs[0].history_ == runs[1].history_
    assert small(recipe=recipe, random_state=1).fit(cube).history_ != runs[0].history_
    assert small(recipe=recipe, random_state=None).fit(cube).history_ != runs[0].history_


def test_global_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    small(max_epoch=1).fit(scene(2)[0])
    assert torch.equal(torch.random.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_every_kind_of_input_is_the_same(tmp_path: Path) -> None:
    cube = scene(3, 20, 20)[0]
    np.save(tmp_path / "scene.npy", cube)
    inputs = [
        cube,
        torch.from_numpy(cube),
        cube.astype(np.float64),
        np.asfortranarray(cube),
        str(tmp_path / "scene.npy"),
        tmp_path / "scene.npy",
        np.load(tmp_path / "scene.npy", mmap_mode="r"),
        read_cube(tmp_path / "scene.npy", layout="chw"),
    ]
    expected = small(max_epoch=1).fit_predict(cube)
    estimator = small(max_epoch=1).fit(cube)
    for given in inputs[1:]:
        np.testing.assert_array_equal(estimator.predict(given), expected)
    np.testing.assert_array_equal(small(max_epoch=1).fit(inputs[4]).predict(cube), expected)
    listed = estimator.predict([inputs[5], cube])
    assert isinstance(listed, list)
    np.testing.assert_array_equal(listed[0], listed[1])


def test_scenes_of_different_sizes() -> None:
    cubes = [scene(4)[0], scene(5, 9, 31)[0], scene(6, 40, 7)[0]]
    for recipe in ("corrected", "published"):
        labels = small(recipe=recipe, max_epoch=1).fit_predict(cubes)
        assert [x.shape for x in labels] == [(20, 24), (9, 31), (40, 7)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3)])
@pytest.mark.parametrize("recipe", ["corrected", "published"])
def test_scenes_smaller_than_a_crop(shape: tuple[int, int], recipe: str) -> None:
    cube = np.random.default_rng(0).random((BANDS, *shape)) + 0.1
    assert small(recipe=recipe, max_epoch=1).fit_predict(cube).shape == shape


def test_memory_does_not_change_the_labels(fitted: DeepGlobalClustering, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = scene(7, 50, 24)[0]
    whole = fitted.predict(cube)
    strips: list[int] = []
    original = SegmentationModel.labels_of

    def labels_of(self: SegmentationModel, embeddings: torch.Tensor) -> torch.Tensor:
        strips.append(embeddings.shape[2])
        return original(self, embeddings)

    monkeypatch.setattr(SegmentationModel, "labels_of", labels_of)
    np.testing.assert_array_equal(fitted.predict(cube, max_memory=1 << 18), whole)
    assert len(strips) > 3
    with pytest.raises(ValueError, match=r"`max_memory` must be at least 1 MiB for a scene of \d+ bands, 50 rows"):
        fitted.predict(cube, max_memory=1)
    with pytest.raises(ValueError, match="`max_memory` must be at least 1 MiB"):
        clone(fitted).set_params(max_memory=1, max_epoch=10**6).fit(cube)


def test_labels_go_to_a_file_as_they_come(fitted: DeepGlobalClustering, tmp_path: Path) -> None:
    cubes = [scene(7, 50, 24)[0], scene(8)[0]]
    expected = fitted.predict(cubes)
    written = fitted.predict(cubes, out=[tmp_path / "a.npy", tmp_path / "b.npy"], max_memory=1 << 20)
    for labels, got, name in zip(expected, written, "ab", strict=True):
        np.testing.assert_array_equal(got, labels)
        assert isinstance(got, np.memmap)
        stored = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(stored, labels)
        assert stored.dtype == np.int64
    fitted.merge_clusters({5: [0, 1], 7: [2]})
    try:
        np.testing.assert_array_equal(fitted.predict(cubes[0], out=tmp_path / "a.npy"), fitted.predict(cubes[0]))
    finally:
        fitted.merge_clusters(None)
    with pytest.raises(ValueError, match="`out` must be a list of 2 paths"):
        fitted.predict(cubes, out=[tmp_path / "a.npy"])
    with pytest.raises(ValueError, match="`path` must be the name of a .npy file; got '.*a.txt'"):
        fitted.predict(cubes[0], out=tmp_path / "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "b.npy"]


def test_labels_come_with_their_confidence(fitted: DeepGlobalClustering, tmp_path: Path) -> None:
    cube = scene(7)[0]
    labels, confidence = fitted.predict_with_confidence(cube)
    np.testing.assert_array_equal(labels, fitted.predict(cube))
    assert (confidence.dtype, confidence.shape) == (np.float32, labels.shape)
    assert 0 <= confidence.min() <= confidence.max() <= 1
    several = fitted.predict_with_confidence([cube, cube], out=[tmp_path / "a.npy", tmp_path / "b.npy"])
    for got, sure in zip(*several, strict=True):
        np.testing.assert_array_equal(got, labels)
        np.testing.assert_array_equal(sure, confidence)
    np.testing.assert_array_equal(np.load(tmp_path / "b-confidence.npy"), confidence)


@pytest.mark.parametrize("recipe", ["corrected", published])
def test_save_and_load(recipe: object, tmp_path: Path) -> None:
    cube = scene(8)[0]
    estimator = small(recipe=recipe, n_clusters=np.int64(3)).fit(cube)
    estimator.merge_clusters({4: [0, 2], 1: [1]}).save(tmp_path / "model")
    again = DeepGlobalClustering.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(again.predict(cube), estimator.predict(cube))
    assert again.get_params() == estimator.get_params()
    for name in ("history_", "stop_reason_", "n_iter_", "n_features_in_", "cluster_mapping_"):
        assert getattr(again, name) == getattr(estimator, name), name
    assert again.cluster_mass_ is None
    np.testing.assert_array_equal(again.cluster_centers_, estimator.cluster_centers_)
    np.testing.assert_array_equal(clone(again).fit(cube).cluster_centers_, estimator.cluster_centers_)


def test_the_mass_of_clusters_is_computed_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "scene.npy", scene(8)[0])
    runs: list[object] = []
    original = estimator_module.cluster_mass

    def counted(*arguments: Any, **settings: Any) -> torch.Tensor:
        runs.append(arguments)
        return original(*arguments, **settings)

    monkeypatch.setattr(estimator_module, "cluster_mass", counted)
    estimator = small().fit(open_cube(tmp_path / "scene.npy", layout="chw"))
    estimator.save(tmp_path / "model")
    unasked = [DeepGlobalClustering.load(tmp_path / "model", device="cpu"), pickle.loads(pickle.dumps(estimator))]
    assert not runs
    for copy in unasked:
        assert copy.cluster_mass_ is None
        with pytest.raises(ValueError, match="give scenes as `X`"):
            copy.prune(0.0)
    mass = estimator.cluster_mass_
    assert mass is not None
    assert estimator.cluster_mass_ is mass
    assert len(runs) == 1
    np.testing.assert_allclose(mass, small().fit(scene(8)[0]).cluster_mass_, rtol=1e-3)
    estimator.save(tmp_path / "model")
    for copy in (DeepGlobalClustering.load(tmp_path / "model", device="cpu"), pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(copy.cluster_mass_, mass)


def test_merge_clusters() -> None:
    cube = scene(9)[0]
    estimator = small().fit(cube)
    clusters = estimator.predict(cube)
    merged = estimator.merge_clusters({7: [0, 1], 3: [2]}).predict(cube)
    np.testing.assert_array_equal(merged, np.array([7, 7, 3])[clusters])
    np.testing.assert_array_equal(estimator.merge_clusters(None).predict(cube), clusters)
    with pytest.raises(ValueError, match="lacks 1"):
        estimator.merge_clusters({0: [0, 2]})
    with pytest.raises(ValueError, match="names cluster 3; the model has 3"):
        estimator.merge_clusters({0: [0, 1, 2, 3]})
    np.testing.assert_array_equal(estimator.predict(cube), clusters)


def test_prune() -> None:
    cube = scene(10)[0]
    estimator = small(n_clusters=4).fit(cube)
    mass = estimator.cluster_mass_
    centers = estimator.cluster_centers_
    smallest = int(mass.argmin())
    kept = [k for k in range(4) if k != smallest]
    threshold = np.sort(mass)[:2].mean()
    estimator.merge_clusters({5: [smallest], 8: kept}).prune(threshold)
    np.testing.assert_array_equal(estimator.cluster_centers_, centers[kept])
    np.testing.assert_array_equal(estimator.cluster_mass_, mass[kept])
    assert estimator.cluster_mapping_ == {8: [0, 1, 2]}
    assert set(np.unique(estimator.predict(cube))) == {8}
    assert estimator.merge_clusters(None).predict(cube).max() <= 2
    with pytest.raises(ValueError, match="at least one cluster"):
        estimator.prune(1.0)
    again = estimator.prune(0.0, X=[cube])
    assert again.model_.n_clusters == 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_clusters": 0}, "`n_clusters`"),
        ({"crop_size": 0}, "`crop_size`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"max_epoch": 0}, "`max_epoch`"),
        ({"learning_rate": 0.0}, "`learning_rate`"),
        ({"random_state": -1}, "`random_state`"),
        ({"normalization": "whiten"}, "`normalization`"),
        ({"recipe": "paper"}, "`recipe`"),
        ({"precision": "int8"}, "`precision`"),
    ],
)
def test_wrong_parameters_are_named(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small(**options).fit(scene(0)[0])


def test_wrong_data(fitted: DeepGlobalClustering, tmp_path: Path) -> None:
    cube = scene(0)[0]
    with pytest.raises(DataError, match="Scene 0 must have 12 bands like the model; got 11"):
        fitted.predict(cube[:11])
    with pytest.raises(DataError, match="Scene 1 must have 12 bands like scene 0; got 5"):
        small().fit([cube, cube[:5]])
    hurt = cube.copy()
    hurt[3, 4, 5] = np.nan
    with pytest.raises(DataError, match="band 3, row 4, column 5"):
        small().fit([cube, hurt])
    with pytest.raises(DataError, match="`X` holds no scene"):
        small().fit([])
    with pytest.raises(DataError, match="4 dimensions"):
        small().fit(cube[None])
    with pytest.raises((DataError, OSError)):
        fitted.predict(tmp_path / "missing.mat")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            small(device="cuda").fit(cube)


def test_interrupted_fit_resumes(tmp_path: Path) -> None:
    cubes = [scene(11)[0], scene(12, 16, 18)[0]]
    whole = small(max_epoch=4).fit(cubes)

    def interrupt(progress: Progress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    broken = small(max_epoch=4)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(cubes, callback=interrupt, checkpoint_dir=tmp_path)
    assert os.listdir(tmp_path) == ["training.pt"]
    resumed = small(max_epoch=4).fit(cubes, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(resumed.cluster_centers_, whole.cluster_centers_)
    assert resumed.history_ == whole.history_
    np.testing.assert_array_equal(resumed.predict(cubes[1]), whole.predict(cubes[1]))
    with pytest.raises(ValueError, match="belongs to another run: crop_size was 12, now 10. Use another"):
        small(max_epoch=4, crop_size=10).fit(cubes, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="recipe max_epoch was 4, now 5"):
        small(max_epoch=5).fit(cubes, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="data changed"):
        small(max_epoch=4).fit(cubes[::-1], checkpoint_dir=tmp_path)


def test_real_scene(shared_data: Path) -> None:
    """The published file as users have it: one epoch, no claim about quality."""
    labels = small(max_epoch=1, crop_size=24).fit_predict(shared_data / "samson" / "Samson.mat")
    assert labels.shape == (95, 95)
