"""Writers of input files for the tests of `spectrafuse.io`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.io import savemat

from helpers import seeds

_MATLAB_CLASS = {"float64": "double", "float32": "single", "bool": "logical"}


def write_matlab5(path: Path, variables: Mapping[str, Any], *, compressed: bool = True) -> Path:
    """A MATLAB 5 file, as `save -v7` (compressed) or `save -v6` make it."""
    savemat(path, dict(variables), do_compression=compressed)
    return path


def write_matlab73(path: Path, variables: Mapping[str, Any], *, classes: bool = True) -> Path:
    """A MATLAB 7.3 file: HDF5 behind a block of 512 bytes, axes reversed, the class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            array = np.atleast_2d(np.asarray(value))
            stored = array.astype(np.uint8) if array.dtype == bool else array
            item = file.create_dataset(name, data=stored.T)
            if classes:
                item.attrs["MATLAB_class"] = np.bytes_(_MATLAB_CLASS.get(array.dtype.name, array.dtype.name))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(header)
    return path


def write_array(path: Path, array: np.ndarray) -> Path:
    np.save(path, array, allow_pickle=array.dtype == object)
    return path


def write_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def scene(bands: int, rows: int, columns: int, dtype: str = "float64") -> np.ndarray:
    """Bands, rows, columns of random values from 1 to 201."""
    return (seeds.generator().random((bands, rows, columns)) * 200 + 1).astype(dtype)


def quiet(read: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a reader gives, its warnings aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return read(*args, **options)
