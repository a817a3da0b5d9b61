"""Cubes, spectra and results in and out of files.

Everything here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrafuse.io.atomic import atomic_folder, atomic_write
    from spectrafuse.io.class_maps import write_class_map
    from spectrafuse.io.cubes import Cube, open_cube, read_cube
    from spectrafuse.io.errors import DataError
    from spectrafuse.io.labels import read_labels
    from spectrafuse.io.results import (
        colors,
        write_components,
        write_concentrations,
        write_json,
        write_label_map,
        write_label_rows,
    )
    from spectrafuse.io.spectra import Spectra, read_spectra
    from spectrafuse.io.validate import check_cube, check_spectra

_HOME = {
    "Cube": "cubes",
    "DataError": "errors",
    "Spectra": "spectra",
    "atomic_folder": "atomic",
    "atomic_write": "atomic",
    "check_cube": "validate",
    "check_spectra": "validate",
    "colors": "results",
    "open_cube": "cubes",
    "read_cube": "cubes",
    "read_labels": "labels",
    "read_spectra": "spectra",
    "write_class_map": "class_maps",
    "write_components": "results",
    "write_concentrations": "results",
    "write_json": "results",
    "write_label_map": "results",
    "write_label_rows": "results",
}

__all__ = [
    "Cube",
    "DataError",
    "Spectra",
    "atomic_folder",
    "atomic_write",
    "check_cube",
    "check_spectra",
    "colors",
    "open_cube",
    "read_cube",
    "read_labels",
    "read_spectra",
    "write_class_map",
    "write_components",
    "write_concentrations",
    "write_json",
    "write_label_map",
    "write_label_rows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spectrafuse.io' has no attribute {name!r}")
    value = getattr(import_module(f"spectrafuse.io.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
