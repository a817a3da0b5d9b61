"""Encoder, model and training step against golden values, and the recipes' differences by construction."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from spectrafuse import use_backend
from spectrafuse.benchmarks.published.encoder import encode
from spectrafuse.dgc.encoder import Encoder
from spectrafuse.dgc.model import SegmentationModel
from spectrafuse.dgc.recipes import RECIPES, Recipe, corrected, published, resolve
from spectrafuse.dgc.training.batches import CropBatch, CropBatches, reflect_pad
from spectrafuse.dgc.training.centers import move_centers, start_centers
from spectrafuse.dgc.training.objective import TERMS, random_labels, step_objective
from spectrafuse.random import RandomStream


def small_model(seed: int = 0, **options: object) -> SegmentationModel:
    defaults: dict = {"n_bands": 12, "embed_dim": 8, "n_clusters": 3, "stream": RandomStream(seed)}
    return SegmentationModel(**(defaults | options))


@pytest.mark.parametrize("index", [0, 1])
def test_encoder_golden(index: int) -> None:
    values = golden(f"dgc_encoder_{index}")
    bands, dim = values["x"].shape[1], values["out"].shape[1]
    encoder = Encoder(
        bands,
        dim,
        n_spectral_layers=values["n_spectral_layers"],
        spectral_kernel_size=values["spectral_kernel_size"],
        bias=values["bias"],
    ).double()
    encoder.load_state_dict(state(values, "state"))
    x = values["x"].requires_grad_()
    out = encoder(x)
    assert_close_to_max(out, values["out"], GOLDEN_RTOL)
    out.backward(values["grad_out"])
    assert_close_to_max(x.grad, values["grad_x"], GOLDEN_GRADIENT_RTOL)
    for name, parameter in encoder.named_parameters():
        assert_close_to_max(parameter.grad, values[f"grad.{name}"], GOLDEN_GRADIENT_RTOL)


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_training_step_golden(backend: str) -> None:
    values = golden("dgc_train_step")
    model = SegmentationModel.from_config(values["config"]).double()
    model.load_state_dict(state(values, "state"))
    batch = crops_of(torch.cat((values["crop1"], values["crop2"])))
    labels = torch.stack((values["pseudo_labels1"], values["pseudo_labels2"]))
    with use_backend(backend):
        step = step_objective(model, batch, published, uniform_weight=published.uniform, pseudo_labels=labels)
        step.total.backward()
    expected = [values["total"], values["loss.comp1"] + values["loss.comp2"]]
    expected += [values[f"loss.{name}"] for name in ("unif", "orth", "bal", "cons")]
    torch.testing.assert_close(step.terms[:-1], torch.tensor(expected, dtype=torch.float64), rtol=GOLDEN_RTOL, atol=0)
    for name, parameter in model.named_parameters():
        assert_close_to_max(parameter.grad, values[f"grad.{name}"], GOLDEN_GRADIENT_RTOL)
    mass = (values["ema.p1"] + values["ema.p2"]).sum((0, 1, 2))
    assert_close_to_max(step.mass, mass, GOLDEN_RTOL)
    clusters = mass.shape[0]
    sums = sum(values[f"ema.p{v}"].reshape(-1, clusters).t() @ values[f"ema.z{v}"].reshape(-1, 16) for v in (1, 2))
    assert_close_to_max(step.sums, sums, GOLDEN_RTOL)


def test_centers_update_golden() -> None:
    values = golden("dgc_ema")
    clusters, dim = values["centers_before"].shape
    model = SegmentationModel(4, dim, clusters).double()
    with torch.no_grad():
        model.centers.copy_(values["centers_before"])
    mass, sums = 0, 0
    for v in "12":
        q = values[f"p{v}"].reshape(-1, clusters)
        mass, sums = mass + q.sum(0), sums + q.t() @ values[f"z{v}"].reshape(-1, dim)
    move_centers(model, mass, sums, decay=values["decay"], kick=0.0, noise=torch.zeros(clusters, dim).double())
    dead = mass + 1e-8 <= 1e-3
    assert_close_to_max(model.centers[~dead].detach(), values["centers_after"][~dead], GOLDEN_RTOL)


def test_empty_clusters_are_pushed() -> None:
    model = small_model()
    before = model.centers.detach().clone()
    mass, sums = torch.tensor([0.0, 50.0, 0.0]), torch.zeros(3, 8)
    sums[1] = 50 * before[1]
    move_centers(model, mass, sums, decay=0.99, kick=0.05, noise=RandomStream(1).normal((3, 8)))
    moved = (model.centers.detach() - before).norm(dim=1)
    assert (moved[[0, 2]] > 1e-3).all()
    assert moved[1] < 1e-6
    torch.testing.assert_close(model.centers.detach().norm(dim=1), torch.ones(3))


def crops_of(views: torch.Tensor) -> CropBatch:
    return CropBatch(views, torch.zeros(len(views) // 2, 2, 9), None, views.shape[1])


def test_centers_stay_where_no_pixel_counts() -> None:
    model = small_model()
    before = model.centers.detach().clone()
    move_centers(model, torch.zeros(3), torch.zeros(3, 8), decay=0.99, kick=0.05, noise=torch.ones(3, 8))
    assert torch.equal(model.centers.detach(), before)


def test_centers_start_among_the_embeddings() -> None:
    """Random centres leave an untrained model with fewer clusters than it has; started from data, all are used."""
    used, probable = [], []
    for seed in range(3):
        model, views = small_model(seed, n_bands=30, n_clusters=5), RandomStream(seed + 9).normal((2, 30, 12, 12))
        for start in (False, True):
            if start:
                start_centers(model, crops_of(views), RandomStream(seed))
            probs = model(views).probs.detach()
            used.append(probs.argmax(-1).unique().numel())
            probable.append(probs.mean((0, 1, 2)).min().item())
        torch.testing.assert_close(model.centers.detach().norm(dim=1), torch.ones(5))
    assert used[1::2] == [5, 5, 5]
    assert max(used[::2]) < 5
    assert min(probable[1::2]) > 0.02


def test_centers_start_the_same_where_all_pixels_are() -> None:
    model = small_model()
    start_centers(model, crops_of(torch.ones(1, 12, 1, 1)), RandomStream(0))
    assert model.centers.isfinite().all()
    start_centers(model, crops_of(torch.zeros(1, 12, 3, 3)), RandomStream(0))
    assert model.centers.isfinite().all()


@pytest.mark.parametrize("bias", [False, True])
def test_initial_weights_follow_torch(bias: bool) -> None:
    encoder = Encoder(40, 32, bias=bias, stream=RandomStream(3))
    torch_default = torch.nn.Conv1d(40, 32, 9, bias=bias)
    bound = 1 / math.sqrt(40 * 9)
    weight = encoder.spectral_net[0].weight.detach()
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound
    assert weight.std().item() == pytest.approx(torch_default.weight.std().item(), rel=0.05)
    again = Encoder(40, 32, bias=bias, stream=RandomStream(3))
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), again.parameters(), strict=True))
    other = Encoder(40, 32, bias=bias, stream=RandomStream(4))
    assert not any(torch.equal(a, b) for a, b in zip(encoder.parameters(), other.parameters(), strict=True))


def test_building_a_model_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    small_model()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_names_and_initial_values_as_published() -> None:
    values = golden("dgc_train_step")
    model = SegmentationModel.from_config(values["config"])
    expected = {name: tuple(value.shape) for name, value in state(values, "state").items()}
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
    assert model.cluster.log_bandwidth.item() == pytest.approx(0.541324854612918)
    assert model.bandwidth.item() == pytest.approx(1.0)
    torch.testing.assert_close(model.centers.detach().norm(dim=1), torch.ones(5))


def test_config_round_trip_and_published_defaults() -> None:
    model = small_model(window=3, temperature=0.1, learn_bandwidth=False, dense=True, loss_weights={"orth": 0.5})
    again = SegmentationModel.from_config(model.config)
    assert again.config == model.config
    assert "cluster.log_bandwidth" not in dict(again.named_parameters())
    default = SegmentationModel.from_config({"num_bands": 7})
    assert default.encoder.spectral_kernel_size == 3
    assert default.encoder.bias
    assert (default.n_clusters, default.window, default.num_iters, default.dense) == (4, 5, 5, False)


def test_labels_are_the_most_probable_clusters() -> None:
    x = RandomStream(2).normal((2, 12, 9, 7))
    for dense in (False, True):
        model = small_model(dense=dense)
        result = model(x)
        assert result.shifted.shape == (2, 8, 9, 7)
        assert result.probs.shape == (2, 9, 7, 3)
        assert torch.equal(model.labels(x), result.probs.argmax(-1))


def test_prune() -> None:
    model = small_model()
    before = model.centers.detach().clone()
    assert model.prune(torch.tensor([0.6, 0.001, 0.399]), 0.005) == [0, 2]
    assert model.n_clusters == 2
    assert model.config["mean_shift_kwargs"]["n_clusters"] == 2
    assert torch.equal(model.centers.detach(), before[[0, 2]])
    assert model.state_dict()["cluster.cluster_centers"].shape == (2, 8)
    assert model(RandomStream(0).normal((1, 12, 4, 4))).probs.shape == (1, 4, 4, 2)
    with pytest.raises(ValueError, match="at least one cluster"):
        model.prune(torch.tensor([0.5, 0.5]), 0.9)
    with pytest.raises(ValueError, match="`mass` must be of shape"):
        model.prune(torch.ones(3), 0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_clusters": 0}, "`n_clusters`"),
        ({"spectral_kernel_size": 4}, "`spectral_kernel_size` must be an odd integer"),
        ({"window": 2}, "`window` must be an odd integer"),
        ({"temperature": 0}, "`temperature`"),
        ({"bandwidth": -1.0}, "`bandwidth`"),
    ],
)
def test_wrong_model_arguments(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small_model(**options)


def test_wrong_configurations() -> None:
    with pytest.raises(ValueError, match="same in encoder_kwargs and mean_shift_kwargs"):
        SegmentationModel.from_config({"encoder_kwargs": {"embed_dim": 8}})
    with pytest.raises(ValueError, match="got depth as well"):
        SegmentationModel.from_config({"encoder_kwargs": {"depth": 8}})


def test_random_labels_are_balanced() -> None:
    labels = random_labels(11, 4, RandomStream(0))
    assert labels.shape == (2, 11)
    assert [torch.bincount(view).tolist() for view in labels] == [[3, 3, 3, 2]] * 2
    assert not torch.equal(labels[0], labels[1])


def crop_batch(seed: int) -> CropBatch:
    stream = RandomStream(seed)
    return next(CropBatches([stream.normal((12, 20, 24))], corrected, 10, 2, seed).epoch(1))


def test_corrected_total_is_the_weighted_sum() -> None:
    model, batch = small_model(), crop_batch(1)
    recipe = dataclasses.replace(corrected, balance=0.7, consistency=0.9, spectral=3.0, orthogonality=0.2)
    step = step_objective(model, batch, recipe, uniform_weight=0.0, pseudo_labels=None)
    terms = dict(zip(("loss", *TERMS), step.terms.tolist(), strict=True))
    assert terms["uniform"] == 0
    expected = (
        terms["compactness"]
        + 0.2 * terms["orthogonality"]
        - 0.7 * terms["balance"]
        + 0.9 * terms["consistency"]
        + 3.0 * terms["spectral"]
    )
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)
    assert step.mass.sum().item() == pytest.approx(4 * 10 * 10, rel=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_bands", [1, 12, 16, 21])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_encoder_in_every_layout_equals_the_reference(n_bands: int, size: tuple[int, int], bias: bool) -> None:
    encoder = SegmentationModel(n_bands, 8, 2, bias=bias, stream=RandomStream(1)).encoder
    padded = torch.zeros(2, *size, 32).permute(0, 3, 1, 2)
    padded[:, :n_bands] = RandomStream(2).normal((2, n_bands, *size))
    cubes, upstream = padded[:, :n_bands].contiguous(), RandomStream(3).normal((2, 8, *size))
    exact = {name: value.detach().double().requires_grad_() for name, value in encoder.named_parameters()}
    expected = encode(cubes.double(), exact)
    (expected * upstream).sum().backward()
    for given in (cubes, cubes.contiguous(memory_format=torch.channels_last), padded):
        encoder.zero_grad()
        out = encoder(given)
        (out * upstream).sum().backward()
        assert_close_to_max(out.detach().double(), expected.detach(), 1e-4)
        for name, value in encoder.named_parameters():
            # A unit vector of one pixel and one band hardly depends on the weights: rounding is all that is left.
            allowed = 1e-4 * max(0.1, exact[name].grad.abs().max().item())
            torch.testing.assert_close(value.grad.double(), exact[name].grad, rtol=0, atol=allowed)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_autocast_rounds_operands_and_sums_in_float32(narrow: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding what a convolution reads and writes, and nothing else, explains the loss under autocast."""
    model, batch = small_model(), crop_batch(3)
    recipe = dataclasses.replace(corrected, spectral=3.0)

    def loss(autocast: torch.dtype | None) -> float:
        return step_objective(
            model, batch, recipe, uniform_weight=0.0, pseudo_labels=None, autocast=autocast
        ).total.item()

    full, half = loss(None), loss(narrow)
    original = torch.nn.functional.conv2d

    def rounded(x: torch.Tensor, weight: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        x, weight = x.to(narrow).float(), weight.to(narrow).float()
        return original(x, weight, *args, **kwargs).to(narrow).float()  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "conv2d", rounded)
    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", lambda self, x, w, b: rounded(x, w, b, padding=1))
    explained = loss(None)
    assert half != full
    # Sums in another order may round to the neighbouring narrow number now and then.
    assert abs(half - explained) <= 0.2 * abs(explained - full) + 1e-5 * abs(full)


def test_recipes_differ_where_the_published_one_is_wrong() -> None:
    assert published.loss_weights == {"orth": 0.001, "bal": 2.0, "unif": 2.0, "cons": 1.0}
    assert (published.learning_rate, published.max_epoch, published.reuse_iter) == (1e-4, 10, 10)
    assert published.normalization == "meanstd"
    for name in ("aligned", "maximise_balance"):
        assert getattr(corrected, name)
        assert not getattr(published, name)
    for name in ("memory_order_sums", "second_forward", "whole_batches"):
        assert getattr(published, name)
        assert not getattr(corrected, name)
    assert (published.crop_size, corrected.crop_size) == (64, 32)
    assert corrected.spectral_labels
    assert not published.spectral_labels


def test_resolve() -> None:
    for name, recipe in RECIPES.items():
        assert resolve(name) is not None
        assert Recipe(**recipe.as_dict()) == recipe == resolve(recipe)
    changed = resolve("corrected", max_epoch=3, learning_rate=None)
    assert (changed.max_epoch, changed.learning_rate) == (3, corrected.learning_rate)
    with pytest.raises(ValueError, match="`recipe` must be one of 'published', 'corrected'"):
        resolve("paper")
    with pytest.raises(TypeError, match="or a Recipe"):
        resolve(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has no depth"):
        resolve("published", depth=3)
    with pytest.raises(ValueError, match="`spectral` must be a finite number of at least 0"):
        resolve("published", spectral=-1.0)


@pytest.mark.parametrize("size", [(5, 9), (1, 9), (4, 1)])
def test_reflect_pad(size: tuple[int, int]) -> None:
    cube = RandomStream(0).normal((2, *size))
    height, width = 7, 12
    padded = reflect_pad(cube, height, width)
    assert padded.shape == (2, height, width)
    assert torch.equal(padded[:, : size[0], : size[1]], cube)
    if size[0] > 1 and height <= 2 * size[0] - 1 and size[1] > 1 and width <= 2 * size[1] - 1:
        torch_pad = torch.nn.functional.pad(cube, (0, width - size[1], 0, height - size[0]), mode="reflect")
        assert torch.equal(padded, torch_pad)
    assert reflect_pad(cube, 1, 1) is cube


def test_batches_of_scenes_of_any_size() -> None:
    stream = RandomStream(4)
    scenes = [stream.normal((12, *size)) for size in ((20, 24), (9, 31), (30, 8))]
    random_scenes = CropBatches(scenes, corrected, 12, 4, 4)
    batches = list(random_scenes.epoch(1))
    assert len(batches) == random_scenes.steps_per_epoch == corrected.reuse_iter
    assert all(b.views.shape == (8, 12, 12, 12) and b.geometry.shape == (4, 2, 9) for b in batches)
    whole = CropBatches(scenes, published, 12, 2, 4)
    shapes = [b.views.shape[0] for b in whole.epoch(1)]
    assert shapes == [4] * 10 + [2] * 10
    assert whole.steps_per_epoch == 20
    tiny = CropBatches([stream.normal((12, 1, 3))], corrected, 64, 2, 4)
    assert tiny.crop_size == (1, 5)
    assert next(tiny.epoch(1)).views.shape == (4, 12, 1, 5)


@pytest.mark.parametrize("size", [(20, 24), (7, 40), (1, 9)])
def test_even_coverage(size: tuple[int, int]) -> None:
    """Over all places of a crop, a pixel at the border is seen about as often as one in the middle."""
    height, width = size
    number = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)

    def times_seen(recipe: Recipe) -> torch.Tensor:
        batches = CropBatches([number], recipe, 8, 1, 0)
        scene = batches.scenes[0].padded(*batches.crop_size).whole
        assert scene is not None
        windows = torch.nn.functional.unfold(scene[None], batches.crop_size)
        return torch.bincount(windows.flatten().long(), minlength=height * width)

    # An even crop has no middle pixel, so a border pixel may be seen once more per axis.
    even, side = times_seen(corrected), 8
    assert even.max() <= even.min() * (1 + 1 / min(side, 2 * height - 1)) * (1 + 1 / min(side, 2 * width - 1)) + 1
    uneven = times_seen(dataclasses.replace(corrected, even_coverage=False))
    assert uneven.max() >= (10 * uneven.min() if height == 20 else uneven.min())


def test_views_are_what_the_geometry_says() -> None:
    """Without a warp the views are plain windows of a scene, first views first."""
    stream = RandomStream(6)
    scenes = [stream.normal((3, 9, 11)), stream.normal((3, 14, 8))]
    plain = dataclasses.replace(corrected, degrees=0.0, translate=0.0, scale_low=1.0, scale_high=1.0, max_shift_bands=0)
    batches = CropBatches(scenes, plain, 6, 5, 6)
    batch = next(batches.epoch(1))
    for sample in range(5):
        for view in range(2):
            y, x = batch.geometry[sample, view, :2].long().tolist()
            window = batch.views[view * 5 + sample]
            matches = [
                scene.shape[1] >= y + 6
                and scene.shape[2] >= x + 6
                and torch.allclose(scene.window(y, x, 6, 6), window, atol=1e-5)
                for scene in batches.scenes
            ]
            assert any(matches)
