"""Files of Renishaw WiRE (WDF): one Raman spectrum, a series along time or depth, or a map with its places.

The format is not published. What is known of it: blocks that begin with a name, a number and their size; of `WDF1`
the numbers of points and spectra and what was measured, of `XLST` the axis, of `DATA` the values (float32), of `ORGN`
a line of numbers for each quantity that was noted with the spectra.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spectrafuse.io.errors import DataError

WIRE_SUFFIX = ".wdf"
_BLOCK = struct.Struct("<4sIQ")
# Of the first block: points, planned and measured spectra, and the kind of measurement.
_COUNTS, _KIND = 0x3C, 0x84
_LISTS, _NOTED, _NOTE = 16, 20, 24
_MAPPING = 3
_X, _Y = 3, 4
# What a series can run along, by its code.
_ALONG = {9: "temperature", 10: "pressure", 5: "z (µm)", 11: "time (s)"}
_TICKS = 1e7
_AXES = {
    1: ("Raman shift", "cm⁻¹"),
    2: ("Wavenumber", "cm⁻¹"),
    3: ("Wavelength", "nm"),
    4: ("Energy", "eV"),
    5: ("Wavelength", "µm"),
}


class WireFile(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    axis : ndarray, shape (d,), float64
    values : ndarray, shape (n, d), float64
        The spectra that were measured, in the order of measuring.
    missing : int
        Spectra that were planned and not measured.
    places : ndarray, shape (n, 2), or None
        x and y of a map.
    process : (str, ndarray of shape (n,)) or None
        What a series runs along.
    title, unit : str or None
        Of the axis.
    """

    axis: np.ndarray
    values: np.ndarray
    missing: int
    places: np.ndarray | None
    process: tuple[str, np.ndarray] | None
    title: str | None
    unit: str | None


def open_wire(path: Path) -> WireFile:
    """Read a WDF file.

    Raises
    ------
    DataError
        If it is none, holds no spectrum or is damaged.
    """
    content = path.read_bytes()
    try:
        return _parsed(content)
    except DataError:
        raise
    except (struct.error, ValueError, OverflowError) as error:
        raise DataError("it is cut short or damaged") from error


def _parsed(content: bytes) -> WireFile:
    if not content.startswith(b"WDF1"):
        raise DataError("it does not begin as files of WiRE do")
    blocks: dict[bytes, int] = {}
    at = 0
    while at + _BLOCK.size <= len(content):
        name, _, size = _BLOCK.unpack_from(content, at)
        blocks.setdefault(name, at)
        if size < _BLOCK.size:
            break
        at += size
    if b"DATA" not in blocks or b"XLST" not in blocks:
        raise DataError("it holds no spectrum")
    points, planned, measured = struct.unpack_from("<IQQ", content, _COUNTS)
    kind = struct.unpack_from("<I", content, _KIND)[0]
    if not 0 < measured <= planned or points < 2:
        raise DataError(f"it says {measured} of {planned} spectra of {points} points")
    unit = struct.unpack_from("<4xI", content, blocks[b"XLST"] + _LISTS)[0]
    axis = np.frombuffer(content, "<f4", points, blocks[b"XLST"] + _LISTS + 8)
    values = np.frombuffer(content, "<f4", measured * points, blocks[b"DATA"] + _LISTS)
    noted = _noted(content, blocks.get(b"ORGN"), planned, measured)
    mapped = kind == _MAPPING and _X in noted and _Y in noted
    along = next((code for code in _ALONG if code in noted and np.ptp(noted[code]) > 0), None)
    return WireFile(
        axis.astype(np.float64),
        values.astype(np.float64).reshape(measured, points),
        planned - measured,
        np.stack([noted[_X], noted[_Y]], axis=1) if mapped else None,
        (_ALONG[along], noted[along]) if along is not None and not mapped else None,
        *_AXES.get(unit, (None, None)),
    )


def _noted(content: bytes, at: int | None, planned: int, measured: int) -> dict[int, np.ndarray]:
    """Numbers that were noted with each spectrum, by their code."""
    if at is None:
        return {}
    noted = {}
    count = struct.unpack_from("<I", content, at + _LISTS)[0]
    for start in range(
        at + _NOTED, min(at + _NOTED + count * (_NOTE + 8 * planned), len(content)), _NOTE + 8 * planned
    ):
        code = struct.unpack_from("<I", content, start)[0] & 0x7FFFFFFF
        if code == 11:
            ticks = np.frombuffer(content, "<i8", measured, start + _NOTE)
            noted[code] = (ticks - ticks[0]) / _TICKS
        else:
            noted[code] = np.frombuffer(content, "<f8", measured, start + _NOTE)
    return noted
