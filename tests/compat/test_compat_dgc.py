"""The stand-in of `hsi_global_clustering`: golden values through its classes, and what only crashed in the original."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import spectrafuse as sf
from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from helpers.compat_dgc_parts import SMALL, normal, random_labels, small_model, small_trainer
from spectrafuse.compat import hsi_global_clustering as compat
from spectrafuse.compat.hsi_global_clustering import eval as scores
from spectrafuse.compat.hsi_global_clustering import hsi_clustering, utils
from spectrafuse.compat.hsi_global_clustering import hsi_processing as processing
from spectrafuse.compat.hsi_global_clustering import trainer as trainer_module
from spectrafuse.compat.hsi_global_clustering.module import HyperspectralEncoder, UnrolledMeanShift

METRIC_RTOL = 1e-6  # the published metrics are float32


# Golden values


@pytest.mark.parametrize("case", range(8))
def test_mean_shift_golden(case: int) -> None:
    g = golden(f"dgc_mean_shift_{case}")
    clusters, dim = g["centers"].shape
    module = UnrolledMeanShift(
        dim, clusters, g["num_iters"], temp=g["temperature"], use_approx=g["local"], kernel_size=g["window"]
    ).double()
    log_bandwidth = torch.tensor(g["log_bandwidth"], dtype=torch.float64)
    module.load_state_dict({"log_bandwidth": log_bandwidth, "cluster_centers": g["centers"]})
    embeddings = g["embeddings"].requires_grad_()
    shifted, probs, labels = module(embeddings, return_probs=True, return_labels=True)
    ((shifted * g["grad_shifted"]).sum() + (probs * g["grad_probs"]).sum()).backward()
    assert_close_to_max(shifted, g["shifted"], GOLDEN_RTOL)
    assert_close_to_max(probs, g["probs"], GOLDEN_RTOL)
    assert torch.equal(labels, g["labels"])
    assert_close_to_max(embeddings.grad, g["grad_embeddings"], GOLDEN_GRADIENT_RTOL)
    assert_close_to_max(module.cluster_centers.grad, g["grad_centers"], GOLDEN_GRADIENT_RTOL)
    assert_close_to_max(module.log_bandwidth.grad, g["grad_log_bandwidth"], GOLDEN_GRADIENT_RTOL)


@pytest.mark.parametrize("case", [0, 1])
def test_encoder_golden(case: int) -> None:
    g = golden(f"dgc_encoder_{case}")
    encoder = HyperspectralEncoder(
        g["x"].shape[1], g["n_spectral_layers"], g["spectral_kernel_size"], g["out"].shape[1], g["bias"], inplace=True
    ).double()
    encoder.load_state_dict(state(g, "state"))
    assert_close_to_max(encoder(g["x"]), g["out"], GOLDEN_RTOL)


def order_that_gives(labels: Tensor, clusters: int) -> Tensor:
    """The permutation that turns the labels before shuffling into these."""
    pixels = labels.numel()
    each = torch.arange(clusters)
    sorted_first = torch.cat((each.repeat_interleave(pixels // clusters), each[: pixels % clusters]))
    order = torch.empty(pixels, dtype=torch.int64)
    order[labels.argsort(stable=True)] = sorted_first.argsort(stable=True)
    assert torch.equal(sorted_first[order], labels)
    return order


def test_train_step_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    g = golden("dgc_train_step")
    model = compat.HyperspectralClusteringModel(**g["config"]).double()
    assert model.state_dict().keys() == state(g, "state").keys()
    model.load_state_dict(state(g, "state"))
    orders = [order_that_gives(g[f"pseudo_labels{view}"], 5) for view in (1, 2)]
    monkeypatch.setattr(torch, "randperm", lambda *size, **options: orders.pop(0))
    total, losses, moved = model.train_step(g["crop1"], g["crop2"])
    total.backward()
    assert total.item() == pytest.approx(g["total"], rel=GOLDEN_RTOL)
    assert list(losses) == ["comp1", "comp2", "unif", "orth", "bal", "cons"]
    for name, value in losses.items():
        assert value.item() == pytest.approx(g[f"loss.{name}"], rel=GOLDEN_RTOL)
    assert list(moved) == ["z1", "p1", "z2", "p2"]
    for name, value in moved.items():
        assert_close_to_max(value, g[f"ema.{name}"], GOLDEN_RTOL)
    for name, parameter in model.named_parameters():
        assert_close_to_max(parameter.grad, g[f"grad.{name}"], GOLDEN_GRADIENT_RTOL)


def test_center_update_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g = golden("dgc_ema")
    shift = {"embed_dim": 16, "n_clusters": 5}
    trainer = small_trainer(tmp_path, model_kwargs={"num_bands": 4, "mean_shift_kwargs": shift})
    trainer.model.double()
    centers = trainer.model.cluster.cluster_centers
    centers.data.copy_(g["centers_before"])
    monkeypatch.setattr(torch, "randn_like", lambda *like, **options: g["kick_noise"])
    trainer._ema_update_centroids(g["z1"], g["p1"], g["z2"], g["p2"], g["decay"], g["kick"])
    assert_close_to_max(centers.detach(), g["centers_after"], GOLDEN_RTOL)
    assert trainer.model.cluster.cluster_centers is centers


@pytest.mark.parametrize("case", [0, 1])
def test_crop_pair_golden(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g = golden(f"dgc_crop_pair_{case}")
    batch, size = g["cube"].shape[0], tuple(g["crop_size"].tolist())
    corners = g["offsets_y0x0y1x1"].reshape(batch, 2, 2).double()
    monkeypatch.setattr(processing, "_draw_corners", lambda *arguments: corners)
    monkeypatch.setattr(processing, "_draw_affine", lambda *arguments: g["theta"].double())
    monkeypatch.setattr(processing, "_draw_band_shifts", lambda *arguments: g["band_shifts"])
    assert_close_to_max(compat.AugmentationPipeline(size)(g["cube"]), g["out"], GOLDEN_RTOL)
    first, second = processing.batch_random_crop_pair(g["cube"], size, 0.2, 0.8)
    assert torch.equal(first, g["crops0"])
    assert torch.equal(second, g["crops1"])
    stacked = torch.cat((first, second))
    warped = processing.batch_random_affine(stacked, 10.0, 0.1, (0.9, 1.1))
    assert_close_to_max(warped, g["warped"], GOLDEN_RTOL)
    shifted = processing.batch_wavelength_shift(warped, 2)
    assert shifted is warped
    assert_close_to_max(shifted.reshape(2, batch, *shifted.shape[1:]).transpose(0, 1), g["out"], GOLDEN_RTOL)


def test_scores_normalisation_and_schedule_golden() -> None:
    g = golden("dgc_metrics")
    pred, target = g["pred"], g["target"]
    pairs = [
        ("iou", scores.iou_score(pred, target)),
        ("dice", scores.dice_score(pred, target)),
        ("area_rmse", scores.area_rmse(pred, target)),
        ("entropy", scores.cluster_entropy(pred)),
        ("mi", scores.mutual_information(pred, target)),
        ("nmi", scores.normalized_mutual_information(pred, target)),
        ("vi", scores.variation_of_information(pred, target)),
    ]
    for name, value in pairs:
        assert value.dtype == torch.float32
        assert value.shape == ()
        assert value.item() == pytest.approx(g[name], rel=METRIC_RTOL)
    for method in ("meanstd", "minmax"):
        assert_close_to_max(processing.normalize_cube(g["cube"], method), g[method], GOLDEN_RTOL)
    assert_close_to_max(processing.normalize_cube(g["cube"][0]), g["meanstd"][0], GOLDEN_RTOL)
    first, peak, last, warmup, total = g["schedule_args"].tolist()
    schedule = utils.LinearWarmupDecayScheduler(first, peak, last, int(warmup), int(total))
    assert [schedule.step() for _ in g["schedule"]] == pytest.approx(g["schedule"].tolist(), rel=GOLDEN_RTOL)
    assert schedule.last_step == len(g["schedule"]) - 1
    assert schedule(2) == schedule.get_value(2) != schedule()


# Processing and utilities


def test_scores_by_counting() -> None:
    pred, target = torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[0, 1, 1, 1, 1]])
    assert scores.iou_score(pred, target).item() == pytest.approx((1 / 2 + 2 / 4 + 0) / 3)
    assert scores.iou_score(pred, target, 2).item() == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores.dice_score(pred, target, beta=2.0).item() == pytest.approx((5 / 5 + 10 / 10 + 0) / 3)
    assert scores.area_rmse(pred, target, 4).item() == pytest.approx(math.sqrt((0.2**2 + 0.4**2 + 0.2**2) / 4))
    assert scores.iou_score(pred, target, 0).item() == 0.0


def test_normalise_with_given_statistics() -> None:
    cube = normal(1, 2, 3, 4, 5)
    mean, std = normal(2, 2, 3), normal(3, 2, 3).abs()
    expected = (cube - mean[:, :, None, None]) / (std[:, :, None, None] + 1e-6)
    assert torch.equal(processing.normalize_cube(cube, mean=mean, std=std), expected)
    with pytest.raises(ValueError, match="`method` must be 'meanstd' or 'minmax'"):
        processing.normalize_cube(cube, "unit")


def test_draws_come_from_the_global_generator_in_the_published_order() -> None:
    height, width, h, w, batch = 31, 27, 12, 9, 3
    pipeline = compat.AugmentationPipeline((h, w), min_overlap=0.3, max_overlap=0.7, degrees=20.0, max_shift_bands=3)
    torch.manual_seed(9)
    geometry = pipeline.draw(batch, (height, width))
    torch.manual_seed(9)
    corners = []
    for _ in range(batch):
        y, x = torch.randint(0, height - h + 1, ()).item(), torch.randint(0, width - w + 1, ()).item()
        free = 1 - (torch.rand(()).item() * (0.7 - 0.3) + 0.3)
        dy = torch.randint(-int(free * h), int(free * h) + 1, ()).item()
        dx = torch.randint(-int(free * w), int(free * w) + 1, ()).item()
        corners.append([[y, x], [min(max(y + dy, 0), height - h), min(max(x + dx, 0), width - w)]])
    assert geometry[:, :, :2].tolist() == corners
    angle = torch.deg2rad((2 * torch.rand(2 * batch) - 1) * 20)
    torch.rand(2 * batch, 2)
    scale = 0.9 + 0.2 * torch.rand(2 * batch)
    cosine = (scale * angle.cos()).reshape(2, batch).t()
    torch.testing.assert_close(geometry[:, :, 2], cosine)
    shifts = torch.randint(-3, 4, (2 * batch,)).reshape(2, batch).t()
    assert torch.equal(geometry[:, :, 8].long(), shifts)


def test_views_of_cubes_of_any_size() -> None:
    torch.manual_seed(1)
    for size in ((3, 5), (1, 20), (40, 2)):
        assert compat.AugmentationPipeline((16, 12))(normal(0, 2, 4, *size)).shape == (2, 2, 4, 16, 12)


@pytest.mark.parametrize(("size", "ratio", "overlap"), [((37, 41), 2, 0), ((37, 41), 3, 5), ((8, 8), 4, 2)])
def test_patches_come_together_again(size: tuple[int, int], ratio: int, overlap: int) -> None:
    image = normal(4, 2, 3, *size)
    patches, info = utils.split_patches(image, ratio, overlap)
    assert len(patches) == ratio**2
    assert info["padded_shape"][2] % ratio == 0
    assert info["boundaries"][0][:1] == (0,)
    torch.testing.assert_close(utils.merge_patches(patches, info), image)
    two = [patch[:, :2] for patch in patches]
    assert utils.merge_patches(two, info).shape == (2, 2, *size)
    with pytest.raises(ValueError, match=r"must have the shape \(B, N, h, w\)"):
        utils.merge_patches([patch[:, 0] for patch in patches], info)


def test_batches_of_different_sizes() -> None:
    items = [(normal(0, 3, 9, 12), random_labels(0, 3, 9, 12)), (normal(1, 3, 11, 4), random_labels(1, 3, 11, 4))]
    cubes, labels = trainer_module.pad_and_stack(items)
    assert cubes.shape == (2, 3, 11, 12)
    assert torch.equal(cubes[0], F.pad(items[0][0], (0, 0, 0, 2), mode="reflect"))
    assert labels is not None
    assert labels[1, :, 4:].abs().sum() == 0
    assert torch.equal(labels[1, :, :4], items[1][1])
    cubes, labels = trainer_module.crop_and_stack(items)
    assert torch.equal(cubes[0], items[0][0][:, :, 4:8])
    assert torch.equal(labels[1], items[1][1][1:10])
    assert trainer_module.pad_and_stack([items[0][0]])[1] is None


# Model


def test_same_seed_gives_torchs_own_initial_values() -> None:
    model = small_model(5)
    torch.manual_seed(5)
    first = torch.nn.Conv1d(6, 8, 3, padding=1, bias=False)
    assert torch.equal(model.encoder.spectral_net[0].weight, first.weight)
    assert list(dict(model.named_parameters())) == [
        *(f"encoder.spectral_net.{i}.weight" for i in (0, 2, 4)),
        *(f"encoder.spatial_net.{i}.weight" for i in (0, 2)),
        "cluster.log_bandwidth",
        "cluster.cluster_centers",
    ]
    fixed = UnrolledMeanShift(learn_bandwidth=False, init_bandwidth=2.0)
    assert list(dict(fixed.named_parameters())) == ["cluster_centers"]
    assert fixed.bandwidth.item() == pytest.approx(2.0)


def test_outputs_and_modes() -> None:
    model, x = small_model(), normal(1, 2, 6, 7, 9)
    assert [tuple(y.shape) for y in model(x)] == [(2, 8, 7, 9)]
    shapes = [tuple(y.shape) for y in model(x, return_probs=True, return_labels=True)]
    assert shapes == [(2, 8, 7, 9), (2, 7, 9, 3), (2, 7, 9)]
    embeddings = model.encoder(x)
    assert isinstance(model.cluster(embeddings), Tensor)
    probs, labels = model.cluster.assign_clusters(embeddings)
    assert torch.equal(labels, probs.argmax(-1))
    assert not probs.requires_grad
    assert model.training
    assert torch.equal(model.inference(x), labels)
    assert model.training
    model.eval()
    model.inference(x)
    assert not model.training


@pytest.mark.parametrize("options", [{}, {"use_approx": False}, {"num_iters": 0}])
def test_another_eps_shrinks_the_shifted_embeddings(options: dict[str, Any]) -> None:
    module = UnrolledMeanShift(8, 3, **({"num_iters": 1} | options))
    z = F.normalize(normal(0, 1, 8, 5, 4), dim=1)
    plain, larger = module(z), module(z, eps=3.0)
    if options.get("num_iters") == 0:
        assert torch.equal(plain, larger)
    else:
        assert (larger.norm(dim=1) < 0.95 * plain.norm(dim=1)).all()


class SceneMean(torch.nn.Module):
    """An encoder that sees the whole scene."""

    def forward(self, cubes: Tensor) -> Tensor:
        return F.normalize((cubes - cubes.mean(dim=(2, 3), keepdim=True)).repeat(1, 2, 1, 1)[:, :8], dim=1)


def test_inference_in_strips_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(2, mean_shift_kwargs={"embed_dim": 8, "n_clusters": 40, "init_bandwidth": 0.1}).double()
    x = normal(3, 2, 6, 61, 13).double()
    # Directions around the mean embedding, so that every pixel is near a border between two clusters.
    embeddings = model.encoder(x).detach().permute(0, 2, 3, 1).reshape(-1, 8)
    model.cluster.cluster_centers.data = F.normalize(embeddings[:800:20] - embeddings.mean(0), dim=1)
    heights: list[int] = []
    model.encoder.register_forward_hook(lambda module, inputs, output: heights.append(inputs[0].shape[2]))
    whole = model.inference(x)
    assert whole.unique().numel() > 20
    assert heights == [61]
    for rows, strips in ((1, 61), (20, 7)):
        heights.clear()
        # As `strip_height` counts: the values of a pixel, and the neighbour rows of both sides.
        monkeypatch.setattr(hsi_clustering, "DEFAULT_MEMORY", 2 * 4 * (4 * 6 + 8 * 8 + 2 * 40) * 13 * rows)
        assert torch.equal(model.inference(x), whole)
        assert len(heights) == strips
        assert max(heights) <= max(rows, 11)
    # How far a caller's encoder sees is not known, so the scene stays whole.
    model.encoder = SceneMean()  # type: ignore[assignment]
    assert torch.equal(model.inference(x), model.cluster(model.encoder(x), return_labels=True)[-1])


def test_files_in_both_directions(tmp_path: Path) -> None:
    model = small_model(1, loss_weights={"orth": 0.5})
    model.save(str(tmp_path / "deep" / "model"))
    folder = tmp_path / "deep" / "model"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "weights.safetensors"]
    assert json.loads((folder / "config.json").read_text()) == SMALL | {"loss_weights": {"orth": 0.5}}
    again = compat.HyperspectralClusteringModel.load(str(folder))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert again.lambda_orth == 0.5
    changed = compat.HyperspectralClusteringModel.load(str(folder), loss_weights={"cons": 3.0})
    assert (changed.lambda_cons, changed.lambda_orth) == (3.0, 1.0)
    x = normal(1, 6, 9, 8)
    estimator = sf.DeepGlobalClustering.load(folder)
    expected = model.inference(processing.normalize_cube(x)[None])[0]
    assert torch.equal(torch.from_numpy(estimator.predict(x)), expected)
    estimator.save(tmp_path / "ours")
    back = compat.HyperspectralClusteringModel.load(str(tmp_path / "ours"))
    assert torch.equal(back.cluster.cluster_centers, model.cluster.cluster_centers)


def test_safetensors_names(tmp_path: Path) -> None:
    tensors = {"a": normal(0, 3, 4).t(), "b": torch.arange(3)}
    utils.save_as_safetensors(tensors, str(tmp_path / "w"))
    loaded = utils.load_safetensors(str(tmp_path / "w.safetensors"))
    assert all(torch.equal(tensors[name], loaded[name]) for name in tensors)
    with pytest.raises(RuntimeError, match=r"must end in \.safetensors"):
        utils.load_safetensors(str(tmp_path / "w"))


def test_hooks_and_optimisers_of_the_caller() -> None:
    model, x = small_model(3), normal(4, 4, 6, 8, 8)
    seen: list[str] = []
    model.encoder.register_forward_hook(lambda *unused: seen.append("encoder"))
    model.cluster.register_forward_hook(lambda *unused: seen.append("cluster"))
    model.cluster.cluster_centers.register_hook(lambda gradient: seen.append("gradient"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    total, _, _ = model.train_step(x[:2], x[2:], lambda_unif=0.0)
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert norm > 1e-3
    optimizer.step()
    moved = sum((a - b).square().sum() for a, b in zip(model.parameters(), before, strict=True)).sqrt()
    assert moved.item() == pytest.approx(0.05 * 1e-3, rel=1e-3)
    assert sorted(seen) == ["cluster", "cluster", "encoder", "encoder", "gradient"]


def test_weights_of_the_step() -> None:
    model, x = small_model(3), normal(4, 4, 6, 8, 8)
    total, losses, _ = model.train_step(
        x[:2], x[2:], lambda_unif=0.0, lambda_orth=2.0, lambda_bal=-1.0, lambda_cons=0.5
    )
    expected = losses["comp1"] + losses["comp2"] + 2 * losses["orth"] - losses["bal"] + 0.5 * losses["cons"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_prune_keeps_the_parameter_and_saves(tmp_path: Path) -> None:
    model = small_model(0, mean_shift_kwargs={"embed_dim": 8})
    centers = model.cluster.cluster_centers
    before = centers.detach().clone()
    probs = torch.tensor([0.6, 0.001, 0.398, 0.001]).expand(2, 5, 4)
    model.train_step(normal(0, 1, 6, 6, 6), normal(1, 1, 6, 6, 6))[0].backward()
    assert model.cluster.prune_low_mass_clusters(probs).tolist() == [0, 2]
    assert model.cluster.cluster_centers is centers
    assert torch.equal(centers.detach(), F.normalize(before[[0, 2]], dim=1))
    assert model.cluster.n_clusters == model.n_clusters == 2
    model.train_step(normal(0, 1, 6, 6, 6), normal(1, 1, 6, 6, 6))[0].backward()
    assert centers.grad.shape == (2, 8)
    model.save(str(tmp_path))
    assert compat.HyperspectralClusteringModel.load(str(tmp_path)).cluster.n_clusters == 2
    one = torch.tensor([1.0, 0.0]).expand(1, 3, 2)
    assert model.cluster.prune_low_mass_clusters(one).tolist() == [0]
    with pytest.raises(ValueError, match="at least one cluster"):
        model.cluster.prune_low_mass_clusters(torch.zeros(1, 3, 1))
