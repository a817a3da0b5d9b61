"""The axis of the bands that a model was fitted on, and which bands of other data are the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.io.errors import DataError
from spectrafuse.io.units import nanometers, short_unit

_ROUNDING = 1e-6


class SpectralAxis(NamedTuple):
    """Positions of bands.

    Attributes
    ----------
    values : ndarray, shape (d,), float64
    unit : str or None
        As it is shown: "nm", "cm⁻¹"; None where it is not known.
    """

    values: np.ndarray
    unit: str | None

    def __str__(self) -> str:
        ends = f"{self.values.min():.6g} to {self.values.max():.6g}"
        return f"{ends} {self.unit}" if self.unit else ends

    def as_plain(self) -> dict[str, Any]:
        """As values that JSON has."""
        return {"values": self.values.tolist(), "unit": self.unit}


def spectral_axis(values: Any, unit: str | None = None) -> SpectralAxis | None:
    """An axis, its unit as it is shown; None without numbers, or where one of them is missing."""
    if values is None:
        return None
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size or not np.isfinite(numbers).all():
        return None
    return SpectralAxis(numbers, short_unit(unit) or unit or None)


def axis_from_plain(stored: Any, count: int) -> SpectralAxis | None:
    """The axis of `count` bands that a model folder holds.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if stored is None:
        return None
    values, unit = np.array(stored["values"], dtype=np.float64), stored["unit"]
    if values.shape != (count,) or not np.isfinite(values).all() or not (unit is None or isinstance(unit, str)):
        raise InvalidValueError(f"its axis is not {count} numbers with a unit")
    return SpectralAxis(values, unit)


def matching_bands(own: SpectralAxis, other: SpectralAxis, what: str) -> np.ndarray:
    """For each band of a model the band of other data at its place, in any order and among others.

    Two bands are the same if they lie less than a quarter of the distance to the model's next band apart, as those of
    one kind of instrument do after another calibration.

    Parameters
    ----------
    own, other : SpectralAxis
        Of the model, and of the data.
    what : str
        What a message calls the data.

    Returns
    -------
    ndarray of int, shape (bands of the model,)

    Raises
    ------
    DataError
        If a band is missing, or the units do not go together.
    """
    a, b = nanometers(own.values, own.unit), nanometers(other.values, other.unit)
    if a is None or b is None or not (np.isfinite(a).all() and np.isfinite(b).all()):
        if own.unit is not None and other.unit is not None and own.unit != other.unit:
            raise DataError(f"{what} has its bands at {other}, but the model was fitted on bands at {own}.")
        a, b = own.values, other.values
    room = np.maximum(_a_quarter(a), _ROUNDING * np.abs(a))
    if a.shape == b.shape and (np.abs(a - b) <= room).all():
        return np.arange(len(a))
    order = np.argsort(b, kind="stable")
    right = np.clip(np.searchsorted(b[order], a), 1, max(len(b) - 1, 1))
    candidates = order[np.stack([right - 1, np.minimum(right, len(b) - 1)])]
    nearest = np.where(np.abs(b[candidates[0]] - a) <= np.abs(b[candidates[1]] - a), *candidates)
    away = np.flatnonzero(np.abs(b[nearest] - a) > room)
    if not len(away) and len(np.unique(nearest)) == len(nearest):
        return nearest
    unit = f" {own.unit}" if own.unit else ""
    band = int(away[0]) if len(away) else int(np.flatnonzero(np.bincount(nearest, minlength=len(b))[nearest] > 1)[0])
    raise DataError(
        f"{what} has its bands at {other}, and none at {own.values[band]:.6g}{unit}, where the model has its band "
        f"{band} (of {len(a)}, at {own}). Give data with the model's bands, or interpolate them to these first."
    )


def _a_quarter(values: np.ndarray) -> np.ndarray:
    """A quarter of the distance of each number to the nearest other; a hundredth of a number that stands alone."""
    if len(values) < 2:
        return 0.01 * np.abs(values)
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])
    quarter = np.empty(len(values))
    quarter[order] = 0.25 * np.minimum(np.append(gaps, np.inf), np.insert(gaps, 0, np.inf))
    return quarter
