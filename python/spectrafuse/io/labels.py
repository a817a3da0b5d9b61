"""Label maps from files: classes per pixel, or abundances whose largest one decides."""

from __future__ import annotations

import os
import pickletools
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse._runtime import arguments
from spectrafuse.io.arrays import ArrayFile, existing_file, open_arrays
from spectrafuse.io.envi import HEADER_SUFFIX, is_envi, open_envi
from spectrafuse.io.errors import DataError, option
from spectrafuse.io.labelme import SUFFIX as LABELME_SUFFIX
from spectrafuse.io.labelme import read_labelme
from spectrafuse.io.layouts import bands_first, find_size
from spectrafuse.io.limits import check_size
from spectrafuse.io.rasters import Raster, find_raster, raster_facts
from spectrafuse.io.validate import as_numeric

TENSOR_SUFFIXES = (".pth", ".pt")
# Bytes of the program that puts tensors together: more than a thousand tensors take.
_MOST_PROGRAM = 1 << 20


def read_labels(
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    shape: tuple[int, int] | None = None,
    class_to_index: Mapping[str, int] | None = None,
) -> np.ndarray:
    """Read the classes of a scene's pixels from a `.mat`, HDF5, `.npy`, `.npz`, `.pth`, ENVI, GeoTIFF or LabelMe file.

    Parameters
    ----------
    path : path
        The file; it may be the one that holds the scene. A `.pth` (or `.pt`) file holds a tensor or a dictionary of
        tensors; anything else in it is refused, never unpickled. Of an ENVI class map the header or the data file is
        given. A `.json` file is one of LabelMe, drawn as `spectrafuse.io.labelme.read_labelme` says.
    key : str, optional
        The variable: an (H, W) map of whole numbers (also stored as floating point), or abundances (H, W, K),
        (K, H, W) or (K, pixels) column by column, of which the largest decides (K = 1: a map). Without it:
        the only variable that can be such for the scene's shape, a map before 3-D abundances.
    shape : (H, W), optional
        Shape of the scene, which the labels must have. Without it, the file's own numbers of rows and columns
        where there are such.
    class_to_index : mapping of str to int, optional
        Classes of the labels of a LabelMe file; without it, they are counted from 1 in the file's order.

    Returns
    -------
    ndarray, shape (H, W), int64
        Classes as in the file; -1 where an ENVI or GeoTIFF class map has its no-data value; for abundances 0..K-1 in
        the file's order, and -1 where all are zero; for LabelMe 0 where nothing is drawn.

    Raises
    ------
    DataError
        A missing or ambiguous key (with the variables there are), another shape, numbers that are not whole.
    """
    if shape is not None:
        shape = (arguments.integer("shape[0]", shape[0]), arguments.integer("shape[1]", shape[1]))
    suffix = Path(path).suffix.lower()
    raster = find_raster(path)
    if suffix == LABELME_SUFFIX or raster is not None or is_envi(path):
        if key is not None:
            raise DataError(f"'{path}' holds no variables, so leave {option('key', key, function='')} out.")
        if suffix == LABELME_SUFFIX:
            return read_labelme(path, shape=shape, class_to_index=class_to_index)[0]
        return _from_image(path, raster, shape)
    if suffix in TENSOR_SUFFIXES:
        label, values = _from_tensors(path, key)
        return _as_labels(label, values, shape, "stored")
    source = open_arrays(path, also=(*TENSOR_SUFFIXES, LABELME_SUFFIX, HEADER_SUFFIX))
    scene = shape if shape is not None else _own_shape(source)
    if key is not None:
        name = source.require(key)
    elif source.format == "npy":
        name = ""
    else:
        name = _find(source, scene)
    return _as_labels(source.label(name), source.load(name), scene, source.order(name))


def _as_labels(label: str, values: np.ndarray, scene: tuple[int, int] | None, order: str) -> np.ndarray:
    """Labels from an array that is a map or abundances."""
    values = as_numeric(label, values.astype(np.uint8) if values.dtype.kind == "b" else values)
    if values.ndim == 2 and (scene is None or values.shape == scene):
        return _whole(label, values)
    if values.ndim == 3:
        return _decide(label, _abundances(label, values, scene, order))
    if values.ndim == 2 and scene is not None and scene[0] * scene[1] in values.shape:
        layers, _ = bands_first(label, values, "auto", order=order, rows=scene[0], columns=scene[1])
        return _decide(label, layers)
    raise _misfit(label, values.shape, scene)


def _from_image(path: str | os.PathLike[str], raster: Raster | None, scene: tuple[int, int] | None) -> np.ndarray:
    """Labels from an ENVI image or a raster: a map of one band, or abundances."""
    layers: Any
    if raster is None:
        image = open_envi(path)
        label, layers, nodata = f"'{image.data}'", image.map(), image.nodata
    else:
        array, facts = raster_facts(raster)
        label, layers, nodata = f"'{raster.path}'", array, facts["nodata"]
    if scene is not None and layers.shape[1:] != scene:
        raise _misfit(label, layers.shape[1:], scene)
    layers = layers[:]
    if len(layers) > 1:
        return _decide(label, layers)
    stored = layers[0]
    absent = np.zeros(stored.shape, dtype=bool)
    if nodata is not None:
        with np.errstate(over="ignore"):
            absent = np.isnan(stored) if np.isnan(nodata) else stored == nodata
    labels = _whole(label, np.where(absent, stored.dtype.type(0), stored))
    labels[absent] = -1
    return labels


def _from_tensors(path: str | os.PathLike[str], key: str | None) -> tuple[str, np.ndarray]:
    """A tensor from a file of torch, as an array, and how messages call it."""
    from spectrafuse._runtime import tensor_files

    file = existing_file(path, TENSOR_SUFFIXES)
    try:
        _check_tensor_file(file)
        content = tensor_files.load_tensors(file)
    except DataError:
        raise
    except Exception as error:  # torch documents no set of exceptions for files that it refuses
        raise DataError(
            f"'{path}' is not a file of plain tensors: it is damaged, or needs unpickling, which can run code and is "
            "never done here; save the labels alone, as a tensor or as .npy."
        ) from error
    label = f"'{path}'"
    if isinstance(content, dict):
        tensors = {str(k): v for k, v in content.items() if hasattr(v, "detach")}
        listing = ", ".join(f"{k} {tuple(v.shape)}" for k, v in tensors.items()) or "no tensors"
        if key is None and len(tensors) == 1:
            key = next(iter(tensors))
        if key not in tensors:
            what = "several or no tensors" if key is None else f"no tensor {key!r}"
            raise DataError(f"'{path}' has {what}; choose one with key= (FILE:KEY): {listing}.")
        label, content = f"'{path}', variable {key!r}", tensors[key]
    elif key is not None:
        raise DataError(f"'{path}' holds one tensor without a name, so leave {option('key', key, function='')} out.")
    values = tensor_files.as_array(content)
    if values is not None:
        # A tensor can repeat one number along its axes.
        check_size(label, values.nbytes, file.stat().st_size)
    if values is None:
        raise DataError(f"{label} must hold a dense tensor of plain numbers; got {type(content).__name__}.")
    return label, values


def _check_tensor_file(file: Path) -> None:
    """Refuse a file whose parts are packed to far more than its size, or that takes a program to put together."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
        check_size(f"'{file}'", sum(part.file_size for part in parts), file.stat().st_size)
        if sum(part.file_size for part in parts if part.filename.endswith(".pkl")) > _MOST_PROGRAM:
            raise DataError(f"'{file}' holds more than labels; save the labels alone, as a tensor or as .npy.")
        return
    steps = 0
    # Before torch 1.6 a file began with four pickles.
    with file.open("rb") as content, suppress(Exception):
        for _ in range(4):
            for _ in pickletools.genops(content):
                steps += 1
                if steps > _MOST_PROGRAM // 10:
                    break
    if steps > _MOST_PROGRAM // 10:
        raise DataError(f"'{file}' holds more than labels; save the labels alone, as a tensor or as .npy.")


def _own_shape(source: ArrayFile) -> tuple[int, int] | None:
    rows, columns = find_size(source, None, None)
    return None if rows is None or columns is None else (rows, columns)


def _misfit(label: str, got: tuple[int, ...], scene: tuple[int, int] | None) -> DataError:
    if scene is None:
        return DataError(f"{label} must be labels (rows, columns) or abundances; got shape {got}.")
    hint = " (it is transposed)" if got == scene[::-1] else ""
    return DataError(f"{label} has shape {got}{hint}, but the scene has {scene[0]} rows, {scene[1]} columns.")


def _find(source: ArrayFile, scene: tuple[int, int] | None) -> str:
    shapes = {k: e.shape for k, e in source.entries.items() if e.kind in ("numeric", "logical")}
    maps = [k for k, s in shapes.items() if len(s) == 2 and min(s) > 1]
    abundances = [k for k, s in shapes.items() if len(s) == 3]
    if scene is not None:
        maps = [k for k, s in shapes.items() if s == scene]
        abundances = [k for k in abundances if scene in (shapes[k][:2], shapes[k][1:])]
    candidates = maps or abundances
    if len(candidates) == 1:
        return candidates[0]
    number = "several variables" if candidates else "no variable"
    fitting = f" for {scene[0]} rows and {scene[1]} columns" if scene is not None else ""
    found = f"{number} that can be labels{fitting}"
    raise DataError(f"'{source.path}' has {found}; choose one with key= (FILE:KEY): {source.listing()}.")


def _abundances(label: str, values: np.ndarray, scene: tuple[int, int] | None, order: str) -> np.ndarray:
    """Abundances as (K, H, W)."""
    layout = "auto"
    if scene is not None:
        fits = [name for name, size in (("hwc", values.shape[:2]), ("chw", values.shape[1:])) if size == scene]
        if not fits:
            raise _misfit(label, values.shape, scene)
        layout = fits[0] if len(fits) == 1 else "auto"
    return bands_first(label, values, layout, order=order)[0]


def _decide(label: str, abundances: np.ndarray) -> np.ndarray:
    """Labels from abundances (K, H, W); a single layer is a map itself."""
    if len(abundances) == 1:
        return _whole(label, abundances[0])
    if 0 in abundances.shape:
        raise DataError(f"{label} must hold at least one class and one pixel; got {abundances.shape}.")
    bad = np.argwhere(~np.isfinite(abundances))
    if len(bad):
        material, row, column = (int(i) for i in bad[0])
        raise DataError(
            f"{label} has {len(bad)} abundances that are not finite, the first of class {material} at row "
            f"{row}, column {column} (counted from 0)."
        )
    labels = abundances.argmax(axis=0).astype(np.int64)
    labels[~abundances.any(axis=0)] = -1
    return labels


def _whole(label: str, values: np.ndarray) -> np.ndarray:
    if 0 in values.shape:
        raise DataError(f"{label} must hold at least one pixel; got shape {values.shape}.")
    if values.dtype.kind == "f":
        # NaN and infinity are caught by the same comparison.
        with np.errstate(invalid="ignore"):
            bad = np.argwhere(~((np.trunc(values) == values) & (np.abs(values) < 2.0**63)))
    else:
        bad = np.argwhere(values > np.iinfo(np.int64).max)
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise DataError(
            f"{label} must hold whole numbers; {len(bad)} are not, the first at row {row}, column {column} "
            f"(counted from 0): {values[row, column]!s}."
        )
    return np.ascontiguousarray(values, dtype=np.int64)
