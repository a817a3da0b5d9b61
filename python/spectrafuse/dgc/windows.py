"""Scenes that training and prediction read window by window: from a file, or with pixels that hold no data.

Pixels without data take no part: they are in no statistic, no loss, no centre and no label. Since the encoder and the
mean shift look at a pixel's neighbours, something must stand there, and what is stored there must not matter: in a
training crop it is the spectrum of the nearest pixel with data in the window that the crop is cut from. A crop's pixel
whose bilinear read touches such a place is left out of the losses and of the centres' update and start
(`CropBatch.valid`). Windows with too few pixels with data are drawn again. In prediction a pixel
without data shows the nearest pixel with data within the reach of the model, so the labels of its neighbours do not
depend on what is stored there either; its own label is -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrafuse.dgc.normalise import Normalization, as_float_tensor
from spectrafuse.dgc.scenes import Scene


def valid_pixels(cube: Any) -> np.ndarray | None:
    """Where a scene has data, (H, W) bool; None where all pixels have."""
    valid: np.ndarray | None = getattr(cube, "valid", None)
    return valid


def fill_nearest(spectra: Tensor, valid: np.ndarray) -> Tensor:
    """Spectra (C, h, w) whose pixels that are not `valid` take that of the nearest valid one; zero if none is."""
    if valid.all():
        return spectra
    if not valid.any():
        return torch.zeros_like(spectra)
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return spectra[:, torch.from_numpy(rows), torch.from_numpy(columns)]


def fill_rows(cube: Any, valid: np.ndarray, first: int, last: int, distance: int) -> Tensor:
    """Rows of a scene (C, H, W) from `first` to `last`; pixels without data show the nearest one with data.

    Those farther than `distance` from any keep what the scene gives. What fills a pixel does not depend on the rows
    that are asked for, and of other rows only those that it comes from are read.
    """
    spectra = as_float_tensor(cube[:, first:last])
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


class WindowedScene:
    """A normalised scene whose windows are read when they are asked for.

    Parameters
    ----------
    cube : array-like (C, H, W)
        What can be sliced by rows and columns, such as a `spectrafuse.io.sources.CubeSource`; its attribute `valid`, if
        there is one, says where it has data.
    normalization : Normalization
        With the statistics of this scene.
    device : torch.device
        Of the windows.
    rows, columns : ndarray of int, optional
        For every row and column of the scene as training sees it, the one of the cube: continued by reflection.
    """

    def __init__(
        self,
        cube: Any,
        normalization: Normalization,
        device: torch.device,
        rows: np.ndarray | None = None,
        columns: np.ndarray | None = None,
    ) -> None:
        self.cube, self.normalization, self.device = cube, normalization, device
        self.rows = np.arange(cube.shape[1]) if rows is None else rows
        self.columns = np.arange(cube.shape[2]) if columns is None else columns

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, rows, columns."""
        return self.cube.shape[0], len(self.rows), len(self.columns)

    def take(self, rows: Tensor, columns: Tensor) -> WindowedScene:
        """The scene with these of its rows and columns, like `scene[:, rows][:, :, columns]` of a tensor."""
        y, x = self.rows[rows.cpu().numpy()], self.columns[columns.cpu().numpy()]
        return WindowedScene(self.cube, self.normalization, self.device, y, x)

    def valid(self, top: int, left: int, height: int, width: int) -> np.ndarray | None:
        """Where a window has data, (height, width) bool; None where the whole scene has."""
        valid = valid_pixels(self.cube)
        if valid is None:
            return None
        return valid[np.ix_(self.rows[top : top + height], self.columns[left : left + width])]

    def window(self, top: int, left: int, height: int, width: int) -> Tensor:
        """A window (C, height, width), normalised and filled, on the device; less at the bottom and right border."""
        y, x = self.rows[top : top + height], self.columns[left : left + width]
        box = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
        spectra = self.normalization.transform(self.cube[:, box[0], box[1]])
        valid = valid_pixels(self.cube)
        if valid is not None:
            spectra = fill_nearest(spectra, valid[box])
        if (np.diff(y) != 1).any() or (np.diff(x) != 1).any():
            places = torch.from_numpy(((y - y.min())[:, None] * spectra.shape[2] + (x - x.min())).reshape(-1))
            spectra = spectra.flatten(1).index_select(1, places).view(-1, len(y), len(x))
        return spectra.to(self.device)


def for_training(
    scenes: Sequence[Scene], normalization: Normalization, device: torch.device
) -> list[Tensor] | list[WindowedScene]:
    """Normalised scenes: in memory, or read window by window if one of them has gaps or is in a file."""
    fitted = [normalization.fit(scene) for scene in scenes]
    if all(isinstance(scene, np.ndarray) for scene in scenes):
        return [own.transform(scene).to(device) for own, scene in zip(fitted, scenes, strict=True)]
    return [WindowedScene(scene, own, device) for own, scene in zip(fitted, scenes, strict=True)]
