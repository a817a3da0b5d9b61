"""ENVI images: a text header beside a file of raw numbers in BSQ, BIL or BIP order.

After "ENVI Header Files" (NV5 Geospatial, ENVI documentation), read as leniently as files in circulation need: a
missing `byte order` is little-endian, a missing `header offset` 0; lines that begin with `;` are comments; values in
braces may span lines; case and spacing of names do not matter.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectrafuse.io.arrays import ARRAY_SUFFIXES
from spectrafuse.io.errors import DataError
from spectrafuse.io.mapped import MappedArray

HEADER_SUFFIX = ".hdr"
DATA_SUFFIXES = (".img", ".raw", ".dat", ".bil", ".bip", ".bsq", ".bin")
_NOT_ENVI = (*ARRAY_SUFFIXES, ".json", ".pth", ".pt", ".csv", ".tsv", ".txt")
# The codes of real types; 6 and 9 are complex.
DATA_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_STORED_AXES = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
_MOST_HEADER_BYTES = 1 << 22
_LARGEST_SCALE = 1e30
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
        The `reflectance scale factor`, by which stored numbers are divided to get reflectance; 1 without one.
    class_names : list of str
        Of a class map; else empty.
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


def is_envi(path: str | os.PathLike[str]) -> bool:
    """Whether a path names an ENVI header, or a data file by its suffix or by a header beside it."""
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix == HEADER_SUFFIX or suffix in DATA_SUFFIXES:
        return True
    return suffix not in _NOT_ENVI and file.is_file() and _header_of(file) is not None


def open_envi(path: str | os.PathLike[str]) -> EnviImage:
    """Read a header and check that the data file is as long as it says.

    Parameters
    ----------
    path : path
        The header (`.hdr`) or the data file. Beside a header `scene.hdr` the data are `scene` or `scene` with one of
        the suffixes `.img`, `.raw`, `.dat`, `.bil`, `.bip`, `.bsq`, `.bin`; beside a data file `scene.img` the
        header is `scene.img.hdr` or `scene.hdr`. Case does not matter in suffixes.

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
        fields = read_header(file)
        return _check_size(_interpret(file, _data_of(file, fields), fields))
    header = _header_of(file)
    if header is None:
        beside = f"'{file.name}{HEADER_SUFFIX}' or '{file.stem}{HEADER_SUFFIX}'"
        raise DataError(f"'{path}' has no ENVI header beside it ({beside}), so its layout is not known.")
    return _check_size(_interpret(header, file, read_header(header)))


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
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = iter(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    if not next(lines).strip().upper().startswith("ENVI"):
        raise DataError(f"'{path}' is not an ENVI header: its first line is not 'ENVI'.")
    fields = {}
    for line in lines:
        name, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith(";"):
            continue
        name, value = " ".join(name.lower().split()), value.strip()
        fields[name] = _in_braces(path, name, value, lines) if value[:1] == "{" else value.partition(";")[0].rstrip()
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


def _header_of(file: Path) -> Path | None:
    others = _beside(file)
    for stem in (file.name, file.stem):
        for other in others:
            if other.stem == stem and other.suffix.lower() == HEADER_SUFFIX:
                return other
    return None


def _data_of(header: Path, fields: dict[str, str]) -> Path:
    found = [
        other
        for other in _beside(header)
        if other.name == header.stem or (other.stem == header.stem and other.suffix.lower() in DATA_SUFFIXES)
    ]
    if len(found) > 1:
        # A file of the right size among others of the same name.
        images = [_interpret(header, data, fields) for data in found]
        fitting = [image.data for image in images if _size(image.data) == _expected_bytes(image)]
        found = fitting or found
    if len(found) == 1:
        return found[0]
    if not found:
        names = f"'{header.stem}' with no suffix or one of {', '.join(DATA_SUFFIXES)}"
        raise DataError(f"'{header}' has no data file beside it ({names}).")
    listed = ", ".join(data.name for data in found)
    raise DataError(f"'{header}' has several files beside it that can be its data ({listed}); give the data file.")


def _interpret(header: Path, data: Path, fields: dict[str, str]) -> EnviImage:
    kind = fields.get("file type", "").lower()
    if "spectral library" in kind:
        raise DataError(f"'{header}' describes a spectral library, which is not an image.")
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
        _wavelengths(header, fields, bands),
        fields.get("wavelength units") or None,
        _number(header, fields, "data ignore value"),
        _scale(header, fields),
        _parts(fields.get("class names", "")),
    )


def _whole(header: Path, fields: dict[str, str], name: str, least: int, default: int | None = None) -> int:
    text = fields.get(name, "")
    if not text and default is not None:
        return default
    if not _WHOLE.fullmatch(text) or int(text) < least:
        got = f"got {text[:40]!r}" if name in fields else "it has none"
        raise DataError(f"'{header}' must have {name!r}, a whole number of at least {least}; {got}.")
    return int(text)


def _number(header: Path, fields: dict[str, str], name: str) -> float | None:
    text = fields.get(name, "")
    if text.lower() in ("", "none"):
        return None
    try:
        return float(text)
    except ValueError:
        raise DataError(f"'{header}' must have a number as {name!r}; got {text[:40]!r}.") from None


def _scale(header: Path, fields: dict[str, str]) -> float:
    scale = _number(header, fields, "reflectance scale factor")
    if scale is None:
        return 1.0
    if not 1 <= scale <= _LARGEST_SCALE:
        raise DataError(f"'{header}' must have a 'reflectance scale factor' of at least 1; got {scale:g}.")
    return scale


def _parts(value: str) -> list[str]:
    return [part for part in (x.strip() for x in value.split(",")) if part]


def _wavelengths(header: Path, fields: dict[str, str], bands: int) -> np.ndarray | None:
    parts = _parts(fields.get("wavelength", ""))
    if not parts:
        return None
    try:
        values = np.array([float(part) for part in parts])
    except ValueError:
        values = np.full(len(parts), np.nan)
    if len(values) == bands and np.isfinite(values).all():
        return values
    what = f"{len(values)} wavelengths" if np.isfinite(values).all() else "wavelengths that are not all numbers"
    warnings.warn(f"'{header}' has {bands} bands and {what}: read without wavelengths.", UserWarning, stacklevel=5)
    return None


def _expected_bytes(image: EnviImage) -> int:
    bands, rows, columns = image.shape
    return image.offset + bands * rows * columns * image.dtype.itemsize


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def _check_size(image: EnviImage) -> EnviImage:
    bands, rows, columns = image.shape
    actual, expected = _size(image.data), _expected_bytes(image)
    says = (
        f"'{image.data}' has {actual} bytes, but {bands} bands, {rows} lines and {columns} samples of "
        f"{image.dtype.itemsize} bytes after an offset of {image.offset} make {expected} bytes"
    )
    if actual < expected:
        raise DataError(f"{says}: it is cut short, or '{image.header.name}' is not its header.")
    if actual > expected:
        warnings.warn(f"{says}; the rest is not read.", UserWarning, stacklevel=4)
    return image
