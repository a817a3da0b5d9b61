"""Units of spectral axes: how files and titles spell them, what they measure, and how they become nanometers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_SIGNS = str.maketrans({"−": "-", "⁻": "-", "–": "-", "¹": "1", "μ": "µ"})
# How units are written, in lower case and with plain signs: in titles, after numbers and alone.
WORDS = {
    "nm": r"nm|nanom(?:eter|etre|ètre)s?|нм",
    "µm": r"[uµ]m|microns?|microm(?:eter|etre|ètre)s?|mikrometer|мкм",
    "cm⁻¹": r"(?:r?cm|см)\s?\^?\(?-1\)?|1\s?/\s?cm|/\s?cm|cm\*\*-1",
    "Å": r"å|angstroms?|ångströms?",
    "keV": r"kev",
    "eV": r"ev|electronvolts?",
    "m/z": r"m/z|amu|da",
    "THz": r"thz|terahertz",
    "GHz": r"ghz|gigahertz",
    "MHz": r"mhz|megahertz",
    "ppm": r"ppm",
    "°": r"°|deg|degrees?|2-?theta|2θ",
}
# Where nothing but a unit can stand.
_ALONE = WORDS | {
    "Å": f"{WORDS['Å']}|a",
    "cm⁻¹": f"{WORDS['cm⁻¹']}|wavenumbers?|reciprocalcentimeters",
    "mm": r"mm|millimet(?:er|re)s?",
    "cm": r"cm|centimet(?:er|re)s?",
    "m": r"m|met(?:er|re)s?",
    "index": r"index|bands?|bandnumber",
}
_LENGTHS = {"nm": 1.0, "µm": 1e3, "Å": 0.1, "mm": 1e6, "cm": 1e7, "m": 1e9}
_SPEED = 299_792_458.0
# Nanometers times the unit's number.
_RECIPROCALS = {
    "cm⁻¹": 1e7,
    "GHz": _SPEED,
    "MHz": _SPEED * 1e3,
    "THz": _SPEED * 1e-3,
    "eV": 1239.841984,
    "keV": 1.239841984,
}
_QUANTITY = {
    **dict.fromkeys(_LENGTHS, "wavelength"),
    "cm⁻¹": "wavenumber",
    **dict.fromkeys(("GHz", "MHz", "THz"), "frequency"),
    **dict.fromkeys(("eV", "keV"), "energy"),
}


def plain_signs(text: str) -> str:
    """Text in lower case, its minus signs and raised digits as they are typed."""
    return text.translate(_SIGNS).lower()


def short_unit(text: str | None) -> str | None:
    """A unit as it is shown: "nm", "µm", "Å", "cm⁻¹", "GHz", "index", ...; None where none is known by the text."""
    given = re.sub(r"[\s.\[\]()]", "", plain_signs(text or ""))
    return next((unit for unit, words in _ALONE.items() if re.fullmatch(words, given)), None)


def unit_in_title(text: str, units: Mapping[str, str] = WORDS) -> str | None:
    """The unit that a title names, in brackets, after a comma or slash, as a word of its own or alone."""
    given = plain_signs(text).strip()
    for name, words in units.items():
        if re.fullmatch(words, given) or re.search(rf"[\[(/,_\s]\s*(?:in\s+)?(?:{words})\s*[\])]?$", given):
            return name
        if re.search(rf"[\[(]\s*(?:{words})\s*[\])]", given):
            return name
    return None


def quantity(unit: str | None, otherwise: str) -> str:
    """What a unit measures: "wavelength", "wavenumber", "frequency", "energy"."""
    return _QUANTITY.get(unit or "", otherwise)


def likely_unit(values: np.ndarray) -> str | None:
    """Nanometers or micrometers by the size of the numbers, for files that do not say it."""
    low, high = float(np.min(values)), float(np.max(values))
    # Larger numbers are wavenumbers as often.
    return "nm" if low >= 100.0 and high <= 2600.0 else "µm" if high <= 30.0 else None


def unit_of(values: np.ndarray | None, text: str | None) -> str | None:
    """The unit that a file says, as it is shown, else the likely one."""
    return None if values is None else short_unit(text) or (likely_unit(values) if not (text or "").strip() else None)


def nanometers(values: np.ndarray, unit: str | None) -> np.ndarray | None:
    """Wavelengths in nanometers from numbers in one of the units of `short_unit`; None where the unit is none."""
    if unit in _LENGTHS:
        return np.asarray(values, dtype=np.float64) * _LENGTHS[unit]
    if unit in _RECIPROCALS:
        with np.errstate(divide="ignore"):
            return _RECIPROCALS[unit] / np.asarray(values, dtype=np.float64)
    return None


_LONG = {"nm": "Nanometers", "µm": "Micrometers", "Å": "Angstroms", "mm": "Millimeters", "cm": "Centimeters",
         "m": "Meters", "cm⁻¹": "Wavenumber", "GHz": "GHz", "MHz": "MHz"}  # fmt: skip


def long_unit(values: np.ndarray, text: str | None) -> str:
    """The unit as headers of ENVI have it: "Nanometers", "Wavenumber", ..., "Unknown"."""
    unit = unit_of(values, text)
    return _LONG.get(unit or "", unit or "Unknown")


def axis_title(values: np.ndarray | None, text: str | None = None) -> str:
    """Label of the axis of bands: "wavelength (nm)", "wavenumber (cm⁻¹)", "band number"."""
    if values is None:
        return "band number"
    unit = unit_of(values, text)
    other = f" ({text.strip()})" if text and text.strip() else ""
    return f"{quantity(unit, 'wavelength')} ({unit})" if unit else f"wavelength{other}"
