"""Messages name the options that the caller has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrafuse import DeepGlobalClustering
from spectrafuse.io import DataError, open_cube
from spectrafuse.io.errors import asked_by_command


def by_command(path: Path) -> None:
    with asked_by_command("segment"):
        open_cube(path)


def said(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(DataError) as raised:
        read(path)
    return str(raised.value)


def test_options_are_those_of_the_caller(tmp_path: Path) -> None:
    several, matrix, nans = (tmp_path / name for name in ("several.npz", "matrix.npz", "nans.npz"))
    np.savez(several, a=np.ones((3, 4, 5)), b=np.ones((3, 4, 5)))
    np.savez(matrix, Y=np.ones((3, 20)), other=np.ones((3, 20)))
    np.savez(nans, cube=np.full((3, 3, 4), np.nan))
    estimator = DeepGlobalClustering(n_clusters=2)
    for path, options in (
        (several, ("with key=...:", "with --key:", "with open_cube(..., key=...):")),
        (matrix, ("needs rows=... and columns=... as", "needs --rows and --columns as",
                  "needs open_cube(..., rows=...) and columns=... as")),
        (nans, ("nodata=nan leaves", "--nodata nan leaves", "nodata=nan leaves")),
    ):  # fmt: skip
        messages = [said(read, path) for read in (open_cube, by_command, estimator.fit)]
        for message, words in zip(messages, options, strict=True):
            assert words in message
