"""The training objective: every term, the alignment of the two views, the sums for the centers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from helpers import GOLDEN_GRADIENT_RTOL, GOLDEN_RTOL, assert_close_to_max, golden, state
from spectrafuse import RandomStream, use_backend
from spectrafuse.composed import clustering_objective as composed
from spectrafuse.ops.clustering_objective import ClusteringTerms, clustering_objective
from spectrafuse.ops.dense_mean_shift import dense_mean_shift
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs
from spectrafuse.reference import clustering_objective as reference
from spectrafuse.reference.encoder import encode
from spectrafuse.reference.mean_shift_assign import assign

backends = pytest.mark.parametrize("backend", ["reference", "torch"])
modules = pytest.mark.parametrize("module", [reference, composed], ids=["reference", "torch"])


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_golden_training_step(backend):
    values = golden("dgc_train_step")
    parameters = {name: value.clone().requires_grad_() for name, value in state(values, "state").items()}
    encoder = {name[8:]: value for name, value in parameters.items() if name.startswith("encoder.")}
    weights = values["config"]["loss_weights"]
    embeddings = torch.cat((encode(values["crop1"], encoder), encode(values["crop2"], encoder)))
    with use_backend(backend):
        terms = clustering_objective(
            embeddings,
            parameters["cluster.cluster_centers"],
            F.softplus(parameters["cluster.log_bandwidth"]),
            None,
            num_iters=5,
            aligned=False,
            pseudo_labels=torch.stack((values["pseudo_labels1"], values["pseudo_labels2"])),
            memory_order_sums=True,
        )
    for actual, key in zip(
        (*terms.compactness, terms.uniform, terms.orthogonality, terms.balance, terms.consistency),
        ("comp1", "comp2", "unif", "orth", "bal", "cons"),
        strict=True,
    ):
        assert_close_to_max(actual, values[f"loss.{key}"], GOLDEN_RTOL)
    assert_close_to_max(terms.probs, torch.cat((values["ema.p1"], values["ema.p2"])), GOLDEN_RTOL)
    probs = torch.cat([values[f"ema.p{view}"].reshape(-1, 5) for view in (1, 2)])
    rows = torch.cat([values[f"ema.z{view}"].reshape(-1, 16) for view in (1, 2)])
    assert_close_to_max(terms.mass, probs.sum(0), GOLDEN_RTOL)
    assert_close_to_max(terms.sums, probs.t() @ rows, GOLDEN_RTOL)

    total = (
        terms.compactness.sum()
        + weights["unif"] * terms.uniform
        + weights["orth"] * terms.orthogonality
        + weights["bal"] * terms.balance
        + weights["cons"] * terms.consistency
    )
    assert_close_to_max(total, values["total"], GOLDEN_RTOL)
    total.backward()
    for name, expected in state(values, "grad").items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert_close_to_max(gradient, expected, GOLDEN_GRADIENT_RTOL)


def draw(batch, crop, clusters, seed=0, dim=4, scene=None):
    """Embeddings, centers, bandwidth, geometry and pseudo-labels of a batch."""
    stream = RandomStream(seed)
    height, width = crop
    embeddings = stream.normal((2 * batch, dim, height, width), dtype=torch.float64)
    centers = F.normalize(stream.normal((clusters, dim), dtype=torch.float64), dim=1)
    geometry = sample_crop_pairs(batch, scene or (height + 3, width + 2), crop, stream, min_overlap=0.5).double()
    labels = stream.integers(0, clusters - 1, (2, batch * height * width))
    return F.normalize(embeddings, dim=1), centers, torch.tensor(0.9).double(), geometry, labels


CASES = [
    (1, (1, 1), 1),
    (1, (1, 1), 3),
    (2, (1, 7), 2),
    (1, (5, 1), 4),
    (3, (6, 5), 3),
    (1, (11, 13), 2),
]


@pytest.mark.parametrize("options", [{}, {"aligned": False}, {"dense": True}, {"memory_order_sums": True}])
@pytest.mark.parametrize(("batch", "crop", "clusters"), CASES)
def test_torch_agrees_with_reference(batch, crop, clusters, options):
    results = []
    for backend in ("reference", "torch"):
        *inputs, geometry, labels = draw(batch, crop, clusters, seed=batch + sum(crop))
        inputs = [t.requires_grad_() for t in inputs]
        with use_backend(backend):
            terms = clustering_objective(
                *inputs, geometry, num_iters=2, window=3, temperature=0.2, pseudo_labels=labels, **options
            )
        loss = sum((weight + 1) * term.sum() for weight, term in enumerate(terms[:5]))
        gradients = torch.autograd.grad(loss + terms.probs.square().sum(), inputs)
        results.append((*terms, *gradients))
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


@backends
def test_terms_by_their_formulas(backend):
    embeddings, centers, bandwidth, geometry, labels = draw(2, (4, 3), 3, seed=1)
    embeddings.requires_grad_()
    with use_backend(backend):
        terms = clustering_objective(embeddings, 1.3 * centers, bandwidth, geometry, pseudo_labels=labels)
        without_labels = clustering_objective(embeddings, 1.3 * centers, bandwidth, geometry)
        unaligned = clustering_objective(embeddings, 1.3 * centers, bandwidth, None, aligned=False)
        shifted = dense_mean_shift(embeddings, bandwidth, num_iters=2)
        dense = clustering_objective(embeddings, centers, bandwidth, geometry, num_iters=2, dense=True)
    assert isinstance(terms, ClusteringTerms)
    torch.testing.assert_close(dense.probs, assign(shifted, centers, 0.05))
    torch.testing.assert_close(dense.sums, torch.einsum("bhwk,bdhw->kd", dense.probs.detach(), shifted.detach()))
    probs = terms.probs.detach()
    torch.testing.assert_close(terms.mass, probs.sum((0, 1, 2)))
    assert not terms.mass.requires_grad
    assert not terms.sums.requires_grad
    assert without_labels.uniform.item() == 0
    for view in range(2):
        q, z = probs[2 * view : 2 * view + 2], embeddings[2 * view : 2 * view + 2]
        distance = (1 - torch.einsum("bdhw,kd->bhwk", z, 1.3 * centers)).clamp(min=0)
        torch.testing.assert_close(terms.compactness[view], (q * distance).sum() / (2 * 12))
        assert (distance == 0).any(), "the clamp is not exercised"
    likelihood = probs.reshape(-1, 3)[torch.arange(48), labels.reshape(-1)]
    torch.testing.assert_close(terms.uniform.detach(), -likelihood.clamp(min=1e-6).log().mean())
    marginal = probs.reshape(2, -1, 3).mean(1) + 1e-6
    torch.testing.assert_close(terms.balance.detach(), -(marginal * marginal.log()).sum(1).mean())
    views = probs.unflatten(0, (2, 2))
    torch.testing.assert_close(terms.consistency.detach(), aligned_by_loops(views, views, geometry)[0])
    torch.testing.assert_close(
        unaligned.consistency.detach(), divergence(probs[:2].flatten(0, 2), probs[2:].flatten(0, 2)) / 24
    )
    gram = 1.69 * centers @ centers.t()
    torch.testing.assert_close(terms.orthogonality, (gram - torch.eye(3)).square().sum())


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


def divergence(a, b):
    a, b = a + 1e-6, b + 1e-6
    return 0.5 * ((a * (a / b).log()).sum() + (b * (b / a).log()).sum())


def scene_place(view, row, column, height, width):
    """Place (y, x) of a view's pixel in its crop window, and in the scene: pixel by pixel, from the definition."""
    top, left, a, b, shift_x, c, d, shift_y, _ = view.tolist()
    x, y = (2 * column + 1) / width - 1, (2 * row + 1) / height - 1
    in_x = ((a * x + b * y + shift_x + 1) * width - 1) / 2
    in_y = ((c * x + d * y + shift_y + 1) * height - 1) / 2
    return (in_y, in_x), (in_y + top, in_x + left)


def view_pixel(view, place, height, width):
    """Inverse of `scene_place`: place in the view's crop window, and row and column in the view."""
    top, left, a, b, shift_x, c, d, shift_y, _ = view.tolist()
    in_y, in_x = place[0] - top, place[1] - left
    matrix = torch.tensor([[a, b], [c, d]], dtype=torch.float64)
    target = torch.tensor(
        [(2 * in_x + 1) / width - 1 - shift_x, (2 * in_y + 1) / height - 1 - shift_y], dtype=torch.float64
    )
    x, y = torch.linalg.solve(matrix, target).tolist()
    return (in_y, in_x), (((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2)


def read_bilinear(image, row, column):
    height, width = image.shape[:2]
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = math.floor(row), math.floor(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = row - top, column - left
    upper = (1 - u) * image[top, left] + u * image[top, right]
    lower = (1 - u) * image[bottom, left] + u * image[bottom, right]
    return (1 - v) * upper + v * lower


def aligned_by_loops(own, read, geometry):
    """The aligned consistency, pixel by pixel; `own` and `read` are the two views twice (2, B, h, w, K)."""
    _, batch, height, width, _ = own.shape

    def inside(place):
        return -0.5 <= place[0] <= height - 0.5 and -0.5 <= place[1] <= width - 0.5

    values = []
    for view in range(2):
        for sample in range(batch):
            for row in range(height):
                for column in range(width):
                    window, place = scene_place(geometry[sample, view], row, column, height, width)
                    other_window, pixel = view_pixel(geometry[sample, 1 - view], place, height, width)
                    if inside(window) and inside(other_window) and inside(pixel):
                        there = read_bilinear(read[1 - view, sample], *pixel)
                        values.append(divergence(own[view, sample, row, column], there))
    return (torch.stack(values).mean() if values else own.sum() * 0), len(values)


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


def plain_views(first, second):
    """Geometry (1, 2, 9) of two views without a warp."""
    theta = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    return torch.tensor([[[*first, *theta], [*second, *theta]]], dtype=torch.float64)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrower_floats(dtype):
    *inputs, geometry, labels = draw(2, (9, 8), 3, seed=2)
    rounded = [t.to(dtype) for t in inputs]
    rounded[0] = rounded[0].requires_grad_()
    with use_backend("torch"):
        actual = clustering_objective(*rounded, geometry.float(), temperature=1.0, pseudo_labels=labels)
        expected = clustering_objective(
            *(t.detach().double() for t in rounded), geometry, temperature=1.0, pseudo_labels=labels
        )
    for a, e in zip(actual, expected, strict=True):
        # The assignments are rounded to the narrow type before they enter the losses.
        assert_close_to_max(a.double(), e, 4 * torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps)
    actual.consistency.backward()
    assert rounded[0].grad is not None
    assert rounded[0].grad.dtype == dtype


@backends
def test_strided_inputs(backend):
    embeddings, centers, bandwidth, geometry, labels = draw(2, (5, 4), 3, seed=3)
    strided = embeddings.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    with use_backend(backend):
        for options in ({}, {"memory_order_sums": True}):
            expected = clustering_objective(embeddings, centers, bandwidth, geometry, pseudo_labels=labels, **options)
            actual = clustering_objective(strided, centers, bandwidth, geometry, pseudo_labels=labels, **options)
            for a, e in zip(actual, expected, strict=True):
                torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embeddings": torch.zeros(3, 2, 4, 4)}, ValueError, r"`embeddings` must be of shape \(2B, D, h, w\)"),
        ({"embeddings": torch.zeros(0, 2, 4, 4)}, ValueError, "at least one pair of views"),
        ({"centers": torch.zeros(3, 5)}, ValueError, r"`centers` must be of shape \(K, 2\)"),
        ({"centers": torch.zeros(3, 2).double()}, TypeError, "`centers` must have dtype"),
        ({"geometry": None}, ValueError, "`geometry` must be given where aligned=True"),
        ({"geometry": torch.zeros(1, 2, 9)}, ValueError, r"`geometry` must be of shape \(2, 2, 9\)"),
        ({"pseudo_labels": torch.zeros(2, 31, dtype=torch.int64)}, ValueError, r"of shape \(2, 32\)"),
        ({"pseudo_labels": torch.zeros(2, 32)}, TypeError, "`pseudo_labels` must have one of the dtypes int64"),
        ({"temperature": 0.0}, ValueError, "`temperature`"),
    ],
)
def test_wrong_arguments(change, error, message):
    arguments = {
        "embeddings": torch.zeros(4, 2, 4, 4),
        "centers": torch.zeros(3, 2),
        "bandwidth": torch.tensor(1.0),
        "geometry": torch.zeros(2, 2, 9),
    }
    with pytest.raises(error, match=message):
        clustering_objective(**{**arguments, **change})
