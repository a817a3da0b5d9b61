"""The consistency term: which pixels of two views show the same place, and what is compared there."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.clustering_inputs import aligned_by_loops, divergence, plain_views, scene_place
from spectrafuse import RandomStream
from spectrafuse.ops.clustering_objective import pytorch as composed
from spectrafuse.ops.clustering_objective import reference
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs

modules = pytest.mark.parametrize("module", [reference, composed], ids=["reference", "torch"])


def consistency(module, first, second, geometry, aligned=True):
    """The consistency term alone, from assignments (B, h, w, K)."""
    probs = torch.cat((first, second))
    embeddings = probs.new_zeros(*probs.shape[:1], 2, *probs.shape[1:3])
    centers = probs.new_ones(probs.shape[3], 2)
    return module.clustering_terms(
        embeddings,
        embeddings,
        probs,
        centers,
        geometry,
        aligned=aligned,
        pseudo_labels=None,
        memory_order_sums=False,
    )[4]


@modules
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crop", [(5, 4), (3, 8)])
def test_alignment_by_the_definition(module, crop, seed):
    stream = RandomStream(seed)
    probs = stream.normal((2, 2, *crop, 3), dtype=torch.float64).softmax(-1).requires_grad_()
    geometry = sample_crop_pairs(2, (9, 11), crop, stream, degrees=40.0, translate=0.3, scale_range=(0.7, 1.4)).double()
    expected, count = aligned_by_loops(probs, probs.detach(), geometry)
    assert 0 < count < probs[..., 0].numel(), "valid and invalid pixels are both needed"
    actual = consistency(module, probs[0], probs[1], geometry)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    # Gradient on the own side only, as finite differences of the loop with the read side held still.
    (gradient,) = torch.autograd.grad(actual, probs)
    step = 1e-6 * stream.normal(probs.shape, dtype=torch.float64)
    with torch.no_grad():
        above, _ = aligned_by_loops(probs + step, probs, geometry)
        below, _ = aligned_by_loops(probs - step, probs, geometry)
    torch.testing.assert_close((gradient * step).sum(), (above - below) / 2, rtol=1e-5, atol=1e-13)


@modules
def test_whole_pixel_offsets_are_shifted_indices(module):
    probs = RandomStream(3).normal((2, 1, 6, 7, 3), dtype=torch.float64).softmax(-1)
    actual = consistency(module, probs[0], probs[1], plain_views((2.0, 5.0), (4.0, 2.0)))
    first, second = probs[0, 0, 2:, :4], probs[1, 0, :4, 3:]
    expected = torch.stack([divergence(a, b) for a, b in zip(first.reshape(-1, 3), second.reshape(-1, 3))])  # noqa: B905
    torch.testing.assert_close(actual, expected.mean(), rtol=1e-10, atol=0)


@modules
def test_same_window_is_the_same_index(module):
    probs = RandomStream(4).normal((2, 1, 5, 6, 3), dtype=torch.float64).softmax(-1)
    geometry = plain_views((1.0, 1.0), (1.0, 1.0))
    aligned, unaligned = (consistency(module, probs[0], probs[1], geometry, aligned=a) for a in (True, False))
    torch.testing.assert_close(aligned, unaligned)


@modules
@pytest.mark.parametrize("seed", range(3))
def test_a_smooth_scene_agrees_with_itself_only_when_aligned(module, seed):
    """Assignments that are a smooth function of the place in the scene: what is left is interpolation."""
    crop = (24, 32)
    geometry = sample_crop_pairs(2, (60, 70), crop, RandomStream(seed)).double()
    views = torch.empty(2, 2, *crop, 3, dtype=torch.float64)
    for view in range(2):
        for sample in range(2):
            for row in range(crop[0]):
                for column in range(crop[1]):
                    (y, x), (scene_y, scene_x) = scene_place(geometry[sample, view], row, column, *crop)
                    # Outside its window a view shows other content; it must not count.
                    garbage = 3.0 if min(y, x, crop[0] - 1 - y, crop[1] - 1 - x) < -1.5 else 0.0
                    logits = (math.sin(scene_y / 7), math.cos(scene_x / 6), garbage)
                    views[view, sample, row, column] = torch.tensor(logits, dtype=torch.float64).softmax(0)
    aligned = consistency(module, views[0], views[1], geometry)
    unaligned = consistency(module, views[0], views[1], geometry, aligned=False)
    assert aligned < 1e-4
    assert unaligned > 1e-2


@modules
@pytest.mark.parametrize("second", [(20.0, 0.0), (0.0, 30.0), (5.0, 0.0)])
def test_disjoint_views_give_exactly_zero(module, second):
    probs = RandomStream(5).normal((2, 1, 5, 6, 3), dtype=torch.float64).softmax(-1).requires_grad_()
    value = consistency(module, probs[0], probs[1], plain_views((0.0, 0.0), second))
    (gradient,) = torch.autograd.grad(value, probs)
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@modules
def test_a_singular_warp_gives_no_nan(module):
    probs = RandomStream(6).normal((2, 1, 5, 6, 3), dtype=torch.float64).softmax(-1).requires_grad_()
    geometry = plain_views((0.0, 0.0), (0.0, 0.0))
    geometry[0, 1, 2:8] = 0.0
    value = consistency(module, probs[0], probs[1], geometry)
    (gradient,) = torch.autograd.grad(value, probs)
    # View 2 shows one place everywhere, which lies in view 1; the way back has no answer.
    assert value > 0
    assert torch.isfinite(gradient).all()
    assert not gradient[0].any()


@modules
def test_hard_assignments_stay_finite(module):
    probs = torch.zeros(2, 1, 3, 3, 2, dtype=torch.float32)
    probs[0, ..., 0] = 1
    probs[1, ..., 1] = 1
    for aligned in (True, False):
        leaf = probs.clone().requires_grad_()
        value = consistency(module, leaf[0], leaf[1], plain_views((0.0, 0.0), (1.0, 0.0)), aligned=aligned)
        (gradient,) = torch.autograd.grad(value, leaf)
        torch.testing.assert_close(value.item(), math.log(1e6), rtol=1e-5, atol=0)
        assert torch.isfinite(gradient).all()


def test_places_go_there_and_back():
    """A view's pixels, taken to the scene and back into the same view, are where they were."""
    geometry = sample_crop_pairs(3, (40, 40), (9, 12), RandomStream(8)).double()
    places, valid = reference.aligned_places(geometry[:, 0], geometry[:, 0], (9, 12))
    grid = F.affine_grid(torch.eye(3, dtype=torch.float64)[:2].expand(3, 2, 3), [3, 1, 9, 12], align_corners=False)
    assert valid.any()
    torch.testing.assert_close(places[valid], grid[valid], rtol=0, atol=1e-12)
    # There into the other view and back again, through both warps.
    forth, valid = reference.aligned_places(geometry[:, 0], geometry[:, 1], (9, 12))
    theta, other = (geometry[:, view, 2:8].reshape(3, 2, 3) for view in range(2))
    in_window = torch.einsum("bij,bhwj->bhwi", other[:, :, :2], forth) + other[:, None, None, :, 2]
    offset = 2 * (geometry[:, 1, :2] - geometry[:, 0, :2]).flip(1) / torch.tensor([12, 9])
    back = in_window + offset[:, None, None] - theta[:, None, None, :, 2]
    back = torch.einsum("bij,bhwj->bhwi", torch.linalg.inv(theta[:, :, :2]), back)
    assert valid.any()
    torch.testing.assert_close(back[valid], grid[valid], rtol=0, atol=1e-12)
