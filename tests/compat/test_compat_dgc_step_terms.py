"""The published training step on both crops together and on one operation: the results of the separate way, and when
that is taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.compat_dgc_parts import SMALL, normal, small_model, small_trainer
from spectrafuse.compat.hsi_global_clustering import (
    AugmentationPipeline,
    HSIClusteringTrainer,
    HyperspectralClusteringModel,
    step_terms,
)
from spectrafuse.compat.hsi_global_clustering.crops import why_one_by_one
from spectrafuse.compat.hsi_global_clustering.module import HyperspectralEncoder, UnrolledMeanShift
from spectrafuse.compat.hsi_global_clustering.step_terms import Assigned, lay_out, why_separate_losses


def separately(monkeypatch: pytest.MonkeyPatch, what: str = "why_separate_losses") -> None:
    monkeypatch.setattr(step_terms, what, lambda model: "Not now.")


@pytest.mark.parametrize("what", ["why_separate_losses", "why_one_by_one"])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16"])
def test_steps_equal_those_of_the_separate_way(
    precision: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = torch.float64 if precision == "fp64" else torch.float32
    tolerance = {"fp32": 1e-4, "fp64": 1e-9, "bf16": 2e-2}[precision]
    cubes = normal(0, 2, 6, 12, 12).to(dtype)
    runs = []
    for joint, convolutions in ((True, precision), (False, precision), (False, "fp32")):
        trainer = small_trainer(tmp_path, precision="bf16" if convolutions == "bf16" else "fp32")
        trainer.model.to(dtype)
        logged = []
        with monkeypatch.context() as patch:
            if not joint:
                separately(patch)
            for _ in range(3):
                loss, terms = trainer._step(cubes, {"lambda_unif": 0.7}, 0.05)
                logged.append(torch.stack([loss, *terms.values()]))
                assert isinstance(trainer._crops, Tensor) is joint
        gradients = [parameter.grad for parameter in trainer.model.parameters()]
        runs.append((list(terms), torch.stack(logged), list(trainer.model.parameters()), gradients, torch.rand(3)))
    (names, values, parameters, found, left), (names_there, expected, there, gradients, left_there), exact = runs
    assert names == names_there
    assert torch.equal(left, left_there)
    torch.testing.assert_close(values, expected, rtol=tolerance, atol=tolerance)
    for one, other in zip(parameters, there, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance / 10)
    if precision == "bf16":
        # Rounded convolutions move both; losses in float32 do not move the gradient further than those in bfloat16.
        ours, theirs = (
            sum((one - other).square().sum() for one, other in zip(run, exact[3], strict=True))
            for run in (found, gradients)
        )
        print("bf16 gradients, squared distance to float32:", float(ours), float(theirs))
        assert ours <= 1.1 * theirs
    else:
        for one, other in zip(found, gradients, strict=True):
            assert (one - other).abs().max() <= 5 * tolerance * other.abs().max()


def test_what_is_read_later_has_the_values_and_the_gradient_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = normal(0, 2, 6, 8, 8), normal(1, 2, 6, 8, 8)
    results = []
    for joint in (True, False):
        model = small_model(3)
        with monkeypatch.context() as patch:
            if not joint:
                separately(patch)
            moved = model.train_step(*crops)[2]
        assert isinstance(moved, Assigned) is joint
        probs = dict(moved) if not joint else None
        with torch.no_grad():
            centers = model.cluster.cluster_centers
            before = centers.clone()
            if joint:
                centers.zero_()
                assert moved.unread
                probs = dict(moved)
                assert not moved.unread
                centers.copy_(before)
        assert probs is not None
        loss = probs["p1"][..., 0].sum() + probs["z2"].square().sum()
        results.append((probs, torch.autograd.grad(loss, model.encoder.spatial_net[0].weight)[0]))
    (ours, gradient), (theirs, expected) = results
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def _ignored(*given: Any) -> None:
    return None


def _of_class(**methods: Any) -> Callable[[HyperspectralClusteringModel], object]:
    def change(model: HyperspectralClusteringModel) -> None:
        model.cluster.__class__ = type("Own", (UnrolledMeanShift,), methods)

    return change


def _calling(name: str) -> Callable[[HyperspectralClusteringModel], object]:
    return _of_class(**{name: lambda self, *given, **named: getattr(UnrolledMeanShift, name)(self, *given, **named)})


LOSSES = ("compactness", "orthogonality", "balance", "uniform_assignment", "consistency")
REASONS: dict[str, tuple[Callable[[HyperspectralClusteringModel], object], str]] = {
    **{name: (_calling(f"compute_{name}_loss"), f"its own compute_{name}_loss") for name in LOSSES},
    "forward": (_calling("forward"), "its own forward"),
    "shift": (_calling("_shift"), "its own _shift"),
    "bandwidth": (_of_class(bandwidth=property(lambda self: torch.tensor(0.7))), "its own bandwidth"),
    "instance": (
        lambda model: setattr(model.cluster, "compute_balance_loss", model.cluster.compute_balance_loss),
        "its own compute_balance_loss",
    ),
    "hook": (lambda model: model.cluster.register_forward_hook(_ignored), "A hook"),
    "all pixels": (lambda model: setattr(model.cluster, "use_approx", False), "use_approx=False"),
    "no shift": (lambda model: setattr(model.cluster, "num_iters", 0), "num_iters=0"),
    "types": (lambda model: model.encoder.spatial_net[0].double(), "several types"),
    "another module": (lambda model: setattr(model, "cluster", nn.Identity()), "Identity has its own"),
}


@pytest.mark.parametrize("name", REASONS)
def test_what_forbids_it_is_said_and_obeyed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, reason = REASONS[name]
    model = small_model()
    assert why_separate_losses(model) is None
    change(model)
    assert reason in (why_separate_losses(model) or "")
    if name in ("types", "another module"):  # which no step takes
        return
    moved = model.train_step(normal(0, 1, 6, 8, 8), normal(1, 1, 6, 8, 8))[2]
    assert isinstance(moved, dict)


class OwnConv(nn.Conv1d):
    pass


def _layer(net: str, index: int, layer: Callable[[], nn.Module]) -> Callable[[HyperspectralClusteringModel], object]:
    return lambda model: getattr(model.encoder, net).__setitem__(index, layer())


def _encoder_of_class(**methods: Any) -> Callable[[HyperspectralClusteringModel], object]:
    def change(model: HyperspectralClusteringModel) -> None:
        model.encoder.__class__ = type("Own", (HyperspectralEncoder,), methods)

    return change


ENCODER_REASONS: dict[str, tuple[Callable[[HyperspectralClusteringModel], object], str]] = {
    "forward": (_encoder_of_class(forward=lambda self, x: HyperspectralEncoder.forward(self, x)), "its own forward"),
    "spatial": (_encoder_of_class(spatial=lambda self, y: HyperspectralEncoder.spatial(self, y)), "its own spatial"),
    "instance": (lambda model: setattr(model.encoder, "forward", model.encoder.forward), "its own forward"),
    "another module": (lambda model: setattr(model, "encoder", nn.Conv2d(6, 8, 1)), "Conv2d has its own"),
    "hook": (lambda model: model.encoder.register_forward_hook(_ignored), "A hook"),
    "layer hook": (lambda model: model.encoder.spatial_net[1].register_forward_hook(_ignored), "A hook"),
    "backward hook": (lambda model: model.encoder.spectral_net.register_full_backward_hook(_ignored), "A hook"),
    "normalization": (_layer("spatial_net", 1, lambda: nn.BatchNorm2d(8)), "BatchNorm2d"),
    "subclass": (_layer("spectral_net", 2, lambda: OwnConv(8, 8, 3, padding=1)), "OwnConv"),
    "activation first": (_layer("spectral_net", 0, nn.ReLU), "layer of the caller's, Sequential"),
    "dilation": (_layer("spectral_net", 2, lambda: nn.Conv1d(8, 8, 3, padding=2, dilation=2)), "dilation=(2,)"),
    "padding": (_layer("spectral_net", 2, lambda: nn.Conv1d(8, 8, 3, padding=1, padding_mode="circular")), "circular"),
    "net": (lambda model: setattr(model.encoder, "spectral_net", nn.Conv1d(6, 8, 1)), "caller's, Conv1d"),
    "layer's forward": (
        lambda model: setattr(model.encoder.spatial_net[0], "forward", model.encoder.spatial_net[0].forward),
        "caller's, Conv2d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENCODER_REASONS)
def test_what_forbids_both_crops_together_is_said_and_obeyed(name: str) -> None:
    change, reason = ENCODER_REASONS[name]
    model, crops = small_model(), (normal(0, 1, 6, 8, 8), normal(1, 1, 6, 8, 8))
    assert why_one_by_one(model) is None
    assert isinstance(lay_out(model, *crops), Tensor)
    change(model)
    assert reason in (why_one_by_one(model) or "")
    assert lay_out(model, *crops) == crops
    if name == "activation first":  # which no step takes
        return
    calls: list[int] = []
    model.encoder.register_forward_hook(lambda *given: calls.append(len(given[1][0])))
    model.train_step(*crops)
    assert calls == [1, 1]


def test_crops_that_cannot_be_taken_together_are_taken_one_by_one() -> None:
    model, crop = small_model(), normal(0, 1, 6, 8, 8)
    found = lay_out(model, crop, crop)
    assert isinstance(found, Tensor)
    for other in (normal(1, 1, 6, 8, 9), crop.double(), crop.clone().requires_grad_()):
        assert isinstance(lay_out(model, crop, other), tuple)
    assert isinstance(lay_out(model, crop[:, :5], crop[:, :5]), tuple)
    with pytest.raises(RuntimeError, match="channels"):
        model.train_step(crop[:, :5], crop[:, :5])
    saliency = crop.clone().requires_grad_()
    model.train_step(saliency, crop)[0].backward()
    assert saliency.grad is not None
    assert saliency.grad.abs().sum() > 0


def test_the_memory_of_the_last_step_is_written_again_where_it_has_the_size() -> None:
    model, first, second = small_model(), normal(0, 2, 6, 8, 8), normal(1, 2, 6, 8, 8)
    before = lay_out(model, first, second)
    again = lay_out(model, second, first, before)
    assert again is before
    assert isinstance(again, Tensor)
    assert torch.equal(again[:, :6], torch.cat((second, first)))
    assert not again[:, 6:].any()
    assert lay_out(model, first[:1], second[:1], before) is not before
    assert lay_out(model.double(), first.double(), second.double(), before) is not before


@pytest.mark.parametrize("hooked", [False, True])
def test_training_takes_both_crops_together_unless_a_hook_forbids_it(
    hooked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the package's augmentation, which writes the views in place, and with a caller's, whose views are copied."""
    items, pipeline, runs = [normal(i, 6, 11, 12) for i in range(3)], AugmentationPipeline((8, 7)), []
    for augmentor in (pipeline, lambda cubes: pipeline(cubes)):
        trainer = small_trainer(tmp_path, *items, augmentor=augmentor)
        calls: list[int] = []
        if hooked:
            trainer.model.encoder.spectral_net[0].register_forward_hook(lambda *given: calls.append(1))  # noqa: B023
        trainer.train()
        assert isinstance(trainer._crops, tuple if hooked else Tensor)
        assert len(calls) >= (2 * 2 * 2 * 2 if hooked else 0)  # epochs, batches, passes, views; and validation
        runs.append((capsys.readouterr().out, list(trainer.model.parameters())))
    (printed, ours), (printed_there, theirs) = runs
    assert printed == printed_there
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


class OwnUpdate(HSIClusteringTrainer):
    seen: tuple[Tensor, ...] = ()

    def _ema_update_centroids(self, *given: Any, **named: Any) -> None:
        self.seen = given[:4]


class OwnStep(HyperspectralClusteringModel):
    def train_step(self, *given: Any, **named: Any) -> Any:
        total, losses, moved = super().train_step(*given, **named)
        moved["p1"] = torch.zeros_like(moved["p1"])
        moved["p2"] = torch.zeros_like(moved["p2"])
        return total, losses, moved


def test_an_update_or_a_step_of_the_callers_is_obeyed(tmp_path: Path) -> None:
    cubes = normal(0, 2, 6, 12, 12)
    trainer = small_trainer(tmp_path)
    trainer.__class__ = OwnUpdate
    trainer._step(cubes, {}, 0.05)
    assert [tuple(x.shape) for x in trainer.seen] == [(2, 8, 8, 8), (2, 8, 8, 3)] * 2  # type: ignore[attr-defined]
    trainer = small_trainer(tmp_path, model=OwnStep(**SMALL))
    torch.manual_seed(5)
    before = trainer.model.cluster.cluster_centers.detach().clone()
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    trainer._step(cubes, {}, 1.0)
    # Without mass every center is pushed far, and not moved by 1 %.
    assert (trainer.model.cluster.cluster_centers - before).norm(dim=1).min() > 0.2
