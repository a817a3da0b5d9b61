"""Options for reading scenes, which `segment` and `unmix` share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spectrafuse.cli.terminal import CommandError


def split_key(text: str) -> tuple[str, str | None]:
    """`FILE:KEY` as file and key; a file whose own name holds the colon is a file."""
    if ":" in text and not Path(text).exists():
        path, _, key = text.rpartition(":")
        return path, key or None
    return text, None


def parse_bands_options(bands: str | None, drop: str | None, all_bands: bool) -> str | None:
    """`--bands`, `--drop` and `--all-bands` as the `bands=` of `open_cube`; None without any."""
    if all_bands and bands is not None:
        raise CommandError("--all-bands and --bands exclude each other; leave one out.")
    kept = "all" if all_bands else bands
    return kept if drop is None else f"{kept or ''} drop {drop}".strip()


def read_mask(text: str) -> np.ndarray:
    """Pixels without data, (rows, columns) bool: 1 in a map, any shape in a LabelMe file."""
    from spectrafuse.io.labels import read_labels

    path, key = split_key(text)
    values = read_labels(path, key=key)
    if path.lower().endswith(".json"):
        return values > 0
    other = values[(values != 0) & (values != 1)]
    if other.size:
        raise CommandError(f"--mask: '{path}' must be 1 where a pixel has no data and 0 elsewhere; it has {other[0]}.")
    return values == 1


def content(text: str) -> dict[str, str | None]:
    """What a file of labels or a mask holds, whatever it is called: the hashes of its bytes, and the variable."""
    from spectrafuse.io.envi import is_envi, open_envi
    from spectrafuse.io.fingerprint import sha256
    from spectrafuse.io.rasters import find_raster

    path, key = split_key(text)
    raster = find_raster(path)
    if raster is not None:
        return {"sha256": sha256(raster.path), "key": key}
    if not is_envi(path):
        return {"sha256": sha256(path), "key": key}
    image = open_envi(path)
    return {"sha256": sha256(image.data), "header": sha256(image.header), "key": key}
