"""`check_cube` and `check_spectra`: what is let through unchanged, and the sentence for everything else."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers import seeds
from spectrafuse.io.errors import DataError
from spectrafuse.io.validate import check_cube, check_spectra


def random(shape: tuple[int, ...], dtype: str = "float64") -> np.ndarray:
    return (seeds.generator().random(shape) * 100 + 1).astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint16", "int64", ">f8", "uint8"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (3, 1, 11)])
def test_cube_as_float32(shape: tuple[int, int, int], dtype: str) -> None:
    given_ = random(shape, dtype)
    before = given_.copy()
    got = check_cube("X", given_)
    assert got.dtype == np.float32
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, before.astype(np.float32))
    np.testing.assert_array_equal(given_, before)


def test_cube_that_fits_is_not_copied() -> None:
    given_ = random((3, 4, 5), "float32")
    assert np.shares_memory(check_cube("X", given_), given_)


def test_not_contiguous() -> None:
    given_ = random((6, 5, 4))
    for view in (given_.transpose(2, 0, 1), given_[::-2], given_[:, :, ::-1]):
        np.testing.assert_array_equal(check_cube("X", view), np.array(view, dtype=np.float32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int16])
def test_tensors_and_lists(dtype: torch.dtype) -> None:
    tensor = torch.arange(1, 9).reshape(2, 2, 2).to(dtype)
    np.testing.assert_array_equal(check_cube("X", tensor).ravel(), np.arange(1, 9))
    np.testing.assert_array_equal(check_spectra("X", [[1, 2], [3, 4]]), [[1, 2], [3, 4]])


def test_tensor_that_requires_grad() -> None:
    assert check_spectra("X", torch.ones(2, 3, requires_grad=True)).shape == (2, 3)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((3, 4)), "a cube (bands, rows, columns); got 2 dimensions, shape (3, 4)"),
        (np.ones((1, 2, 3, 4)), "got 4 dimensions"),
        (np.ones((3, 0, 4)), "at least one of each; got shape (3, 0, 4)"),
        (np.ones((2, 2, 2), dtype=complex), "real numbers, integer or floating; got an array of dtype complex128"),
        (np.ones((2, 2, 2), dtype=bool), "dtype bool"),
        (np.full((2, 2, 2), "1"), "dtype <U1"),
        (np.full((2, 2, 2), None), "dtype object"),
        ("scene.mat", "real numbers, integer or floating; got str"),
        (None, "got NoneType"),
        ([[1, 2], [3]], "must be an array of numbers; got list"),
        (np.zeros((2, 3, 4)), "zero everywhere"),
    ],
)
def test_cube_errors(array: object, words: str) -> None:
    with pytest.raises(DataError, match=r"^`X`.*" + re.escape(words) + r".*\.$"):
        check_cube("X", array)


def test_one_spectrum_needs_two_dimensions() -> None:
    with pytest.raises(DataError, match=r"reshape\(1, -1\)"):
        check_spectra("X", np.ones(5))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cube_position_of_what_is_not_finite(value: float) -> None:
    rng = seeds.generator()
    cube = random((5, 7, 3))
    flat = rng.choice(cube.size, size=rng.integers(2, 9), replace=False)
    cube.ravel()[flat] = value
    band, row, column = np.unravel_index(flat.min(), cube.shape)
    where = rf"first at band {band}, row {row}, column {column}"
    words = rf"has {len(flat)} values .* {where} .*: {value}(; nodata=nan .*)?\.$"
    with pytest.raises(DataError, match=words):
        check_cube("X", cube)


def test_spectra_position_of_one_nan() -> None:
    table = random((4, 6))
    table[2, 5] = np.nan
    with pytest.raises(DataError, match=r"has 1 value that is not finite .*, it is at spectrum 2, band 5"):
        check_spectra("X", table)


def test_what_float32_cannot_hold() -> None:
    table = random((2, 3))
    table[1, 2] = 1e39
    with pytest.raises(DataError, match=r"float32 cannot hold, it is at spectrum 1, band 2 .*: 1e\+39"):
        check_spectra("X", table)


def test_zero_bands_are_refused_unless_accepted() -> None:
    cube = random((20, 3, 4))
    cube[[2, 5]] = 0
    with pytest.raises(DataError, match=r"bands 2, 5 are zero everywhere \(2 of 20"):
        check_cube("X", cube)
    assert check_cube("X", cube, zeros="accept").shape == cube.shape
    cube[1:13] = 0
    with pytest.raises(DataError, match=r"1, 2, 3, 4, 5, 6, 7, 8, 9, 10, \.\.\. are"):
        check_cube("X", cube)


def test_zero_bands_warn_and_zero_spectra_do_not() -> None:
    table = random((4, 5))
    table[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_spectra("X", table)
        check_spectra("X", np.zeros((2, 3)), zeros="accept")
    table[:, 3] = 0
    with pytest.warns(UserWarning, match="band 3 is zero everywhere"):
        check_spectra("X", table)


def test_wrong_option() -> None:
    with pytest.raises(ValueError, match="`zeros` must be one of"):
        check_spectra("X", np.ones((1, 1)), zeros="ignore")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, database=None)
@given(st.data())
def test_any_array_is_right_or_refused(data: st.DataObject) -> None:
    dtypes = st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=3), hnp.byte_string_dtypes(max_len=3))
    array = data.draw(hnp.arrays(data.draw(dtypes), data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=3))))
    for check, rank in ((check_cube, 3), (check_spectra, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                got = check("X", array)
            except DataError:
                continue
            assert array.ndim == rank
            assert array.dtype.kind in "iuf"
            np.testing.assert_array_equal(got, array.astype(np.float32))
            assert np.isfinite(got).all()
