"""What neighbours tell: distances and roughness against loops over pixels, and an average that keeps borders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from spectrafuse.dgc.neighbours import neighbour_distances, roughness, smoothed
from spectrafuse.random import RandomStream

SHAPES = [(1, 3, 1, 1), (2, 1, 1, 5), (1, 4, 7, 1), (2, 3, 5, 6)]


def drawn(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, not contiguous, and pixels with data."""
    images = RandomStream(sum(shape)).normal((shape[0], *shape[2:], shape[1])).permute(0, 3, 1, 2)
    return images, RandomStream(1).uniform((shape[0], *shape[2:])) < 0.7


def pairs(valid: torch.Tensor) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """Image and places of all neighbours that both have data."""
    batch, height, width = valid.shape
    return [
        (b, (y, x), other)
        for b, y, x in itertools.product(range(batch), range(height), range(width))
        for other in ((y + 1, x), (y, x + 1))
        if other[0] < height and other[1] < width and valid[b, y, x] and valid[b][other]
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_and_roughness_of_every_pixel(shape: tuple[int, ...]) -> None:
    images, valid = drawn(shape)
    distances: list[float] = []
    squares: dict[tuple[int, ...], list[float]] = {}
    for b, one, other in pairs(valid):
        distance = math.dist(*(images[b, :, y, x].tolist() for y, x in (one, other)))
        distances.append(distance)
        for place in (one, other):
            squares.setdefault((b, *place), []).append(distance**2)
    found = neighbour_distances(images, valid).sort().values
    torch.testing.assert_close(found, torch.tensor(sorted(distances), dtype=found.dtype))
    expected = torch.zeros(valid.shape)
    for place, values in squares.items():
        expected[place] = sum(values) / len(values)
    torch.testing.assert_close(roughness(images, valid), expected)
    everywhere = torch.ones_like(valid)
    torch.testing.assert_close(neighbour_distances(images), neighbour_distances(images, everywhere))


def test_alike_neighbours_are_averaged_and_borders_stay() -> None:
    constant = torch.full((1, 2, 4, 5), 0.2)
    torch.testing.assert_close(smoothed(constant, torch.tensor(0.3), 5), constant, rtol=1e-5, atol=0)
    noise = 0.1 * RandomStream(5).normal((1, 2, 30, 40))
    step = torch.zeros(1, 2, 30, 40)
    step[..., 20:] = 3
    averaged = smoothed(step + noise, torch.tensor(0.3), 5)
    left = (averaged - step).std() / noise.std()
    assert left < 0.4
    # The columns at the border no more than others, and those at the end of the image neither.
    for columns in ((19, 20), (0, 39)):
        assert (averaged - step)[..., columns].std() / noise.std() < 0.6
        assert (averaged - step)[..., columns].abs().max() < 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_without_data_have_no_influence(shape: tuple[int, ...]) -> None:
    images, valid = drawn(shape)
    images = 5 + images
    spoiled = torch.where(valid.unsqueeze(1), images, -1e6)
    first, second = (smoothed(x, torch.tensor(2.0), 3, valid) for x in (images, spoiled))
    kept = valid.unsqueeze(1).expand_as(images)
    assert torch.equal(first[kept], second[kept])
    whole = smoothed(images, torch.tensor(2.0), 3)
    assert shape[2:] == (1, 1) or not torch.allclose(first[kept], whole[kept])
