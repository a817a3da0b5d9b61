"""Weight files, patches of images, and the schedule of a value, under their published names."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrafuse._runtime.errors import InvalidValueError
from spectrafuse._runtime.safetensors import read_tensors, write_tensors
from spectrafuse.dgc.training.schedules import warmup_decay
from spectrafuse.io.atomic import atomic_write

__all__ = ["LinearWarmupDecayScheduler", "load_safetensors", "merge_patches", "save_as_safetensors", "split_patches"]

_SUFFIX = ".safetensors"


def save_as_safetensors(tensors: dict[str, Tensor], filename: str) -> None:
    """Write named tensors to a safetensors file; the suffix is added where it is missing."""
    path = filename if filename.endswith(_SUFFIX) else filename + _SUFFIX
    with atomic_write(path) as temporary:
        write_tensors(temporary, tensors)


def load_safetensors(
    filename: str, device: str | torch.device = "cpu", extension_check: bool = True
) -> dict[str, Tensor]:
    """Named tensors of a safetensors file on `device`.

    Raises
    ------
    RuntimeError
        If the suffix is another one, unless `extension_check` is False.
    """
    if extension_check and not filename.endswith(_SUFFIX):
        raise RuntimeError(f"`filename` must end in {_SUFFIX}; got {filename!r}.")
    return read_tensors(filename, device)


def split_patches(
    image: Tensor, scale_ratio: int = 2, overlap: int = 0, pad_mode: str = "reflect"
) -> tuple[list[Tensor], dict[str, Any]]:
    """Cut images into `scale_ratio` x `scale_ratio` patches, row by row.

    Parameters
    ----------
    image : Tensor, shape (B, N, H, W)
        Padded on both sides to sizes that can be divided.
    scale_ratio : int
        Patches per side.
    overlap : int
        Pixels by which a patch reaches over its borders, inside the image.
    pad_mode : str
        Of `torch.nn.functional.pad`.

    Returns
    -------
    list of Tensor, dict
        The patches, and what `merge_patches` needs: `original_shape`, `padded_shape`, `scale_ratio`, `overlap`,
        `boundaries` (first and last row, first and last column of every patch), `padding` (left, right, top, bottom),
        `patch_h`, `patch_w`, `pad_mode`.
    """
    original_shape = tuple(image.shape)
    missing = [-size % scale_ratio for size in original_shape[2:]]
    top, left = missing[0] // 2, missing[1] // 2
    padding = (left, missing[1] - left, top, missing[0] - top)
    if any(padding):
        image = F.pad(image, padding, mode=pad_mode)
    height, width = image.shape[2:]
    patch_h, patch_w = height // scale_ratio, width // scale_ratio

    def reach(index: int, size: int, whole: int) -> tuple[int, int]:
        return max(index * size - overlap, 0), min((index + 1) * size + overlap, whole)

    boundaries = [
        (*reach(row, patch_h, height), *reach(column, patch_w, width))
        for row in range(scale_ratio)
        for column in range(scale_ratio)
    ]
    info = {
        "original_shape": original_shape,
        "padded_shape": tuple(image.shape),
        "scale_ratio": scale_ratio,
        "overlap": overlap,
        "boundaries": boundaries,
        "padding": padding,
        "patch_h": patch_h,
        "patch_w": patch_w,
        "pad_mode": pad_mode,
    }
    return [image[:, :, a:b, c:d] for a, b, c, d in boundaries], info


def merge_patches(patches: list[Tensor], split_info: dict[str, Any]) -> Tensor:
    """Put patches (B, N, h, w) together again, with the mean where they overlap; N need not be the split image's.

    Returns
    -------
    Tensor (B, N, H, W)

    Raises
    ------
    ValueError
        If a patch has not four dimensions. Label maps cannot be averaged: `HyperspectralClusteringModel.inference`
        takes images of any size.
    """
    for patch in patches:
        if patch.ndim != 4:
            raise InvalidValueError(f"`patches` must have the shape (B, N, h, w); got {tuple(patch.shape)}.")
    height, width = split_info["padded_shape"][2:]
    merged = patches[0].new_zeros((*patches[0].shape[:2], height, width))
    count = patches[0].new_zeros((1, 1, height, width))
    for patch, (top, bottom, left, right) in zip(patches, split_info["boundaries"], strict=True):
        merged[:, :, top:bottom, left:right] += patch
        count[:, :, top:bottom, left:right] += 1
    left, right, top, bottom = split_info["padding"]
    return (merged / (count + 1e-8))[:, :, top : height - bottom, left : width - right]


class LinearWarmupDecayScheduler:
    """A value that goes linearly from `init_value` to `peak_value`, then linearly to `final_value`.

    Parameters
    ----------
    init_value, peak_value, final_value : float
        At step 0, at step `warmup_steps`, and from step `total_steps` on.
    warmup_steps, total_steps : int
        0 <= warmup_steps <= total_steps. Without warm-up the value starts at its peak.
    last_step : int
        The step before the first call of `step`.
    """

    def __init__(
        self,
        init_value: float,
        peak_value: float,
        final_value: float,
        warmup_steps: int,
        total_steps: int,
        last_step: int = -1,
    ) -> None:
        if not 0 <= warmup_steps <= total_steps:
            raise InvalidValueError(
                f"0 <= warmup_steps <= total_steps is needed; got {warmup_steps} and {total_steps}."
            )
        self.init_value = init_value
        self.peak_value = peak_value
        self.final_value = final_value
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.last_step = last_step

    def step(self, step: int | None = None) -> float:
        """Go to `step`, or one further, and return the value there."""
        self.last_step = self.last_step + 1 if step is None else step
        return self.get_value(self.last_step)

    def get_value(self, step: int | None = None) -> float:
        """The value at `step`, or where the schedule is; the schedule does not move."""
        return warmup_decay(
            self.last_step if step is None else step,
            initial=self.init_value,
            peak=self.peak_value,
            final=self.final_value,
            warmup=self.warmup_steps,
            total=self.total_steps,
        )

    def __call__(self, step: int | None = None) -> float:
        return self.get_value(step)
