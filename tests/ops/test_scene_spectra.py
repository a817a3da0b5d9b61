"""Spectra laid side by side and normalised: the kernel against plain PyTorch, for every type, layout and method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import assert_same_bits_at_any_number_of_threads
from helpers.limits import DOUBLE, check_limits, tensors
from spectrafuse import ops, use_backend
from spectrafuse.dgc.normalise import METHODS as NORMALIZATIONS
from spectrafuse.dgc.normalise import Normalization
from spectrafuse.dgc.prediction.strips import read_strips
from spectrafuse.io.cubes import open_cube
from spectrafuse.io.mapped import MappedArray
from spectrafuse.ops import scene_spectra

METHODS = ["none", "unit", "snv"]
SHAPES = [(1, 1, 1), (5, 1, 7), (17, 3, 269), (16, 2, 4), (33, 261, 2), (4, 0, 3)]
ORDERS = [(0, 1, 2), (0, 2, 1), (1, 2, 0), (1, 0, 2)]
TYPES = ["float32", "float64", "int16", "uint16", "uint8", ">f4", "int32"]


def stored(shape: tuple[int, ...], order: tuple[int, ...], kind: str, seed: int = 0) -> np.ndarray:
    """Numbers whose axes lie in memory in this order, seen as (C, H, W)."""
    values = np.random.default_rng(seed).integers(0, 200, [shape[axis] for axis in order]).astype(kind)
    return values.transpose(np.argsort(order))


def check(shape: tuple[int, ...], order: tuple[int, ...], kind: str, method: str) -> None:
    bands, height, width = shape
    cube = stored(shape, order, kind)
    rng = torch.Generator().manual_seed(1)
    statistics = [torch.rand(bands, 1, 1, generator=rng, dtype=torch.float64) + 0.5 for _ in range(2)]
    for given in ([], statistics):
        for filled in {bands, -(-bands // 16) * 16, bands + 3}:
            with use_backend("reference"):
                expected = scene_spectra(cube, torch.empty(height, width, filled), method, *given)
            result = scene_spectra(cube, torch.full((height, width, filled), 7.0), method, *given)
            # Sums of `bands` squares, a square root, three divisions.
            torch.testing.assert_close(result, expected, rtol=(4 + bands) * 6e-8, atol=(4 + bands) * 6e-8)
            assert (result[..., bands:] == 0).all()


@pytest.mark.instruction_sets
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TYPES)
def test_agrees_with_plain_pytorch(kind: str, method: str) -> None:
    for shape in SHAPES:
        for order in ORDERS:
            check(shape, order, kind, method)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_at_the_ends_of_the_range(method: str) -> None:
    cube = torch.rand(19, 3, 5) + 0.1
    cube[:, 0, 0] = 0
    cube[:, 0, 1] = 0.3
    for factor in (1e-38, 1e-20, 1.0, 1e18):
        scaled = cube * factor
        with use_backend("torch"):
            expected = scene_spectra(scaled, torch.empty(3, 5, 19), method)
        result = scene_spectra(scaled, torch.empty(3, 5, 19), method)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6 if method != "none" else 0)
        assert (result[0, 0] == 0).all()


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("method", ["unit", "snv"])
def test_the_unit_of_the_numbers_does_not_matter(method: str, backend: str) -> None:
    cube = torch.rand(19, 3, 5) + 0.1
    with use_backend(backend):
        expected = scene_spectra(cube, torch.empty(3, 5, 19), method)
        for factor in (1e-30, 1e-18, 1e18, 1e37):
            result = scene_spectra(cube * factor, torch.empty(3, 5, 19), method)
            torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    cube = torch.rand(40, 13, 600)
    assert_same_bits_at_any_number_of_threads(lambda: [scene_spectra(cube, torch.empty(13, 600, 48), "unit")])


def test_offsets_beyond_2_to_the_31() -> None:
    """Bands 2**31 numbers apart: the memory between them is reserved, never touched."""
    cube = torch.rand(2, 3, 5)
    far = torch.empty(2**31 + 16 + 15).as_strided((2, 3, 5), (2**31 + 16, 5, 1)).copy_(cube)
    out = torch.empty(2**31 + 256).as_strided((3, 5, 16), (16, 2**29 + 48, 1))
    assert torch.equal(scene_spectra(far, out, "unit"), scene_spectra(cube, torch.empty(3, 5, 16), "unit"))


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalization_gives_the_same_both_ways(name: str, dtype: torch.dtype) -> None:
    cube = torch.rand(6, 5, 9, dtype=dtype) + 0.1
    fitted = Normalization(name).fit(cube)
    spectra = fitted.spectra(cube, torch.empty(5, 9, 16, dtype=dtype))
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(
        spectra[..., :6].permute(2, 0, 1), fitted.transform(cube), rtol=tolerance, atol=tolerance
    )


def test_what_is_refused() -> None:
    cube = torch.rand(3, 4, 5)
    with pytest.raises(ValueError, match="`method` must be one of 'none', 'unit', 'snv'"):
        scene_spectra(cube, torch.empty(4, 5, 3), "l1")
    for wrong in (torch.empty(4, 5, 2), torch.empty(5, 4, 3), torch.empty(4, 3, 5).transpose(1, 2)):
        with pytest.raises(ValueError, match="`out` must be of shape \\(4, 5, at least 3\\)"):
            scene_spectra(cube, wrong)
    with use_backend("cpu"), pytest.raises(RuntimeError, match="it writes float32, not torch.float64"):
        scene_spectra(cube, torch.empty(4, 5, 3, dtype=torch.float64))


def test_opcheck_and_compile() -> None:
    cube, statistics = torch.rand(5, 3, 4), [torch.rand(5, 1, 1) + 0.5 for _ in range(2)]
    for out in (torch.empty(3, 4, 16), torch.empty(3, 4, 5)):
        torch.library.opcheck(torch.ops.spectrafuse.scene_spectra.default, (cube, out, "unit", *statistics))
    compiled = torch.compile(
        lambda x: scene_spectra(x, torch.empty(3, 4, 16), "snv", *statistics), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(cube), scene_spectra(cube, torch.empty(3, 4, 16), "snv", *statistics))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["<f4", "<u2", ">i2"])
def test_strips_of_a_mapped_file(order: tuple, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (37, 11, 6)
    cube = stored(shape, order, kind, seed=3)
    lying = np.ascontiguousarray(cube.transpose(order))
    path = tmp_path / "scene.bin"
    path.write_bytes(b"head" + lying.tobytes())
    mapped = MappedArray.contiguous(path, kind, 4, lying.shape).transpose(*np.argsort(order))
    places = list(mapped.pieces((slice(None), slice(2, 9)), 1 << 20, 16))
    assert {place[0].start % 16 for place, _ in places} == {0}
    # Pieces of a few numbers: along two axes where sixteen bands are too many.
    monkeypatch.setattr("spectrafuse.io.mapped._GAP_BYTES", 16)
    assert len(list(mapped.pieces((slice(None), slice(2, 9)), 800, 16))) > 2
    np.testing.assert_array_equal(mapped[:, 2:9], cube[:, 2:9])

    class Scene:
        scale = 4.0

        def __init__(self) -> None:
            self.mapped = mapped

    strips = [(0, 5), (3, 8), (7, 11)]
    for (first, last), block in zip(strips, read_strips(Scene(), strips, 0, 800), strict=True):
        expected = cube[:, first:last].astype(np.float32).reshape(37, 1, -1) / 4
        np.testing.assert_array_equal(block.numpy(), expected)


def test_files_whose_numbers_are_not_those_of_the_scene_are_read_otherwise(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 5, 6), dtype=np.float32)
    np.save(tmp_path / "scene.npy", values)
    assert open_cube(tmp_path / "scene.npy", layout="chw").mapped is not None
    values[:, 2, 3] = np.nan
    np.save(tmp_path / "gaps.npy", values)
    assert open_cube(tmp_path / "gaps.npy", layout="chw", nodata=np.nan).mapped is None


def test_what_its_kernels_do_not_take() -> None:
    def spectra(stored: Any, out: torch.dtype = torch.float32) -> torch.Tensor:
        return ops.scene_spectra(stored, torch.empty(4, 5, 3, dtype=out), "unit")

    calls = {
        "stored_numbers": lambda: spectra(np.ones((3, 4, 5), ">f4")),
        "wide_normalization": lambda: spectra(*tensors((3, 4, 5), **DOUBLE)),
        "wide_results": lambda: spectra(*tensors((3, 4, 5)), out=torch.float64),
    }
    check_limits("scene_spectra", calls)
