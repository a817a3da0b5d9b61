"""Batches of cubes of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spectrafuse.dgc.training.batches import reflect_pad


def _separate(batch: Sequence[Any]) -> tuple[list[Tensor], list[Tensor] | None]:
    """Cubes, and labels where the items are pairs."""
    if isinstance(batch[0], tuple):
        cubes, labels = zip(*batch, strict=True)
        return list(cubes), list(labels)
    return list(batch), None


def pad_and_stack(batch: list[Any]) -> tuple[Tensor, Tensor | None]:
    """Continue cubes by reflection to the largest height and width among them, labels with 0, and stack them.

    Parameters
    ----------
    batch : list of Tensor (C, H, W) or of (Tensor (C, H, W), Tensor (H, W))

    Returns
    -------
    cubes : Tensor, shape (B, C, H, W)
    labels : Tensor, shape (B, H, W) or None
    """
    cubes, labels = _separate(batch)
    height, width = max(cube.shape[1] for cube in cubes), max(cube.shape[2] for cube in cubes)
    stacked = torch.stack([reflect_pad(cube, height, width) for cube in cubes])
    if labels is None:
        return stacked, None
    return stacked, torch.stack([F.pad(x, (0, width - x.shape[1], 0, height - x.shape[0])) for x in labels])


def crop_and_stack(batch: list[Any]) -> tuple[Tensor, Tensor | None]:
    """Cut cubes and labels to the smallest height and width among the cubes, around the middle, and stack them.

    Takes and returns what `pad_and_stack` does.
    """
    cubes, labels = _separate(batch)
    height, width = min(cube.shape[1] for cube in cubes), min(cube.shape[2] for cube in cubes)

    def middle(x: Tensor) -> Tensor:
        top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
        return x[..., top : top + height, left : left + width]

    stacked = torch.stack([middle(cube) for cube in cubes])
    return stacked, None if labels is None else torch.stack([middle(x) for x in labels])
