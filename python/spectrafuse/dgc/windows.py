"""Scenes as training sees them, normalised and read by windows, and what stands in pixels that hold no data.

Pixels without data take no part: they are in no statistic, no loss, no centre and no label. Since the encoder and the
mean shift look at a pixel's neighbours, something must stand there, and what is stored there must not matter: in a
training crop it is the spectrum of the nearest pixel with data in the window that the crop is cut from. A crop's pixel
whose bilinear read touches such a place is left out of the losses and of the centres' update and start
(`CropBatch.valid`). Windows with too few pixels with data are drawn again. In prediction a pixel
without data shows the nearest pixel with data within the reach of the model, so the labels of its neighbours do not
depend on what is stored there either; its own label is -1.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from spectrafuse._runtime import ranks
from spectrafuse.dgc.normalise import Normalization, as_float_tensor
from spectrafuse.io.cubes import Cube

T = TypeVar("T")
# Of scenes in files that are read whole for the training, 64 MiB: their windows are read several hundred times.
_MOST_NUMBERS = 1 << 24


def fill_nearest(spectra: Tensor, valid: np.ndarray) -> Tensor:
    """Spectra (bands, h, w) whose pixels that are not `valid` take that of the nearest valid one; zero if none is."""
    if valid.all():
        return spectra
    if not valid.any():
        return torch.zeros_like(spectra)
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return spectra[:, torch.from_numpy(rows), torch.from_numpy(columns)]


def fill_rows(cube: Cube, first: int, last: int, distance: int) -> Tensor:
    """Rows of a scene from `first` to `last`, (bands, rows, columns); pixels without data show the nearest with data.

    Those farther than `distance` from any keep what the scene gives. What fills a pixel does not depend on the rows
    that are asked for, and of other rows only those that it comes from are read.
    """
    spectra, valid = as_float_tensor(cube[:, first:last]), cube.valid
    if valid is None:
        return spectra
    above, below = max(first - distance, 0), min(last + distance, cube.shape[1])
    around = valid[above:below]
    missing = ~valid[first:last]
    if not missing.any() or not around.any():
        return spectra
    from scipy.ndimage import distance_transform_edt

    away, (rows, columns) = distance_transform_edt(~around, return_indices=True)
    inner = slice(first - above, last - above)
    y, x = np.nonzero(missing & (away[inner] <= distance))
    rows, columns = rows[inner][y, x] + above, columns[inner][y, x]
    for row in np.unique(rows):
        here = rows == row
        inside = first <= row < last
        source = spectra[:, row - first] if inside else as_float_tensor(cube[:, row : row + 1])[:, 0]
        spectra[:, torch.from_numpy(y[here]), torch.from_numpy(x[here])] = source[:, torch.from_numpy(columns[here])]
    return spectra


class NormalizedScene:
    """A normalised scene in memory, as training sees it.

    Parameters
    ----------
    whole : Tensor (bands, rows, columns)
        On the device of the training.
    """

    whole: Tensor | None
    """The scene; None where it is read window by window."""
    device: torch.device
    shape: tuple[int, int, int]
    """Bands, rows, columns."""
    has_gaps = False
    """Whether the scene has pixels without data."""

    def __init__(self, whole: Tensor) -> None:
        self.whole, self.device = whole, whole.device
        self.shape = (whole.shape[0], whole.shape[1], whole.shape[2])

    def take(self, rows: Tensor, columns: Tensor) -> NormalizedScene:
        """The scene with these of its rows and columns."""
        assert self.whole is not None
        return NormalizedScene(self.whole[:, rows][:, :, columns])

    def valid(self, top: int, left: int, height: int, width: int) -> np.ndarray | None:
        """Where a window has data, (height, width) bool; None where the whole scene has."""
        return None

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window (bands, height, width) on the device; less at the bottom and right border."""
        assert self.whole is not None
        return self.whole[:, top : top + height, left : left + width]

    def padded(self, height: int, width: int) -> NormalizedScene:
        """The scene continued at the bottom and right, by reflection about its last row and column.

        The reflection goes on back and forth where more is missing than the scene has; one row or column is repeated.
        """
        rows = _reflected(self.shape[1], 0, max(height - self.shape[1], 0), False, self.device)
        columns = _reflected(self.shape[2], 0, max(width - self.shape[2], 0), False, self.device)
        return self if (len(rows), len(columns)) == self.shape[1:] else self.take(rows, columns)

    def surrounded(self, rows: int, columns: int) -> NormalizedScene:
        """The scene continued on all sides by reflection about its borders, so that edge pixels repeat."""
        y = _reflected(self.shape[1], rows, rows, True, self.device)
        x = _reflected(self.shape[2], columns, columns, True, self.device)
        return self.take(y, x)


class WindowedScene(NormalizedScene):
    """A normalised scene whose windows are read when they are asked for, and filled where they have no data.

    Parameters
    ----------
    cube : Cube
        The scene as it was read.
    normalization : Normalization
        With the statistics of this scene.
    device : torch.device
        Of the windows.
    rows, columns : ndarray of int, optional
        For every row and column of the scene as training sees it, the one of the cube: continued by reflection.
    """

    whole = None

    def __init__(
        self,
        cube: Cube,
        normalization: Normalization,
        device: torch.device,
        rows: np.ndarray | None = None,
        columns: np.ndarray | None = None,
    ) -> None:
        self.cube, self.normalization, self.device = cube, normalization, device
        self.rows = np.arange(cube.shape[1]) if rows is None else rows
        self.columns = np.arange(cube.shape[2]) if columns is None else columns
        self.shape = cube.shape[0], len(self.rows), len(self.columns)
        self.has_gaps = cube.valid is not None

    def take(self, rows: Tensor, columns: Tensor) -> WindowedScene:
        """The scene with these of its rows and columns."""
        y, x = self.rows[rows.cpu().numpy()], self.columns[columns.cpu().numpy()]
        return WindowedScene(self.cube, self.normalization, self.device, y, x)

    def valid(self, top: int, left: int, height: int, width: int) -> np.ndarray | None:
        """Where a window has data, (height, width) bool; None where the whole scene has."""
        if self.cube.valid is None:
            return None
        return self.cube.valid[np.ix_(self.rows[top : top + height], self.columns[left : left + width])]

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window (bands, height, width), filled, on the device; less at the bottom and right border."""
        y, x = self.rows[top : top + height], self.columns[left : left + width]
        box = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
        spectra = self.normalization.transform(self.cube[:, box[0], box[1]])
        if self.cube.valid is not None:
            spectra = fill_nearest(spectra, self.cube.valid[box])
        if (np.diff(y) != 1).any() or (np.diff(x) != 1).any():
            places = torch.from_numpy(((y - y.min())[:, None] * spectra.shape[2] + (x - x.min())).reshape(-1))
            spectra = spectra.flatten(1).index_select(1, places).view(-1, len(y), len(x))
        return spectra.to(self.device)


def _reflected(size: int, before: int, after: int, repeat_edge: bool, device: torch.device) -> Tensor:
    """Indices 0 .. size - 1 continued back and forth on both sides."""
    place = torch.arange(-before, size + after, device=device)
    if repeat_edge:
        place = place % (2 * size)
        return torch.minimum(place, 2 * size - 1 - place)
    period = max(2 * (size - 1), 1)
    place = place % period
    return torch.minimum(place, (period - place) % period)


def for_training(scenes: Sequence[Cube], normalization: Normalization, device: torch.device) -> list[NormalizedScene]:
    """Normalised scenes: in memory, or read window by window if one has gaps, or is in a file and all are large."""
    fitted = fitted_to(scenes, normalization)
    large = sum(math.prod(scene.shape) for scene in scenes) > _MOST_NUMBERS
    if any((scene.file_backed and large) or scene.valid is not None for scene in scenes):
        return [WindowedScene(scene, own, device) for scene, own in zip(scenes, fitted, strict=True)]
    return [NormalizedScene(own.transform(scene[:, :]).to(device)) for scene, own in zip(scenes, fitted, strict=True)]


def fitted_to(scenes: Sequence[Cube], normalization: Normalization) -> list[Normalization]:
    """The normalization with the statistics of each scene; in a group of processes each finds those of its share."""
    found = ranks.each(scenes, normalization.fit)
    return [
        scene.keep(("normalization", normalization.method), lambda own=own: own)
        for scene, own in zip(scenes, found, strict=True)
    ]


def as_normalized(scenes: Sequence[Tensor | NormalizedScene]) -> list[NormalizedScene]:
    """Scenes as they are, or normalised tensors (bands, rows, columns) as scenes."""
    return [NormalizedScene(scene) if isinstance(scene, Tensor) else scene for scene in scenes]


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items; a thread makes the next one while this one is in use.

    What the thread raises is raised here; the thread has ended when the iterator is exhausted or closed. It runs under
    the caller's `use_backend`.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="spectrafuse-reader")

    def read_next() -> Future[T | None]:
        return pool.submit(copy_context().run, lambda: next(items, None))

    following = read_next()
    try:
        while (item := following.result()) is not None:
            following = read_next()
            yield item
    finally:
        try:
            _finish(following)
        finally:
            pool.shutdown()


def _finish(reading: Future[Any]) -> None:
    """Wait until a thread has read what it reads, and only then let an interrupt through.

    Joining the thread itself would not do: an interrupt there makes Python 3.11 take a thread that still runs for one
    that has ended (its mend of bpo-45274), and a thread in compiled code when the interpreter ends takes the process
    down.
    """
    interrupt: KeyboardInterrupt | None = None
    while not reading.done():
        try:
            wait([reading])
        except KeyboardInterrupt as error:  # noqa: PERF203  an interrupt is no usual case
            interrupt = error
    if interrupt is not None:
        raise interrupt
