"""ENVI images: a text header beside a file of raw numbers in BSQ, BIL or BIP order.

After "ENVI Header Files" (NV5 Geospatial, ENVI documentation), read as leniently as files in circulation need: a
missing `byte order` is little-endian, a missing `header offset` 0; lines that begin with `;` are comments; values in
braces may span lines; case and spacing of names do not matter, nor whether `_` stands for a blank in them, or `:` for
the equals sign; numbers may be written as Fortran or the C library of Windows writes them.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spectrafuse.io.arrays import ARRAY_SUFFIXES
from spectrafuse.io.axes import axis_of, monotonic
from spectrafuse.io.errors import DataError
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.signatures import signature, what_it_is
from spectrafuse.io.units import likely_unit, short_unit

HEADER_SUFFIX = ".hdr"
LIBRARY_SUFFIX = ".sli"
DATA_SUFFIXES = (".img", ".raw", ".dat", ".bil", ".bip", ".bsq", ".bin")
_NOT_ENVI = (*ARRAY_SUFFIXES, ".json", ".pth", ".pt", ".csv", ".tsv", ".txt")
# The codes of real types; 6 and 9 are complex.
DATA_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_STORED_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
_MOST_HEADER_BYTES = 1 << 22
_LARGEST_SCALE = 1e30
# Where an image lies on Earth: fields with braces around their values, and without.
_PLACE_IN_BRACES = (
    "map info", "projection info", "coordinate system string", "geo points", "pixel size", "rpc info",
)  # fmt: skip
_PLACE = (*_PLACE_IN_BRACES, "x start", "y start")
_REPEATED = "(repeated)"
_GAINS = ("data gain values", "data offset values")
# What changes numbers and is not applied: it leads to other quantities than those that people look for.
_NOT_APPLIED = ("data reflectance gain values", "data reflectance offset values")
_NO_UNIT = ("unknown", "none", "undefined", "n/a", "na", "null", "?", "-")
_PACKED = ("gzip", "zip", "7z", "rar")
_KNOWN_KINDS = ("", "envi", "envi standard", "envi classification", "standard", "envi floating point")
_NAN = re.compile(r"[-+]?(1\.#(qnan|snan|ind|nan)0*(e[-+]?0+)?|nan(\(.*\))?|n/?a)")
_INFINITE = re.compile(r"([-+]?)(1\.#inf0*(e[-+]?0+)?|inf(inity)?)")
_WITH_UNIT = re.compile(r"([-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?)\s*([^\d\s.,()\[\]][^\s()\[\]]*)?", re.IGNORECASE)
_MEND = "mend that line of the header, or take it out"
_TRUTH = {"true": "1", "false": "0", "t": "1", "f": "0"}
_WHOLE = re.compile(r"\+?\d{1,15}", re.ASCII)


@dataclass(frozen=True, eq=False)
class EnviImage:
    """What a header says, checked against the size of the data file.

    Attributes
    ----------
    header, data : Path
        The two files.
    shape : tuple of int
        Bands, rows (lines), columns (samples).
    dtype : numpy.dtype
        Type of the stored numbers, with their byte order.
    interleave : {"bsq", "bil", "bip"}
    offset : int
        Bytes before the first number.
    wavelengths : ndarray, shape (bands,), float64, or None
        In the header's order; None where there are none or not as many numbers as bands.
    wavelength_unit : str or None
        As the header has it.
    nodata : float or None
        The `data ignore value`, in stored numbers.
    scale : float
        By which stored numbers are divided to get reflectance; 1 without a `reflectance scale factor`. A factor below
        1 is one to multiply by, so this is its reciprocal.
    class_names : list of str
        Of a class map; else empty.
    bad_bands : ndarray of int
        Bands that the `bbl` (bad bands list) marks with 0.
    gains, offsets : ndarray, shape (bands,), or None
        `data gain values` and `data offset values`, where they change anything.
    place : dict of str to str, or None
        The fields that say where the image lies on Earth.
    notes : tuple of str
        What a person should know about how the header was read.
    kind : str
        The `file type`.
    """

    header: Path
    data: Path
    shape: tuple[int, int, int]
    dtype: np.dtype
    interleave: str
    offset: int
    wavelengths: np.ndarray | None
    wavelength_unit: str | None
    nodata: float | None
    scale: float
    class_names: list[str]
    bad_bands: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    gains: np.ndarray | None = None
    offsets: np.ndarray | None = None
    place: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    kind: str = ""

    @property
    def words(self) -> str:
        """How the image is read, for a person."""
        order = "big-endian" if self.dtype.str[0] == ">" else "little-endian"
        stored = f"{self.dtype.name}" if self.dtype.itemsize == 1 else f"{order} {self.dtype.name}"
        scaled = f", divided by the reflectance scale factor {self.scale:g}" if self.scale != 1 else ""
        return f"ENVI {self.interleave.upper()}, {stored}, {self.shape} as (bands, rows, columns){scaled}"

    def map(self) -> MappedArray:
        """The stored numbers (bands, rows, columns); slices are read when they are taken."""
        axes = _STORED_AXES[self.interleave]
        stored = MappedArray.contiguous(self.data, self.dtype, self.offset, [self.shape[axis] for axis in axes])
        return stored.transpose(*(axes.index(axis) for axis in range(3)))


class Library(NamedTuple):
    """Spectra of a library.

    Attributes
    ----------
    header, data : Path
    values : ndarray, shape (n, d), float64
    axis : ndarray, shape (d,), or None
    axis_unit : str or None
        As the header has it.
    names : list of str or None
    """

    header: Path
    data: Path
    values: np.ndarray
    axis: np.ndarray | None
    axis_unit: str | None
    names: list[str] | None


def is_envi(path: str | os.PathLike[str]) -> bool:
    """Whether a path names an ENVI header, or a data file by its suffix or by a header beside it."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == HEADER_SUFFIX or suffix in DATA_SUFFIXES:
        return True
    return suffix not in _NOT_ENVI and file.is_file() and header_of(file) is not None


def open_envi(path: str | os.PathLike[str]) -> EnviImage:
    """Read a header and check that the data file is as long as it says.

    Parameters
    ----------
    path : path
        The header (`.hdr`) or the data file. Beside a header `scene.hdr` the data are `scene` or `scene` with one of
        the suffixes `.img`, `.raw`, `.dat`, `.bil`, `.bip`, `.bsq`, `.bin`, else the only other `scene.*` of the size
        that the header says; beside a data file `scene.img` the header is `scene.img.hdr` or `scene.hdr`. Case does
        not matter.

    Raises
    ------
    DataError
        A missing part of the pair, several data files that fit, a header that does not say enough, complex numbers,
        data that are too short (with expected and actual bytes).

    Warns
    -----
    UserWarning
        Wavelengths that are no numbers or not as many as bands; more data than the header says.
    """
    file = Path(path)
    _require_file(path, file)
    if file.suffix.lower() == HEADER_SUFFIX:
        return _check_size(described(file))
    header = header_of(file)
    if header is None:
        beside = f"'{file.name}{HEADER_SUFFIX}' or '{file.stem}{HEADER_SUFFIX}'"
        raise DataError(f"'{path}' has no ENVI header beside it ({beside}), so its layout is not known.")
    fields = read_header(header)
    expected = _expected_size(header, fields)
    if _size(file) != expected:
        data = next((o for o in _beside(file) if o.stem.lower() == file.stem.lower() and _size(o) == expected), None)
        if data is not None:
            raise DataError(
                f"'{path}' has {_size(file)} bytes, but '{header.name}' describes {expected}, which are those of "
                f"'{data.name}': give '{header.name}' or '{data.name}'."
            )
    return _check_size(_interpret(header, file, fields))


def data_beside(header: Path) -> Path:
    """The data file of a header. Raises as `described`."""
    return _data_of(header, read_header(header))


def described(header: Path) -> EnviImage:
    """What a header says about the data file beside it, whatever that file is.

    Raises
    ------
    DataError
        If there is no such file, several can be it, or the header does not say enough.
    """
    fields = read_header(header)
    return _interpret(header, _data_of(header, fields), fields)


def image_of_fields(data: str | os.PathLike[str], fields: dict[str, str]) -> EnviImage:
    """The image of a data file whose header has been read by another library."""
    file = Path(data)
    return _check_size(_interpret(file, file, fields))


def facts_of_fields(fields: dict[str, str], values: np.ndarray) -> dict[str, Any]:
    """What the header of numbers that have been read says of them: no-data value, bad bands, place; `Cube` has more.

    `values` (rows, columns, bands) may have been divided by the scale factor, and the no-data value with them.
    """
    header = Path("The header")
    notes: list[str] = []
    nodata, marks = _nodata(header, fields), _per_band(header, fields, "bbl", values.shape[2], notes)
    if nodata is not None and np.isfinite(nodata) and not (values == nodata).any():
        nodata /= _scale(header, fields)
    notes += [f"the header's {name!r} are not applied" for name in _GAINS if name in fields]
    return {
        "nodata": nodata,
        "bad": None if marks is None else np.flatnonzero(marks <= 0),
        "place": _place_of_fields(fields),
        "notes": tuple(notes),
    }


def facts_of_domain(path: Path, fields: dict[str, str], bands: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What fields of a header say of an image in another format that carries them, and notes; `Cube` has more."""
    notes: list[str] = []
    marks = _per_band(path, fields, "bbl", bands, notes)
    axis, unit, told = _wavelengths(path, fields, bands)
    facts = {"wavelengths": axis, "wavelength_unit": unit, "scale": _scale(path, fields)}
    if marks is not None and (marks <= 0).any():
        facts["bad"] = np.flatnonzero(marks <= 0)
    return {name: value for name, value in facts.items() if value is not None}, (*notes, *told)


def _place_of_fields(fields: dict[str, str]) -> dict[str, str] | None:
    return {name: " ".join(fields[name].split()) for name in _PLACE if fields.get(name)} or None


def read_header(path: Path) -> dict[str, str]:
    """The fields of a header: names in lower case with single blanks, values without their braces.

    Raises
    ------
    DataError
        If the file is no ENVI header or a brace is not closed.
    """
    try:
        if path.stat().st_size > _MOST_HEADER_BYTES:
            raise DataError(f"'{path}' is too long to be an ENVI header.")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = iter(text.lstrip().replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    if not next(lines).strip().upper().startswith("ENVI"):
        raise DataError(f"'{path}' is not an ENVI header: its first line is not 'ENVI'; add it if the rest is one.")
    fields: dict[str, str] = {}
    repeated = set()
    for line in lines:
        name, equals, value = line.partition("=" if "=" in line else ":")
        if not equals or line.lstrip().startswith(";"):
            continue
        name, value = " ".join(name.lower().replace("_", " ").split()), value.strip()
        value = _in_braces(path, name, value, lines) if value[:1] == "{" else value.partition(";")[0].rstrip()
        if fields.get(name, value) != value:
            repeated.add(name)
        fields[name] = value
    if repeated:
        fields[_REPEATED] = ", ".join(sorted(repeated))
    return fields


def _in_braces(path: Path, name: str, first: str, lines: object) -> str:
    parts = [first[1:]]
    while "}" not in parts[-1]:
        line = next(lines, None)  # type: ignore[call-overload]
        if line is None:
            raise DataError(f"'{path}' ends within the braces of {name!r}.")
        if not line.lstrip().startswith(";"):
            parts.append(line)
    parts[-1] = parts[-1].partition("}")[0]
    return "\n".join(parts).strip()


def _require_file(path: str | os.PathLike[str], file: Path) -> None:
    try:
        if file.is_dir():
            raise DataError(f"'{path}' is a folder; give a file.")
        if not file.is_file():
            raise DataError(f"'{path}' does not exist.")
        if file.stat().st_size == 0:
            raise DataError(f"'{path}' is empty (0 bytes).")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"'{path}' cannot be read: {error}.") from error


def _beside(file: Path) -> list[Path]:
    try:
        return sorted(other for other in file.parent.iterdir() if other.is_file())
    except OSError as error:
        raise DataError(f"The folder of '{file}' cannot be read: {error.strerror or error}.") from error


def header_of(file: Path) -> Path | None:
    """The header beside a data file."""
    others = _beside(file)
    for fold in (str, str.lower):
        for stem in (file.name, file.stem):
            for other in others:
                if fold(other.stem) == fold(stem) and other.suffix.lower() == HEADER_SUFFIX:
                    return other
    return None


def _data_of(header: Path, fields: dict[str, str]) -> Path:
    stem = header.stem.lower()
    others = [
        other
        for other in _beside(header)
        if other.name.lower() == stem or (other.stem.lower() == stem and other.suffix.lower() != HEADER_SUFFIX)
    ]
    # The header's own case first.
    exact = [other for other in others if header.stem in (other.stem, other.name)]
    found: list[Path] = []
    for group in (exact, others):
        found = found or [o for o in group if o.name.lower() == stem or o.suffix.lower() in DATA_SUFFIXES]
    if len(found) != 1 or _size(found[0]) != _expected_size(header, fields):
        # A file of the right size among others of the same name.
        size = _expected_size(header, fields)
        fitting = [other for other in found if _size(other) == size] or [o for o in others if _size(o) == size]
        images = [other for other in others if signature(other) == "tiff"] if not fitting and not found else []
        found = fitting or found or images
    if len(found) == 1:
        return found[0]
    if not found:
        names = f"'{header.stem}' with no suffix or one of {', '.join(DATA_SUFFIXES)}"
        near = ", ".join(f"'{other.name}' has {_size(other)}" for other in others[:3])
        packed = [o for o in _beside(header) if o.name.lower().startswith(f"{stem}.") and signature(o) in _PACKED]
        near = f"'{packed[0].name}' is {what_it_is(packed[0], signature(packed[0]) or '')}" if packed else near
        raise DataError(
            f"'{header}' has no data file beside it ({names}, or any other of {_expected_size(header, fields)} bytes"
            f"{f'; {near}' if near else ''})."
        )
    listed = ", ".join(data.name for data in found)
    raise DataError(f"'{header}' has several files beside it that can be its data ({listed}); give the data file.")


def _expected_size(header: Path, fields: dict[str, str]) -> int:
    return expected_bytes(_raw_numbers(header, header, fields))


def _interpret(header: Path, data: Path, fields: dict[str, str]) -> EnviImage:
    """All that a header says."""
    image = _stored_as(header, data, fields)
    bands = image.shape[0]
    notes: list[str] = []
    gains, offsets = (_per_band(header, fields, name, bands, notes) for name in _GAINS)
    notes += [f"the header's {name!r} are not applied" for name in _NOT_APPLIED if name in fields]
    notes += [f"the header has {fields[_REPEATED]} twice: the last one is used"] if _REPEATED in fields else []
    marks = _per_band(header, fields, "bbl", bands, notes)
    wavelengths, unit, told = _wavelengths(header, fields, bands)
    scale = _scale(header, fields)
    if gains is not None and scale != 1 and np.allclose(gains * scale, 1):
        gains = None
        notes.append("the header's 'data gain values' say the same as its scale factor and are not applied again")
    return replace(
        image,
        wavelengths=wavelengths,
        wavelength_unit=unit,
        nodata=_nodata(header, fields),
        scale=scale,
        class_names=_parts(fields.get("class names", "")),
        bad_bands=np.zeros(0, dtype=np.int64) if marks is None else np.flatnonzero(marks <= 0),
        gains=None if gains is None or (gains == 1).all() else gains,
        offsets=None if offsets is None or not offsets.any() else offsets,
        place=_place_of_fields(fields),
        notes=(*notes, *told),
        kind=fields.get("file type", ""),
    )


def place_lines(place: Mapping[str, str] | None) -> str:
    """Lines of a header that say where an image lies on Earth, from the fields of another one."""
    braced = {name: f"{{{value}}}" if name in _PLACE_IN_BRACES else value for name, value in (place or {}).items()}
    return "".join(f"{name} = {value}\n" for name, value in braced.items())


def _stored_as(header: Path, data: Path, fields: dict[str, str]) -> EnviImage:
    """How a header says that the numbers are stored."""
    if is_library(fields):
        raise DataError(
            f"'{header}' describes a spectral library, which is not an image; read it with read_spectra or `unmix`."
        )
    return _raw_numbers(header, data, fields)


def is_library(fields: Mapping[str, str]) -> bool:
    """Whether a header describes a spectral library."""
    return "spectral library" in " ".join(fields.get("file type", "").lower().split())


def library_of(path: str | os.PathLike[str]) -> Library | None:
    """The spectra of a spectral library, by its header or its data file (`.sli`); None for any other file.

    Raises
    ------
    DataError
        As `open_envi`.
    """
    file = Path(path)
    header: Path | None = file
    if file.suffix.lower() != HEADER_SUFFIX:
        known = file.suffix.lower() in (LIBRARY_SUFFIX, *DATA_SUFFIXES) and file.is_file()
        header = header_of(file) if known else None
    if header is None or not header.is_file():
        return None
    fields = read_header(header)
    if not is_library(fields):
        return None
    data = _data_of(header, fields) if header == file else file
    image = _check_size(replace(_raw_numbers(header, data, fields), scale=_scale(header, fields)))
    _, count, bands = image.shape
    if image.shape[0] != 1:
        raise DataError(f"'{header}' must have 1 band, as spectral libraries have; got {image.shape[0]}.")
    axis, unit, _ = _wavelengths(header, fields, bands)
    names = _parts(fields.get("spectra names", ""))
    values = np.asarray(image.map()[:], dtype=np.float64)[0] / image.scale
    return Library(header, data, values, axis, unit, names if len(names) == count else None)


def _raw_numbers(header: Path, data: Path, fields: dict[str, str]) -> EnviImage:
    if fields.get("file compression", "0") not in ("0", ""):
        raise DataError(f"'{header}' describes compressed data, which cannot be read; save them uncompressed.")
    for name in ("major frame offsets", "minor frame offsets"):
        if any(part.strip() not in ("0", "") for part in fields.get(name, "").split(",")):
            raise DataError(f"'{header}' has {name} {{{fields[name]}}}, which cannot be read.")
    bands, rows, columns = (_whole(header, fields, name, 1) for name in ("bands", "lines", "samples"))
    code = _whole(header, fields, "data type", 0)
    if code not in DATA_TYPES:
        what = "complex numbers" if code in (6, 9) else "an unknown type"
        raise DataError(f"'{header}' has data type {code}, {what}; known are {', '.join(map(str, DATA_TYPES))}.")
    order = _whole(header, fields, "byte order", 0, default=0)
    if order > 1:
        raise DataError(f"'{header}' has byte order {order}; it must be 0 (little-endian) or 1 (big-endian).")
    interleave = fields.get("interleave", "bsq" if bands == 1 else "").lower()
    if interleave not in _STORED_AXES:
        raise DataError(f"'{header}' must have an interleave of bsq, bil or bip; got {interleave!r}.")
    return EnviImage(
        header,
        data,
        (bands, rows, columns),
        np.dtype(("<", ">")[order] + DATA_TYPES[code]),
        interleave,
        _whole(header, fields, "header offset", 0, default=0),
        None,
        None,
        None,
        1.0,
        [],
    )


def _whole(header: Path, fields: dict[str, str], name: str, least: int, default: int | None = None) -> int:
    text = fields.get(name, "")
    if not text and default is not None:
        return default
    text = text.removesuffix(".0")
    if not _WHOLE.fullmatch(text) or int(text) < least:
        got = f"got {text[:40]!r}" if name in fields else "it has none"
        raise DataError(f"'{header}' must have {name!r}, a whole number of at least {least}; {got}.")
    return int(text)


def as_number(text: str) -> float:
    """A number as programs write it: `-1.#QNAN` and `1.#INF` of Windows, exponents with D of Fortran.

    Raises
    ------
    ValueError
        For anything else.
    """
    plain = text.strip().lower()
    infinite = _INFINITE.fullmatch(plain)
    if infinite is not None:
        return float(f"{infinite[1]}inf")
    return float("nan") if _NAN.fullmatch(plain) else float(re.sub(r"(?<=[\d.])d(?=[-+\d])", "e", plain))


def _number(header: Path, fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    if text.lower() in ("", "none"):
        return None
    try:
        values = {str(as_number(part)) for part in _parts(text)}
    except ValueError:
        values = set()
    if len(values) != 1:
        what = "one number" if len(values) > 1 else "a number"
        raise DataError(f"'{header}' must have {what} as {name!r}; got {text[:40]!r}: {_MEND}.")
    return float(values.pop())


def _nodata(header: Path, fields: dict[str, str]) -> float | None:
    return _number(header, fields, "data ignore value")


def _scale(header: Path, fields: dict[str, str]) -> float:
    scale = _number(header, fields, "reflectance scale factor")
    if scale is None:
        return 1.0
    if not 1 / _LARGEST_SCALE <= scale <= _LARGEST_SCALE:
        raise DataError(f"'{header}' must have a positive 'reflectance scale factor'; got {scale:g}: {_MEND}.")
    # Nobody stores reflectance as numbers below 1 that are divided by less than 1.
    return scale if scale >= 1 else 1 / scale


def _per_band(header: Path, fields: dict[str, str], name: str, bands: int, notes: list[str]) -> np.ndarray | None:
    """A number for each band, from as many or one; None, with a note, where the field has neither."""
    parts = _numbers(fields.get(name, ""), bands)
    if not parts:
        return None
    try:
        values = np.array([as_number(_TRUTH.get(part.lower(), part)) for part in parts])
    except ValueError:
        values = np.full(len(parts), np.nan)
    if not np.isfinite(values).all():
        notes.append(f"the header's {name!r} are not all numbers and are not applied")
        return None
    if len(values) not in (1, bands) or (len(values) == 1 and name == "bbl" and bands > 1):
        notes.append(f"the header has {len(values)} {name!r} for {bands} bands, which are not applied")
        return None
    return np.broadcast_to(values, bands).copy()


def _parts(value: str) -> list[str]:
    return [part for part in (x.strip() for x in value.split(",")) if part]


def _wavelengths(
    header: Path, fields: dict[str, str], bands: int
) -> tuple[np.ndarray | None, str | None, tuple[str, ...]]:
    """Wavelengths, their unit, and what to say about where they come from."""
    said = fields.get("wavelength units") or fields.get("wavelength unit") or None
    said = None if said and said.lower() in _NO_UNIT else said
    if short_unit(said) == "index":
        return None, None, ("the header's wavelengths are band numbers",)
    name = next((name for name in ("wavelength", "wavelengths", "band centers") if _parts(fields.get(name, ""))), None)
    if name is None:
        values, unit = axis_of_names(_parts(fields.get("band names", "")))
        if values is None or len(values) != bands:
            return None, said, ()
        return values, unit or said, ("wavelengths from the names of the bands",)
    parts = _numbers(fields[name], bands)
    values, unit = with_units(parts)
    if values is not None and len(values) == bands:
        if bands > 1 and (values == values[0]).all():
            return None, said, (f"the header's {name!r} are all {values[0]:g} and are not used",)
        return values, unit or said, _doubts(values, unit or said)
    what = f"{len(parts)} wavelengths" if values is not None else "wavelengths that are not all numbers"
    warnings.warn(f"'{header}' has {bands} bands and {what}: read without wavelengths.", UserWarning, stacklevel=6)
    return None, said, ()


def _numbers(text: str, count: int) -> list[str]:
    """The cells of a list of numbers: separated by commas, semicolons or blanks, perhaps in quotes.

    With decimal commas, which programs write under some locales, semicolons or blanks separate.
    """
    text = text.replace('"', " ").replace("'", " ")
    parts = _parts(text)
    if ";" in text or len(parts) == 1 or (len(parts) != count and re.search(r"\d,\d", text)):
        others = [part.strip(" ,").replace(",", ".") for part in re.split(r";|,?\s+" if ";" not in text else ";", text)]
        others = [part for part in others if part]
        return others if len(others) == count else parts
    blanks = text.split()
    return blanks if len(parts) != count == len(blanks) else parts


def _doubts(values: np.ndarray, text: str | None) -> tuple[str, ...]:
    unit = short_unit(text)
    if (unit == "µm" and values.min() >= 100) or (unit == "nm" and values.max() <= 30):
        other = "nm" if unit == "µm" else "µm"
        return (f"the header's wavelengths in {unit} look like {other}: if so, mend its 'wavelength units'",)
    return ()


def with_units(parts: list[str], *, named: bool = False) -> tuple[np.ndarray | None, str | None]:
    """Finite numbers that may each have a unit, the same one; of names, those that have one somewhere in them."""
    values, units = [], set()
    for part in parts:
        matches = _WITH_UNIT.finditer(part) if named else filter(None, [_WITH_UNIT.fullmatch(part.strip())])
        found = [match for match in matches if not named or short_unit(match[2]) not in (None, "index")]
        if len(found) != 1 or (found[0][2] and short_unit(found[0][2]) is None):
            return None, None
        values.append(float(found[0][1]))
        units.add(short_unit(found[0][2]))
    if not values or len(units) > 1 or not np.isfinite(values).all():
        return None, None
    return np.array(values), units.pop()


def axis_of_names(names: list[str]) -> tuple[np.ndarray | None, str | None]:
    """Wavelengths in the names of bands: with units, or numbers, perhaps after letters ("X397.66"), that rise in nm."""
    values, unit = with_units(names, named=True)
    if values is None and (found := axis_of(names)) is not None:
        # Years and other counts rise by one.
        rising = monotonic(found.values) and not (np.diff(found.values) == 1).all()
        values = found.values if rising and likely_unit(found.values) == "nm" else None
    return (values, unit) if values is not None and len(set(values)) == len(names) else (None, None)


def expected_bytes(image: EnviImage) -> int:
    """Bytes that the data file has if it holds raw numbers as the header says."""
    bands, rows, columns = image.shape
    return image.offset + bands * rows * columns * image.dtype.itemsize


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def _check_size(image: EnviImage) -> EnviImage:
    """The image itself, if its data file can be what the header says.

    Raises
    ------
    DataError
        If the file has a signature of another format and not exactly the size of raw numbers, is too short, or is
        said to be of another format.
    """
    bands, rows, columns = image.shape
    actual, expected = _size(image.data), expected_bytes(image)
    found = signature(image.data)
    if found is not None and actual != expected:
        raise DataError(
            f"'{image.data}' is not raw numbers, as '{image.header.name}' says, but {what_it_is(image.data, found)}."
        )
    if " ".join(image.kind.lower().split()) not in _KNOWN_KINDS and actual != expected:
        raise DataError(
            f"'{image.header}' has the file type {image.kind!r}, and '{image.data.name}' has not the {expected} bytes "
            f"of raw numbers; convert it with `gdal_translate -of ENVI {image.data.name} {image.data.stem}-raw.img`."
        )
    says = (
        f"'{image.data}' has {actual} bytes, but {bands} bands, {rows} lines and {columns} samples of "
        f"{image.dtype.itemsize} bytes after an offset of {image.offset} make {expected} bytes"
    )
    if actual < expected:
        raise DataError(f"{says}: it is cut short, or '{image.header.name}' is not its header.")
    if actual > expected:
        warnings.warn(f"{says}; the rest is not read.", UserWarning, stacklevel=4)
    return image
