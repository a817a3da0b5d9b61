"""Files of Thermo OMNIC: a spectrum (SPA) or a group of spectra (SPG).

The format is not published. What is known of it: from byte 304 on stand entries of 16 bytes, each with a key, a place
and a length. Key 2 leads to the size, the range and the units of a spectrum, key 3 to its values (float32), key 107 to
the title of a spectrum in a group.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from spectrafuse.io.errors import DataError

OMNIC_SUFFIXES = (".spa", ".spg")
_MAGIC = b"Spectral "
_ENTRIES, _ENTRY = 304, 16
_FACTS, _VALUES, _TITLE = 2, 3, 107
_AXES = {
    1: ("Wavenumber", "cm⁻¹"),
    3: ("Wavelength", "nm"),
    4: ("Wavelength", "µm"),
    32: ("Raman shift", "cm⁻¹"),
}
_QUANTITIES = {
    11: "reflectance",
    12: "log(1/R)",
    15: "single beam",
    16: "transmittance (%)",
    17: "absorbance",
    20: "Kubelka-Munk",
    21: "reflectance",
    22: "detector signal",
    26: "photoacoustic",
    31: "Raman intensity",
}


def open_omnic(path: Path) -> tuple[list[np.ndarray], list[np.ndarray], list[str], tuple[str | None, str | None], str]:
    """Axes, values (float64) and titles of the spectra, title and unit of the axis, and what was measured.

    Raises
    ------
    DataError
        If the file is none of OMNIC, is damaged, or holds what has no axis (an interferogram).
    """
    content = path.read_bytes()
    try:
        return _parsed(content)
    except DataError:
        raise
    except (struct.error, ValueError, OverflowError) as error:
        raise DataError("it is cut short or damaged") from error


def _parsed(
    content: bytes,
) -> tuple[list[np.ndarray], list[np.ndarray], list[str], tuple[str | None, str | None], str]:
    if not content.startswith(_MAGIC):
        raise DataError("it does not begin as files of OMNIC do")
    places: dict[int, list[tuple[int, int]]] = {_FACTS: [], _VALUES: [], _TITLE: []}
    for at in range(_ENTRIES, len(content) - _ENTRY, _ENTRY):
        key, place, length = struct.unpack_from("<BxII", content, at)
        if key in (0, 1):
            break
        if key in places:
            places[key].append((place, length))
    if not places[_VALUES] or len(places[_FACTS]) < len(places[_VALUES]):
        raise DataError("it holds no spectrum")
    if sum(length for _, length in places[_VALUES]) > len(content):
        raise DataError("its spectra are said to be longer than the file")
    axes, values = [], []
    kinds = set()
    for (at, _), (start, length) in zip(places[_FACTS], places[_VALUES], strict=False):
        points, axis_kind, quantity, first, last = struct.unpack_from("<4xIBxxxIff", content, at)
        count = length // 4
        if not 2 <= count == points:
            raise DataError(f"it says {points} points and holds {count}")
        values.append(np.frombuffer(content, "<f4", count, start).astype(np.float64))
        axes.append(np.linspace(first, last, count))
        kinds.add((axis_kind, quantity))
    if len(kinds) > 1:
        raise DataError("its spectra are of several kinds")
    axis_kind, quantity = kinds.pop()
    if axis_kind not in _AXES:
        raise DataError("it holds an interferogram or another signal without a spectral axis")
    titles = [_text(content, start, length) for start, length in places[_TITLE]] or [_text(content, 30, 256)]
    return axes, values, titles, _AXES[axis_kind], _QUANTITIES.get(quantity, "signal")


def _text(content: bytes, start: int, length: int) -> str:
    return content[start : start + length].split(b"\0")[0].decode("latin-1").strip()
