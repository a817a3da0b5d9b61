"""Geometry of crop pairs, and their extraction."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import GOLDEN_RTOL, assert_close_to_max, assert_same_bits_at_any_number_of_threads, golden
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import RandomStream, ops, use_backend
from spectrafuse.ops.extract_crop_pairs import extract_crop_pairs
from spectrafuse.ops.sample_crop_pairs import sample_crop_pairs

backends = pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])


def identity_geometry(corners, band_shifts):
    """Geometry (B, 2, 9) without a warp."""
    corners, band_shifts = torch.tensor(corners), torch.tensor(band_shifts)
    theta = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]).expand(*corners.shape[:2], 6)
    return torch.cat((corners, theta, band_shifts.unsqueeze(-1)), dim=-1)


@backends
@pytest.mark.parametrize("name", ["dgc_crop_pair_0", "dgc_crop_pair_1"])
def test_golden(name, backend):
    values = golden(name)
    cube, size = values["cube"], tuple(values["crop_size"].tolist())
    batch = cube.shape[0]
    corners = values["offsets_y0x0y1x1"].reshape(batch, 2, 2).double()
    theta = values["theta"].reshape(2, batch, 6).transpose(0, 1)
    shifts = values["band_shifts"].reshape(2, batch, 1).transpose(0, 1).double()
    with use_backend(backend):
        plain = identity_geometry(corners.tolist(), torch.zeros(batch, 2).tolist())
        crops = extract_crop_pairs(cube, plain.double(), size)
        unshifted = extract_crop_pairs(cube, torch.cat((corners, theta, 0 * shifts), dim=-1), size)
        out = extract_crop_pairs(cube, torch.cat((corners, theta, shifts), dim=-1), size)
    assert_close_to_max(crops[:, 0], values["crops0"], GOLDEN_RTOL)
    assert_close_to_max(crops[:, 1], values["crops1"], GOLDEN_RTOL)
    assert_close_to_max(unshifted.transpose(0, 1).flatten(0, 1), values["warped"], GOLDEN_RTOL)
    assert_close_to_max(out, values["out"], GOLDEN_RTOL)


SHAPES = [
    ((2, 3, 11, 13), (5, 7)),
    ((1, 1, 1, 1), (1, 1)),
    ((3, 2, 8, 8), (8, 8)),
    ((1, 301, 9, 6), (4, 4)),
    ((2, 5, 6, 17), (11, 3)),
    ((2, 4, 5, 4), (9, 7)),
    ((1, 3, 1, 20), (1, 7)),
]


@pytest.mark.instruction_sets
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "crop_size"), SHAPES)
def test_implementations_agree_with_the_reference(shape, crop_size, seed):
    stream = RandomStream(seed)
    cubes = stream.normal(shape, dtype=torch.float64)
    # Beyond the usual ranges: large angles and translations reach far outside the crop.
    geometry = sample_crop_pairs(
        shape[0], shape[2:], crop_size, stream, degrees=170.0, translate=0.9, max_shift_bands=7
    )
    results = []
    for backend in ("reference", "torch", "cpu"):
        with use_backend(backend):
            results.append(extract_crop_pairs(cubes, geometry, crop_size))
    assert results[1].shape == (shape[0], 2, shape[1], *crop_size)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-12, atol=1e-13)


@backends
def test_translation_by_a_pixel_reflects_inside_the_crop(backend):
    cubes = RandomStream(1).normal((1, 2, 9, 10), dtype=torch.float64)
    geometry = identity_geometry([[[2.0, 3.0], [1.0, 4.0]]], [[0.0, 1.0]]).double()
    geometry[0, 0, 4] = 2 / 5  # one pixel of a width of 5, to the right
    geometry[0, 1, 7] = -2 * 2 / 4  # two pixels of a height of 4, upwards
    with use_backend(backend):
        out = extract_crop_pairs(cubes, geometry, (4, 5))
    first, second = cubes[0, :, 2:6, 3:8], cubes[0, :, 1:5, 4:9]
    torch.testing.assert_close(out[0, 0], first[:, :, [1, 2, 3, 4, 4]])
    torch.testing.assert_close(out[0, 1], second[:, [1, 0, 0, 1]].roll(1, dims=0))


@backends
def test_small_scenes_are_reflect_padded_at_the_bottom_and_right(backend):
    cubes = RandomStream(2).normal((1, 1, 3, 4), dtype=torch.float64)
    with use_backend(backend):
        out = extract_crop_pairs(cubes, identity_geometry([[[0.0, 0.0]] * 2], [[0.0, 0.0]]).double(), (5, 6))
    torch.testing.assert_close(out[0, 1], cubes[0][:, [0, 1, 2, 1, 0]][:, :, [0, 1, 2, 3, 2, 1]])


@backends
def test_strided_and_empty_inputs_and_no_gradient(backend):
    cubes = RandomStream(3).normal((2, 12, 13, 4), dtype=torch.float64)
    geometry = sample_crop_pairs(2, (12, 13), (5, 5), RandomStream(4))
    with use_backend(backend):
        strided = extract_crop_pairs(cubes.permute(0, 3, 1, 2), geometry, (5, 5))
        dense = extract_crop_pairs(
            cubes.permute(0, 3, 1, 2).contiguous().requires_grad_(), geometry.requires_grad_(), (5, 5)
        )
        empty = extract_crop_pairs(torch.empty(0, 3, 4, 4), torch.empty(0, 2, 9), (2, 2))
    assert not dense.requires_grad
    assert torch.equal(strided, dense)
    assert empty.shape == (0, 2, 3, 2, 2)


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bands", [3, 16, 21])
def test_views_are_written_where_and_as_wanted(backend, dtype, bands):
    cubes = RandomStream(3).normal((2, bands, 12, 13)).to(dtype)
    geometry = sample_crop_pairs(2, (12, 13), (5, 7), RandomStream(4))
    shape = (2, 2, bands, 5, 7)
    memory = torch.full((2, 2, 5, 7, 24), 9.0, dtype=dtype)
    layouts = {
        "bands last": memory[..., :bands].permute(0, 1, 4, 2, 3),
        "views first": torch.empty(2, 2, *shape[2:], dtype=dtype).transpose(0, 1),
        "wide": torch.empty(2, 2, bands, 5, 14, dtype=dtype)[..., ::2],
    }
    with use_backend(backend):
        expected = extract_crop_pairs(cubes, geometry, (5, 7))
        for name, out in layouts.items():
            assert extract_crop_pairs(cubes, geometry, (5, 7), out=out) is out
            assert torch.equal(out, expected), name
    assert (memory[..., bands:] == 9).all()


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrower_floats_are_rounded_once(dtype, backend):
    cubes = RandomStream(5).normal((2, 3, 12, 13)).to(dtype)
    geometry = sample_crop_pairs(2, (12, 13), (7, 5), RandomStream(6))
    with use_backend(backend):
        actual = extract_crop_pairs(cubes, geometry, (7, 5))
        expected = extract_crop_pairs(cubes.double(), geometry, (7, 5))
    assert actual.dtype == dtype
    tolerance = torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps
    assert_close_to_max(actual.double(), expected, tolerance)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cubes": torch.zeros(3, 4, 5)}, "`cubes` must be a tensor"),
        ({"cubes": torch.zeros(2, 3, 3, 9)}, "`cubes` must be of at least one band and 4 x 4 pixels"),
        ({"cubes": torch.zeros(2, 0, 9, 9)}, "`cubes` must be of at least one band"),
        ({"geometry": torch.zeros(1, 2, 9)}, r"`geometry` must be a tensor of shape \(2, 2, 9\)"),
        ({"out": torch.zeros(2, 2, 3, 6, 5)}, r"`out` must be of shape \(2, 2, 3, 6, 6\)"),
        ({"crop_size": (6,)}, "`crop_size` must be two integers"),
        ({"crop_size": (6, 0)}, r"`crop_size\[1\]` must be an integer of at least 1"),
    ],
)
def test_wrong_arguments_of_the_extraction(change, message):
    arguments = {"cubes": torch.zeros(2, 3, 9, 9), "geometry": torch.zeros(2, 2, 9), "crop_size": (6, 6)}
    with pytest.raises(ValueError, match=message):
        extract_crop_pairs(**{**arguments, **change})


def draw(batch=20_000, scene=(500, 600), crop=(40, 40), seed=0, **options):
    geometry = sample_crop_pairs(batch, scene, crop, RandomStream(seed), **options).double()
    assert geometry.shape == (batch, 2, 9)
    return geometry[..., :2], geometry[..., 2:8].reshape(batch, 2, 2, 3), geometry[..., 8]


def assert_mean(values, expected, deviations=5.0):
    """The sample mean lies within a few standard errors of the expected one."""
    error = values.std() / math.sqrt(values.numel())
    assert abs(values.mean() - expected) < deviations * error, (values.mean(), expected, error)


@pytest.mark.parametrize("seed", [0, 1])
def test_corners_are_uniform_and_overlap_as_drawn(seed):
    side = 40
    corners, _, _ = draw(seed=seed)
    first, second = corners[:, 0], corners[:, 1]
    room = torch.tensor([500.0 - side, 600.0 - side])
    assert torch.equal(corners, corners.round())
    assert (corners >= 0).all()
    assert (corners <= room).all()
    for axis in range(2):
        assert_mean(first[:, axis], room[axis] / 2)
        assert_mean((first[:, axis] - room[axis] / 2).square(), room[axis] * (room[axis] + 2) / 12)
    # Away from the border nothing is clamped.
    inner = ((first >= side) & (first <= room - side)).all(1)
    distance = (second - first)[inner].abs()
    assert distance.max() == math.ceil(0.8 * side) - 1
    fraction = torch.linspace(0.2, 0.8, 100_001, dtype=torch.float64)
    largest = ((1 - fraction) * side).floor()
    mean_distance = largest * (largest + 1) / (2 * largest + 1)
    assert_mean(distance[:, 0], mean_distance.mean())
    assert_mean(distance[:, 1], mean_distance.mean())
    # One fraction for both axes: with two, the product would have the mean mean_distance.mean() ** 2.
    assert_mean(distance[:, 0] * distance[:, 1], mean_distance.square().mean())
    assert_mean((second - first)[inner].flatten(), 0.0)


def test_every_corner_is_drawn_and_the_second_is_clamped():
    corners, _, _ = draw(scene=(13, 10), crop=(10, 10), batch=8000)
    frequency = torch.bincount(corners[:, 0, 0].long(), minlength=4) / 8000
    assert (frequency - 0.25).abs().max() < 0.03
    assert corners[:, 1, 0].unique().tolist() == [0, 1, 2, 3]
    # Most shifts exceed the room of 3, so clamping puts most second corners at the ends.
    assert ((corners[:, 1, 0] == 0) | (corners[:, 1, 0] == 3)).double().mean() > 0.5
    assert (corners[..., 1] == 0).all()


@pytest.mark.parametrize(("scene", "crop"), [((5, 30), (8, 8)), ((1, 1), (1, 1)), ((6, 6), (6, 6))])
def test_scenes_not_larger_than_the_crop(scene, crop):
    corners, _, _ = draw(batch=50, scene=scene, crop=crop)
    assert (corners[..., 0] == 0).all()
    assert corners[..., 1].max() <= max(scene[1] - crop[1], 0)


def test_warps_and_band_shifts():
    _, theta, shift = draw(crop=(32, 64), degrees=10.0, translate=0.1, scale_range=(0.9, 1.1))
    assert torch.equal(theta[..., 0, 0], theta[..., 1, 1])
    assert torch.equal(theta[..., 0, 1], -theta[..., 1, 0])
    angle = torch.atan2(theta[..., 1, 0], theta[..., 0, 0]) * 180 / math.pi
    scale = torch.hypot(theta[..., 1, 0], theta[..., 0, 0])
    translation = theta[..., 2]
    for values, low, high in ((angle, -10, 10), (scale, 0.9, 1.1), (translation, -0.2, 0.2)):
        slack = 1e-5 * (high - low)
        assert low - slack <= values.min() < low + 1e-3 * (high - low)
        assert high - 1e-3 * (high - low) < values.max() <= high + slack
        center = (low + high) / 2
        assert_mean(values.flatten(), center)
        assert_mean((values - center).square().flatten(), (high - low) ** 2 / 12)
        # The views are independent of each other.
        assert_mean((values[:, 0] - center) * (values[:, 1] - center), 0.0)
    frequency = torch.bincount(shift.long().flatten() + 2, minlength=5) / shift.numel()
    assert (frequency - 0.2).abs().max() < 0.02
    assert_mean(shift[:, 0] * shift[:, 1], 0.0)


def test_nothing_to_draw():
    corners, theta, shift = draw(
        batch=20, degrees=0.0, translate=0.0, scale_range=(1.0, 1.0), max_shift_bands=0, min_overlap=1.0,
        max_overlap=1.0,
    )  # fmt: skip
    assert torch.equal(corners[:, 0], corners[:, 1])
    assert torch.equal(theta, torch.eye(3, dtype=torch.float64)[:2].expand(20, 2, 2, 3))
    assert not shift.any()


def test_draws_depend_on_the_stream_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    stream = RandomStream(7)
    first, second = (sample_crop_pairs(4, (30, 30), (8, 8), stream) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dtype == torch.float32
    assert not torch.equal(first, second)
    assert torch.equal(first, sample_crop_pairs(4, (30, 30), (8, 8), RandomStream(7)))
    assert sample_crop_pairs(0, (30, 30), (8, 8), stream).shape == (0, 2, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": -1}, "`batch_size`"),
        ({"scene_size": (5,)}, "`scene_size`"),
        ({"crop_size": (5, 0)}, r"`crop_size\[1\]`"),
        ({"min_overlap": 0.9}, "`max_overlap` must be a finite number of at least 0.9"),
        ({"max_overlap": 1.1}, "`max_overlap`"),
        ({"degrees": -1.0}, "`degrees`"),
        ({"translate": float("nan")}, "`translate`"),
        ({"scale_range": (1.1, 0.9)}, r"`scale_range\[1\]`"),
        ({"scale_range": 1.0}, "`scale_range`"),
        ({"max_shift_bands": -1}, "`max_shift_bands`"),
    ],
)
def test_wrong_arguments_of_the_draw(change, message):
    arguments = {"batch_size": 2, "scene_size": (9, 9), "crop_size": (4, 4), "stream": RandomStream(0)}
    with pytest.raises(ValueError, match=message):
        sample_crop_pairs(**{**arguments, **change})


def test_the_stream_is_not_a_generator():
    with pytest.raises(TypeError, match="`stream` must be a RandomStream; got Generator"):
        sample_crop_pairs(2, (9, 9), (4, 4), torch.Generator())


def test_kernel_gives_the_same_bits_at_any_number_of_threads():
    cubes, stream = RandomStream(7).normal((3, 130, 20, 23)), RandomStream(8)
    geometry = sample_crop_pairs(3, (20, 23), (11, 13), stream)
    with use_backend("cpu"):
        assert_same_bits_at_any_number_of_threads(lambda: [extract_crop_pairs(cubes, geometry, (11, 13))])


def test_offsets_beyond_2_to_the_31():
    """Bands 2**31 elements apart, in scenes and views: the memory between them is reserved, never touched."""
    values, geometry = RandomStream(9).normal((1, 2, 9, 8)), sample_crop_pairs(1, (9, 8), (4, 5), RandomStream(2))
    stride = 2**31 + 16
    cubes = torch.empty(stride + 72).as_strided((1, 2, 9, 8), (0, stride, 8, 1))
    views = torch.empty(stride + 40).as_strided((1, 2, 2, 4, 5), (0, 20, stride, 5, 1))
    with use_backend("cpu"):
        extract_crop_pairs(cubes.copy_(values), geometry, (4, 5), out=views)
        assert torch.equal(views, extract_crop_pairs(values, geometry, (4, 5)))


@pytest.mark.parametrize(("column", "value"), [(0, 5.0), (1, -1.0), (3, float("nan"))])
def test_kernel_refuses_geometry_outside_the_scene(column, value):
    geometry = sample_crop_pairs(1, (8, 9), (4, 4), RandomStream(9))
    geometry[0, 1, column] = value
    with use_backend("cpu"), pytest.raises(ValueError, match="`geometry` must"):
        extract_crop_pairs(torch.zeros(1, 2, 8, 9), geometry, (4, 4))


@pytest.mark.slow
def test_opcheck_and_compile():
    cubes, geometry = RandomStream(1).normal((2, 3, 9, 10)), sample_crop_pairs(2, (9, 10), (4, 5), RandomStream(2))
    for out in (torch.empty(2, 2, 3, 4, 5), torch.empty(2, 2, 4, 5, 8)[..., :3].permute(0, 1, 4, 2, 3)):
        torch.library.opcheck(torch.ops.spectrafuse.extract_crop_pairs.default, (cubes, geometry, 4, 5, out))
    compiled = torch.compile(lambda c, g: extract_crop_pairs(c, g, (4, 5)), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(cubes, geometry), extract_crop_pairs(cubes, geometry, (4, 5)))


def test_what_its_kernels_do_not_take() -> None:
    geometry = torch.tensor([0.0, 0, 1, 0, 0, 0, 1, 0, 0]).expand(1, 2, 9)
    calls = {"not_float64": lambda: ops.extract_crop_pairs(*tensors((1, 2, 5, 6), **DOUBLE), geometry, (3, 3))}
    check_limits("extract_crop_pairs", calls)
