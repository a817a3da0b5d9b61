"""Inputs of the training objective, and its terms pixel by pixel from their definitions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from helpers import seeds
from spectrafuse import RandomStream, use_backend
from spectrafuse.ops.clustering_objective import clustering_objective
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs


def draw(batch, crop, clusters, seed=0, dim=4, scene=None):
    """Embeddings, centers, bandwidth, geometry and pseudo-labels of a batch."""
    stream = RandomStream(seed)
    height, width = crop
    embeddings = stream.normal((2 * batch, dim, height, width), dtype=torch.float64)
    centers = F.normalize(stream.normal((clusters, dim), dtype=torch.float64), dim=1)
    geometry = sample_crop_pairs(batch, scene or (height + 3, width + 2), crop, stream, min_overlap=0.5).double()
    labels = stream.integers(0, clusters - 1, (2, batch * height * width))
    return F.normalize(embeddings, dim=1), centers, torch.tensor(0.9).double(), geometry, labels


def draw_valid(embeddings, seed, share=0.6):
    """Valid pixels at random: neighbours must be among both kinds."""
    views, _, height, width = embeddings.shape
    return RandomStream(seed).uniform((views, height, width)) < share


def divergence(a, b):
    a, b = a + 1e-6, b + 1e-6
    return 0.5 * ((a * (a / b).log()).sum() + (b * (b / a).log()).sum())


def plain_views(first, second):
    """Geometry (1, 2, 9) of two views without a warp."""
    theta = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    return torch.tensor([[[*first, *theta], [*second, *theta]]], dtype=torch.float64)


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


def aligned_by_loops(own, read, geometry, valid=None):
    """The aligned consistency, pixel by pixel; `own` and `read` are the two views twice (2, B, h, w, K)."""
    _, batch, height, width, _ = own.shape
    missing = torch.zeros(2, batch, height, width, 1) if valid is None else (~valid).float().unsqueeze(-1)

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
                        if missing[view, sample, row, column] or read_bilinear(missing[1 - view, sample], *pixel):
                            continue
                        there = read_bilinear(read[1 - view, sample], *pixel)
                        values.append(divergence(own[view, sample, row, column], there))
    return (torch.stack(values).mean() if values else own.sum() * 0), len(values)


VARIANTS = {
    "corrected": {},
    "published": {"aligned": False, "memory_order_sums": True},
    "masked": {"masked": True},
    "published, masked": {"aligned": False, "memory_order_sums": True, "masked": True},
}
TEMPERATURE = 0.2


def inputs(pairs, dim, height, width, clusters, dtype=torch.float64, seed=None):
    """Fresh random inputs."""
    seed = seeds.fresh_seed() if seed is None else seed
    embeddings, centers, bandwidth, geometry, labels = draw(max(pairs, 1), (height, width), clusters, seed, dim)
    leaves = [x.to(dtype) for x in (embeddings[: 2 * pairs], centers, bandwidth)]
    labels = labels[:, : pairs * height * width]
    valid = draw_valid(leaves[0], seed + 1)
    upstream = torch.randn(*leaves[0].shape[:1], height, width, clusters, dtype=torch.float64).to(dtype)
    return leaves, {"geometry": geometry[:pairs], "pseudo_labels": labels}, valid, upstream


def evaluate(backend, leaves, keywords, valid, upstream, *, masked=False, **options):
    """All outputs but the counts, and the gradients of a weighted sum of the terms and of the assignments."""
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    options = {"temperature": TEMPERATURE, **keywords, "valid": valid if masked else None, **options}
    with use_backend(backend):
        terms = clustering_objective(*leaves, **options)
        loss = sum((weight + 1) * term.sum() for weight, term in enumerate(terms[:5])) + (terms.probs * upstream).sum()
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [x.detach() for x in (*terms[:-1], *gradients)]
