"""The published dataset of MATLAB files on the readers of `spectrafuse.io`; nothing is ever unpickled."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spectrafuse._runtime.errors import InvalidTypeError, InvalidValueError
from spectrafuse.io.arrays import ArrayFile, open_arrays
from spectrafuse.io.errors import DataError

__all__ = ["JSONMATDataset"]


class JSONMATDataset(Dataset):
    """Cubes of a folder of `.mat` files (v5 and v7.3), in the order of their names, with labels where there are some.

    Parameters
    ----------
    mat_dir : str
        The folder.
    data_key, label_key : str
        Variables of the cube and of an optional label map in every file; `label_key` may be None.
    json_dir, label_dir : str, optional
        Folder of LabelMe annotations, or of `.pth` label tensors, with the stems of the `.mat` files; not both. They
        go before a label map in the file.
    class_to_index : dict, optional
        Label of every class name in the annotations; unknown classes and the background are 0.
    transform, normalize : callable, optional
        Applied to the cube (C, H, W), `normalize` first.
    to_tensor : bool
        Turn what they return into a tensor.
    full_loading : bool
        Read everything at once.

    Notes
    -----
    As published, a cube is taken as (H, W, C) when its last axis is shorter than its first, else as (C, H, W), and
    axes of v7.3 files stay reversed. `spectrafuse.io.read_cube` has a safer rule.
    """

    def __init__(
        self,
        mat_dir: str,
        data_key: str = "cube",
        label_key: str | None = "label",
        json_dir: str | None = None,
        label_dir: str | None = None,
        class_to_index: dict[str, int] | None = None,
        transform: Callable[..., Any] | None = None,
        normalize: Callable[..., Any] | None = None,
        to_tensor: bool = True,
        full_loading: bool = False,
    ) -> None:
        self.mat_dir = mat_dir
        self.data_key = data_key
        self.label_key = label_key
        self.json_dir = json_dir
        self.label_dir = label_dir
        self.class_to_index = class_to_index
        self.transform = transform
        self.normalize = normalize
        self.to_tensor = to_tensor
        self.full_loading = full_loading
        self.files = sorted(glob.glob(os.path.join(glob.escape(mat_dir), "*.mat")))
        if not self.files:
            raise InvalidValueError(f"`mat_dir` must be a folder with .mat files; got {mat_dir!r}.")
        if json_dir and label_dir:
            raise InvalidValueError("Labels come from `json_dir` or from `label_dir`; got both.")
        for name, folder in (("json_dir", json_dir), ("label_dir", label_dir)):
            if folder and not os.path.isdir(folder):
                raise InvalidValueError(f"`{name}` must be a folder; got {folder!r}.")
        self._data_list: list[Any] | None = self.load_all() if full_loading else None

    def __len__(self) -> int:
        return len(self.files if self._data_list is None else self._data_list)

    def __getitem__(self, idx: int) -> Any:
        """The cube, or (cube, label map (H, W) int64)."""
        return self._read(self.files[idx]) if self._data_list is None else self._data_list[idx]

    def load_all(self) -> list[Any]:
        """All items, read now."""
        return [self._read(path) for path in self.files]

    def _read(self, path: str) -> Any:
        source = open_arrays(path)
        cube: Any = torch.from_numpy(_bands_first(source, self.data_key))
        label = self._label(source, path, (cube.shape[1], cube.shape[2]))
        if self.normalize:
            cube = self.normalize(cube)
        if self.transform:
            cube = self.transform(cube)
        if self.to_tensor and not torch.is_tensor(cube):
            cube = torch.from_numpy(cube)
        return cube if label is None else (cube, label)

    def _label(self, source: ArrayFile, path: str, size: tuple[int, int]) -> Tensor | None:
        stem = os.path.splitext(os.path.basename(path))[0]
        if self.label_dir:
            file = os.path.join(self.label_dir, f"{stem}.pth")
            label = _read_tensor(file)
        elif self.json_dir:
            return _rasterise(os.path.join(self.json_dir, f"{stem}.json"), size, self.class_to_index or {})
        elif self.label_key is not None and self.label_key in source.entries:
            file = source.label(self.label_key)
            label = torch.from_numpy(_stored(source, self.label_key).astype(np.int64))
        else:
            return None
        if tuple(label.shape) != size:
            raise InvalidValueError(
                f"{file} must hold a label map of {size} pixels like its cube; got {tuple(label.shape)}."
            )
        return label


def _stored(source: ArrayFile, key: str) -> np.ndarray:
    """A variable with its axes as they lie in the file: those of HDF5 are MATLAB's in reverse."""
    values = source.load(source.require(key))
    return values.T if source.format == "mat7.3" else values


def _bands_first(source: ArrayFile, key: str) -> np.ndarray:
    """A cube (C, H, W), float32, by the published rule."""
    values = _stored(source, key)
    if values.ndim != 3:
        raise DataError(f"{source.label(key)} must be a cube with 3 dimensions; got shape {values.shape}.")
    if values.shape[2] < values.shape[0]:
        values = values.transpose(2, 0, 1)
    return np.array(values, dtype=np.float32, order="C")


def _read_tensor(file: str) -> Tensor:
    label = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(label, Tensor):
        raise InvalidTypeError(f"{file} must hold a tensor; got {type(label).__name__}.")
    return label


def _rasterise(file: str, size: tuple[int, int], class_to_index: dict[str, int]) -> Tensor:
    """Label map (H, W) int64 of LabelMe annotations: polygons filled in the order of the file, a later one on top."""
    from PIL import Image, ImageDraw

    with open(file, encoding="utf-8") as source:
        annotation = json.load(source)
    image = Image.new("I", (size[1], size[0]), 0)
    draw = ImageDraw.Draw(image)
    for shape in annotation.get("shapes", []):
        points = [(float(x), float(y)) for x, y in shape.get("points", [])]
        label = class_to_index.get(shape.get("label"), 0)
        if len(points) > 1:
            draw.polygon(points, fill=label)
        else:
            draw.point(points, fill=label)
    return torch.from_numpy(np.array(image)).long()
