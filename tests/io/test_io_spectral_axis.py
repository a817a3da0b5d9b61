"""Which bands of other data are those of a model."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import seeds
from spectrafuse.io.errors import DataError
from spectrafuse.io.spectral_axis import SpectralAxis, axis_from_plain, matching_bands, spectral_axis


def axis(*values: float, unit: str | None = "nm") -> SpectralAxis:
    return SpectralAxis(np.array(values, dtype=float), unit)


def test_the_same_axis_in_any_order_among_others_and_in_another_unit() -> None:
    own = axis(400, 450, 500)
    np.testing.assert_array_equal(matching_bands(own, own, "it"), [0, 1, 2])
    np.testing.assert_array_equal(matching_bands(own, axis(500, 450, 400), "it"), [2, 1, 0])
    np.testing.assert_array_equal(matching_bands(own, axis(350, 400, 425.5, 450, 500, 900), "it"), [1, 3, 4])
    np.testing.assert_array_equal(matching_bands(own, axis(0.5, 0.45, 0.4, unit="µm"), "it"), [2, 1, 0])
    np.testing.assert_array_equal(matching_bands(own, axis(25000, 1e7 / 450, 20000, unit="cm⁻¹"), "it"), [0, 1, 2])


def test_any_axis_is_found_in_any_other_that_holds_it() -> None:
    generator = seeds.generator()
    for _ in range(50):
        values = np.cumsum(generator.uniform(0.5, 5, generator.integers(2, 40))) + generator.uniform(0, 1000)
        other = generator.permutation(np.append(values, values.max() + generator.uniform(10, 20, 5)))
        shifts = 0.2 * generator.uniform(-1, 1, len(other)) * np.diff(values).min()
        found = matching_bands(SpectralAxis(values, None), SpectralAxis(other + shifts, None), "it")
        np.testing.assert_array_equal(other[found], values)


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        (axis(400, 450, 500), axis(400, 430, 500), "none at 450 nm, where the model has its band 1 (of 3"),
        (axis(400, 450, 500), axis(400, 500), "none at 450 nm"),
        (axis(400, 410, 420), axis(400, 412, 424, 436), "none at 420 nm"),
        (axis(400, 450, 500), axis(400, 450, 500, unit="°C"), "bands at 400 to 500 °C, but the model"),
        (axis(400), axis(500), "none at 400 nm"),
        (axis(1, 2, 3, unit=None), axis(3, 4, 5, unit=None), "none at 1, where"),
    ],
)
def test_another_axis_is_refused_with_the_band_that_is_missing(
    own: SpectralAxis, other: SpectralAxis, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        matching_bands(own, other, "'new.csv'")
    assert said in str(caught.value)
    assert str(caught.value).startswith("'new.csv' has its bands at")


def test_bands_that_stand_twice_are_themselves() -> None:
    own = axis(400, 450, 450, 500)
    np.testing.assert_array_equal(matching_bands(own, own, "it"), [0, 1, 2, 3])
    with pytest.raises(DataError, match="none at 450 nm"):
        matching_bands(own, axis(500, 450, 400), "it")


def test_what_is_no_axis() -> None:
    assert spectral_axis(None) is None
    assert spectral_axis([400.0, np.nan]) is None
    assert spectral_axis([]) is None
    for given, shown in (("Nanometers", "nm"), ("1/cm", "cm⁻¹"), ("furlong", "furlong"), ("", None), (None, None)):
        found = spectral_axis([400.0, 500.0], given)
        assert found is not None
        assert found.unit == shown


def test_stored_and_read_again() -> None:
    own = axis(400, 450, 500)
    found = axis_from_plain(own.as_plain(), 3)
    assert found is not None
    np.testing.assert_array_equal(found.values, own.values)
    assert found.unit == "nm"
    assert axis_from_plain(None, 3) is None
    for damaged in ({"values": [1, 2], "unit": None}, {"values": [1, 2, None], "unit": None}):
        with pytest.raises((ValueError, TypeError)):
            axis_from_plain(damaged, 3)
    with pytest.raises(ValueError, match="3 numbers"):
        axis_from_plain({"values": [1, 2, 3], "unit": 5}, 3)
