"""An array in an HDF5 file that is read piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spectrafuse.io.errors import DataError


class Hdf5Array:
    """A data set with its axes in any order; slices are read from the file when they are taken.

    The file is opened for each slice, so that no handle stays behind. A slice reads the chunks that it touches.

    Parameters
    ----------
    path : Path
        The file.
    key : str
        Name of the data set.
    shape : tuple of int
        Its lengths in the order in which they are shown.
    axes : tuple of int
        For each shown axis, the axis of the data set.
    """

    def __init__(self, path: Path, key: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
        self.path, self.key, self.shape, self.axes = path, key, shape, axes

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def transpose(self, *order: int) -> Hdf5Array:
        """The same array with its axes in another order."""
        return Hdf5Array(self.path, self.key, tuple(self.shape[i] for i in order), tuple(self.axes[i] for i in order))

    def __getitem__(self, index: slice | tuple[slice, ...]) -> np.ndarray:
        import h5py

        parts = index if isinstance(index, tuple) else (index,)
        parts += (slice(None),) * (self.ndim - len(parts))
        stored = tuple(parts[self.axes.index(axis)] for axis in range(self.ndim))
        try:
            with h5py.File(self.path, "r") as file:
                values: Any = file[self.key][stored]
        except Exception as error:  # h5py documents no set of exceptions for damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"'{self.path}' cannot be read, it may be damaged or cut short: {reason}") from error
        return np.asarray(values).transpose(self.axes)
