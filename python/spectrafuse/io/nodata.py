"""Pixels and bands without data, and the check of a scene that is read block by block.

The rule. A pixel has no data

- where a mask array says so (True: no data), or
- where, once a no-data value (which may be NaN) or a mask is given, one of its bands is NaN, or, with a no-data value,
  infinite, or
- where all its bands hold the no-data value or NaN, or
- where some of its bands hold the no-data value, if that lies outside all other values of the scene (-9999 beside
  reflectances). Where that would cost more of the scene than leaving out the bands that hold it, and these are few, the
  bands are left out instead.

Any other no-data value in some bands only does not make a pixel one without data, since it can be a measured one (noise
cut off at 0); a warning counts such pixels, and a mask leaves them out. A no-data value that float32 cannot hold
counts as NaN. Bands that hold no data in any pixel, or nothing but zeros, decide nothing: they are empty.

Without a no-data value and a mask, NaN is an error but in empty bands. Infinity is an error in every pixel that has
data.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.progress import tell
from spectrafuse.io.errors import DataError, scene_option
from spectrafuse.io.validate import FAINTEST, as_numeric, called, check_not_faint, report_not_finite

BLOCK_VALUES = 1 << 20
# Pixels of one number, and bands, from which on they are named as padding.
_LEAST_PADDING = 5
# Spectra that fill many pixels each, from which on a scene is one that was made.
_MADE = 2
_HUGE = 1e30
_LARGE_BLOCK = 1 << 16
# What programs write where nothing was measured.
MARKERS = (-9999.0, -999.0, -99999.0, 9999.0, 99999.0, -32768.0, 65535.0, 1e20, 1e30, -1e30, 1e34, -1.23e34, 1e38,
           -3.4028235e38, 9.96921e36)  # fmt: skip
_MARKERS_AS_STORED = frozenset(float(np.float32(marker)) for marker in MARKERS)
# Share of the bands that may be left out so that no pixel is.
_FEW_BANDS = 0.1


class Survey(NamedTuple):
    """What one pass over a scene found."""

    valid: np.ndarray | None
    """(H, W) bool, True where there are data; None where all pixels have data."""
    dead_bands: np.ndarray
    """Indices of the bands that hold no data in any pixel."""
    empty_bands: np.ndarray
    """Indices of these, and of the bands that hold nothing but zeros where there are data."""
    partial_bands: np.ndarray
    """Indices of the bands to leave out since they have no data in many pixels that have data elsewhere."""
    partial_pixels: int
    """Pixels that are left out since some of their bands have no data."""
    means: np.ndarray
    """(C,) mean of each band over some of the pixels with data."""
    padding: dict[float, int]
    """Value that fills whole pixels which count as data, and how many."""
    repeated: tuple[int, float, float] | None
    """Of pixels with data that hold one and the same spectrum their count, and its least and largest value."""
    markers: dict[float, int]
    """Where nothing says what has no data: value far outside all others that programs write for it, and how often."""


def row_blocks(shape: tuple[int, ...], values: int = BLOCK_VALUES) -> Iterator[tuple[int, int]]:
    """First and last row + 1 of blocks of a scene (C, H, W) with about so many values."""
    bands, height, width = shape
    step = max(1, values // max(1, bands * width))
    for start in range(0, height, step):
        yield start, min(start + step, height)


def window_blocks(cube: Any, values: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of a scene (..., H, W): whole columns where these lie in one piece, else rows."""
    *leading, height, width = cube.shape
    bands = math.prod(leading)
    strides = getattr(cube, "strides", None)
    sizes = {} if values is None else {"values": values}
    if strides is not None and strides[-2] < strides[-1]:
        for start, stop in row_blocks((bands, width, height), **sizes):
            yield slice(0, height), slice(start, stop)
        return
    for start, stop in row_blocks((bands, height, width), **sizes):
        yield slice(start, stop), slice(0, width)


def _walk(cube: Any) -> tuple[Any, Iterable[tuple[slice, slice]]]:
    """A scene and the windows for one pass over it: of one in chunks, whole chunks where these hold few numbers."""
    bands, height, width = cube.shape
    if not hasattr(cube, "in_tiles"):
        return cube, window_blocks(cube)
    _, high, wide = cube.chunks
    if bands * high * wide > 2 * BLOCK_VALUES:
        return cube, window_blocks(cube)
    wide *= max(1, BLOCK_VALUES // (bands * high * wide))
    tiles = (
        (slice(y, min(y + high, height)), slice(x, min(x + wide, width)))
        for y in range(0, height, high)
        for x in range(0, width, wide)
    )
    return cube.in_tiles(), tiles


def as_nodata(nodata: Any) -> float | None:
    """The no-data value as a number; None, a number or text such as "nan" or "-9999"."""
    if nodata is None:
        return None
    try:
        if isinstance(nodata, bool) or np.ndim(nodata):
            raise TypeError
        return float(nodata)
    except (TypeError, ValueError):
        hint = "; a mask array goes to `mask`" if np.ndim(nodata) else ""
        raise InvalidValueError(f"`nodata` must be None or a number, which may be NaN{hint}; got {nodata!r}.") from None


def as_mask(name: str, mask: Any, size: tuple[int, int]) -> np.ndarray | None:
    """A mask (H, W) as bool, True for pixels without data, or None.

    Raises
    ------
    DataError
        If it has another shape, or values other than true and false (0 and 1).
    """
    if mask is None:
        return None
    values = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    if values.dtype.kind != "b":
        values = as_numeric("mask", values)
        if not ((values == 0) | (values == 1)).all():
            raise DataError("`mask` must be true where a pixel has no data and false elsewhere; it has other values.")
    if values.shape != size:
        hint = " (it is transposed)" if values.shape == size[::-1] else ""
        raise DataError(f"`mask` must have the shape {size} of {called(name)}; got {values.shape}{hint}.")
    return values.astype(bool)


def survey(name: str, cube: Any, *, nodata: float | None, mask: np.ndarray | None, bands_given: bool = False) -> Survey:
    """Check a scene and find its pixels and bands without data, in one pass by blocks.

    Parameters
    ----------
    name : str
        What messages call the scene.
    cube : array_like, shape (C, H, W)
        Real numbers that can be sliced by rows: an array, a memory map, a data set in a file.
    nodata : float or None
        See the rule of this module.
    mask : ndarray of bool, shape (H, W), or None
        True: no data.
    bands_given : bool
        Whether all bands are used whatever they hold.

    Raises
    ------
    DataError
        Empty axes, numbers that are not finite, no pixel with data.
    """
    if len(cube.shape) != 3 or 0 in cube.shape:
        what = "a cube (bands, rows, columns) with at least one of each"
        raise DataError(f"{called(name)} must be {what}; got shape {tuple(cube.shape)}.")
    bands, height, width = cube.shape
    declared = nodata is not None or mask is not None
    absences, nans = np.zeros((height, width), dtype=np.int32), np.zeros((height, width), dtype=np.int32)
    infinite = np.zeros((height, width), dtype=bool)
    present, nonzero = np.zeros(bands, dtype=bool), np.zeros(bands, dtype=bool)
    filling = _Filling()
    means = _Means(bands)
    source, places = _walk(cube)
    done = 0
    for place in places:
        block = _as_float32(source[:, place[0], place[1]])
        done += block[0].size
        tell(done, height * width)
        finite = np.isfinite(block)
        if declared:
            absent = _is_absent(block, finite, nodata)
            absences[place] = absent.sum(axis=0)
            nans[place] = (absent & ~finite).sum(axis=0)
            infinite[place] = (~(finite | absent)).any(axis=0)
            counted = ~absent if mask is None else ~absent & ~mask[place]
            present |= counted.any(axis=(1, 2))
            nonzero |= ((block != 0) & counted).any(axis=(1, 2))
            means.add(block, counted)
            filling.add(block, np.all(counted, axis=0))
        else:
            if finite.all():
                present[:] = True
            else:
                absences[place] = bands - finite.sum(axis=0)
                present |= finite.any(axis=(1, 2))
            nonzero |= block.any(axis=(1, 2))
            means.add(block, finite)
            filling.add(block, np.ones(block.shape[1:], dtype=bool))
            filling.add_ends(block, finite)
    if source is not cube:
        source.close()
    dead = np.flatnonzero(~present)
    valid, partial_bands, partial_pixels = None, np.zeros(0, dtype=np.int64), 0
    if declared:
        for place in window_blocks(cube) if len(dead) else ():
            unusable = ~np.isfinite(_as_float32(cube[:, place[0], place[1]])[dead])
            nans[place] -= unusable.sum(axis=0, dtype=np.int32)
        valid = (absences < bands) & (nans == 0)
        if mask is not None:
            valid &= ~mask
        if not valid.any():
            raise DataError(f"{called(name)} has no pixel with data: all are masked, NaN or the no-data value.")
        infinite &= valid
        partly = valid & (absences > len(dead))
        if partly.any() and nodata is not None:
            valid, partial_bands = _settle(name, cube, nodata, valid, partly, dead, bands_given)
            partial_pixels = int((partly & ~valid).sum())
    else:
        infinite = absences > (len(dead) if len(dead) < bands else 0)
    if infinite.any():
        _raise_not_finite(name, cube, infinite, nodata is not None)
    if means.most < FAINTEST:
        used = np.ones((height, width), dtype=bool) if valid is None else valid
        blocks = (_as_float32(cube[:, rows, columns])[:, used[rows, columns]] for rows, columns in window_blocks(cube))
        check_not_faint(name, max(float(np.nan_to_num(block).max(initial=0)) for block in map(np.abs, blocks)))
    least = max(_LEAST_PADDING, height * width // 1000)
    return Survey(
        None if valid is None or valid.all() else valid,
        dead,
        np.flatnonzero(~(present & nonzero)),
        partial_bands,
        partial_pixels,
        means.values(),
        {value: count for value, count in filling.constant.items() if count >= least},
        filling.repeated(least),
        filling.markers(),
    )


class _Means:
    """Means of bands, and the largest magnitude, over every fourth row and column of blocks."""

    def __init__(self, bands: int) -> None:
        self.sums, self.counts = np.zeros(bands), np.zeros(bands, dtype=np.int64)
        self.most = 0.0

    def add(self, block: np.ndarray, counted: np.ndarray) -> None:
        values, kept = block[:, ::4, ::4], counted[:, ::4, ::4]
        values = np.where(kept, values, 0)
        self.most = max(self.most, float(values.max(initial=0)), -float(values.min(initial=0)))
        self.sums += values.sum(axis=(1, 2), dtype=np.float64)
        self.counts += kept.sum(axis=(1, 2))

    def values(self) -> np.ndarray:
        return self.sums / np.maximum(self.counts, 1)


class _Filling:
    """What fills pixels as programs do where nothing was measured: one number, one spectrum, numbers far away."""

    def __init__(self) -> None:
        self.constant: Counter[float] = Counter()
        self._spectra: Counter[bytes] = Counter()
        self._marked: Counter[float] = Counter()
        self._low, self._high = np.inf, -np.inf

    def add(self, block: np.ndarray, used: np.ndarray) -> None:
        """Count pixels of a block (bands, rows, columns) with one number, or the spectrum of one on a grid of nine."""
        if len(block) < _LEAST_PADDING:
            return
        middle = len(block) // 2
        same = (block[0] == block[-1]) & (block[0] == block[middle]) & used
        if same.any():
            spectra = block[:, same]
            constant = spectra[0, (spectra == spectra[0]).all(axis=0)]
            for value, count in zip(*np.unique(constant, return_counts=True), strict=True):
                self.constant[float(value)] += int(count)
        rows, columns = ({0, n // 2, n - 1} for n in block.shape[1:])
        seen = {block[:, y, x].tobytes(): block[:, y, x] for y in rows for x in columns if used[y, x]}
        for key, spectrum in seen.items():
            if len(self._spectra) >= _MADE or spectrum[0] == spectrum[middle] == spectrum[-1]:
                continue
            same = (block[middle] == spectrum[middle]) & used
            if same.sum() > 1:
                count = int((block[:, same] == spectrum[:, None]).all(axis=0).sum())
                if count > 1:
                    self._spectra[key] += count

    def add_ends(self, block: np.ndarray, finite: np.ndarray) -> None:
        """Look for markers at the ends of the finite numbers of a block, of a large one at every fourth place."""
        step = 1 if block.size < _LARGE_BLOCK else 4
        values = block[:, ::step, ::step][finite[:, ::step, ::step]]
        low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
        for marker in _MARKERS_AS_STORED.intersection((low, high)):
            self._marked[marker] += int((block == marker).sum())
            values = values[values != marker]
            low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
        self._low, self._high = min(self._low, low), max(self._high, high)

    def repeated(self, least: int) -> tuple[int, float, float] | None:
        """The spectrum that fills at least so many pixels, if it is the only one: a scene of several was made."""
        if len(self._spectra) != 1:
            return None
        (stored, count), *_ = self._spectra.items()
        spectrum = np.frombuffer(stored, np.float32)
        return (count, float(spectrum.min()), float(spectrum.max())) if count >= least else None

    def markers(self) -> dict[float, int]:
        """Markers and how often they stand in the scene, far outside all other numbers."""
        return {m: count for m, count in self._marked.items() if far_outside(m, self._low, self._high)}


def far_outside(marker: float, low: float, high: float) -> bool:
    """Whether a number lies far outside others: below numbers that are hardly negative, or ten times larger."""
    if low > high:
        return False
    return low > marker / 10 if marker < 0 else high < marker / 10 and low > -marker / 10


def _settle(
    name: str, cube: Any, nodata: float, valid: np.ndarray, partly: np.ndarray, dead: np.ndarray, bands_given: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels with the no-data value in some bands are used after all, and the bands that are left out for it.

    Where the value lies outside all others, of leaving out these pixels, the few bands that hold it, or the bands that
    hold it mostly and then such pixels, what costs the least part of the scene.
    """
    alive = np.ones(cube.shape[0], dtype=bool)
    alive[dead] = False
    counts, low, high = np.zeros(cube.shape[0], dtype=np.int64), np.inf, -np.inf
    for _, block, absent in _valid_blocks(cube, nodata, valid):
        counts += absent.sum(axis=1)
        low = min(low, float(np.min(block, where=~absent, initial=np.inf)))
        high = max(high, float(np.max(block, where=~absent, initial=-np.inf)))
    gap = max(low - nodata, nodata - high)
    none = np.zeros(0, dtype=np.int64)
    # Zero is also what noise is cut off at: it must be far away from what was measured.
    if gap <= (0 if nodata != 0 else 0.05 * (high - low)):
        _report_partly(name, nodata, partly)
        return valid, none
    whole = valid & ~partly
    if bands_given:
        if not whole.any():
            raise _nothing_left(name, nodata)
        return whole, none
    holding = alive & (counts > 0)
    mostly = holding & (counts > 0.5 * valid.sum())
    ways = [(partly.sum() / valid.sum(), whole, np.zeros_like(holding))]
    if holding.sum() <= _FEW_BANDS * alive.sum():
        ways.append((holding.sum() / alive.sum(), valid, holding))
    if mostly.any() and (alive & ~mostly).any():
        kept = valid.copy()
        for place, _, absent in _valid_blocks(cube, nodata, valid):
            kept[place][valid[place]] = ~absent[alive & ~mostly].any(axis=0)
        ways.append((1 - (1 - mostly.sum() / alive.sum()) * kept.sum() / valid.sum(), kept, mostly))
    _, pixels, bands = min((way for way in ways if way[1].any()), key=lambda way: way[0], default=(0.0, None, none))
    if pixels is None:
        raise _nothing_left(name, nodata)
    return pixels, np.flatnonzero(bands)


def _nothing_left(name: str, nodata: float) -> DataError:
    return DataError(
        f"{called(name)} has no pixel with data in all its bands: each holds the no-data value {nodata:g} in some. "
        f"Choose bands with {scene_option('bands')}."
    )


def _valid_blocks(cube: Any, nodata: float, valid: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Places, values and where they are absent, (bands, n), of the valid pixels of blocks."""
    for place in window_blocks(cube):
        block = _as_float32(cube[:, place[0], place[1]])[:, valid[place]]
        if block.size:
            yield place, block, _is_absent(block, np.isfinite(block), nodata)


def _as_float32(values: Any) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(values, dtype=np.float32)


def _is_absent(block: np.ndarray, finite: np.ndarray, nodata: float | None) -> np.ndarray:
    """Where a float32 block is NaN or, with a no-data value, infinite or holds that value."""
    if nodata is None:
        return np.isnan(block)
    if abs(nodata) >= _HUGE:
        # Such values are written with fewer digits than they have.
        return ~finite | (block * np.sign(nodata) >= 0.99 * abs(nodata))
    with np.errstate(over="ignore"):
        return ~finite | (block == np.float32(nodata))


def _report_partly(name: str, nodata: float, partly: np.ndarray) -> None:
    row, column = (int(i) for i in np.argwhere(partly)[0])
    warnings.warn(
        f"{called(name)}: {int(partly.sum())} pixels hold the no-data value {nodata:g} in some bands only, the first "
        f"at row {row}, column {column} (counted from 0); they are used, since it can be a measured value here. Give a "
        "mask to leave them out.",
        UserWarning,
        stacklevel=6,
    )


def _raise_not_finite(name: str, cube: Any, where: np.ndarray, declared: bool) -> None:
    """Raise for the first number that is not finite, in the order of bands, rows, columns."""
    count, first, value = 0, (cube.shape[0], 0, 0), np.float64(0)
    for rows, columns in window_blocks(cube):
        given = np.asarray(cube[:, rows, columns])
        with np.errstate(over="ignore", invalid="ignore"):
            bad = np.argwhere(~np.isfinite(given.astype(np.float32)) & where[rows, columns])
        count += len(bad)
        if len(bad):
            place = int(bad[0, 0]), int(bad[0, 1]) + rows.start, int(bad[0, 2]) + columns.start
            if place < first:
                first, value = place, given[tuple(bad[0])]
    hint = "" if declared else f"; {scene_option('nodata', 'nan')} leaves such pixels out"
    report_not_finite(name, count, first, value, ("band", "row", "column"), hint=hint)
