"""What the attributes in an HDF5 or NetCDF file say about the numbers of a data set.

Read are the conventions of CF (NetCDF: EMIT and what xarray writes), NEON, Tanager and PRISMA; what looks like another
factor is named as not applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spectrafuse.io.places import place_of

_NODATA = ("_FillValue", "missing_value", "Data_Ignore_Value", "data_ignore_value", "nodata", "_FILLVALUE")
_LIMITS = ("valid_range", "Valid_Range", "validRange")
_DIMS = ("_ARRAY_DIMENSIONS", "Dimension_Labels", "dimension_labels", "DimensionNames", "dims")
_UNITS = ("units", "Units", "unit", "Unit")
GOOD_BANDS = ("good_wavelengths", "good_bands", "bbl")
_AXES = ("wavelength", "wavelengths", "center_wavelengths", "band_wavelengths", "Wavelength", "Wavelengths")
_PLACE = {"map_info": "map info", "coordinate_system_string": "coordinate system string"}
_DIVISORS = ("scalefactor", "reflectancescalefactor", "reflectancescale")
_FACTORS = ("gain", "gains", "offset", "offsets", "scale", "slope", "intercept", "multiplier", "bias", "scaling")
_MOST_TEXT = 1 << 16
_WINDOW = re.compile(r"Band_Window_\d_Nanometers", re.IGNORECASE)


class Facts(NamedTuple):
    """What is said about a data set; None and empty where nothing is.

    Attributes
    ----------
    dims : tuple of str
        Names of its axes, as they are stored.
    nodata : float or None
        The value for no data, as stored.
    limits : (float, float) or None
        Stored numbers outside these are no data.
    gain, offset : float
        Stored numbers times the one plus the other are the quantity.
    scale : float
        By which stored numbers are divided instead.
    axis : ndarray or None
        Wavelengths.
    axis_unit : str or None
        Their unit.
    good_bands : ndarray or None
        1 for bands that are good, 0 for bad ones.
    bad_windows : tuple of (float, float)
        From and to which wavelength bands are bad, in nanometers.
    unit : str or None
        Unit of the numbers.
    notes : tuple of str
        What is applied, and what is not.
    """

    dims: tuple[str, ...] = ()
    nodata: float | None = None
    limits: tuple[float, float] | None = None
    gain: float = 1.0
    offset: float = 0.0
    scale: float = 1.0
    axis: np.ndarray | None = None
    axis_unit: str | None = None
    good_bands: np.ndarray | None = None
    bad_windows: tuple[tuple[float, float], ...] = ()
    unit: str | None = None
    notes: tuple[str, ...] = ()


def text_of(value: Any) -> str | None:
    """An attribute or data set that is text; None for anything else."""
    value = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace").strip("\0 ")
    return value.strip("\0 ") if isinstance(value, str) else None


def facts_of(path: Path, place: str) -> Facts:
    """The facts about a data set of an HDF5 file by its attributes, and those of the root where PRISMA writes them."""
    import h5py

    with h5py.File(path, "r") as file:
        item = file[place]
        own = _attributes(item)
        sensor = _prisma(place, file.attrs)
        dims = _dims(item, own)
        windows = _windows(item.parent)
    return facts_from(own, dims=dims, sensor=sensor, windows=windows)


def facts_from(
    own: dict[str, Any],
    *,
    dims: tuple[str, ...] = (),
    sensor: dict[str, Any] | None = None,
    windows: tuple[tuple[float, float], ...] = (),
) -> Facts:
    """The facts that the attributes of an array say; those of a sensor, and its bad windows, come from elsewhere."""
    sensor = sensor or {}
    notes: list[str] = []
    gain, offset, scale = _factors(own, notes)
    if "gain" in sensor:
        gain, offset = sensor["gain"], sensor["offset"]
        notes.append(f"times {gain:g} plus {offset:g} (PRISMA's scale)")
    said = (_number(own.get(name)) for name in _NODATA)
    nodata = next((value for value in said if value is not None), sensor.get("nodata"))
    limits = _first(own, _LIMITS, 2)
    if limits is None:
        ends = _number(own.get("valid_min")), _number(own.get("valid_max"))
        limits = None if ends == (None, None) else np.array([-np.inf if ends[0] is None else ends[0],
                                                            np.inf if ends[1] is None else ends[1]])  # fmt: skip
    axis = sensor.get("axis")
    if axis is None:
        axis = _first(own, _AXES, None)
    if (text_of(own.get("_Unsigned")) or "").lower() == "true":
        notes.append("the attribute '_Unsigned' is not applied")
    return Facts(
        dims=dims,
        nodata=nodata,
        limits=None if limits is None or limits[0] >= limits[1] else (float(limits[0]), float(limits[1])),
        gain=gain,
        offset=offset,
        scale=scale,
        axis=axis,
        axis_unit=text_of(own.get("wavelength_units")) or text_of(own.get("wavelength_unit")) or sensor.get("unit"),
        good_bands=_first(own, GOOD_BANDS, None) if sensor.get("flags") is None else sensor["flags"],
        bad_windows=windows,
        unit=next((text for name in _UNITS if (text := text_of(own.get(name)))), None),
        notes=tuple(notes),
    )


def _attributes(item: Any) -> dict[str, Any]:
    """The attributes that h5py can read."""
    found = {}
    for name in item.attrs:
        with suppress(OSError, TypeError, ValueError, RuntimeError, KeyError):
            found[name] = item.attrs[name]
    return found


def place_in(path: Path, places: Iterable[str]) -> dict[str, str] | None:
    """Where a scene lies on Earth, by NEON's text or the grid mapping of CF; `places` are data sets of one value."""
    import h5py

    found: dict[str, str] = {}
    with h5py.File(path, "r") as file:
        for place in places:
            item, name = file.get(place), place.rpartition("/")[2].lower()
            if not isinstance(item, h5py.Dataset):
                continue
            if name in _PLACE and item.dtype.kind in "OS" and item.nbytes < _MOST_TEXT:
                text = text_of(item[()])
                found |= {_PLACE[name]: " ".join(text.split())} if text else {}
            else:
                found |= place_from([item.attrs]) or {}
    return found if "map info" in found else None


def place_from(mappings: Iterable[Any]) -> dict[str, str] | None:
    """Where a scene lies on Earth, by the attributes of grid mappings of CF."""
    found: dict[str, str] = {}
    for own in mappings:
        numbers, wkt = _numbers(own.get("GeoTransform")), text_of(own.get("crs_wkt"))
        if numbers is not None and len(numbers) == 6:
            found |= place_of(numbers.tolist(), wkt or text_of(own.get("spatial_ref")))
    return found or None


def _factors(own: dict[str, Any], notes: list[str]) -> tuple[float, float, float]:
    """Factor, offset and divisor of stored numbers."""
    factor, offset = _number(own.get("scale_factor")), _number(own.get("add_offset"))
    if factor is not None or offset is not None:
        found = (1.0 if factor is None else factor), (offset or 0.0)
        if found != (1.0, 0.0):
            notes.append(f"times {found[0]:g} (scale_factor)" + (f" plus {found[1]:g} (add_offset)" if offset else ""))
        return *found, 1.0
    plain = {re.sub(r"[^a-z]", "", name.lower()): name for name in own}
    name = next((plain[known] for known in _DIVISORS if known in plain), "")
    divisor = _number(own.get(name))
    others = [repr(plain[known]) for known in _FACTORS if known in plain and not name]
    if others:
        notes.append(f"its attributes {', '.join(others)} are not applied")
    if divisor is None or divisor <= 0 or divisor == 1:
        return 1.0, 0.0, 1.0
    # As of ENVI: nobody stores reflectance as numbers below 1 that are divided by less than 1.
    scale = divisor if divisor > 1 else 1 / divisor
    notes.append(f"divided by {scale:g} ({name})")
    return 1.0, 0.0, scale


def _prisma(place: str, root: Any) -> dict[str, Any]:
    """PRISMA's wavelengths and scale: attributes of the root, for each of its two sensors."""
    name = place.rpartition("/")[2].upper()
    sensor = "Vnir" if "VNIR" in name else "Swir" if "SWIR" in name else None
    if sensor is None or "CUBE" not in name:
        return {}
    if f"List_Cw_{sensor}" not in root:
        return {}
    found: dict[str, Any] = {"axis": _numbers(root.get(f"List_Cw_{sensor}")), "unit": "nm"}
    found["flags"] = _numbers(root.get(f"List_Cw_{sensor}_Flags"))
    low, high = (_number(root.get(f"L2Scale{sensor}{end}")) for end in ("Min", "Max"))
    if low is not None and high is not None:
        # "PRISMA Products Specification Document" (ASI), level 2: 16 bits from the least to the largest value.
        return found | {"gain": (high - low) / 65535, "offset": low, "nodata": 0.0}
    factor, offset = _number(root.get(f"ScaleFactor_{sensor}")), _number(root.get(f"Offset_{sensor}"))
    return found | {"gain": 1 / factor, "offset": -(offset or 0.0)} if factor else found


def _windows(group: Any) -> tuple[tuple[float, float], ...]:
    """Wavelengths that NEON marks in the group of a data set as those of water vapor."""
    names = [name for name in group.attrs if _WINDOW.fullmatch(str(name))]
    found = [values for name in names if (values := _numbers(group.attrs[name])) is not None and len(values) == 2]
    return tuple((float(low), float(high)) for low, high in found)


def _dims(item: Any, own: dict[str, Any]) -> tuple[str, ...]:
    """Names of the axes, from the scales or labels of HDF5's dimensions or an attribute that lists them."""
    rank = len(item.shape or ())
    if "DIMENSION_LIST" in own or "DIMENSION_LABELS" in own:
        names = []
        for dim in item.dims:
            scale = dim[0].name.rpartition("/")[2] if len(dim) else ""
            names.append(dim.label or scale)
        if all(names):
            return tuple(names)
    for key in _DIMS:
        value = own.get(key)
        if value is None:
            continue
        text = text_of(value)
        parts = re.split(r"[,;]\s*|\s+", text) if text is not None else [text_of(v) or "" for v in np.ravel(value)]
        if len(parts) == rank and all(parts):
            return tuple(parts)
    return ()


def _first(own: dict[str, Any], names: Iterable[str], length: int | None) -> np.ndarray | None:
    """The numbers, at least two, of the first of these attributes that has (so many of) them."""
    for name in names:
        values = _numbers(own.get(name))
        if values is not None and len(values) > 1 and length in (None, len(values)):
            return values
    return None


def _number(value: Any) -> float | None:
    """A finite number or NaN that an attribute holds alone."""
    found = _numbers(value)
    return float(found[0]) if found is not None and len(found) == 1 else None


def _numbers(value: Any) -> np.ndarray | None:
    """The numbers of an attribute, which may be written as text."""
    if value is None:
        return None
    text = text_of(value)
    try:
        values = np.array([float(x) for x in re.split(r"[,;\s]+", text.strip("{}[]() "))]) if text else np.ravel(value)
        return values.astype(np.float64) if values.dtype.kind in "iuf" and values.size else None
    except ValueError:
        return None
