"""GRAMS (SPC) files of Galactic: one spectrum or several, in the format of today, big-endian, and before 1996.

After "A Brief Guide to SPC File Format and Using GSPCIO" (Galactic Industries, 1997): a header, X values if they are
not evenly spaced, then each spectrum behind a header of its own, as float32 or as integers with a common exponent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectrafuse.io.errors import DataError
from spectrafuse.io.units import unit_in_title

SPC_SUFFIX = ".spc"
_NEW, _BIG_ENDIAN, _OLD = 0x4B, 0x4C, 0x4D
_HEADER, _OLD_HEADER, _SUBHEADER = 512, 224, 32
_SHORT, _SEVERAL, _OWN_TITLES, _OWN_AXES, _HAS_AXIS = 1, 4, 32, 64, 128
_TITLES = slice(218, 248)
_FLOAT = -128
# Title and unit of the X axis by its code.
_AXES = {
    1: ("Wavenumber", "cm⁻¹"),
    2: ("Wavelength", "µm"),
    3: ("Wavelength", "nm"),
    4: ("Time", None),
    5: ("Time", None),
    9: ("Mass", "m/z"),
    10: ("Chemical shift", "ppm"),
    13: ("Raman shift", "cm⁻¹"),
    14: ("Energy", "eV"),
}


@dataclass(frozen=True, eq=False)
class SpcFile:
    """What an SPC file holds.

    Attributes
    ----------
    axes, values : list of ndarray, float64
        X and Y of each spectrum.
    places : list of float
        Z of each spectrum: a time, a position.
    title, unit : str or None
        Of the axis.
    """

    axes: list[np.ndarray]
    values: list[np.ndarray]
    places: list[float]
    title: str | None
    unit: str | None


def open_spc(path: Path) -> SpcFile:
    """Read an SPC file.

    Raises
    ------
    DataError
        If it is none, or ends too early.
    """
    try:
        return _parsed(path.read_bytes())
    except DataError:
        raise
    except (struct.error, ValueError, OverflowError) as error:
        raise DataError("it is cut short or damaged") from error


def _parsed(content: bytes) -> SpcFile:
    version = content[1] if len(content) > _OLD_HEADER + _SUBHEADER else 0
    if version not in (_NEW, _BIG_ENDIAN, _OLD):
        raise DataError("its second byte is that of no kind of SPC file")
    order = ">" if version == _BIG_ENDIAN else "<"
    flags, kind = content[0], content[16 if version == _OLD else 28]
    if version == _OLD:
        exponent, points, first, last = struct.unpack_from("<h3f", content, 2)
        count, at = (len(content) if flags & _SEVERAL else 1), _OLD_HEADER
    else:
        exponent, points, first, last, count = struct.unpack_from(f"{order}xxxbiddi", content)
        at = _HEADER
    points, float_values = int(points), exponent == _FLOAT
    axes: list[np.ndarray] = []
    values: list[np.ndarray] = []
    places: list[float] = []
    shared: np.ndarray | None = None
    if flags & _HAS_AXIS and not flags & _OWN_AXES:
        shared, at = _numbers(content, at, points, f"{order}f4"), at + 4 * points
    while len(values) < max(count, 1):
        own, place, own_points = struct.unpack_from(f"{order}xbxxfxxxxxxxxI", content, at)
        at += _SUBHEADER
        size = own_points if flags & _OWN_AXES else points
        if flags & _OWN_AXES:
            axes.append(_numbers(content, at, size, f"{order}f4"))
            at += 4 * size
        width = 2 if flags & _SHORT and not float_values else 4
        power = _FLOAT if float_values else own if flags & _SEVERAL else exponent
        values.append(_scaled(content, at, size, order, width, power, version == _OLD))
        places.append(place)
        at += width * size
        if not flags & _OWN_AXES:
            shared = np.linspace(first, last, size) if shared is None else shared
            axes.append(shared)
        # The old format does not say how many spectra follow.
        if version == _OLD and len(content) - at < _SUBHEADER + width * points:
            break
    title, unit = _AXES.get(kind, (None, None))
    if flags & _OWN_TITLES and version != _OLD:
        title = content[_TITLES].split(b"\0")[0].decode("latin-1").strip() or title
        unit = unit_in_title(title or "")
    return SpcFile(axes, values, places, title, unit)


def _numbers(content: bytes, at: int, count: int, dtype: str) -> np.ndarray:
    numbers = np.dtype(dtype)
    if count < 1 or at + count * numbers.itemsize > len(content):
        raise DataError(f"it has {len(content)} bytes, and its header says more: it is cut short or damaged")
    return np.frombuffer(content, numbers, count, at).astype(np.float64)


def _scaled(content: bytes, at: int, count: int, order: str, width: int, power: int, words_swapped: bool) -> np.ndarray:
    """Y values: float32, or integers that are parts of 2**power."""
    if power == _FLOAT:
        return _numbers(content, at, count, f"{order}f4")
    if words_swapped and width == 4:
        words = _numbers(content, at, 2 * count, "<u2").reshape(-1, 2)
        whole = words @ [65536.0, 1.0]
        values = np.where(whole >= 2.0**31, whole - 2.0**32, whole)
    else:
        values = _numbers(content, at, count, f"{order}i{width}")
    return np.ldexp(values, power - 8 * width)
