"""`spectrafuse info`: what the readers see in a file, or what a stored model is, before anything long runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectrafuse.cli.apply import StoredModel, find_model
from spectrafuse.cli.terminal import CommandError, output_console, print_blocks
from spectrafuse.io.errors import DataError

if TYPE_CHECKING:
    from spectrafuse.io.cubes import Cube
    from spectrafuse.io.spectra import Spectra

# Rows of a scene whose values are looked at.
_SAMPLED_ROWS = 16
_MOST_NAMES = 5


def info(paths: Sequence[Path], options: dict[str, Any], *, as_json: bool = False) -> None:
    """Print what each path holds.

    Parameters
    ----------
    paths : sequence of Path
        Files of scenes or spectra; model folders or output folders.
    options : dict
        Options of `read_spectra` and `open_cube` that were given.
    as_json : bool
        Print one JSON object for all of them, by path.
    """
    from spectrafuse.reports.page import Grid

    console = output_console()
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        model = find_model(path)
        if model is None and path.is_dir():
            raise CommandError(f"'{path}' is a folder without a model. Give a file, or the folder of a model.")
        if model is not None:
            facts = _of_model(model)
        else:
            try:
                facts = _of_file(path, options)
            except DataError:
                variables = _variables(path)
                if variables and not as_json:
                    print_blocks(console, [Grid(f"{path}: variables", ("name", "shape", "kind"), variables)])
                raise
        found[str(path)] = facts
        if not as_json:
            rows = [[name, _in_words(value)] for name, value in facts.items() if value not in (None, "", [], {})]
            print_blocks(console, [Grid(str(path), ("what", "as it is read"), rows, left=("what", "as it is read"))])
    if as_json:
        from spectrafuse.io.results import json_text

        print(json_text(found))


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_in_words(one)}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_in_words(one) for one in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _variables(path: Path) -> list[list[str]]:
    """Name, shape and kind of each variable of a file of arrays; nothing of other files."""
    from spectrafuse.io.arrays import ARRAY_SUFFIXES, open_arrays

    if path.suffix.lower() not in ARRAY_SUFFIXES or not path.is_file():
        return []
    try:
        entries = open_arrays(path).entries
    except DataError:
        return []
    return [[name, " x ".join(map(str, entry.shape)), entry.kind] for name, entry in entries.items() if name]


def _of_file(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    from spectrafuse.io.cubes import open_cube
    from spectrafuse.io.errors import ReadingNote
    from spectrafuse.io.spectra import is_scene, read_spectra

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReadingNote)  # the facts say it
        size = options.get("scene_size")
        if is_scene(path, options.get("key"), size):
            shared = {name: options[name] for name in ("key", "layout", "nodata", "bands") if name in options}
            rows, columns = size or (None, None)
            with open_cube(path, rows=rows, columns=columns, **shared) as cube:
                return _of_scene(cube) | {"variables": _listed(path)}
        # As `unmix` takes missing values: they have no part in the fit.
        return _of_spectra(read_spectra(path, **({"drop_missing": "values"} | options))) | {"variables": _listed(path)}


def _listed(path: Path) -> list[str]:
    return [f"{name} ({shape}, {kind})" for name, shape, kind in _variables(path)]


def _values(sample: np.ndarray) -> dict[str, float]:
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return {}
    low, middle, high = np.quantile(finite, [0, 0.5, 1])
    return {"lowest": float(low), "median": float(middle), "highest": float(high)}


def _axis(values: np.ndarray | None, unit: str | None) -> str:
    if values is None:
        return "none; bands are counted from 0"
    return f"{values[0]:.6g} to {values[-1]:.6g}{f' {unit}' if unit else ''}"


def _of_scene(cube: Cube) -> dict[str, Any]:
    bands, rows, columns = cube.shape
    stored = getattr(cube.stored, "dtype", None)
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLED_ROWS)).astype(int))
    lines = np.concatenate([cube.read_rows(row, row + 1) for row in chosen.tolist()], axis=1)
    if cube.valid is not None:
        lines = np.where(cube.valid[chosen][None], lines, np.nan)
    scaled = cube.gains is not None or cube.offsets is not None
    return {
        "kind": "scene",
        "size": f"{rows} rows, {columns} columns, {bands} bands",
        "order of the axes": cube.layout,
        "variable": cube.key,
        "axis of the bands": _axis(cube.wavelengths, cube.unit or cube.wavelength_unit),
        "numbers": f"{stored} in the file" if stored is not None else None,
        "memory as float32": f"{4 * bands * rows * columns / 1e6:.4g} MB",
        "read": "piece by piece" if cube.file_backed else "as a whole",
        "bands left out": {reason: len(which) for reason, which in cube.left_out},
        "pixels without data": 0 if cube.valid is None else int((~cube.valid).sum()),
        "value of no data": cube.nodata,
        "divided by": None if cube.scale == 1 else cube.scale,
        "gains and offsets": "applied" if scaled else None,
        "place on Earth": cube.place,
        "values (of a sample)": _values(lines),
        "notes": list(cube.notes),
    }


def _of_spectra(spectra: Spectra) -> dict[str, Any]:
    count, bands = spectra.data.shape
    names, grid, process = spectra.names or [], spectra.grid, spectra.process
    return {
        "kind": "spectra",
        "size": f"{count} spectra, {bands} bands",
        "read as": spectra.layout,
        "variable": spectra.key,
        "axis of the bands": _axis(spectra.axis, spectra.axis_unit),
        "title of the axis": spectra.axis_title,
        "names": [*names[:_MOST_NAMES], "..."] if len(names) > _MOST_NAMES else names,
        "along the spectra": None if process is None else f"{process[0]}, {process[1].min():g} to {process[1].max():g}",
        "map": None if grid is None else f"{grid.shape[0]} rows, {grid.shape[1]} columns",
        "values": _values(spectra.data),
    }


def _of_model(model: StoredModel) -> dict[str, Any]:
    folder = model.folder
    if model.command == "segment":
        from spectrafuse.dgc.estimator import DeepGlobalClustering

        segmentation = DeepGlobalClustering.load(folder, device="cpu")
        axis, mapping = segmentation.axis_, segmentation.cluster_mapping_
        return {
            "kind": "model of segment (Deep Global Clustering)",
            "clusters": len(segmentation.cluster_centers_),
            "merged to": None if mapping is None else {str(label): members for label, members in mapping.items()},
            "bands": f"{segmentation.n_features_in_} of {segmentation.n_bands_in_}",
            "axis of the bands": "not known" if axis is None else str(axis),
            "recipe": getattr(segmentation.recipe, "name", segmentation.recipe),
            "normalization": segmentation.normalization_.method,
            "why training ended": segmentation.stop_reason_,
        }
    from spectrafuse.mcr.estimator import EBgMCR

    unmixing = EBgMCR.load(folder, device="cpu")
    path = (unmixing.count_evidence_ or {}).get("path", ())
    chosen: dict[str, Any] = next((row for row in path if row["chosen"]), {})
    return {
        "kind": "model of unmix (EB-gMCR)",
        "components": int(unmixing.n_components_),
        "names": unmixing.component_names_,
        "background": "yes" if unmixing.background_row_ is not None else "no",
        "bands": unmixing.n_features_in_,
        "axis of the bands": "not known" if unmixing.axis_ is None else str(unmixing.axis_),
        "recipe": getattr(unmixing.recipe, "name", unmixing.recipe),
        "fit": {name: float(chosen[name]) for name in ("r2", "nmse") if name in chosen},
        "why this count": unmixing.chosen_reason_,
        "cautions": unmixing.cautions_,
    }
