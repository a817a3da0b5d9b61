"""Results in files, each written atomically: label maps, components, concentrations, the record of a run."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse._runtime.errors import InvalidTypeError, fail
from spectrafuse._runtime.text import in_csv, in_json
from spectrafuse.io.atomic import atomic_write
from spectrafuse.io.class_maps import plain_name
from spectrafuse.io.envi import place_lines
from spectrafuse.io.palette import MOST_COLORS, colors
from spectrafuse.io.units import axis_title, long_unit

__all__ = [
    "colors",
    "write_class_spectra",
    "write_components",
    "write_concentrations",
    "write_image",
    "write_json",
    "write_label_map",
    "write_label_rows",
    "write_maps",
]
# Larger maps are thinned in the picture, which nobody can look at as a whole otherwise.
_MOST_PICTURE_PIXELS = 1 << 24
_BLOCK_PIXELS = 1 << 20


def write_label_map(folder: str | os.PathLike[str], labels: Any, *, name: str = "labels") -> tuple[Path, Path]:
    """Write a label map as numbers and as a picture.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    labels : array_like of int, shape (H, W)
        Classes from 0; negative: none.
    name : str
        The files' name without suffix.

    Returns
    -------
    tuple of Path
        `<name>.npy`, int64 (H, W), and `<name>.png`, where class i has `colors(...)[i]` and pixels without a
        class are transparent; a larger map is thinned to at most 16 million pixels.
    """
    from PIL import Image

    array = np.asarray(labels)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "iu":
        got = f"shape {array.shape}, dtype {array.dtype}"
        raise fail("labels", "an integer array (rows, columns)", got)
    numbers, picture = Path(folder, f"{name}.npy"), Path(folder, f"{name}.png")
    step = math.isqrt((array.size - 1) // _MOST_PICTURE_PIXELS) + 1
    rows = max(1, _BLOCK_PIXELS // array.shape[1])
    write_label_rows(numbers, array.shape, (array[y : y + rows] for y in range(0, len(array), rows)))
    thinned = array[::step, ::step].astype(np.int64)
    classes, place = np.unique(thinned, return_inverse=True)
    rgba = np.zeros((len(classes), 4), dtype=np.uint8)
    shown = classes >= 0
    palette = colors(min(int(array.max()) + 1, MOST_COLORS)) if shown.any() else np.zeros((1, 3), np.uint8)
    rgba[shown, :3] = palette[classes[shown] % len(palette)]
    rgba[shown, 3] = 255
    with atomic_write(picture) as temporary:
        Image.fromarray(rgba[place.reshape(thinned.shape)]).save(temporary, format="PNG")
    return numbers, picture


def write_label_rows(path: str | os.PathLike[str], shape: tuple[int, int], strips: Iterable[np.ndarray]) -> np.ndarray:
    """Write a label map to a `.npy` file as its rows come.

    Parameters
    ----------
    path : path
        The file to write or replace; it is complete or as it was before.
    shape : (H, W)
        Of the whole map.
    strips : iterable of ndarray of int, shape (rows, W)
        From the first row to the last.

    Returns
    -------
    ndarray, shape (H, W), int64
        Mapped from the file, for reading only.

    Raises
    ------
    ValueError
        If the path ends in anything but `.npy`, or the strips do not make up the map.
    """
    target = Path(path)
    if target.suffix.lower() != ".npy":
        raise fail("path", "the name of a .npy file", repr(os.fspath(path)))
    done = 0
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        header = {"descr": "<i8", "fortran_order": False, "shape": (int(shape[0]), int(shape[1]))}
        np.lib.format.write_array_header_1_0(file, header)
        for strip in strips:
            if strip.shape[1:] != shape[1:]:
                raise fail("strips", f"of {shape[1]} columns", f"shape {strip.shape}")
            file.write(np.ascontiguousarray(strip, dtype="<i8").data)
            done += len(strip)
        if done != shape[0]:
            raise fail("strips", f"{shape[0]} rows together", done)
    mapped: np.ndarray = np.load(target, mmap_mode="r", allow_pickle=False)
    return mapped


def write_label_share(
    path: str | os.PathLike[str], shape: tuple[int, int], first: int, strips: Iterable[np.ndarray]
) -> None:
    """Write some rows of a label map, from row `first` on, into a `.npy` file that several processes fill together.

    The file is made where it is missing, as long as the whole map; the processes write different rows.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        file.write(header.getvalue())
        file.seek(len(header.getvalue()) + 8 * shape[0] * shape[1])
        file.truncate()
        file.seek(len(header.getvalue()) + 8 * first * shape[1])
        for strip in strips:
            file.write(np.ascontiguousarray(strip, dtype="<i8").data)


def write_components(
    folder: str | os.PathLike[str],
    components: Any,
    axis: Any = None,
    *,
    ids: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    name: str = "components",
) -> tuple[Path, Path]:
    """Write component spectra as CSV and NPZ; `read_spectra` reads both back to the same float32 numbers.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    components : array_like, shape (n, d)
        One component a row; n may be 0.
    axis : array_like, shape (d,), optional
        Wavelengths or the like for the header; without it bands are counted from 0.
    ids : sequence of int, length n, optional
        The components' numbers in the pool, for the first column; without it they are counted from 0.
    names : sequence of str, length n, optional
        What stands in the first column instead.
    name : str
        The files' name without suffix.

    Returns
    -------
    tuple of Path
        `<name>.csv` and `<name>.npz` (`components`, `component_ids`, `axis` if given).
    """
    array = _matrix("components", components)
    numbers = _ids(ids, len(array))
    arrays = {"components": array, "component_ids": numbers}
    header = [str(i) for i in range(array.shape[1])]
    if axis is not None:
        positions = np.asarray(axis, dtype=np.float64)
        if positions.shape != array.shape[1:]:
            raise fail("axis", f"{array.shape[1]} numbers, one for each band", f"shape {positions.shape}")
        arrays["axis"] = positions
        header = [_short(x) for x in positions]
    return _write_both(folder, name, arrays, array, ["component", *header], _labels("names", names, numbers))


def write_concentrations(
    folder: str | os.PathLike[str],
    concentrations: Any,
    *,
    ids: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    components: Sequence[str] | None = None,
    title: str = "spectrum",
    name: str = "concentrations",
) -> tuple[Path, Path]:
    """Write concentrations as CSV and NPZ.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    concentrations : array_like, shape (n, m)
        One spectrum a row, one component a column; m may be 0.
    ids : sequence of int, length m, optional
        The components' numbers in the pool, for the header (`component_12`); without it counted from 0.
    names : sequence of str, length n, optional
        Names of the spectra, for the first column; without it they are counted from 0.
    components : sequence of str, length m, optional
        Names of the components, which stand in the header instead of their numbers.
    title : str
        Header of the first column.
    name : str
        The files' name without suffix.

    Returns
    -------
    tuple of Path
        `<name>.csv` and `<name>.npz` (`concentrations`, `component_ids`, `names` if given).
    """
    array = _matrix("concentrations", concentrations)
    numbers = _ids(ids, array.shape[1])
    arrays = {"concentrations": array, "component_ids": numbers}
    rows = _labels("names", names, range(len(array)))
    if names is not None:
        arrays["names"] = np.array(rows, dtype=str)
    header = [title, *_labels("components", components, [f"component_{i}" for i in numbers])]
    return _write_both(folder, name, arrays, array, header, rows)


def write_maps(
    folder: str | os.PathLike[str],
    maps: Any,
    names: Sequence[str],
    *,
    place: Mapping[str, str] | None = None,
    name: str = "concentration_maps",
) -> tuple[Path, Path, Path]:
    """Write maps as an array and as an ENVI image.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    maps : array_like, shape (m, rows, columns)
        NaN where there is nothing.
    names : sequence of str, length m
        Names of the maps, which become band names.
    place : mapping of str to str, optional
        Fields of the header that say where the maps lie on Earth.
    name : str
        The files' name without suffix.

    Returns
    -------
    tuple of Path
        `<name>.npy`, float32, `<name>.hdr` and `<name>.img`, the same numbers.
    """
    numbers = Path(folder, f"{name}.npy")
    text, image = write_image(folder, maps, names, place=place, name=name)
    with atomic_write(numbers) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(maps, dtype="<f4"))
    return numbers, text, image


def write_image(
    folder: str | os.PathLike[str],
    maps: Any,
    names: Sequence[str],
    *,
    place: Mapping[str, str] | None = None,
    name: str,
) -> tuple[Path, Path]:
    """Write maps as an ENVI image of float32: `<name>.hdr` and `<name>.img`. Parameters as of `write_maps`."""
    array = np.ascontiguousarray(maps, dtype="<f4")
    if array.ndim != 3 or len(names) != len(array):
        raise fail("maps", f"{len(names)} maps (maps, rows, columns), one for each name", f"shape {array.shape}")
    count, rows, columns = array.shape
    fields = {"samples": columns, "lines": rows, "bands": count, "file type": "ENVI Standard"}
    fields |= {"data ignore value": "nan", "band names": f"{{{', '.join(plain_name(x) for x in names)}}}"}
    text, image = Path(folder, f"{name}.hdr"), Path(folder, f"{name}.img")
    with atomic_write(image) as temporary:
        array.tofile(temporary)
    _write_header(text, fields, place)
    return text, image


def _write_header(path: Path, fields: Mapping[str, Any], place: Mapping[str, str] | None = None) -> None:
    """A header of ENVI for numbers of little-endian float32, band by band."""
    stored = {"header offset": 0, "data type": 4, "interleave": "bsq", "byte order": 0}
    lines = "".join(f"{key} = {value}\n" for key, value in {**fields, **stored}.items())
    with atomic_write(path) as temporary:
        temporary.write_text(f"ENVI\n{lines}{place_lines(place)}", encoding="utf-8")


def write_class_spectra(
    folder: str | os.PathLike[str],
    mean: Any,
    std: Any,
    count: Any,
    *,
    names: Sequence[str] | None = None,
    axis: Any = None,
    axis_unit: str | None = None,
    name: str = "spectra",
) -> tuple[Path, Path, Path, Path]:
    """Write the mean spectra of classes as a table, as arrays, and as a spectral library of ENVI.

    Parameters
    ----------
    folder : path
        Made if it is missing.
    mean, std : array_like, shape (k, d)
        Mean spectra and standard deviations; NaN for classes without pixels.
    count : array_like of int, shape (k,)
        Pixels of each class.
    names : sequence of str, length k, optional
        Names of the classes; without it "cluster 0", "cluster 1", ...
    axis : array_like, shape (d,), optional
        Wavelengths.
    axis_unit : str, optional
        Their unit.
    name : str
        The files' name without suffix.

    Returns
    -------
    tuple of Path
        `<name>.csv`, with a band in each row: wavelength (or band number), the means, then the standard deviations;
        `<name>.npz` (`mean`, `std`, `count`, `names`, `wavelengths` if given); `<name>.hdr` and `<name>.sli`, the means
        of the classes that have pixels.
    """
    means, spreads, pixels = _matrix("mean", mean), _matrix("std", std), np.asarray(count)
    k, bands = means.shape
    labels = _labels("names", names, (f"cluster {i}" for i in range(k)))
    axis_values = None if axis is None else np.asarray(axis, dtype=np.float64)
    arrays = {"mean": means, "std": spreads, "count": pixels.astype(np.int64), "names": np.array(labels, dtype=str)}
    arrays |= {} if axis_values is None else {"wavelengths": axis_values}
    places = [str(i) for i in range(bands)] if axis_values is None else [_short(x) for x in axis_values]
    title = "band" if axis_values is None else axis_title(axis_values, axis_unit)
    header = [title, *labels, *(f"{label} standard deviation" for label in labels)]
    table, packed = _write_both(folder, name, arrays, np.concatenate([means, spreads]).T, header, places)
    used = np.flatnonzero(pixels > 0)
    fields = {"samples": bands, "lines": max(1, len(used)), "bands": 1, "file type": "ENVI Spectral Library"}
    fields["spectra names"] = f"{{{', '.join(plain_name(labels[i]) for i in used)}}}"
    if axis_values is not None:
        fields |= {"wavelength units": long_unit(axis_values, axis_unit), "wavelength": f"{{{', '.join(places)}}}"}
    text, library = Path(folder, f"{name}.hdr"), Path(folder, f"{name}.sli")
    with atomic_write(library) as temporary:
        (means[used] if len(used) else np.zeros((1, bands))).astype("<f4").tofile(temporary)
    _write_header(text, fields)
    return table, packed, text, library


def _short(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def json_text(values: Mapping[str, Any]) -> str:
    """A record as JSON, as `write_json` writes it."""
    text = json.dumps(_plain(values, "values"), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return in_json(text)


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> Path:
    """Write a record as JSON: keys sorted, numbers that are not finite as null.

    Parameters
    ----------
    path : path
        The file to write or replace.
    values : mapping
        Plain values, NumPy numbers and arrays, tensors, paths, and lists and mappings of them.

    Raises
    ------
    TypeError
        For a value of another kind, with the keys that lead to it.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json_text(values) + "\n", encoding="utf-8")
    return Path(path)


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach"):
        return _plain(value.tolist(), where)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise InvalidTypeError(f"`{where}` cannot be written as JSON: {type(value).__name__}.")


def _matrix(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise fail(name, "a matrix of numbers", f"shape {array.shape}, dtype {array.dtype}")
    return array.astype(np.float32)


def _labels(argument: str, given: Sequence[str] | None, default: Iterable[Any]) -> list[str]:
    """The labels that were given, or the default ones, as many as these."""
    otherwise = [str(x) for x in default]
    if given is not None and len(given) != len(otherwise):
        raise fail(argument, f"{len(otherwise)} names", f"{len(given)} of them")
    return otherwise if given is None else [str(x) for x in given]


def _ids(ids: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    numbers = np.arange(count) if ids is None else np.asarray(ids)
    if numbers.shape != (count,) or (count and numbers.dtype.kind not in "iu"):
        got = f"shape {numbers.shape}, dtype {numbers.dtype}"
        raise fail("ids", f"{count} integers, one for each component", got)
    return numbers.astype(np.int64)


def _write_both(
    folder: str | os.PathLike[str],
    name: str,
    arrays: dict[str, np.ndarray],
    table: np.ndarray,
    header: list[str],
    rows: list[str],
) -> tuple[Path, Path]:
    text, binary = Path(folder, f"{name}.csv"), Path(folder, f"{name}.npz")
    # Excel takes a file without the mark for one in the machine's own encoding.
    encoding = "utf-8" if "".join([*header, *rows]).isascii() else "utf-8-sig"
    with atomic_write(text) as temporary, temporary.open("w", encoding=encoding, newline="") as file:
        file.write(",".join(map(in_csv, header)) + "\n")
        for label, row in zip(rows, table, strict=True):
            # Nine significant digits give every float32 back.
            file.write(",".join([in_csv(label), *("" if x != x else f"{x:.9g}" for x in row.tolist())]) + "\n")
    with atomic_write(binary) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    return text, binary
