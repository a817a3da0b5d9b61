"""Spectral prototypes: what they find, what they leave out, and that training uses and keeps them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.dgc_training import BANDS, HEIGHT, WIDTH, assert_same_bits, gaps, make_trainer, striped, windowed
from spectrafuse.dgc import metrics
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import corrected, published
from spectrafuse.dgc.training.batches import CropBatch, CropBatches
from spectrafuse.dgc.training.centers import start_centers
from spectrafuse.dgc.training.checkpoint import FILE_NAME, fingerprint
from spectrafuse.dgc.training.prototypes import Prototypes, Space, SpectraSample, _k_means, find_prototypes
from spectrafuse.io.cubes import Cube
from spectrafuse.random import RandomStream

SPECTRAL = dataclasses.replace(corrected, max_epoch=4, reuse_iter=2, spectral_labels=True, uniform=2.0)


def as_batch(cube: torch.Tensor) -> CropBatch:
    return CropBatch(cube.expand(2, -1, -1, -1), torch.zeros(1, 2, 9), None, cube.shape[0])


@pytest.mark.parametrize("sizes", [[(20, 30)], [(100, 97)], [(7, 40), (33, 61), (5, 11)]])
def test_finds_materials_of_unequal_size(sizes: list[tuple[int, int]]) -> None:
    scenes = [striped(seed, *size) for seed, size in enumerate(sizes)]
    for seed in range(3):
        prototypes = find_prototypes([cube for cube, _ in scenes], 3, RandomStream(seed))
        for cube, truth in scenes:
            first, second = prototypes.labels(as_batch(cube))
            assert torch.equal(first, second)
            assert metrics.variation_of_information(first, truth.flatten()) < 1e-9


def test_noise_that_neighbours_do_not_share_is_left_out() -> None:
    """One band is 10 times as noisy as the materials differ; k-means on the spectra would split its noise."""
    cube, truth = striped(3, 40, 50, n_bands=6)
    cube[4] += 30 * RandomStream(4).normal((40, 50))
    labels = find_prototypes([cube], 3, RandomStream(0)).labels(as_batch(cube))[0]
    assert metrics.normalized_mutual_information(labels, truth.flatten()) > 0.95


def test_the_best_of_several_starts() -> None:
    points = RandomStream(100).normal((400, 3), dtype=torch.float64).numpy()

    def cost(starts: int, seed: int) -> float:
        labels, means = _k_means(points, 12, starts, RandomStream(seed))
        distance = np.linalg.norm(points[:, None] - means, axis=2)
        assert (distance.argmin(axis=1) == labels).mean() > 0.99
        return float((distance.min(axis=1) ** 2).sum())

    one, many = (np.array([cost(starts, seed) for seed in range(5)]) for starts in (1, 30))
    assert (many <= one).all()
    assert many.max() < np.median(one)


def test_fewer_points_than_clusters() -> None:
    labels, means = _k_means(np.array([[1.0, 2.0], [5.0, 6.0]]), 3, 2, RandomStream(0))
    assert means.shape == (3, 2)
    assert labels.shape == (2,)
    assert len(np.unique(means, axis=0)) == 2


def test_labels_are_the_nearest_projected_means() -> None:
    stream = RandomStream(2)
    prototypes = Prototypes(stream.normal((21, 4)), stream.normal((5, 4)))
    batch = next(CropBatches([stream.normal((21, 30, 30))], corrected, 12, 3, 0).epoch(1))
    labels = prototypes.labels(batch)
    assert (labels.shape, labels.dtype) == ((2, 3 * 12 * 12), torch.int64)
    spectra = batch.views.unflatten(0, (2, 3)).permute(0, 1, 3, 4, 2).double().reshape(2, -1, 21)
    distance = torch.cdist(spectra @ prototypes.projection.double(), prototypes.means.double().expand(2, -1, -1))
    chosen = distance.gather(2, labels.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(chosen, distance.amin(dim=2), rtol=1e-4, atol=1e-4)


def test_mixed_pixels_do_not_pull_prototypes() -> None:
    """Two materials far apart that mix over a broad border, and a third one near the first."""
    spectra = torch.tensor([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [0.0, 1.5, 0.0]])
    shares = torch.zeros(3, 60, 60)
    shares[1] = ((torch.arange(60) - 30) / 12).clamp(0, 1)
    shares[2, 44:, :16] = 1
    shares[0] = 1 - shares[1] - shares[2]
    cube = torch.einsum("khw,kc->chw", shares, spectra) + 0.05 * RandomStream(1).normal((3, 60, 60))
    prototypes = find_prototypes([cube], 3, RandomStream(0))
    found = torch.cdist(spectra @ prototypes.projection, prototypes.means)
    assert sorted(found.argmin(dim=1).tolist()) == [0, 1, 2]
    # With the mixed pixels, the first two would be 0.14 and 0.27 away, 13 times nearer than others and not 800.
    assert found.amax(dim=1).min() > 50 * found.amin(dim=1).max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_averaging_again_takes_noise_away_and_keeps_classes_apart(seed: int) -> None:
    second = (torch.arange(32) // 8 % 2).bool()
    cube = RandomStream(seed).normal((6, 32, 32))
    cube[0, 24:] += 20
    cube[1] += 2.5 * second
    apart = []
    for passes in (1, 4):
        found = SpectraSample([cube], 3, Space(0.0, passes)).averaged[0][0, :, :20]
        one, other = found[:, :, second].flatten(1), found[:, :, ~second].flatten(1)
        noise = (one.var(1).sum() + other.var(1).sum()).sqrt()
        apart.append(float((one.mean(1) - other.mean(1)).norm() / noise))
    # With a bandwidth that stays as it is, or that is much less than the noise that is left, nothing is gained.
    assert apart[1] > 1.2 * apart[0]


def test_rough_objects_on_a_smooth_background_keep_a_prototype() -> None:
    """Nine tenths of the pixels are exactly the same: smoother than anything else."""
    stream = RandomStream(3)
    objects = torch.zeros(50, 50, dtype=torch.bool)
    objects[:5] = True
    cube = torch.where(objects, 2 + 0.5 * stream.normal((4, 50, 50)), torch.zeros(()))
    labels = find_prototypes([cube], 2, RandomStream(0)).labels(as_batch(cube))[0].reshape(50, 50)
    assert (labels[:5] != labels[-1, -1]).float().mean() > 0.99
    assert (labels[6:] == labels[-1, -1]).all()


def test_pixels_without_data_have_no_influence() -> None:
    scenes = [windowed(1, gaps()), windowed(2, None)]
    expected = find_prototypes(scenes, 3, RandomStream(0))
    window = type(scenes[0]).window

    def spoiled(self: object, top: int, left: int, height: int, width: int) -> torch.Tensor:
        spectra, valid = window(self, top, left, height, width), self.valid(top, left, height, width)  # type: ignore
        return spectra if valid is None else spectra.masked_fill(torch.from_numpy(~valid), 1e6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(scenes[0]), "window", spoiled)
        found = find_prototypes(scenes, 3, RandomStream(0))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_few_pixels_with_data_are_found() -> None:
    absent = np.ones((HEIGHT, WIDTH), dtype=bool)
    absent[29, 3:6] = False
    prototypes = find_prototypes([windowed(1, absent)], 2, RandomStream(0))
    assert prototypes.projection.isfinite().all()
    assert len(prototypes.means.unique(dim=0)) == 2


@pytest.mark.parametrize("n_clusters", [1, 2, 40])
@pytest.mark.parametrize("cube", [torch.zeros(4, 5, 6), torch.ones(3, 1, 1), torch.arange(12.0).reshape(1, 3, 4)])
def test_scenes_without_contrast(cube: torch.Tensor, n_clusters: int) -> None:
    prototypes = find_prototypes([cube], n_clusters, RandomStream(0))
    labels = prototypes.labels(as_batch(cube))
    assert prototypes.means.shape[0] == n_clusters
    assert 0 <= labels.min() <= labels.max() < n_clusters


@pytest.mark.slow
def test_many_scenes_are_read_a_bounded_number_of_times() -> None:
    reads: list[tuple[int, ...]] = []

    class Counted(torch.Tensor):
        def __getitem__(self, index: object) -> torch.Tensor:
            reads.append(self.shape)
            return self.as_subclass(torch.Tensor)[index]  # type: ignore[index]

    cube = striped(1, 50, 400)[0].as_subclass(Counted)
    find_prototypes([cube] * 100, 3, RandomStream(0))
    assert len(reads) == 64
    reads.clear()
    find_prototypes([cube], 3, RandomStream(0))
    assert len(reads) == 2 * 8


def test_centres_start_at_the_means_of_their_labels() -> None:
    batch = next(CropBatches([windowed(1, gaps())], corrected, 12, 2, 0).epoch(0))
    assert batch.valid is not None
    assert not batch.valid.all()
    model = SegmentationModel(BANDS, 8, 3, stream=RandomStream(0))
    labels = RandomStream(1).integers(0, 1, (2, 2 * 12 * 12), device="cpu")
    start_centers(model, batch, RandomStream(2), labels)
    with torch.no_grad():
        points = torch.nn.functional.normalize(model(batch.padded).shifted, dim=1).permute(0, 2, 3, 1)[batch.valid]
    for cluster in (0, 1):
        mean = points[labels.flatten()[batch.valid.flatten()] == cluster].mean(dim=0)
        torch.testing.assert_close(model.centers[cluster].detach(), mean / mean.norm(), rtol=1e-4, atol=1e-5)
    # A cluster without pixels is somewhere among the embeddings, and no copy of another.
    assert model.centers[2].detach().norm().item() == pytest.approx(1, abs=1e-5)
    assert (model.centers[:2] - model.centers[2]).norm(dim=1).min() > 0


@pytest.mark.parametrize("second_forward", [False, True])
def test_training_gets_their_labels(second_forward: bool) -> None:
    trainer = make_trainer(dataclasses.replace(SPECTRAL, max_epoch=1, reuse_iter=1, second_forward=second_forward))
    original, seen = trainer.step, []

    def spy(inputs: object) -> torch.Tensor:
        seen.append(inputs)
        return original(inputs)  # type: ignore[arg-type]

    trainer.step = spy  # type: ignore[assignment]
    trainer.run()
    assert trainer.prototypes is not None
    (inputs,) = seen
    assert inputs.labels.shape[0] == 1 + second_forward
    assert all(torch.equal(labels, trainer.prototypes.labels(inputs.batch)) for labels in inputs.labels)
    assert trainer.history[0]["uniform"] > 0


def test_interrupted_and_resumed_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, interrupted, resumed = (make_trainer(SPECTRAL) for _ in range(3))
    whole.run()
    epochs = 0

    def interrupt(progress: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.run(checkpoint_dir=tmp_path, callback=interrupt)
    monkeypatch.setattr("spectrafuse.dgc.training.trainer.find_prototypes", None)
    resumed.run(checkpoint_dir=tmp_path)
    assert_same_bits(resumed, whole)


def test_states_from_before_there_were_prototypes_go_on(tmp_path: Path) -> None:
    recipe = dataclasses.replace(published, max_epoch=3, reuse_iter=1)
    scenes = [Cube(np.zeros((2, 3, 4), np.float32))]
    described = fingerprint({"nodata": None}, recipe, torch.device("cpu"), scenes)
    assert not {"recipe spectral_labels", "recipe crop_size"} & described.keys()
    assert described["crop_size"] == 64
    of_labels = fingerprint({"nodata": None}, SPECTRAL, torch.device("cpu"), scenes)
    # Labels are made in another way than at first: those states do not go on.
    assert {"recipe spectral_labels", "spectral labels"} <= of_labels.keys()
    assert "spectral labels" not in described

    def interrupt(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(recipe).run(checkpoint_dir=tmp_path, callback=interrupt)
    content = torch.load(tmp_path / FILE_NAME, weights_only=True)
    del content["state"]["prototypes"]
    torch.save(content, tmp_path / FILE_NAME)
    whole, resumed = make_trainer(recipe), make_trainer(recipe)
    whole.run()
    resumed.run(checkpoint_dir=tmp_path)
    assert_same_bits(resumed, whole)
