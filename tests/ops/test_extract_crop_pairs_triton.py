"""The Triton kernel that cuts both views, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from helpers import TRITON_DEVICE, assert_close_to_max
from spectrafuse import BackendUnavailableError, RandomStream, use_backend
from spectrafuse.ops import extract_crop_pairs, sample_crop_pairs

RTOL = 64 * torch.finfo(torch.float32).eps
"""Places are computed in float32: in pixels they are known to the crop's width times its rounding."""


def draw(shape, crop_size, dtype=torch.float32):
    stream = RandomStream(sum(shape))
    cubes = stream.normal(shape, dtype=torch.float64).to(dtype).to(TRITON_DEVICE)
    # Beyond the usual ranges: large angles and translations reach far outside the crop.
    geometry = sample_crop_pairs(
        shape[0], shape[2:], crop_size, stream, degrees=170.0, translate=0.9, max_shift_bands=7
    )
    return cubes, geometry.to(TRITON_DEVICE)


def extract(backend, cubes, geometry, crop_size, out=None):
    with use_backend(backend):
        return extract_crop_pairs(cubes, geometry, crop_size, out=out)


def assert_agrees(cubes, geometry, crop_size, rtol=RTOL):
    actual = extract("triton", cubes, geometry, crop_size)
    assert actual.dtype == cubes.dtype
    expected = extract("reference", cubes.double(), geometry.double(), crop_size)
    assert_close_to_max(actual.double(), expected, rtol)


@pytest.mark.parametrize(
    ("shape", "crop_size"),
    [
        ((1, 1, 1, 1), (1, 1)),
        ((2, 3, 1, 9), (1, 5)),
        ((2, 17, 13, 11), (7, 5)),  # prime sizes, one band more than a program takes
        ((1, 5, 6, 30), (8, 8)),  # the crop is larger than the scene
        ((3, 4, 20, 20), (16, 16)),
    ],
)
def test_agrees_with_reference(shape, crop_size):
    assert_agrees(*draw(shape, crop_size), crop_size)


def test_places_far_outside_the_crop_and_shifts_beyond_the_bands():
    cubes, geometry = draw((1, 5, 12, 12), (8, 8))
    geometry[0, 0, 2:8] = torch.tensor([3.0, 1.5, -2.0, -1.0, 4.0, 0.5])
    geometry[0, :, 8] = torch.tensor([-13.0, 27.0])
    assert_agrees(cubes, geometry, (8, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_rounded_once(dtype):
    assert_agrees(*draw((1, 4, 9, 9), (6, 6), dtype), (6, 6), rtol=torch.finfo(dtype).eps)


def test_strides_of_scene_and_views():
    cubes, geometry = draw((2, 5, 12, 10), (6, 7))
    expected = extract("triton", cubes, geometry, (6, 7))
    interleaved = cubes.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(extract("triton", interleaved, geometry, (6, 7)), expected)
    transposed = cubes.transpose(2, 3).contiguous().transpose(2, 3)
    channels_last = torch.empty(2, 2, 6, 7, 5, device=TRITON_DEVICE).permute(0, 1, 4, 2, 3)
    assert extract("triton", transposed, geometry, (6, 7), out=channels_last) is channels_last
    assert torch.equal(channels_last, expected)
    one_row_for_all = cubes[:, :, :1].expand(cubes.shape)
    assert torch.equal(
        extract("triton", one_row_for_all, geometry, (6, 7)),
        extract("triton", one_row_for_all.contiguous(), geometry, (6, 7)),
    )


def test_offsets_beyond_two_to_the_31():
    """The two bands lie further apart than a 32-bit offset reaches; the memory between them is never touched."""
    values, geometry = draw((1, 2, 6, 6), (4, 4), torch.float16)
    stride = 2**31 + 5
    memory = torch.empty(stride + 36, dtype=torch.float16, device=TRITON_DEVICE)
    cubes = memory.as_strided((1, 2, 6, 6), (0, stride, 6, 1))
    cubes.copy_(values)
    assert torch.equal(extract("triton", cubes, geometry, (4, 4)), extract("triton", values, geometry, (4, 4)))


def test_corners_outside_the_scene_read_nothing_outside():
    """Where the geometry is on the device it cannot be checked; its places are kept inside."""
    cubes, geometry = draw((1, 3, 8, 8), (4, 4))
    geometry[0, :, :2] = torch.tensor([[1e6, -7.0], [40.0, 9.0]])
    views = extract("triton", cubes, geometry, (4, 4))
    assert torch.isfinite(views).all()
    assert views.abs().max() <= cubes.abs().max()


def test_nothing_in_nothing_out_and_float64():
    cubes, geometry = draw((2, 3, 8, 8), (4, 4))
    assert extract("triton", cubes[:0], geometry[:0], (4, 4)).shape == (0, 2, 3, 4, 4)
    with pytest.raises(BackendUnavailableError, match="float64"):
        extract("triton", cubes.double(), geometry, (4, 4))


@pytest.mark.slow
def test_registration_and_compile():
    cubes, geometry = draw((2, 3, 9, 9), (4, 5))
    with use_backend("triton"):
        torch.library.opcheck(
            torch.ops.spectrafuse.extract_crop_pairs,
            (cubes, geometry, 4, 5, torch.empty(2, 2, 3, 4, 5, device=TRITON_DEVICE)),
        )
        compiled = torch.compile(lambda c, g: extract_crop_pairs(c, g, (4, 5)) * 2, fullgraph=True)
        assert torch.equal(compiled(cubes, geometry), 2 * extract_crop_pairs(cubes, geometry, (4, 5)))
