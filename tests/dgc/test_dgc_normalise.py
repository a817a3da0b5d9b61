"""Normalisation: golden values, statistics by blocks of rows, and data that divide by zero elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import GOLDEN_RTOL, assert_close_to_max, golden
from spectrafuse.dgc import normalise
from spectrafuse.dgc.normalise import METHODS, Normalization
from spectrafuse.io.errors import DataError


def cube(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype) + 0.1


@pytest.mark.parametrize("method", ["meanstd", "minmax"])
def test_golden(method: str) -> None:
    values = golden("dgc_metrics")
    batch = values["cube"]
    assert_close_to_max(Normalization(method).fit(batch).transform(batch), values[method], GOLDEN_RTOL)
    if method == "meanstd":
        one = Normalization(method).fit(batch[1]).transform(batch[1])
        assert_close_to_max(one, values[method][1], GOLDEN_RTOL)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(5, 7, 3), (3, 1, 11), (1, 4, 4)])
def test_blocks_of_rows_give_the_same_statistics(
    method: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = cube(1, shape)
    whole = Normalization(method).fit(x).transform(x)
    monkeypatch.setattr(normalise, "_BLOCK_VALUES", 1)
    by_rows = Normalization(method).fit(x.numpy())
    strips = torch.cat([by_rows.transform(x.numpy()[:, r : r + 1]) for r in range(shape[1])], dim=1)
    torch.testing.assert_close(strips, whole, rtol=1e-12, atol=1e-12)


def test_what_the_methods_do() -> None:
    x = cube(2, (6, 5, 4))
    torch.testing.assert_close(Normalization("unit").transform(x).norm(dim=0), torch.ones(5, 4, dtype=torch.float64))
    snv = Normalization("snv").transform(x)
    torch.testing.assert_close(snv.mean(0), torch.zeros(5, 4, dtype=torch.float64))
    torch.testing.assert_close(snv.std(0), torch.ones(5, 4, dtype=torch.float64))
    both = Normalization("unit+meanstd").fit(x).transform(x)
    unit = Normalization("unit").transform(x)
    torch.testing.assert_close(both, Normalization("meanstd").fit(unit).transform(unit))


def test_noise_does_not_lengthen_a_signal() -> None:
    """Two materials of one shape each, in noise as strong as they are: only their signal is made equally long."""
    drawn = np.random.default_rng(20)
    shapes = np.stack([np.linspace(1, 2, 60), np.linspace(2, 1, 60)])
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True)
    which = (np.arange(40) // 20)[None, :].repeat(40, axis=0)
    noise = 0.05 + 0.2 * (np.arange(40)[:, None] < 20)
    x = torch.from_numpy(shapes[which].transpose(2, 0, 1) + noise * drawn.normal(size=(60, 40, 40)))
    fitted = Normalization("signal+meanstd").fit(x)
    assert fitted.signal is not None
    assert fitted.offset is not None
    assert fitted.scale is not None
    divided = fitted.transform(x) * fitted.scale + fitted.offset
    lengths = torch.from_numpy(shapes[which]).permute(2, 0, 1).mul(divided).sum(0)
    noisy, clean = lengths[:20].mean(), lengths[20:].mean()
    assert abs(noisy - clean) < 0.15
    unit = Normalization("unit").transform(x)
    lengths = torch.from_numpy(shapes[which]).permute(2, 0, 1).mul(unit).sum(0)
    assert abs(lengths[:20].mean() - lengths[20:].mean()) > 0.3
    rows = torch.empty(40, 40, 64)
    fitted.spectra(x.float(), rows)
    torch.testing.assert_close(rows[..., :60].permute(2, 0, 1), fitted.transform(x.float()), rtol=1e-4, atol=1e-4)
    assert (rows[..., 60:] == 0).all()


@pytest.mark.parametrize("method", ["unit", "snv", "unit+meanstd"])
def test_illumination_is_removed(method: str) -> None:
    x = cube(3, (6, 5, 4))
    lit = x * torch.rand(5, 4, dtype=torch.float64).add(0.5)
    assert_close_to_max(Normalization(method).fit(lit).transform(lit), Normalization(method).fit(x).transform(x), 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 1, 1), (5, 6, 7)])
def test_degenerate_data_stay_finite(method: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = cube(4, shape, dtype)
    x[0] = 0.1  # a constant band
    x[:, 0, 0] = 0.0  # a spectrum without signal
    x[-1] *= 1e30 if dtype == torch.float64 else 1e18
    for variant in (x, torch.zeros_like(x), torch.full_like(x, 0.3), x * 1e-20):
        out = Normalization(method).fit(variant).transform(variant)
        assert out.dtype == dtype
        assert out.isfinite().all()


def test_degenerate_values() -> None:
    constant_band = cube(5, (3, 4, 4), torch.float32)
    constant_band[1] = 0.1
    for method in ("meanstd", "minmax"):
        assert (Normalization(method).fit(constant_band).transform(constant_band)[1] == 0).all()
    pixel = cube(6, (5, 1, 1))
    for method in ("meanstd", "minmax", "unit+meanstd"):
        assert (Normalization(method).fit(pixel).transform(pixel).abs() < 1e-9).all()
    flat = torch.full((7, 2, 2), 0.1)
    assert (Normalization("snv").transform(flat) == 0).all()
    assert (Normalization("unit").transform(torch.zeros(7, 2, 2)) == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e9, 1e30])
def test_the_unit_of_a_scene_does_not_matter(method: str, factor: float) -> None:
    x = cube(8, (5, 6, 7), torch.float32)
    x[1] = 0.3
    expected = Normalization(method).fit(x).transform(x)
    found = Normalization(method).fit(x * factor).transform(x * factor)
    # The 1e-6 of a scene whose bands vary by 0.3 or so; a band without noise, whose floor is 1e-4 of others', rounded.
    tolerance = 2e-3 if method == "signal+meanstd" else 2e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_that_float32_can_hardly_hold(method: str) -> None:
    x = cube(8, (5, 6, 7), torch.float32) * 1e-40
    if method in ("meanstd", "minmax"):
        with pytest.raises(DataError, match="another unit"):
            Normalization(method).fit(x)
    else:
        assert Normalization(method).fit(x).transform(x).isfinite().all()


def test_state_and_errors() -> None:
    x = cube(7, (4, 5, 6))
    fitted = Normalization("minmax").fit(x)
    torch.testing.assert_close(Normalization(**fitted.state).transform(x), fitted.transform(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no statistics yet"):
        Normalization("meanstd").transform(x)
    with pytest.raises(ValueError, match="`normalization` must be one of"):
        Normalization("whiten")
    with pytest.raises(ValueError, match="without empty axes"):
        Normalization("meanstd").fit(torch.zeros(3, 0, 4))


@pytest.mark.parametrize("dtype", [np.uint16, ">i2", np.float16, ">f4"])
def test_arrays_of_any_number_type_become_float32(dtype: str) -> None:
    x = np.arange(24).reshape(2, 3, 4).astype(dtype)
    out = Normalization("meanstd").fit(x).transform(x)
    assert out.dtype == torch.float32
    expected = x.astype(np.float64)
    expected = (expected - expected.mean((1, 2), keepdims=True)) / (expected.std((1, 2), ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5)


def test_read_only_arrays_and_non_contiguous_views() -> None:
    x = np.random.default_rng(0).random((5, 6, 4)).astype(np.float32)
    x.flags.writeable = False
    view = x.transpose(2, 0, 1)
    out = Normalization("unit").fit(view).transform(view)
    torch.testing.assert_close(out, Normalization("unit").transform(view.copy()))
