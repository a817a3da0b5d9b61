"""Which bands of a scene are used: what people ask for, what files say, and reading these bands alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse.io.errors import scene_option
from spectrafuse.io.mapped import PIECE_BYTES, MappedArray
from spectrafuse.io.units import nanometers, short_unit, unit_of

_NUMBER = r"\d+(?:\.\d*)?"
_RANGE = re.compile(rf"({_NUMBER})?\s*(-)?\s*({_NUMBER})?\s*([^\d\s].*)?")
_GRAMMAR = (
    "must read like '0-95,110-' (bands counted from 0, ends included), '450-900nm' (by wavelength), "
    "'drop 1340-1460nm,1790-1960nm' (all but these) or 'all'"
)
_LISTED = 8
# Water vapor takes nearly all light of the sun here, in nanometers (Gao, Heidebrecht and Goetz 1993, figure 1).
_WATER = ((1350.0, 1430.0), (1800.0, 1950.0))


class BandsOf(NamedTuple):
    """The bands that a model uses: of so many, these."""

    total: int
    numbers: np.ndarray


def runs(bands: np.ndarray) -> list[tuple[int, int, int]]:
    """Rising band numbers as runs: place of the first one, first one, last one + 1."""
    cuts = np.flatnonzero(np.diff(bands) != 1) + 1
    places = [0, *cuts.tolist(), len(bands)]
    return [(i, int(bands[i]), int(bands[j - 1]) + 1) for i, j in itertools.pairwise(places) if i < j]


def listed(bands: np.ndarray) -> str:
    """Rising band numbers in words: "0-3, 7, 9-12"."""
    parts = [str(start) if stop == start + 1 else f"{start}-{stop - 1}" for _, start, stop in runs(bands)]
    return ", ".join(parts[:_LISTED]) + (", ..." if len(parts) > _LISTED else "")


def parse_bands(
    choice: Any, count: int, wavelengths: np.ndarray | None = None, wavelength_unit: str | None = None
) -> tuple[np.ndarray | None, np.ndarray]:
    """What a choice of bands keeps and drops.

    Parameters
    ----------
    choice : None, str, array_like of int or bool, or BandsOf
        None: nothing is asked for. Text: see the message below; a range of bands that are kept, then `drop` and a
        range of bands that are not. Numbers: bands counted from 0. Bool: one for each band.
    count : int
        Bands of the file.
    wavelengths : ndarray, shape (count,), optional
    wavelength_unit : str, optional

    Returns
    -------
    kept : ndarray of int, or None
        None where the choice does not say which bands are kept.
    dropped : ndarray of int

    Raises
    ------
    ValueError
        For a choice that is none, or names no band of the file.
    """
    nothing = np.zeros(0, dtype=np.int64)
    if choice is None:
        return None, nothing
    if isinstance(choice, BandsOf):
        # Another number of bands has another error; as many as are used are these.
        return (choice.numbers if count == choice.total else np.arange(count)), nothing
    if not isinstance(choice, str):
        return _from_numbers(choice, count), nothing
    keep, drop, dropped = choice.partition("drop")
    if not keep.strip() and not drop:
        raise _no_choice(choice)

    def places(text: str) -> np.ndarray:
        return _from_text(text, choice, count, wavelengths, wavelength_unit)

    keep = keep.strip().rstrip(",; ")
    kept = None if not keep else np.arange(count) if keep.lower() == "all" else places(keep)
    return kept, places(dropped) if drop else nothing


def _no_choice(choice: Any) -> InvalidValueError:
    return InvalidValueError(f"{scene_option('bands')} {_GRAMMAR}; got {choice!r}.")


def _from_numbers(choice: Any, count: int) -> np.ndarray:
    values = np.asarray(choice)
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iub":
        raise _no_choice(choice)
    if values.dtype.kind == "b":
        if len(values) != count or not values.any():
            raise InvalidValueError(
                f"`bands` must be true for at least one of the {count} bands; got {int(values.sum())} of {len(values)}."
            )
        return np.flatnonzero(values)
    values = np.where(values < 0, values.astype(np.int64) + count, values)
    if values.min() < 0 or values.max() >= count or len(np.unique(values)) < len(values):
        raise InvalidValueError(f"`bands` must name each band once, from 0 to {count - 1}; got {choice!r}.")
    return np.sort(values)


def _from_text(
    text: str, choice: str, count: int, wavelengths: np.ndarray | None, wavelength_unit: str | None
) -> np.ndarray:
    chosen = np.zeros(count, dtype=bool)
    parts = [part.strip() for part in re.split("[,;]", text) if part.strip()]
    if not parts:
        raise _no_choice(choice)
    for part in parts:
        found = _RANGE.fullmatch(part)
        if found is None or (found[1] is None and found[3] is None) or (found[1] and found[3] and not found[2]):
            raise _no_choice(choice)
        first = float(found[1]) if found[1] else None
        last = float(found[3]) if found[3] else (None if found[2] else first)
        if found[4]:
            chosen |= _by_wavelength(part, first, last, found[4], wavelengths, wavelength_unit)
            continue
        low, high = 0 if first is None else first, count - 1 if last is None else last
        if low != int(low) or high != int(high) or low > high or high >= count:
            raise InvalidValueError(
                f"{scene_option('bands')}: {part!r} is not among the bands 0 to {count - 1}; wavelengths need a "
                "unit, as in '450-900nm'."
            )
        chosen[int(low) : int(high) + 1] = True
    return np.flatnonzero(chosen)


def _by_wavelength(
    part: str, first: float | None, last: float | None, text: str, values: np.ndarray | None, said: str | None
) -> np.ndarray:
    unit = short_unit(text)
    ends = [None if end is None else nanometers(np.array([end]), unit) for end in (first, last)]
    if unit is None or all(end is None for end in ends):
        raise InvalidValueError(f"{scene_option('bands')}: {text!r} in {part!r} is no unit; take nm, um or cm-1.")
    own = None if values is None else nanometers(values, unit_of(values, said))
    if own is None:
        what = "no wavelengths" if values is None else f"wavelengths in {said or 'an unknown unit'}"
        raise InvalidValueError(
            f"{scene_option('bands')}: {part!r} asks for wavelengths, but the file has {what}; give band numbers."
        )
    low, high = (np.nan if end is None else float(end[0]) for end in ends)
    if nanometers(np.array([2.0]), unit)[0] < nanometers(np.array([1.0]), unit)[0]:  # type: ignore[index]
        low, high = high, low
    return ~(own < low) & ~(own > high)


class ChosenBands:
    """Some bands of stored numbers (bands, rows, columns), which stay where they are.

    Parameters
    ----------
    stored : array_like
        An array, or what reads slices of a file.
    bands : ndarray of int
        Rising.
    """

    def __init__(self, stored: Any, bands: np.ndarray) -> None:
        self.stored, self.bands = stored, bands
        self.shape = (len(bands), *stored.shape[1:])
        self.ndim = 3
        self.dtype = getattr(stored, "dtype", None)
        self.strides = getattr(stored, "strides", None)
        self._runs = runs(bands)

    def _within(self, index: Any) -> tuple[np.ndarray, tuple[slice, ...]]:
        """The stored bands of a slice, and the smallest slice of all bands that holds them."""
        parts = index if isinstance(index, tuple) else (index,)
        chosen = self.bands[parts[0]]
        span = slice(int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else slice(0, 0)
        return chosen, (span, *parts[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read(index, None)

    def read(self, index: Any, dtype: Any) -> np.ndarray:
        """A slice in another type (None: as it is stored), newly made."""
        chosen, whole = self._within(index)
        if not hasattr(self.stored, "pieces"):
            # Of numbers in chunks only the bands that are asked for are decoded.
            places = [(slice(start, stop), *whole[1:]) for _, start, stop in runs(chosen)]
            parts = [np.asarray(self.stored[place]) for place in places]
            joined = np.concatenate(parts) if parts else np.asarray(self.stored[whole])
            return joined if dtype is None else joined.astype(dtype)
        shape = self.stored._slice(whole).shape
        values = np.empty((len(chosen), *shape[1:]), self.stored.dtype.newbyteorder("=") if dtype is None else dtype)
        for place, part in self.pieces(index, PIECE_BYTES):
            values[place] = part
        return values

    def pieces(self, index: Any, size: int, multiple: int = 1) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """Parts of a slice of a mapped file, as `spectrafuse.io.mapped.MappedArray.pieces`."""
        chosen, whole = self._within(index)
        inside = runs(chosen - whole[0].start)
        for place, part in self.stored.pieces(whole, size, multiple):
            for at, start, stop in inside:
                low, high = max(start, place[0].start), min(stop, place[0].stop)
                if low < high:
                    kept = slice(at + low - start, at + high - start)
                    yield (kept, *place[1:]), part[low - place[0].start : high - place[0].start]

    def read_ahead(self, index: Any) -> None:
        """Have the system bring a slice of a file into its cache."""
        self.stored.read_ahead(self._within(index)[1])

    def close(self) -> None:
        """Close the file."""
        self.stored.close()


def chosen(stored: Any, bands: np.ndarray) -> Any:
    """Stored numbers with these of their bands: themselves where these are all."""
    if isinstance(stored, ChosenBands):
        stored, bands = stored.stored, stored.bands[bands]
    if len(bands) == stored.shape[0]:
        return stored
    return stored[bands] if isinstance(stored, np.ndarray) else ChosenBands(stored, bands)


class _Rows:
    """Some rows of stored numbers (bands, rows, columns), which stay where they are."""

    ndim = 3

    def __init__(self, stored: Any, first: int, last: int) -> None:
        self.stored, self.first = stored, first
        self.shape = (stored.shape[0], last - first, stored.shape[2])

    def __getitem__(self, index: Any) -> np.ndarray:
        bands, rows, columns = index
        start, stop, _ = rows.indices(self.shape[1])
        found: np.ndarray = self.stored[bands, self.first + start : self.first + stop, columns]
        return found

    def close(self) -> None:
        self.stored.close()


def rows_of(stored: Any, first: int, last: int) -> Any:
    """Stored numbers (bands, rows, columns) of some rows only."""
    if isinstance(stored, ChosenBands):
        return ChosenBands(rows_of(stored.stored, first, last), stored.bands)
    if isinstance(stored, np.ndarray):
        return stored[:, first:last]
    if isinstance(stored, MappedArray):
        return stored.part((slice(None), slice(first, last)))
    return _Rows(stored, first, last)


def suspicious(means: np.ndarray, bands: np.ndarray) -> np.ndarray:
    """Bands whose mean jumps against both neighbors, which agree with each other.

    Parameters
    ----------
    means : ndarray, shape (n,)
        Mean of each band.
    bands : ndarray of int, shape (n,)
        Their numbers: a jump counts between neighbors in the file only.
    """
    if len(means) < 5:
        return np.zeros(0, dtype=np.int64)
    before, here, after = means[:-2], means[1:-1], means[2:]
    adjacent = (np.diff(bands)[:-1] == 1) & (np.diff(bands)[1:] == 1)
    away = np.minimum(np.abs(here - before), np.abs(here - after))
    same_side = (here - before) * (here - after) > 0
    usual = np.median(np.abs(np.diff(means)))
    level = np.abs(before + after) / 2
    jump = adjacent & same_side & (away > 10 * usual) & (away > 2 * np.abs(after - before)) & (away > 0.2 * level)
    return bands[1:-1][jump]


def in_water_vapor(wavelengths: np.ndarray | None, text: str | None, bands: np.ndarray) -> np.ndarray:
    """The bands whose wavelengths lie where water vapor takes the light, for wavelengths of sunlight."""
    values = None if wavelengths is None else nanometers(wavelengths, unit_of(wavelengths, text))
    if values is None:
        return np.zeros(0, dtype=np.int64)
    inside = [(values >= low) & (values <= high) for low, high in _WATER]
    return bands[np.any(inside, axis=0)]


def as_plain(choice: Any) -> str | list[int] | None:
    """A choice of bands as a value that JSON has."""
    if choice is None or isinstance(choice, str):
        return choice
    values = np.asarray(choice)
    return [int(i) for i in (np.flatnonzero(values) if values.dtype.kind == "b" else values)]
