"""Units of spectral axes: how files spell them, and how they become nanometers."""

from __future__ import annotations

import re

import numpy as np

# Names are compared in lower case, without blanks, dots and brackets.
_SPELLINGS = {
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres", "nanomètres"),
    "µm": ("um", "µm", "μm", "micrometer", "micrometers", "micrometre", "micrometres", "micron", "microns"),
    "Å": ("å", "angstrom", "angstroms", "ångström", "a"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "cm⁻¹": ("cm-1", "cm^-1", "cm⁻¹", "cm−1", "1/cm", "wavenumber", "wavenumbers", "reciprocalcentimeters"),
    "GHz": ("ghz", "gigahertz"),
    "MHz": ("mhz", "megahertz"),
    "THz": ("thz", "terahertz"),
    "eV": ("ev", "electronvolt", "electronvolts"),
    "index": ("index", "band", "bands", "bandnumber"),
}
_UNIT = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings}
_LENGTHS = {"nm": 1.0, "µm": 1e3, "Å": 0.1, "mm": 1e6, "cm": 1e7, "m": 1e9}
_SPEED = 299_792_458.0
# Nanometers times the unit's number.
_RECIPROCALS = {"cm⁻¹": 1e7, "GHz": _SPEED, "MHz": _SPEED * 1e3, "THz": _SPEED * 1e-3, "eV": 1239.841984}
_AXIS = {"cm⁻¹": "wavenumber", "GHz": "frequency", "MHz": "frequency", "THz": "frequency", "eV": "photon energy"}


def short_unit(text: str | None) -> str | None:
    """A unit as it is shown: "nm", "µm", "Å", "cm⁻¹", "GHz", "index", ...; None where none is known by the text."""
    return _UNIT.get(re.sub(r"[\s.()\[\]]", "", (text or "").lower()))


def likely_unit(values: np.ndarray) -> str | None:
    """Nanometers or micrometers by the size of the numbers, for files that do not say it."""
    low, high = float(np.min(values)), float(np.max(values))
    return "nm" if low >= 100.0 else "µm" if high <= 30.0 else None


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
    return f"{_AXIS.get(unit, 'wavelength')} ({unit})" if unit else f"wavelength{other}"
