"""Named arrays in files: MATLAB 4 to 7.3, HDF5 and NetCDF, `.npy`, `.npz`; listed without being read."""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from spectrafuse.io import netcdf3
from spectrafuse.io.attributes import Facts, facts_from, facts_of, place_from, place_in
from spectrafuse.io.chunked import ChunkedArray
from spectrafuse.io.errors import DataError, option
from spectrafuse.io.hdf5 import Hdf5Array, check_heaps, data_set, walk
from spectrafuse.io.limits import check_count, check_size
from spectrafuse.io.mapped import MappedArray
from spectrafuse.io.matlab5 import HEADER_BYTES, list_variables, map_variable, read_variable
from spectrafuse.io.signatures import signature, what_it_is
from spectrafuse.io.zarr_stores import chunked, facts_of_array, is_store, open_store, place_of_arrays

HDF5_SUFFIXES = (".h5", ".hdf5", ".he5", ".hdf", ".nc", ".nc4", ".cdf")
ARRAY_SUFFIXES = (".mat", ".npy", ".npz", *HDF5_SUFFIXES)
_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# Kinds of files by their first bytes that the readers look into.
_OWN_KINDS = ("npy", "zip", "mat", "netcdf3")
_LISTED = 30
# First word of a little-endian MATLAB 4 file: type of the numbers (tens) and full or text matrix (ones).
_MATLAB4_TYPES = {10 * numbers + matrix for numbers in range(6) for matrix in (0, 1)}
# Far more than the header of an array of numbers has.
_MOST_HEADER_BYTES = 1 << 16
_MATLAB_NUMERIC = {"double", "single"} | {f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)}


class Entry(NamedTuple):
    """What is known of a variable before it is read: `kind` is "numeric", "logical", "text", "struct", ..."""

    shape: tuple[int, ...]
    kind: str
    order: str = "stored"
    """"matlab": as MATLAB shows the axes; "stored": as NumPy does; "unknown": stored by either."""


@dataclass(frozen=True)
class ArrayFile:
    """A file that holds named arrays.

    Attributes
    ----------
    path : Path
        The file.
    format : str
        "mat4", "mat5", "mat7.3", "hdf5", "netcdf3", "npy" or "npz".
    entries : dict of str to Entry
        The variables, in the file's order; a `.npy` file has one, called "". Those in structs and groups are called
        "struct.field" in MATLAB files and "group/name" in others.
    """

    path: Path
    format: str
    entries: dict[str, Entry]
    _read: Callable[[str], Any]
    _map: Callable[[str], Any] | None = None
    _facts: Callable[[str], Facts] | None = None
    _place: Callable[[], dict[str, str] | None] | None = None

    def order(self, key: str) -> str:
        """How the axes of a variable are arranged: `Entry.order`."""
        return self.entries[key].order

    def numeric(self, *ranks: int) -> list[str]:
        """Names of the variables of numbers with one of the given numbers of dimensions."""
        return [k for k, e in self.entries.items() if e.kind == "numeric" and len(e.shape) in ranks]

    def require(self, key: str) -> str:
        """The key itself, if there is such a variable of numbers (or of logical values)."""
        if self.format == "npy":
            raise DataError(
                f"'{self.path}' holds one array without a name, so leave {option('key', key, function='')} out."
            )
        plain = _plain_key(key)
        name = key if key in self.entries else next((k for k in self.entries if _plain_key(k) == plain), None)
        ends = [k for k in self.entries if _plain_key(k).endswith(f"/{plain}")]
        name = ends[0] if name is None and len(ends) == 1 else name
        if name is None:
            inside = {k: e for k, e in self.entries.items() if _plain_key(k).startswith(f"{plain}/")}
            if inside:
                listed = self.listing(inside)
                raise DataError(f"{self.label(key)} is no array of numbers but holds others; choose one: {listed}.")
            raise DataError(f"'{self.path}' has no variable {key!r}; it has {self.listing()}.")
        kind = self.entries[name].kind
        if kind not in ("numeric", "logical"):
            raise DataError(f"{self.label(name)} is not an array of numbers but {kind}.")
        return name

    def label(self, key: str) -> str:
        """How messages call a variable."""
        return f"'{self.path}', variable {key!r}" if key else f"'{self.path}'"

    def listing(self, entries: dict[str, Entry] | None = None) -> str:
        """The variables (or some of them) with their shapes, for a message: cubes and matrices first."""
        entries = self.entries if entries is None else entries
        if not entries:
            return "no variables at all"
        shown = list(entries.items())
        if len(shown) > _LISTED:
            shown = sorted(shown, key=lambda item: (item[1].kind != "numeric", -len(item[1].shape)))[:_LISTED]
        texts = [
            f"{name or 'one array'} {e.shape}" + ("" if e.kind == "numeric" else f" ({e.kind})") for name, e in shown
        ]
        return ", ".join(texts) + (", ..." if len(entries) > _LISTED else "")

    def facts(self, key: str) -> Facts:
        """What the attributes of a variable in an HDF5 file say about its numbers."""
        find = self._facts
        return Facts() if find is None else _guard(self.path, lambda: find(key))

    def load(self, key: str) -> np.ndarray:
        """Read one variable; axes are in the order in which MATLAB or NumPy shows them."""
        value = _guard(self.path, lambda: self._read(key))
        if not isinstance(value, np.ndarray):
            raise DataError(f"{self.label(key)} must be an array of numbers; got {type(value).__name__}.")
        if value.dtype.kind not in "iufb":
            raise DataError(f"{self.label(key)} must hold real numbers; got dtype {value.dtype}.")
        return value

    def map(self, key: str) -> Any | None:
        """A matrix or cube whose slices are read when they are taken; None where the whole must be decoded."""
        entry, opener = self.entries[key], self._map
        if opener is None or entry.kind != "numeric" or len(entry.shape) not in (2, 3) or 0 in entry.shape:
            return None
        return _guard(self.path, lambda: opener(key))

    def scalar(self, names: Iterable[str]) -> int | None:
        """The value of the first variable of one of these names that is a single whole number."""
        places = {key.rpartition(".")[2]: key for key in reversed(self.entries)} | {key: key for key in self.entries}
        for name in names:
            entry = self.entries.get(places[name]) if name in places else None
            if entry is not None and entry.kind == "numeric" and int(np.prod(entry.shape)) == 1:
                value = float(self.load(places[name]).reshape(-1)[0])
                if value >= 1 and value.is_integer():
                    return int(value)
        return None

    def place(self) -> dict[str, str] | None:
        """Where the scene of an HDF5 file lies on Earth, as fields of an ENVI header."""
        return None if self._place is None else _guard(self.path, self._place)


def existing_file(path: str | os.PathLike[str], suffixes: Iterable[str], also: Iterable[str] = ()) -> Path:
    """The path, if it is a file that is there, is not empty and has one of the suffixes (in any case).

    `also` names suffixes that another reader takes, for the message.
    """
    file = Path(path)
    suffixes = tuple(suffixes)
    try:
        if file.is_dir():
            raise DataError(f"'{path}' is a folder; give a file.")
        if not file.exists():
            raise DataError(f"'{path}' does not exist.")
        if not file.is_file():
            raise DataError(f"'{path}' is not a regular file.")
        size = file.stat().st_size
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    if file.suffix.lower() not in suffixes:
        suffix = f"the suffix '{file.suffix}'" if file.suffix else "no suffix"
        raise DataError(f"'{path}' has {suffix}; this can read {', '.join((*suffixes, *also))}.")
    if size == 0:
        raise DataError(f"'{path}' is empty (0 bytes).")
    return file


def open_arrays(path: str | os.PathLike[str], *, also: Iterable[str] = ()) -> ArrayFile:
    """List the variables of a file; each file's format is told from its own first bytes.

    `also` as in `existing_file`.

    Raises
    ------
    DataError
        Missing, empty, a folder, an unknown suffix, contents that are not what the suffix says, truncated.
    """
    if is_store(path):
        store: ArrayFile = _guard(Path(path), lambda: _open_store(Path(path)))
        return store
    known: tuple[str, ...] = ARRAY_SUFFIXES
    suffix = Path(path).suffix.lower()
    found = signature(Path(path))
    if found in ("hdf5", "netcdf3"):
        known += (suffix,)
    elif found is not None and (found not in _OWN_KINDS or suffix not in known):
        raise DataError(f"'{path}' is {what_it_is(Path(path), found)}.")
    file = existing_file(path, known, also)
    opener = {".mat": _open_matlab, ".npy": _open_npy, ".npz": _open_npz}.get(file.suffix.lower(), _open_hdf5)
    opened: ArrayFile = _guard(file, lambda: opener(file))
    return opened


def _guard(path: Path, action: Callable[[], Any]) -> Any:
    """Turn whatever a reader raises on damaged bytes into one sentence with the path.

    The readers document no set of exceptions for damaged files (h5py and numpy raise about ten kinds), so
    every kind is taken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action()
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"'{path}' cannot be read, it may be damaged or cut short: {reason}") from error


def _plain_key(key: str) -> str:
    """The name of a variable in a struct or group, however its parts are separated."""
    return key.strip("/").replace(".", "/")


def _has_hdf5(path: Path) -> bool:
    """Whether the signature of HDF5 lies at 0 or, after a block for the user, at 512, 1024, 2048, ..."""
    size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            if file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC:
                return True
            offset = max(512, 2 * offset)
    return False


def _open_store(path: Path) -> ArrayFile:
    arrays = open_store(path)
    entries = {
        name: Entry(tuple(map(int, array.shape)), _kind_of(np.dtype(array.dtype))) for name, array in arrays.items()
    }

    def mapped(name: str) -> ChunkedArray:
        return chunked(f"'{path}', variable {name!r}" if name else f"'{path}'", arrays[name], path / name)

    return ArrayFile(
        path,
        "zarr",
        entries,
        lambda name: mapped(name)[()],
        # A window of a matrix of pixels lies in all its chunks.
        lambda name: mapped(name) if len(entries[name].shape) == 3 else None,
        lambda name: facts_of_array(arrays[name]),
        lambda: place_of_arrays(arrays),
    )


def _open_matlab(path: Path) -> ArrayFile:
    if _has_hdf5(path):
        return _read_hdf5(path, "mat7.3")
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if header[126:128] in (b"IM", b"MI") and len(header) == HEADER_BYTES:
        if 2 in header[124:126]:
            raise DataError(f"'{path}' is a MATLAB 7.3 file without its HDF5 part, so it is cut short.")
        return _open_matlab5(path)
    if len(header) >= 20 and np.frombuffer(header[:4], "<i4")[0] in _MATLAB4_TYPES:
        return _open_matlab4(path)
    raise DataError(f"'{path}' is not a MATLAB file of version 4, 5, 6, 7 or 7.3.")


def _open_matlab4(path: Path) -> ArrayFile:
    from scipy.io import loadmat, whosmat

    kinds = {"char": "text", "sparse": "sparse"}
    entries = {name: Entry(shape, kinds.get(kind, "numeric"), "matlab") for name, shape, kind in whosmat(path)}
    return ArrayFile(path, "mat4", entries, lambda key: loadmat(path, variable_names=[key])[key])


def _open_matlab5(path: Path) -> ArrayFile:
    found = {variable.name: variable for variable in list_variables(path)}
    entries = {name: Entry(variable.shape, variable.kind, "matlab") for name, variable in found.items()}
    return ArrayFile(
        path, "mat5", entries, lambda key: read_variable(path, found[key]), lambda key: map_variable(path, found[key])
    )


def _open_netcdf3(path: Path) -> ArrayFile:
    found = netcdf3.list_variables(path)
    entries = {name: Entry(variable.shape, _kind_of(variable.dtype)) for name, variable in found.items()}

    return ArrayFile(
        path,
        "netcdf3",
        entries,
        lambda key: found[key].numbers(path)[...],
        lambda key: found[key].numbers(path),
        lambda key: facts_from(found[key].attributes, dims=found[key].dims),
        lambda: place_from(variable.attributes for variable in found.values()),
    )


def _open_hdf5(path: Path) -> ArrayFile:
    if _has_hdf5(path):
        return _read_hdf5(path, "hdf5")
    if signature(path) == "netcdf3":
        return _open_netcdf3(path)
    found = signature(path)
    what = what_it_is(path, found) if found is not None else "something else: it may be damaged, or have a wrong suffix"
    raise DataError(f"'{path}' is not an HDF5 or NetCDF file but {what}.")


def _read_hdf5(path: Path, form: str) -> ArrayFile:
    """An HDF5 file: the variables of its root, and those in structs and groups."""
    import h5py

    places: dict[str, str] = {}

    def read(key: str) -> np.ndarray:
        with h5py.File(path, "r") as file:
            item = file[places[key]]
            if "MATLAB_empty" in item.attrs:
                return np.zeros(empty_shape(key, item))
            check(key, item)
            values = np.asarray(item[()])
            # HDF5 stores MATLAB's axes in reverse order.
            return values.T if entries[key].order == "matlab" else values

    def check(key: str, item: Any) -> None:
        # Numbers that were never written take no room in the file, so a damaged shape can claim any size.
        size = math.prod(item.chunks) * item.dtype.itemsize if item.chunks else 0
        check_size(f"'{path}', variable {key!r},", max(item.nbytes, size), path.stat().st_size)

    def mapped(key: str) -> Hdf5Array | MappedArray | None:
        with h5py.File(path, "r") as file:
            check(key, file[places[key]])
        found = data_set(path, places[key])
        if entries[key].order == "matlab":
            found = found.transpose(*range(found.ndim)[::-1])
        # The pixels of a window lie in all chunks of a matrix.
        return found if isinstance(found, MappedArray) or found.ndim == 3 else None

    def empty_shape(key: str, item: Any) -> tuple[int, ...]:
        """The shape of an array without numbers, which the file holds in their place."""
        sizes = [int(n) for n in item[()]] if item.ndim == 1 and item.size <= 32 and item.dtype.kind in "iu" else []
        if not sizes or min(sizes) != 0:
            raise DataError(f"'{path}', variable {key!r}, says that it is empty, but its shape is damaged.")
        return tuple(sizes)

    check_heaps(path)
    entries = {}
    with h5py.File(path, "r") as file:
        for place, item, elsewhere in walk(path, file):
            name = place.replace("/", ".") if form == "mat7.3" else place
            places[name] = place
            if elsewhere is not None:
                entries[name] = Entry((), elsewhere)
                continue
            label = item.attrs.get("MATLAB_class", b"")
            label = label.decode("latin-1") if isinstance(label, bytes) else str(label)
            if isinstance(item, h5py.Datatype):
                continue
            if not isinstance(item, h5py.Dataset):
                if "MATLAB_sparse" in item.attrs or label not in ("", "struct") or not len(item):
                    entries[name] = Entry((), "sparse" if "MATLAB_sparse" in item.attrs else label or "struct")
                continue
            # A data set without a dataspace has no shape.
            sizes = empty_shape(name, item) if "MATLAB_empty" in item.attrs else item.shape or ()
            if label and "MATLAB_empty" not in item.attrs:
                sizes = sizes[::-1]
            # No program that writes these turns axes around.
            stored = place.startswith("HDFEOS/") or "DIMENSION_LIST" in item.attrs
            order = "matlab" if label else "stored" if stored else "unknown"
            entries[name] = Entry(tuple(int(n) for n in sizes), _kind_of(item.dtype, label), order)
    return ArrayFile(
        path,
        form,
        entries,
        read,
        mapped,
        lambda key: facts_of(path, places[key]),
        lambda: place_in(path, [places[name] for name, entry in entries.items() if not entry.shape]),
    )


def _kind_of(dtype: np.dtype, matlab_class: str = "") -> str:
    if matlab_class == "char" or (not matlab_class and dtype.kind in "SU"):
        return "text"
    if matlab_class == "logical" or dtype.kind == "b":
        return "logical"
    if matlab_class and matlab_class not in _MATLAB_NUMERIC:
        return matlab_class
    if dtype.kind in "iuf":
        return "numeric"
    if dtype.kind == "c" or (dtype.names and {n.lower() for n in dtype.names} == {"real", "imag"}):
        return "complex"
    return {"O": "Python objects", "V": "struct", "M": "dates", "m": "durations"}.get(dtype.kind, str(dtype))


def _open_npy(path: Path) -> ArrayFile:
    with path.open("rb") as file:
        entry = _npy_entry(path, file)
    if entry.kind == "Python objects":
        raise DataError(f"'{path}' {_OBJECTS}")

    def read(key: str) -> np.ndarray:
        if 0 in entry.shape:
            return np.zeros(entry.shape)
        return _map_npy(path, 0)[...] if entry.shape else np.load(path, allow_pickle=False)

    return ArrayFile(path, "npy", {"": entry}, read, lambda key: _map_npy(path, 0))


def _map_npy(path: Path, start: int, size: int | None = None) -> MappedArray:
    """The numbers of an `.npy` file, or of one of `size` bytes that lies at a place of another file."""
    with path.open("rb") as file:
        file.seek(start)
        shape, fortran, dtype = _npy_header(path, file)
        if size is not None and file.tell() - start + math.prod(shape) * dtype.itemsize != size:
            raise DataError(f"'{path}' is damaged: a variable has not as many bytes as its header says.")
        return MappedArray.contiguous(path, dtype, file.tell(), shape, "F" if fortran else "C")


def _open_npz(path: Path) -> ArrayFile:
    with path.open("rb") as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            raise DataError(f"'{path}' is not an .npz file: it does not begin like a zip archive.")
    entries = {}
    with zipfile.ZipFile(path) as archive:
        check_count(f"'{path}'", len(archive.infolist()))
        for found in archive.infolist():
            if not found.filename.endswith(".npy"):
                continue
            name = found.filename.removesuffix(".npy")
            if found.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                entries[name] = Entry((), "packed in a way that NumPy does not write")
                continue
            with archive.open(found) as member:
                entries[name] = _npy_entry(path, member)

    def read(key: str) -> np.ndarray:
        if entries[key].kind == "Python objects":
            raise DataError(f"'{path}', variable {key!r}, {_OBJECTS}")
        with zipfile.ZipFile(path) as archive:
            found = archive.getinfo(f"{key}.npy")
            check_size(f"'{path}', variable {key!r},", found.file_size, path.stat().st_size)
            with archive.open(found) as member:
                shape, _, dtype = _npy_header(path, member)
                if member.tell() + math.prod(shape) * dtype.itemsize != found.file_size:
                    raise DataError(f"'{path}' is damaged: variable {key!r} has not as many bytes as its header says.")
            with archive.open(found) as member:
                return np.lib.format.read_array(member, allow_pickle=False)

    def mapped(key: str) -> MappedArray | None:
        with zipfile.ZipFile(path) as archive:
            found = archive.getinfo(f"{key}.npy")
            if found.compress_type != zipfile.ZIP_STORED or found.flag_bits & 1:
                return None
            # To its end, where its check sum is looked at.
            with archive.open(found) as member:
                while member.read(1 << 20):
                    pass
        with path.open("rb") as file:
            # The local header: two lengths at byte 26, then a name and extra bytes of these lengths.
            file.seek(found.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
        return _map_npy(path, found.header_offset + 30 + int(lengths.sum(dtype=np.int64)), found.file_size)

    return ArrayFile(path, "npz", entries, read, mapped)


_OBJECTS = "holds Python objects (a pickle), which are never loaded; save it again as an array of numbers."


def _npy_entry(path: Path, file: BinaryIO | Any) -> Entry:
    """Shape and kind from the header of an `.npy` file or member."""
    shape, _, dtype = _npy_header(path, file)
    return Entry(shape, _kind_of(dtype))


def _npy_header(path: Path, file: BinaryIO | Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the first axis is the fastest, and type; the file is read up to the first number."""
    start = file.read(len(_NPY_MAGIC) + 2)
    if start[: len(_NPY_MAGIC)] != _NPY_MAGIC:
        raise DataError(f"'{path}' is not in NumPy's .npy format: its first bytes are not those of one.")
    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(start[-2])
    if reader is None:
        # Version 3 only exists for field names beyond latin-1: such an array is never one of numbers.
        return (), False, np.dtype("V1")
    length = file.read(2 if start[-2] == 1 else 4)
    size = int.from_bytes(length, "little")
    if size > _MOST_HEADER_BYTES:
        raise DataError(f"'{path}' is damaged: a header of {size} bytes is none of an array of numbers.")
    shape, fortran, dtype = reader(io.BytesIO(length + file.read(size)))
    if min(shape, default=0) < 0:
        raise DataError(f"'{path}' is damaged: its header has the shape {shape}.")
    return tuple(int(n) for n in shape), fortran, dtype
