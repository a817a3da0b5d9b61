"""Where training starts: the encoder as a classifier of spectra, the measured bandwidth, no cluster lost."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spectrafuse import DeepGlobalClustering
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import Recipe, corrected, published
from spectrafuse.dgc.training import initialise as start_module
from spectrafuse.dgc.training.batches import CropBatch
from spectrafuse.dgc.training.initialise import measure_bandwidth, new_model, start_encoder
from spectrafuse.dgc.training.prototypes import Prototypes, find_prototypes
from spectrafuse.dgc.training.trainer import Trainer
from spectrafuse.random import RandomStream


def patches(seed: int, sizes: tuple[int, ...], noise: float, n_bands: int = 15) -> torch.Tensor:
    """Materials in stripes of so many columns, (n_bands, 40, columns)."""
    spectra = 2 * torch.nn.functional.normalize(RandomStream(98).normal((len(sizes), n_bands)), dim=1)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).expand(40, -1)
    cube = spectra[labels].permute(2, 0, 1)
    return cube + noise * RandomStream(seed).normal(tuple(cube.shape))


def as_batch(cube: torch.Tensor, valid: torch.Tensor | None = None) -> CropBatch:
    return CropBatch(cube.expand(2, -1, -1, -1), torch.zeros(1, 2, 9), valid, cube.shape[0])


@pytest.mark.parametrize("shift", [0.0, 7.0])
@pytest.mark.parametrize("n_clusters", [1, 2, 6])
def test_encoder_starts_as_a_classifier_of_spectra(
    n_clusters: int, shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_module, "_RANDOM_SHARE", 0.0)
    cube = patches(1, (9, 8, 6, 5, 4, 3)[:n_clusters], noise=0.2) + shift
    prototypes = find_prototypes([cube], n_clusters, RandomStream(0))
    model = SegmentationModel(cube.shape[0], 8, n_clusters, bias=True, stream=RandomStream(2))
    start_encoder(model, prototypes, cube.unsqueeze(0))
    with torch.no_grad():
        channels = model.encoder(cube.unsqueeze(0))[0]
    assert channels[n_clusters:].abs().max() == 0
    expected = prototypes.maps(cube.unsqueeze(0))[0]
    assert (channels.argmax(dim=0) == expected).float().mean() > 0.995


def test_embeddings_start_apart_in_angle() -> None:
    """So the nearest mean direction of embeddings is the nearest prototype of the spectra."""
    cube = patches(1, (9, 8, 6, 5, 4, 3), noise=0.2)
    cube -= cube.mean(dim=(1, 2), keepdim=True)
    prototypes = find_prototypes([cube], 6, RandomStream(0))
    model = SegmentationModel(cube.shape[0], 32, 6, bias=True, stream=RandomStream(2))
    start_encoder(model, prototypes, cube.unsqueeze(0))
    labels = prototypes.maps(cube.unsqueeze(0))[0].flatten()
    with torch.no_grad():
        embeddings = model.encoder(cube.unsqueeze(0))[0].flatten(1).t()
    means = torch.stack([embeddings[labels == k].mean(dim=0) for k in range(6)])
    means = torch.nn.functional.normalize(means, dim=1)
    assert (means @ means.t() - torch.eye(6)).max() < 0.2
    assert ((embeddings @ means.t()).argmax(dim=1) == labels).float().mean() > 0.95


@pytest.mark.parametrize(("bias", "n_clusters"), [(False, 4), (True, 11)])
def test_encoders_that_cannot_be_one_start_all_the_same(bias: bool, n_clusters: int) -> None:
    cube = patches(1, (9, 8, 6, 5), noise=0.2)
    prototypes = find_prototypes([cube], n_clusters, RandomStream(0))
    model = SegmentationModel(cube.shape[0], 8, n_clusters, bias=bias, stream=RandomStream(2))
    start_encoder(model, prototypes, cube.unsqueeze(0))
    embeddings = model.encoder(cube.unsqueeze(0))
    assert embeddings.isfinite().all()
    assert len(embeddings.argmax(dim=1).unique()) > 2


def test_prototypes_without_contrast_leave_a_finite_encoder() -> None:
    model = SegmentationModel(5, 8, 3, bias=True)
    start_encoder(model, Prototypes(torch.eye(5), torch.zeros(3, 5)), torch.zeros(1, 5, 4, 4))
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_bandwidth_follows_the_noise() -> None:
    model = SegmentationModel(15, 8, 3, learn_bandwidth=False, spectral_kernel_size=1)
    measured = []
    for noise in (0.0, 0.1, 0.3):
        batch = as_batch(patches(1, (20, 18, 16), noise))
        measure_bandwidth(model, batch)
        measured.append(model.bandwidth.item())
        embeddings = model.encoder(batch.padded).detach()
        between = [(embeddings.diff(dim=axis)).norm(dim=1).flatten() for axis in (2, 3)]
        expected = max(2 * torch.cat(between).median().item(), 0.05)
        assert measured[-1] == pytest.approx(expected, rel=1e-4)
    assert measured[0] == pytest.approx(0.05)
    assert measured[0] < measured[1] < measured[2]


def test_pixels_without_data_do_not_decide_the_bandwidth() -> None:
    cube = patches(1, (9, 8, 6), 0.3)
    model = SegmentationModel(15, 8, 3, learn_bandwidth=False, spectral_kernel_size=1)
    measure_bandwidth(model, as_batch(cube[:, :, :10]))
    expected = model.bandwidth.item()
    valid = torch.zeros(2, *cube.shape[1:], dtype=torch.bool)
    valid[:, :, :10] = True
    cube[:, :, 14:] = 0
    measure_bandwidth(model, as_batch(cube))
    assert model.bandwidth.item() < 0.9 * expected
    measure_bandwidth(model, as_batch(cube, valid))
    # Not the same: the last columns with data see others in the one case, and the end of the crop in the other.
    assert model.bandwidth.item() == pytest.approx(expected, rel=0.1)
    measured = model.bandwidth.item()
    measure_bandwidth(model, as_batch(cube, torch.zeros_like(valid)))
    assert model.bandwidth.item() == measured


def test_no_cluster_is_lost_in_training() -> None:
    cube = patches(3, (16, 8, 6, 4, 3, 3, 2, 2), noise=0.15)

    def clusters(recipe: Recipe, seed: int) -> float:
        stream = RandomStream(seed)
        trainer = Trainer(new_model(recipe, cube.shape[0], 8, stream), [cube], recipe, stream)
        trainer.run()
        return trainer.history[-1]["clusters"]

    recipe = dataclasses.replace(corrected, max_epoch=2)
    assert [clusters(recipe, seed) for seed in range(3)] == [8, 8, 8]
    at_random = dataclasses.replace(recipe, spectral_start=False)
    assert min(clusters(at_random, seed) for seed in range(3)) < 8


def test_the_recipe_says_what_the_bandwidth_is() -> None:
    stream = RandomStream(0)
    assert not isinstance(new_model(corrected, 5, 3, stream).cluster.log_bandwidth, torch.nn.Parameter)
    assert isinstance(new_model(published, 5, 3, stream).cluster.log_bandwidth, torch.nn.Parameter)
    cube = patches(1, (9, 8), 0.1).numpy()
    followed, given = (
        DeepGlobalClustering(2, crop_size=9, max_epoch=1, reuse_iter=1, bandwidth=bandwidth).fit(cube).model_
        for bandwidth in (None, 0.7)
    )
    assert followed.bandwidth.item() < 0.5
    assert given.bandwidth.item() == pytest.approx(0.7, abs=0.01)
    assert given.cluster.log_bandwidth.requires_grad
    with pytest.raises(ValueError, match="`bandwidth` must be"):
        dataclasses.replace(corrected, bandwidth=0.0)
